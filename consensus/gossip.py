"""What a node tells its peers beside its votes: where it stands, what they lack, what it lacks.

Driven by the peer's status. What arrived since the last tick is not sent again, as it is still on its way by the
direct path; so in a healthy network this costs almost nothing, and after losses it heals within two ticks.
"""

from __future__ import annotations

from typing import Final

from consensus.codec import STATUS_BLOCKS_MAX
from consensus.effects import Broadcast, Effect, RequestCatchup, SendTo, ServeHeight
from consensus.messages import (
    BlockRequest,
    PolkaCertificate,
    Request,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Status,
    Step,
    VoteKind,
    VoteRequest,
)
from consensus.round import HeightState, KnownBlock, is_fresh, list_wanted_blocks
from ledger.primitives import Height, PublicKey

ANSWER_VOTES_MAX: Final = 128  # votes in answer to one status; the next status asks for more
RESEND_VOTES_MAX: Final = 64  # own votes sent again at one tick; the next ticks send the others
STALLED_TICKS: Final = 2  # this long in one step, and our votes are sent again


class Gossip:
    """Counts ticks, and answers peers."""

    __slots__ = ("_ahead_tick", "_height_tick", "_requested_tick", "_resend_from", "_step_tick", "tick")

    def __init__(self) -> None:
        self.tick = 0
        self.start_height()

    def start_height(self) -> None:
        """A height begins: nothing is known of the peers' needs."""
        self._height_tick = self.tick
        self._ahead_tick: int | None = None  # when a peer was first seen in a later height
        self._requested_tick = self.tick
        self._resend_from = 0
        self.note_step()

    def note_step(self) -> None:
        """The node went to another step."""
        self._step_tick = self.tick

    def advance(self, state: HeightState, own_votes: list[SignedVote]) -> list[Effect]:
        """A tick: our status, and if the round stands still, our own votes of the whole height, in turns."""
        self.tick += 1
        effects: list[Effect] = [Broadcast(build_status(state))]
        if self.tick - self._step_tick >= STALLED_TICKS and own_votes:
            start = self._resend_from if self._resend_from < len(own_votes) else 0
            self._resend_from = start + RESEND_VOTES_MAX
            effects.extend(Broadcast(vote) for vote in own_votes[start : start + RESEND_VOTES_MAX])
        return effects

    def answer_status(self, state: HeightState, peer: PublicKey, status: Status) -> list[Effect]:
        """What the peer lacks and we have, and the other way round."""
        if status.height < state.height:
            return self._serve_height(state, peer, status.height)
        if status.height > state.height:
            return self._ask_height(peer, status.height)
        effects: list[Effect] = []
        unknown = state.votes.list_unknown_to(status.votes, before_tick=self.tick, votes_max=ANSWER_VOTES_MAX)
        for round_, votes in unknown.items():
            bundle = RoundCertificate(state.height, round_, tuple(votes))
            effects.append(SendTo(peer, votes[0] if len(votes) == 1 else bundle))
        request = self._find_request(state, status)
        if request is not None:
            self._requested_tick = self.tick
            effects.append(SendTo(peer, request))
        return effects

    def _serve_height(self, state: HeightState, peer: PublicKey, height: Height) -> list[Effect]:
        if height == state.height - 1 and self._height_tick == self.tick:
            return []  # it is about to decide by itself
        return [ServeHeight(peer, height)]

    def _ask_height(self, peer: PublicKey, height: Height) -> list[Effect]:
        if self._ahead_tick is None:
            self._ahead_tick = self.tick
        return [RequestCatchup(peer, height)] if self._ahead_tick < self.tick else []

    def _find_request(self, state: HeightState, status: Status) -> Request | None:
        """The body we lack and this peer has; at most one request a tick, and only after waiting for one."""
        if self.tick in (self._requested_tick, self._step_tick):
            return None
        for block_id in list_wanted_blocks(state):
            if block_id in status.blocks:
                return BlockRequest(state.height, state.round, block_id)
        lacks_proposal = state.step is not Step.COMMIT and not has_proposal(state)
        if lacks_proposal and status.has_proposal and status.round == state.round:
            return BlockRequest(state.height, state.round, None)
        return None

    def answer_request(self, state: HeightState, peer: PublicKey, request: Request) -> list[Effect]:
        """The votes or the body that a peer asks for, if they are here."""
        if request.height < state.height:
            return [ServeHeight(peer, request.height)]
        if request.height > state.height:
            return []
        if isinstance(request, VoteRequest):
            votes = state.votes.list_round(request.round)[:ANSWER_VOTES_MAX]
            return [SendTo(peer, RoundCertificate(state.height, request.round, votes))] if votes else []
        signed, block = _find_body(state, request)
        if signed is None or block is None:
            return []
        return [SendTo(peer, signed, block.body, find_polka_of(state, signed))]


def has_proposal(state: HeightState) -> bool:
    """Whether the proposal of the current round is here with its body."""
    known = state.proposals.get(state.round)
    return known is not None and known.signed.proposal.block_id in state.blocks


def build_status(state: HeightState) -> Status:
    """Where we stand and what we hold."""
    return Status(
        height=state.height,
        round=state.round,
        step=state.step,
        has_proposal=has_proposal(state),
        votes=state.votes.summarize(),
        blocks=tuple(state.blocks)[-STATUS_BLOCKS_MAX:],
    )


def find_polka_of(state: HeightState, signed: SignedProposal) -> PolkaCertificate | None:
    """The polka that a re-proposal stands on, if we hold it."""
    proposal = signed.proposal
    held = state.votes.has_quorum_for(proposal.valid_round, VoteKind.PREVOTE, proposal.block_id)
    if is_fresh(proposal) or not held:
        return None
    return state.votes.build_polka(state.height, proposal.valid_round, proposal.block_id)


def _find_body(state: HeightState, request: BlockRequest) -> tuple[SignedProposal | None, KnownBlock | None]:
    known = state.proposals.get(request.round)
    if known is not None and request.block_id in {None, known.signed.proposal.block_id}:
        return known.signed, state.blocks.get(known.signed.proposal.block_id)
    block = None if request.block_id is None else state.blocks.get(request.block_id)
    return (None, None) if block is None else (block.signed, block)
