"""The engine: facts in, orders out. One height after the other, by the rules of `round.py`.

It holds no clock, socket or disk. Whatever it signs stands in a `Persist` ahead of the first message that carries it.
A stranger's input never raises: what no honest node sends is answered with `Refused`.
"""

from __future__ import annotations

from consensus.admission import Admission
from consensus.clocks import PeerClocks
from consensus.effects import Effect
from consensus.gossip import Gossip, build_status
from consensus.height import HeightRun
from consensus.inputs import (
    BlockBuilt,
    BlockChecked,
    CertificateReceived,
    GossipTick,
    HeightStarted,
    Input,
    ProposalReceived,
    RequestReceived,
    StatusReceived,
    TimeoutElapsed,
    TransactionsAvailable,
    VoteReceived,
)
from consensus.journal import JournalState
from consensus.messages import ChainContext, Status
from consensus.parameters import ConsensusParameters
from consensus.round import HeightState
from consensus.signer import Signer, SignFunction
from consensus.watchfulness import Watchfulness
from ledger.primitives import PublicKey


class Engine:
    """One node's part in the agreement.

    Without ``own_key`` and ``sign`` it watches: it follows, decides and serves, but never votes. So it does at heights
    where its key is not in the set, and below the height of ``journal``, where it has signed what it no longer knows.
    ``watch``, if given, decides from which height on it signs at all.
    """

    def __init__(
        self,
        context: ChainContext,
        parameters: ConsensusParameters,
        *,
        own_key: PublicKey | None = None,
        sign: SignFunction | None = None,
        journal: JournalState | None = None,
        watch: Watchfulness | None = None,
    ) -> None:
        assert (own_key is None) == (sign is None), "a key comes with its signing function"
        self._context = context
        self._parameters = parameters
        self._own_key = own_key
        self._sign = sign
        self._journal = journal
        self._watch = watch
        self._gossip = Gossip()
        self._admission = Admission(context)
        self._clocks = PeerClocks()
        self._run: HeightRun | None = None

    @property
    def state(self) -> HeightState | None:
        """The height under way, to look at; None before the first."""
        return None if self._run is None else self._run.state

    def get_status(self) -> Status | None:
        """Where we stand, for a peer that has just connected; None before the first height."""
        return None if self._run is None else build_status(self._run.state)

    @property
    def clock_skew_ms(self) -> int | None:
        """How far our clock is ahead of the other authorities'; None before one of them has proposed."""
        return self._clocks.compute_skew_ms()

    def handle(self, input_: Input) -> list[Effect]:
        """Take in one fact. Returns the orders it gives rise to, to be performed in their order."""
        if isinstance(input_, HeightStarted):
            run = self._start_height(input_)
        elif self._run is not None:
            run = self._run
            self._take(run, input_)
        else:
            return []
        run.run()
        return run.finish()

    def _start_height(self, started: HeightStarted) -> HeightRun:
        assert self._run is None or started.height > self._run.state.height, "heights only rise"
        if self._run is not None:
            self._clocks.note_height(self._run.state, self._own_key)
        recorded = self._journal
        if recorded is not None and recorded.height != started.height:
            recorded = None
        self._gossip.start_height()
        if self._watch is not None:
            self._watch.note_height(self.state, started.height, started.validators)
        signer = self._build_signer(started, recorded)
        run = HeightRun(
            self._context,
            self._parameters,
            self._gossip,
            started,
            signer=signer,
            recorded=None if signer is None else recorded,
        )
        self._run = run
        run.out.extend(self._admission.start_height(run.state, tick=self._gossip.tick))
        return run

    def _build_signer(self, started: HeightStarted, recorded: JournalState | None) -> Signer | None:
        if self._own_key is None or self._sign is None or started.validators.find_index(self._own_key) is None:
            return None
        if self._journal is not None and started.height < self._journal.height:
            return None
        if self._watch is not None and not self._watch.may_sign:
            return None
        signed = () if recorded is None else recorded.signed
        return Signer(self._context, started.height, self._own_key, self._sign, signed)

    def _take(self, run: HeightRun, input_: Input) -> None:
        tick = self._gossip.tick
        match input_:
            case VoteReceived(_, now_ms):
                run.note_time(now_ms)
                run.out.extend(self._admission.receive_vote(run.state, input_, tick=tick))
            case ProposalReceived():
                run.note_time(input_.now_ms)
                run.out.extend(self._admission.receive_proposal(run.state, input_, tick=tick))
            case CertificateReceived(certificate, now_ms):
                run.note_time(now_ms)
                run.out.extend(self._admission.receive_certificate(run.state, certificate, tick=tick))
            case StatusReceived(peer, status, now_ms):
                run.note_time(now_ms)
                if self._watch is not None:
                    self._watch.note_status(status, run.state.validators)
                run.out.extend(self._gossip.answer_status(run.state, peer, status))
            case RequestReceived(peer, request, now_ms):
                run.note_time(now_ms)
                run.out.extend(self._gossip.answer_request(run.state, peer, request))
            case BlockBuilt():
                run.take_block_built(input_)
            case BlockChecked():
                run.take_block_checked(input_)
            case TimeoutElapsed():
                run.note_time(input_.now_ms)
                run.take_timeout(input_)
            case TransactionsAvailable(now_ms):
                run.note_time(now_ms)
                run.note_work()
            case GossipTick(now_ms):
                run.note_time(now_ms)
                run.out.extend(self._gossip.advance(run.state, run.list_own_votes()))
            case HeightStarted():
                raise AssertionError("a height is started, not taken")
