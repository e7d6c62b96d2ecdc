"""The whole node minus the world: joins mempool, consensus, ledger and catching up in one ``handle``.

Owns the order in which things happen at a node. Everything here is a function of the inputs told so far, so that a
simulator can run many of these under one seed.
"""

from __future__ import annotations

from typing import Final, assert_never

from consensus import effects as orders
from consensus import inputs as facts
from consensus.codec import encode_message
from consensus.engine import Engine
from consensus.journal import replay
from consensus.messages import ChainContext, CommitCertificate
from consensus.validators import ValidatorSet
from ledger.block import Header, decode_block
from ledger.errors import CorruptStore, Malformed, NotAdmitted, Rejected
from ledger.execution import Chain, Executed
from ledger.genesis import compute_genesis_hash
from ledger.primitives import Hash, Height, PublicKey
from ledger.receipt import Event
from ledger.storage import Reader
from ledger.transaction import TransactionTable
from ledger.validators import get_protocol_version
from node import chain_store
from node.candidates import Candidates, check_proposer
from node.core_config import CoreConfig
from node.door import Door
from node.effects import (
    Admission,
    Answer,
    Blame,
    Committed,
    Dropped,
    Effect,
    EvidenceNoted,
    Feed,
    Halt,
    Persist,
    Send,
    SendAll,
    SetGossipTimer,
    SetTimeout,
    WriteBlock,
)
from node.evidence import EvidencePool
from node.fork_watch import ForkWatch
from node.gossip import DELAY_MS as GOSSIP_DELAY_MS
from node.gossip import GossipBuffer, wrap_message
from node.index import compute_index_changes
from node.inputs import (
    BlockWritten,
    BuildDue,
    CheckDue,
    EvidenceDue,
    GossipDue,
    Input,
    MessageReceived,
    PeerDown,
    PeerUp,
    Started,
    Submitted,
    SyncedBlockDue,
    Tick,
    TimeoutElapsed,
    TransactionsDue,
)
from node.intake import Intake
from node.mempool import Mempool
from node.sync import QueuedBlock, Sync, check_certified, collect_blocks
from node.translate import read_fact, read_proposal
from p2p.messages import (
    BlockRequest,
    Blocks,
    ConsensusMessage,
    DocumentBlock,
    DocumentBlockRequest,
    HeightStatus,
    PeerMessage,
    ProposalMessage,
    SnapshotPart,
    SnapshotRequest,
    Transactions,
)

LAG_BLOCKS_MAX: Final = 5  # a node further behind its peers takes no submissions


class Core:
    """One node. ``reader`` shows the store as the performed ``WriteBlock`` effects have left it."""

    def __init__(
        self, config: CoreConfig, reader: Reader, table: TransactionTable, *, journal_frames: list[bytes]
    ) -> None:
        """Raises ``CorruptStore`` when store and journal cannot both be what this node wrote."""
        self._config = config
        self._reader = reader
        self._table = table
        document = chain_store.read_genesis_document(reader)
        self._context = ChainContext(document.chain_id, compute_genesis_hash(document))
        self._validators = chain_store.read_validators(reader)
        self._chain = chain_store.load_chain(reader, table)
        height, journal = self._chain.parent.height, replay(journal_frames)
        if journal is not None and journal.height > height + 1:
            # Signing below what the journal knows could contradict a vote that is out in the world.
            raise CorruptStore(f"the journal is at height {journal.height}, the store only at {height}")
        key, sign, self.watch = config.own_key, config.sign, config.watch
        self._engine = Engine(
            self._context, config.consensus, own_key=key, sign=sign, journal=journal, watch=self.watch
        )
        self.mempool = Mempool(transactions_max=config.mempool_transactions_max, bytes_max=config.mempool_bytes_max)
        self._door = Door(self._chain, self.mempool)
        self._candidates = Candidates(self._chain, self._validators, self.mempool)
        self._sync = Sync()
        self._writing: tuple[Executed, CommitCertificate] | None = None
        self._gossip = GossipBuffer()
        self._evidence = EvidencePool()
        self._forks = ForkWatch(reader, self._context, self._evidence, self._sync)
        self.intake = Intake(self._door, self.mempool)
        self._is_engine_behind = False
        self._is_work_announced = False
        self._is_halted = False
        # A fresh home hears from somebody first: perhaps the chain is older than this home, and so is the key.
        self._awaits_peer = self.watch is not None and self.watch.is_fresh and len(self._validators) > 1
        self._out: list[Effect] = []
        self._now_ms = 0

    @property
    def context(self) -> ChainContext:
        """Which chain this is."""
        return self._context

    @property
    def header(self) -> Header:
        """The header of the last durable block."""
        return self._chain.parent

    @property
    def chain(self) -> Chain:
        """The committed chain, to be read."""
        return self._chain

    @property
    def validators(self) -> ValidatorSet:
        """The authorities of the height under way."""
        return self._validators

    @property
    def is_syncing(self) -> bool:
        """Whether peers have decided more than the height that we are deciding."""
        return self._sync.get_lag_blocks(self._validators, self.header.height) > 1 or bool(self._sync.queue)

    @property
    def is_far_behind(self) -> bool:
        """Whether a transaction would be judged by a state that is long past."""
        return self._sync.get_lag_blocks(self._validators, self.header.height) > LAG_BLOCKS_MAX

    @property
    def round(self) -> int:
        """The round of the height under way."""
        status = self._engine.get_status()
        return 0 if status is None else status.round

    @property
    def clock_skew_ms(self) -> int | None:
        """How far this clock is ahead of the other authorities', once one of them has proposed."""
        return self._engine.clock_skew_ms

    def simulate(self, raw: bytes, now_ms: int) -> tuple[Event, ...]:
        """Run a transaction on what is committed and pending, and keep nothing. Raises ``Rejected``."""
        return self._door.simulate(raw, now_ms)

    def handle(self, input_: Input, now_ms: int) -> list[Effect]:
        """Take in one fact. Returns the orders it gives rise to, to be performed in their order."""
        self._out = []
        if self._is_halted:
            return []
        self._now_ms = now_ms
        match input_:
            case Started():
                if self._is_version_known() and not self._awaits_peer:
                    self._start_height()
            case PeerUp(peer, height):
                self._on_peer_up(peer, height)
            case PeerDown(peer):
                self._out.extend(self._forks.note_gone(peer))
                self._sync.note_gone(peer)
            case MessageReceived(peer, message):
                self._on_message(peer, message)
            case Submitted(token, raws):
                self._emit(Answer(token, tuple(self._admit_at_door(raw) for raw in raws)))
            case TimeoutElapsed(height, round_, step):
                self._tell_engine(facts.TimeoutElapsed(Height(height), round_, step, now_ms))
            case GossipDue():
                self._out.extend(SendAll(message) for message in self._gossip.take_messages())
            case Tick():
                self._on_tick()
            case BlockWritten(height):
                self._on_block_written(height)
            case BuildDue(order):
                self._build(order)
            case CheckDue(order):
                self._check(order)
            case TransactionsDue():
                self._admit_from_peers()
            case EvidenceDue():
                self._submit_evidence()
            case SyncedBlockDue():
                self._execute_synced_block()
            case _:
                assert_never(input_)
        return self._out

    # — the door and the pool —

    def _admit_at_door(self, raw: bytes) -> Admission:
        if self.is_far_behind:
            return Admission(None, NotAdmitted("node_is_syncing", f"height {self.header.height}"))
        admission = self._door.submit(raw, self._now_ms)
        if admission.error is None:
            self._collect_gossip(raw)
            self._announce_work()
        return admission

    def _admit_from_peers(self) -> None:
        blame = self.intake.admit_some(self._now_ms)
        if blame is not None:
            peer, fault = blame
            self._emit(Blame(peer, fault.reason, fault.item))
        self._announce_work()
        if self.intake:
            self._emit(Feed(TransactionsDue()))

    def _submit_evidence(self) -> None:
        for raw in self._evidence.list_due(self._chain, self.mempool, self._config.own_key, self._config.sign):
            self._admit_at_door(raw)

    def _announce_work(self) -> None:
        if not self._is_work_announced and len(self.mempool):
            self._is_work_announced = True
            self._tell_engine(facts.TransactionsAvailable(self._now_ms))

    def _collect_gossip(self, raw: bytes) -> None:
        if self._gossip.add(raw):
            self._emit(SetGossipTimer(GOSSIP_DELAY_MS))

    # — peers —

    def _on_peer_up(self, peer: PublicKey, height: int) -> None:
        self._sync.note_peer(peer, height)
        self._forks.note_peer(peer, height)
        if self.watch is not None:
            self.watch.note_chain(height)
        if self._awaits_peer:
            self._awaits_peer = False
            self._start_height()
        status = self._engine.get_status()
        if status is not None:
            self._emit(Send(peer, ConsensusMessage(encode_message(status))))
        self._ask_for_blocks()

    def _on_message(self, peer: PublicKey, message: PeerMessage) -> None:
        match message:
            case Transactions(items):
                if self.intake.take(peer, items, self._now_ms):
                    self._emit(Feed(TransactionsDue()))
            case ConsensusMessage(body):
                self._on_consensus_message(peer, body)
            case ProposalMessage():
                self._on_proposal(peer, message)
            case BlockRequest(from_height, count):
                self._emit(Send(peer, Blocks(collect_blocks(self._reader, from_height, count))))
            case Blocks(items):
                answer = self._forks.take(peer, items, self._now_ms)
                if answer is None:
                    self._sync.take_blocks(peer, items)
                    self._continue_sync()
                self._out.extend(answer or ())
            case HeightStatus(height):
                self._sync.note_height(peer, height)
                self._ask_for_blocks()
            case DocumentBlockRequest() | DocumentBlock() | SnapshotRequest() | SnapshotPart():
                raise AssertionError("documents and snapshots pass by the core")
            case _:
                assert_never(message)

    def _on_consensus_message(self, peer: PublicKey, body: bytes) -> None:
        try:
            fact = read_fact(peer, body, self._now_ms)
        except Malformed as error:
            self._emit(Blame(peer, error.reason, error.item))
        else:
            if isinstance(fact, facts.StatusReceived):
                self._forks.note_height(peer, fact.status.height - 1)
            self._tell_engine(fact, peer)

    def _on_proposal(self, peer: PublicKey, message: ProposalMessage) -> None:
        try:
            proposal, polka = read_proposal(message)
            check_proposer(proposal, message.block_body)
            if proposal.proposal.height == self.header.height + 1:
                self._candidates.remember(proposal.proposal.block_id, message.block_body, proposal.proposal.time_ms)
                if self._candidates.is_of_another_branch(proposal.proposal.block_id, message.block_body):
                    self._out.extend(self._forks.urge(peer, self.header.height, self._now_ms))
        except Rejected as error:
            self._emit(Blame(peer, error.reason, error.item))
            return
        self._tell_engine(facts.ProposalReceived(proposal, message.block_body, polka, self._now_ms), peer)

    def _on_tick(self) -> None:
        for raw in self.mempool.take_due_for_gossip(self._now_ms):
            self._collect_gossip(raw)
        self._ask_for_blocks()
        self._out.extend(self._forks.tick(self._now_ms))
        self._submit_evidence()
        self._tell_engine(facts.GossipTick(self._now_ms))

    # — consensus —

    def _start_height(self) -> None:
        self._is_engine_behind = False
        self._is_work_announced = False
        self._tell_engine(
            facts.HeightStarted(Height(self.header.height + 1), self._validators, self._now_ms, self.header.time_ms)
        )
        self._announce_work()

    def _tell_engine(self, fact: facts.Input, peer: PublicKey | None = None) -> None:
        for order in self._engine.handle(fact):
            self._perform(order, peer)

    def _perform(self, order: orders.Effect, peer: PublicKey | None) -> None:
        match order:
            case orders.Persist(frame, reset):
                self._emit(Persist(frame, reset))
            case orders.Broadcast(message, body, polka):
                self._emit(SendAll(wrap_message(message, body, polka)))
            case orders.SendTo(target, message, body, polka):
                self._emit(Send(target, wrap_message(message, body, polka)))
            case orders.ScheduleTimeout(height, round_, step, delay_ms):
                self._emit(SetTimeout(height, round_, step, delay_ms))
            case orders.BuildBlock():
                self._emit(Feed(BuildDue(order)))
            case orders.CheckBlock():
                self._emit(Feed(CheckDue(order)))
            case orders.Decide():
                self._decide(order)
            case orders.RequestCatchup(target, height):
                self._sync.note_height(target, height - 1)
                self._ask_for_blocks()
            case orders.ServeHeight(target, height):
                if self._sync.may_serve(target, self._now_ms):
                    self._emit(Send(target, Blocks(collect_blocks(self._reader, height, 1))))
            case orders.EvidenceFound(evidence):
                self._emit(EvidenceNoted(evidence))
                self._evidence.add(evidence)
                self._emit(Feed(EvidenceDue()))
            case orders.Halt(height, block_id):
                self._halt("quorum_committed_an_invalid_block", f"{block_id.hex()} at height {height}")
            case orders.Refused(reason, item):
                if peer is not None:
                    self._emit(Blame(peer, reason, item))
            case _:
                assert_never(order)

    def _build(self, order: orders.BuildBlock) -> None:
        if order.height != self.header.height + 1 or self._writing is not None:
            return
        assert self._config.own_key is not None
        executed, dropped = self._candidates.build(order.time_ms, self._config.own_key)
        for one in dropped:
            self.intake.note_dropped(one.transaction.tx_id, self._now_ms)
            self.mempool.drop(one.transaction.tx_id, one.error, height=self.header.height)
        if dropped:
            self._emit(Dropped(tuple(one.transaction.tx_id for one in dropped)))
        self._tell_engine(facts.BlockBuilt(order.height, order.round, executed.block_id, order.time_ms, executed.body))

    def _check(self, order: orders.CheckBlock) -> None:
        if order.height != self.header.height + 1 or self._writing is not None:
            return
        if self._candidates.is_of_another_branch(order.block_id, order.body):
            return  # not ours to judge: a quorum may have decided it, and ours goes on (docs/decisions/0017-forks.md)
        self._tell_engine(facts.BlockChecked(order.block_id, self._is_valid(order.block_id, order.body)))

    def _is_valid(self, block_id: Hash, body: bytes) -> bool:
        try:
            self._candidates.execute(block_id, body)
        except Rejected:
            return False
        return True

    def _decide(self, order: orders.Decide) -> None:
        if order.height != self.header.height + 1 or self._writing is not None:
            return
        try:
            executed = self._candidates.execute(order.block_id, order.body)
        except Rejected as error:
            self._halt("quorum_committed_an_invalid_block", f"{error} at height {order.height}")
            return
        self._write(executed, order.certificate)

    # — durable —

    def _write(self, executed: Executed, certificate: CommitCertificate) -> None:
        index_changes = compute_index_changes(self._reader, executed.receipts, executed.block.header)
        self._writing = (executed, certificate)
        batch = chain_store.compute_block_batch(executed, certificate, index_changes)
        self._emit(WriteBlock(executed.block.header.height, batch))

    def _on_block_written(self, height: int) -> None:
        assert self._writing is not None
        executed, certificate = self._writing
        assert executed.block.header.height == height
        self._writing = None
        self._chain = self._chain.advance(executed)
        self._validators = chain_store.read_validators(self._reader)
        self.intake.note_committed(executed.transactions, height=height)
        self.mempool.remove(tx.tx_id for tx in executed.transactions)
        expired = self.mempool.drop_expired(height + 1)
        self._door.advance(self._chain)
        self._candidates.advance(self._chain, self._validators)
        self._emit(Committed(executed, certificate))
        if expired:
            self._emit(Dropped(tuple(expired)))
        if not self._is_version_known():
            return
        if self._sync.queue:
            # The engine's journal is reset at each height it is told: while blocks pour in, it is told only the last.
            self._is_engine_behind = True
        else:
            self._start_height()
        self._continue_sync()

    # — catching up —

    def _ask_for_blocks(self) -> None:
        ask = self._sync.find_next_ask(self.header.height, self._now_ms)
        if ask is not None:
            self._emit(Send(ask.peer, BlockRequest(ask.from_height, ask.count)))

    def _continue_sync(self) -> None:
        if self._sync.queue:
            self._emit(Feed(SyncedBlockDue()))
        else:
            self._ask_for_blocks()

    def _execute_synced_block(self) -> None:
        if self._writing is not None or not self._sync.queue:
            return
        item = self._sync.queue.popleft()
        try:
            done = self._take_synced_block(item)
        except Rejected as error:
            self._emit(Blame(item.peer, error.reason, error.item))
            self._sync.forget_peer(item.peer)
            self._sync.clear_queue()
            done = False
        if done:
            return
        if not self._sync.queue and self._is_engine_behind:
            self._start_height()
        self._continue_sync()

    def _take_synced_block(self, item: QueuedBlock) -> bool:
        """Write the block if it is the next one. Raises ``Rejected`` if it is not what its certificate says."""
        block = decode_block(item.block)
        if block.header.height != self.header.height + 1:
            return False  # decided by ourselves in the meantime, or a gap that the next request fills
        certificate = check_certified(block, item.certificate, self._validators, self._context)
        block_id = certificate.block_id
        if self._candidates.is_of_another_branch(block_id, item.block):
            self._sync.set_apart(item.peer, is_apart=True)
            self._sync.clear_queue()
            self._out.extend(self._forks.urge(item.peer, self.header.height, self._now_ms))
            return False
        self._sync.note_height(item.peer, block.header.height)
        try:
            executed = self._candidates.execute(block_id, item.block)
        except Rejected as error:
            self._halt("quorum_committed_an_invalid_block", f"{error} at height {block.header.height}")
            return True
        self._write(executed, certificate)
        return True

    def _is_version_known(self) -> bool:
        """Whether this program has the rules of the next block; a node that lacks them stops."""
        version, known = get_protocol_version(self._chain.make_state()), self._table.version_max
        if version > known:
            self._halt("protocol_version_not_supported", f"{version}, this program knows versions up to {known}")
        return not self._is_halted

    def _halt(self, reason: str, item: str) -> None:
        self._is_halted = True
        self._emit(Halt(reason, item))

    def _emit(self, effect: Effect) -> None:
        self._out.append(effect)
