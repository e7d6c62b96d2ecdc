"""One height from its start to its decision: performs the transitions that `round.py` finds.

Whatever it orders gathers in `out`; `finish` puts the journal's frames ahead of it. Complete on birth, also when it
resumes from a journal, and thrown away when the next height begins.
"""

from __future__ import annotations

from consensus.effects import Broadcast, BuildBlock, CheckBlock, Decide, Effect, EvidenceFound, Halt, ScheduleTimeout
from consensus.gossip import Gossip, build_status, find_polka_of
from consensus.idle import IdleClock
from consensus.inputs import BlockBuilt, BlockChecked, HeightStarted, TimeoutElapsed
from consensus.journal import JournalState
from consensus.messages import (
    VALID_ROUND_NONE,
    ChainContext,
    Precommit,
    Prevote,
    Proposal,
    SignedProposal,
    SignedVote,
    Step,
    Vote,
    list_certificate_votes,
)
from consensus.parameters import ConsensusParameters
from consensus.recorder import Recorder
from consensus.round import (
    ArmTimeout,
    CastPrevote,
    Commit,
    HeightState,
    KnownBlock,
    KnownProposal,
    LockAndPrecommit,
    PrecommitNil,
    RefuseCommit,
    SetValid,
    StartRound,
    Transition,
    find_timeout_transition,
    find_transition,
)
from consensus.signer import Signer
from consensus.votes import ROUNDS_AHEAD_MAX, VoteBook
from ledger.primitives import Hash


class HeightRun:
    """Runs the rounds of one height. ``signer`` is None for a watcher; ``recorded`` is the journal of this height."""

    def __init__(
        self,
        context: ChainContext,
        parameters: ConsensusParameters,
        gossip: Gossip,
        started: HeightStarted,
        *,
        signer: Signer | None,
        recorded: JournalState | None,
    ) -> None:
        self.state = HeightState(
            height=started.height,
            validators=started.validators,
            votes=VoteBook(started.validators),
            parent_time_ms=started.parent_time_ms,
            clock_skew_ms=parameters.clock_skew_ms,
        )
        self.out: list[Effect] = []
        self._now_ms = started.now_ms
        self._context = context
        self._parameters = parameters
        self._gossip = gossip
        self._signer = signer
        self._idle = IdleClock(parameters, now_ms=started.now_ms, parent_time_ms=started.parent_time_ms)
        self._told: tuple[int, Step] | None = None  # where our last status stood
        if recorded is not None:
            self._resume(recorded)
        self._recorder = Recorder(self.state, recorded)

    def note_time(self, now_ms: int) -> None:
        """The node's clock; it is not let run backwards."""
        self._now_ms = max(self._now_ms, now_ms)

    def note_work(self) -> None:
        """There is something to put into a block."""
        self._idle.note_work()

    def list_own_votes(self) -> list[SignedVote]:
        """All our votes of this height."""
        return [] if self._signer is None else self._signer.list_votes()

    def take_block_built(self, built: BlockBuilt) -> None:
        """Propose our block, if its round still waits for it."""
        state = self.state
        is_awaited = (built.height, built.round) == (state.height, state.round) and state.step is Step.PROPOSE
        if self._signer is None or not is_awaited or not self._is_own_turn() or state.round in state.proposals:
            return
        fresh = Proposal(state.height, state.round, built.block_id, VALID_ROUND_NONE, built.time_ms)
        signed = self._signer.sign_proposal(fresh)
        state.add_block(built.block_id, KnownBlock(signed, built.body, valid=True))
        self._announce(signed)

    def take_block_checked(self, checked: BlockChecked) -> None:
        """The check of a body has answered; the first answer stands."""
        block = self.state.blocks.get(checked.block_id)
        if block is not None and block.valid is None:
            block.valid = checked.valid

    def take_timeout(self, elapsed: TimeoutElapsed) -> None:
        """A timer fired; those of other heights and of rounds that are over are ignored."""
        if elapsed.height != self.state.height:
            return
        if elapsed.step is Step.NEW_HEIGHT:
            self._idle.note_fired()
            return
        transition = find_timeout_transition(self.state, round_=elapsed.round, step=elapsed.step)
        if transition is not None:
            self._apply(transition)

    def run(self) -> None:
        """Fire every rule that may fire."""
        self._begin_if_due()
        while (transition := find_transition(self.state)) is not None:
            self._apply(transition)

    def finish(self) -> list[Effect]:
        """All orders of this input, journal first, our new status last."""
        state = self.state
        if self._told != (state.round, state.step):
            self._told = (state.round, state.step)
            self._gossip.note_step()
            self.out.append(Broadcast(build_status(state)))
        effects: list[Effect] = []
        if self._signer is not None:
            effects.extend(self._recorder.record(state, self._signer.take_new()))
        effects.extend(self.out)
        self.out = []
        return effects

    def _begin_if_due(self) -> None:
        state = self.state
        if state.step is not Step.NEW_HEIGHT:
            return
        if state.proposals or not state.votes.is_empty():
            self._idle.note_work()  # somebody has begun
        if 0 in state.proposals or self._idle.is_due(self._now_ms):
            self._start_round(0)
            return
        delay_ms = self._idle.arm(self._now_ms)
        if delay_ms is not None:
            self.out.append(ScheduleTimeout(state.height, 0, Step.NEW_HEIGHT, delay_ms))

    def _apply(self, transition: Transition) -> None:
        state = self.state
        match transition:
            case CastPrevote(block_id, valid_round):
                state.step = Step.PREVOTE
                self._cast(Prevote(state.height, state.round, block_id, valid_round))
            case LockAndPrecommit(block_id):
                state.step = Step.PRECOMMIT
                state.locked_round, state.locked_block = state.round, block_id
                state.valid_round, state.valid_block = state.round, block_id
                self._cast(Precommit(state.height, state.round, block_id))
            case SetValid(block_id):
                state.valid_round, state.valid_block = state.round, block_id
            case PrecommitNil():
                state.step = Step.PRECOMMIT
                self._cast(Precommit(state.height, state.round, None))
            case ArmTimeout(step):
                state.timeouts_armed.add((state.round, step))
                self._schedule(step)
            case StartRound(round_):
                self._start_round(round_)
            case Commit(round_, block_id):
                self._decide(round_, block_id)
            case RefuseCommit(block_id):
                state.step = Step.COMMIT
                self.out.append(Halt(state.height, block_id))

    def _start_round(self, round_: int) -> None:
        # L11: a round begins; the proposer speaks, the others wait for it.
        state = self.state
        state.round, state.step = round_, Step.PROPOSE
        for index, vote in state.votes.take_near(round_):
            self._count(index, vote)
        for old in [number for number in state.proposals if number < round_ - ROUNDS_AHEAD_MAX]:
            del state.proposals[old]
        self._enter_propose()

    def _enter_propose(self) -> None:
        self._schedule(Step.PROPOSE)  # L21; the proposer too, lest a block that is never built hold it up
        if self._signer is None or not self._is_own_turn():
            return
        state = self.state
        earlier = self._signer.find_proposal(state.round)
        if earlier is not None:
            self._announce(earlier)
        elif state.valid_block is not None:
            time_ms = state.blocks[state.valid_block].signed.proposal.time_ms  # L16
            again = Proposal(state.height, state.round, state.valid_block, state.valid_round, time_ms)
            self._announce(self._signer.sign_proposal(again))
        else:
            time_ms = max(self._now_ms, state.parent_time_ms + 1)
            self.out.append(BuildBlock(state.height, state.round, time_ms))  # L18

    def _is_own_turn(self) -> bool:
        state = self.state
        proposer = state.validators.get_proposer(state.height, state.round)
        return self._signer is not None and proposer.public_key == self._signer.own_key

    def _announce(self, signed: SignedProposal) -> None:
        state = self.state
        state.proposals.setdefault(signed.proposal.round, KnownProposal(signed, self._now_ms))
        body = state.blocks[signed.proposal.block_id].body
        self.out.append(Broadcast(signed, body, find_polka_of(state, signed)))

    def _cast(self, vote: Vote) -> None:
        if self._signer is None:
            return
        signed = self._signer.sign_vote(vote)
        index = self.state.validators.find_index(signed.voter)
        assert index is not None
        self._count(index, signed)
        self.out.append(Broadcast(signed))

    def _count(self, index: int, signed: SignedVote) -> None:
        evidence = self.state.votes.add(index, signed, current_round=self.state.round, tick=self._gossip.tick)
        if evidence is not None:
            self.out.append(EvidenceFound(evidence))

    def _schedule(self, step: Step) -> None:
        delay_ms = self._parameters.compute_timeout_ms(step, self.state.round)
        self.out.append(ScheduleTimeout(self.state.height, self.state.round, step, delay_ms))

    def _decide(self, round_: int, block_id: Hash) -> None:
        state = self.state
        state.step = Step.COMMIT
        certificate = state.votes.build_commit(self._context, state.height, round_, block_id)
        self.out.append(Decide(state.height, round_, block_id, state.blocks[block_id].body, certificate))

    def _resume(self, recorded: JournalState) -> None:
        """Stand where the journal says, and say again, in the same bytes, what was said."""
        state = self.state
        assert recorded.height == state.height
        state.round, state.step = recorded.round, recorded.step
        state.locked_round, state.locked_block = recorded.locked_round, recorded.locked_block
        state.valid_round, state.valid_block = recorded.valid_round, recorded.valid_block
        for frame in recorded.blocks:
            proposal = frame.proposal.proposal
            state.blocks[proposal.block_id] = KnownBlock(frame.proposal, frame.body, valid=None)
            state.proposals.setdefault(proposal.round, KnownProposal(frame.proposal, proposal.time_ms))
            self.out.append(CheckBlock(state.height, proposal.block_id, proposal.time_ms, frame.body))
        own_votes = self.list_own_votes()
        for signed in (*(vote for polka in recorded.polkas for vote in list_certificate_votes(polka)), *own_votes):
            index = state.validators.find_index(signed.voter)
            assert index is not None, "the journal holds a vote of a stranger"
            self._count(index, signed)
        for proposal_again in [] if self._signer is None else self._signer.list_proposals():
            self._announce(proposal_again)
        self.out.extend(Broadcast(vote) for vote in own_votes)
        if state.step is Step.PROPOSE:
            self._enter_propose()
