"""One height's state, and the transition table of its rounds: which rule of the paper may fire now.

Pure questions only: `find_transition` names the next transition, the engine performs it. "L22" is line 22 of
algorithm 1 in arXiv 1807.04938. Each condition is a function of its own, so that tests can break one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from consensus.messages import VALID_ROUND_NONE, Proposal, SignedProposal, Step, VoteKind
from consensus.validators import ValidatorSet
from consensus.votes import VoteBook
from ledger.primitives import Hash, Height

BLOCKS_MAX: Final = 16  # bodies of one height; more than the rounds ahead, the locked and the valid one


@dataclass(frozen=True, slots=True)
class KnownProposal:
    """The first proposal seen for a round, and our clock when it came."""

    signed: SignedProposal
    received_ms: int


@dataclass(slots=True)
class KnownBlock:
    """A body at hand with a proposal that brought it; ``valid`` is None until the check has answered."""

    signed: SignedProposal
    body: bytes
    valid: bool | None


@dataclass(slots=True)
class HeightState:
    """All that the rules of a height look at."""

    height: Height
    validators: ValidatorSet
    votes: VoteBook
    parent_time_ms: int
    clock_skew_ms: int
    round: int = 0
    step: Step = Step.NEW_HEIGHT
    locked_round: int = VALID_ROUND_NONE
    locked_block: Hash | None = None
    valid_round: int = VALID_ROUND_NONE
    valid_block: Hash | None = None
    proposals: dict[int, KnownProposal] = field(default_factory=dict)  # by round
    blocks: dict[Hash, KnownBlock] = field(default_factory=dict)
    timeouts_armed: set[tuple[int, Step]] = field(default_factory=set)

    def is_block_valid(self, block_id: Hash) -> bool | None:
        """True or False once checked; None without a body or an answer."""
        block = self.blocks.get(block_id)
        return None if block is None else block.valid

    def add_block(self, block_id: Hash, block: KnownBlock) -> None:
        """Keep a body; the oldest that nothing needs makes room. A dropped one can be asked for again."""
        if len(self.blocks) >= BLOCKS_MAX:
            unneeded = next((known for known in self.blocks if not self._is_block_needed(known)), None)
            if unneeded is None:
                return
            del self.blocks[unneeded]
        self.blocks[block_id] = block

    def _is_block_needed(self, block_id: Hash) -> bool:
        if block_id in {self.locked_block, self.valid_block}:
            return True
        if any(block_id == wanted for _, wanted in self.votes.list_quorums(VoteKind.PRECOMMIT)):
            return True
        return any(
            known.signed.proposal.block_id == block_id
            for round_, known in self.proposals.items()
            if round_ >= self.round
        )


@dataclass(frozen=True, slots=True)
class CastPrevote:
    """Prevote a block or nil, and go to the prevote step."""

    block_id: Hash | None
    valid_round: int


@dataclass(frozen=True, slots=True)
class LockAndPrecommit:
    """Lock the block, remember it as valid, precommit it."""

    block_id: Hash


@dataclass(frozen=True, slots=True)
class SetValid:
    """Remember the block as valid; too late in the round to lock it."""

    block_id: Hash


@dataclass(frozen=True, slots=True)
class PrecommitNil:
    """Precommit nil, and go to the precommit step."""


@dataclass(frozen=True, slots=True)
class ArmTimeout:
    """Start waiting for the rest of the votes of this step."""

    step: Step


@dataclass(frozen=True, slots=True)
class StartRound:
    """Go to a later round."""

    round: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The height is decided."""

    round: int
    block_id: Hash


@dataclass(frozen=True, slots=True)
class RefuseCommit:
    """A quorum committed what our own check refused: more than f faulty, or a fault in this program."""

    block_id: Hash


Transition: TypeAlias = (
    CastPrevote | LockAndPrecommit | SetValid | PrecommitNil | ArmTimeout | StartRound | Commit | RefuseCommit
)


def is_fresh(proposal: Proposal) -> bool:
    """Whether the proposer offers a new block, rather than one that had a polka."""
    return proposal.valid_round == VALID_ROUND_NONE


def is_timely(state: HeightState, known: KnownProposal) -> bool:
    """Block times rise strictly, and a fresh one lies near our clock at its arrival."""
    time_ms = known.signed.proposal.time_ms
    return time_ms > state.parent_time_ms and abs(time_ms - known.received_ms) <= state.clock_skew_ms


def is_lock_open_to_fresh(state: HeightState, block_id: Hash) -> bool:
    """L23: unlocked, or locked on the same block."""
    return state.locked_round == VALID_ROUND_NONE or state.locked_block == block_id


def is_lock_open_to_reproposal(state: HeightState, proposal: Proposal) -> bool:
    """L29: our lock is no newer than the polka shown, or is on the same block."""
    return state.locked_round <= proposal.valid_round or state.locked_block == proposal.block_id


def has_polka_of_reproposal(state: HeightState, proposal: Proposal) -> bool:
    """L28: a quorum of prevotes for the block in the earlier round that the proposal names."""
    return proposal.valid_round < proposal.round and state.votes.has_quorum_for(
        proposal.valid_round, VoteKind.PREVOTE, proposal.block_id
    )


def compute_polka_round(state: HeightState, proposal: Proposal) -> int:
    """The latest round whose polka entitles us to prevote this: the one that the proposal shows, or that of our lock.

    With the proposal's alone, a node that has moved its lock to this block would look as if it had forgotten an
    earlier one (amnesia), whenever the block is proposed as a fresh one, or with an older polka.
    """
    own_round = state.locked_round if state.locked_block == proposal.block_id else VALID_ROUND_NONE
    return max(proposal.valid_round, own_round)


def find_commit(state: HeightState) -> Transition | None:
    """L49: a quorum of precommits for one block in any round, also an older one, and the block at hand."""
    for round_, block_id in state.votes.list_quorums(VoteKind.PRECOMMIT):
        valid = state.is_block_valid(block_id)
        if valid is not None:
            return Commit(round_, block_id) if valid else RefuseCommit(block_id)
    return None


def find_skip(state: HeightState) -> Transition | None:
    """L55: f + 1 distinct senders in a higher round, so at least one honest node is there."""
    return StartRound(state.votes.skip_round) if state.votes.skip_round > state.round else None


def find_prevote(state: HeightState) -> Transition | None:
    """L22 and L28: answer the round's proposal."""
    known = state.proposals.get(state.round)
    if state.step is not Step.PROPOSE or known is None:
        return None
    return _answer_fresh(state, known) if is_fresh(known.signed.proposal) else _answer_reproposal(state, known)


def _answer_fresh(state: HeightState, known: KnownProposal) -> Transition | None:
    proposal = known.signed.proposal
    valid = state.is_block_valid(proposal.block_id)
    if valid is False or not is_timely(state, known) or not is_lock_open_to_fresh(state, proposal.block_id):
        return CastPrevote(None, VALID_ROUND_NONE)  # L26
    return CastPrevote(proposal.block_id, compute_polka_round(state, proposal)) if valid else None  # L24


def _answer_reproposal(state: HeightState, known: KnownProposal) -> Transition | None:
    # No look at the clock: a block proposed again must not fail it for ever.
    proposal = known.signed.proposal
    if not has_polka_of_reproposal(state, proposal):
        return None
    valid = state.is_block_valid(proposal.block_id)
    if valid is False or not is_lock_open_to_reproposal(state, proposal):
        return CastPrevote(None, VALID_ROUND_NONE)  # L32
    return CastPrevote(proposal.block_id, compute_polka_round(state, proposal)) if valid else None  # L30


def find_polka(state: HeightState) -> Transition | None:
    """L36: a quorum of prevotes for a valid block in this round. At the prevote step lock it; later, remember it."""
    block_id = state.votes.find_quorum_block(state.round, VoteKind.PREVOTE)
    if block_id is None or state.step < Step.PREVOTE or state.valid_round == state.round:
        return None
    if not state.is_block_valid(block_id):
        return None
    return LockAndPrecommit(block_id) if state.step is Step.PREVOTE else SetValid(block_id)


def find_nil_polka(state: HeightState) -> Transition | None:
    """L44: a quorum of nil prevotes at the prevote step."""
    if state.step is Step.PREVOTE and state.votes.has_quorum_for(state.round, VoteKind.PREVOTE, None):
        return PrecommitNil()
    return None


def find_prevote_wait(state: HeightState) -> Transition | None:
    """L34: a quorum of prevotes of any kind at the prevote step, for the first time."""
    if state.step is not Step.PREVOTE or (state.round, Step.PREVOTE) in state.timeouts_armed:
        return None
    return ArmTimeout(Step.PREVOTE) if state.votes.has_quorum_of_any(state.round, VoteKind.PREVOTE) else None


def find_precommit_wait(state: HeightState) -> Transition | None:
    """L47: a quorum of precommits of any kind in this round, for the first time."""
    if state.step is Step.NEW_HEIGHT or (state.round, Step.PRECOMMIT) in state.timeouts_armed:
        return None
    return ArmTimeout(Step.PRECOMMIT) if state.votes.has_quorum_of_any(state.round, VoteKind.PRECOMMIT) else None


TABLE: Final[tuple[Callable[[HeightState], Transition | None], ...]] = (
    find_commit,  # L49
    find_skip,  # L55
    find_prevote,  # L22, L28
    find_polka,  # L36
    find_nil_polka,  # L44
    find_prevote_wait,  # L34
    find_precommit_wait,  # L47
)


def find_transition(state: HeightState) -> Transition | None:
    """The first rule of the table that may fire, or None when the round waits for input."""
    if state.step is Step.COMMIT:
        return None
    for rule in TABLE:
        transition = rule(state)
        if transition is not None:
            return transition
    return None


def find_timeout_transition(state: HeightState, *, round_: int, step: Step) -> Transition | None:
    """L57, L61, L65: what an elapsed timeout does, or None if the round has moved on."""
    if round_ != state.round:
        return None
    if step is Step.PROPOSE and state.step is Step.PROPOSE:
        return CastPrevote(None, VALID_ROUND_NONE)  # L57
    if step is Step.PREVOTE and state.step is Step.PREVOTE:
        return PrecommitNil()  # L61
    if step is Step.PRECOMMIT and state.step in {Step.PROPOSE, Step.PREVOTE, Step.PRECOMMIT}:
        return StartRound(state.round + 1)  # L65
    return None


def list_wanted_blocks(state: HeightState) -> list[Hash]:
    """Blocks that a quorum voted for and whose body is not at hand: those to be decided first."""
    quorums = [*state.votes.list_quorums(VoteKind.PRECOMMIT), *state.votes.list_quorums(VoteKind.PREVOTE)]
    return [block_id for _, block_id in quorums if block_id not in state.blocks]
