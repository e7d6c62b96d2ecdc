"""The shell around the core: performs its effects in order, runs its timers, feeds it what the world says.

Owns the clock, the store, the journal and the network of one running node, and answers the door (`service.py`).
Touches the world; decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Final

from ledger.errors import CorruptStore, Rejected
from ledger.primitives import Address, Hash, PublicKey
from ledger.receipt import Event
from ledger.state_root import StateTree
from ledger.storage import Reader, Store
from ledger.transaction import Transaction, TransactionTable
from node import chain_store
from node.core import Core
from node.documents.replica import Replica
from node.documents.store import DocumentStore
from node.effects import (
    Admission,
    Answer,
    Blame,
    Committed,
    Dropped,
    Effect,
    EvidenceNoted,
    Feed,
    ForkSeen,
    Halt,
    Persist,
    Send,
    SendAll,
    SetGossipTimer,
    SetTimeout,
    WriteBlock,
)
from node.errors import LocalError
from node.forks import FORK_SEEN, describe_fork
from node.housekeeping import Housekeeper, Upkeep
from node.inputs import (
    BlockWritten,
    GossipDue,
    Input,
    MessageReceived,
    PeerDown,
    PeerUp,
    Started,
    Submitted,
    Tick,
    TimeoutElapsed,
    TransactionsDue,
)
from node.journal import Journal
from node.logs import Log
from node.mempool import Overloaded
from node.metrics import CLOCK_SKEW
from node.peer_table import describe_peers
from node.service import CommittedBlock, NodeStatus, Outcome, Wait
from node.version import VERSION
from p2p.budgets import DEFAULT_LIMITS, PeerLimits
from p2p.messages import DocumentBlock, DocumentBlockRequest, PeerMessage, SnapshotPart, SnapshotRequest
from p2p.network import Network
from p2p.peers import PeerAddress
from p2p.session import LocalNode

TICK_SECONDS: Final = 1
WAITERS_MAX: Final = 50_000  # submissions that wait for a block; more are answered as admitted only

_log = Log("runtime")


def now_ms() -> int:
    """The wall clock, milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParts:
    """What a runtime is made of; it closes the store and the journal when it stops."""

    moniker: str
    own_key: PublicKey
    core: Core
    store: Store
    journal: Journal
    table: TransactionTable
    documents: DocumentStore
    keep_for: Sequence[Address]  # whose documents this node has copies of
    upkeep: Upkeep = field(default_factory=Upkeep)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """How the node meets its peers."""

    local: LocalNode
    host: str
    port: int
    addresses: Sequence[PeerAddress]
    list_allowed: Callable[[], Collection[PublicKey]]
    list_validators: Callable[[], Collection[PublicKey]]  # the others share a part of our time among them
    limits: PeerLimits = DEFAULT_LIMITS


class Runtime:
    """One running node. ``start`` it in an event loop; ``wait_stopped`` returns why it ended."""

    def __init__(self, parts: NodeParts, peers: PeerSettings) -> None:
        self._parts = parts
        self._core = parts.core
        self._network = Network(
            local=peers.local,
            listen_host=peers.host,
            listen_port=peers.port,
            addresses=peers.addresses,
            list_allowed=peers.list_allowed,
            list_validators=peers.list_validators,
            limits=peers.limits,
            handler=self,
            get_height=lambda: self._core.header.height,
            clock_ms=lambda: time.monotonic_ns() // 1_000_000,
            random=SystemRandom(),
        )
        self._inbox: deque[Input] = deque()
        self._is_draining = False
        self._frames: list[bytes] = []
        self._is_reset_due = False
        self._answers: dict[int, tuple[Admission, ...]] = {}
        self._next_token = 0
        self._waiters: dict[Hash, list[asyncio.Future[Outcome]]] = {}
        self._subscribers: dict[int, Callable[[CommittedBlock], None]] = {}
        self._counters: Counter[str] = Counter()
        self._replica: Replica | None = None
        self._housekeeper: Housekeeper | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._stopped: asyncio.Future[LocalError | None] | None = None

    # — life —

    @property
    def p2p_port(self) -> int:
        """The port that peers reach this node at."""
        return self._network.port

    async def start(self) -> None:
        """Listen to peers and begin. Raises ``OSError`` when the address cannot be bound."""
        self._stopped = asyncio.get_running_loop().create_future()
        self._replica = Replica(self._parts.documents, self._network, keep_for=self._parts.keep_for)
        self._replica.start(self._parts.store)
        self._housekeeper = Housekeeper(self._parts.upkeep, self._parts.store, self._network)
        await self._network.start()
        self.tell(Started())
        self._tick()

    async def stop(self) -> None:
        """End everything in order: no vote is half-written, nothing waits for ever."""
        self._end(None)
        if self._ticker is not None:
            self._ticker.cancel()
        if self._replica is not None:
            await self._replica.stop()
        if self._housekeeper is not None:
            await self._housekeeper.stop()
        await self._network.stop()
        for futures in self._waiters.values():
            for future in futures:
                future.cancel()
        self._parts.journal.close()
        self._parts.store.close()

    async def wait_stopped(self) -> LocalError | None:
        """Returns when the node has ended: None if it was told to, else the fault that it cannot go on with."""
        assert self._stopped is not None, "not started"
        return await asyncio.shield(self._stopped)

    def _keep_house(self) -> None:
        try:
            if self._housekeeper is not None:
                self._housekeeper.tick()
        except LocalError as error:
            self._fail(error)
        except CorruptStore as error:
            self._fail(LocalError("store_corrupt", error))

    def _end(self, error: LocalError | None) -> None:
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(error)

    def _tick(self) -> None:
        self.tell(Tick())
        self._keep_house()
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    # — the core's inputs and effects —

    def tell(self, input_: Input) -> None:
        """Tell the core one fact, and perform what follows from it before returning."""
        self._inbox.append(input_)
        if self._is_draining:
            return
        self._is_draining = True
        try:
            while self._inbox and self._stopped is not None and not self._stopped.done():
                self._perform_all(self._core.handle(self._inbox.popleft(), now_ms()))
        except LocalError as error:
            self._fail(error)
        except CorruptStore as error:
            self._fail(LocalError("store_corrupt", error))
        except Exception as error:
            # Our own mistake: what the core holds now is not to be trusted with another vote.
            self._fail(LocalError("node_failed", f"{type(error).__name__}: {error}"))
            raise
        finally:
            self._is_draining = False

    def _fail(self, error: LocalError) -> None:
        _log.error("node stops", reason=error.reason, item=error.item)
        self._end(error)

    def _perform_all(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                if effect.reset:
                    self._frames.clear()
                    self._is_reset_due = True
                self._frames.append(effect.frame)
                continue
            if self._frames:
                self._sync_journal()
            self._perform(effect)
        if self._frames:
            self._sync_journal()

    def _sync_journal(self) -> None:
        # Frames that follow one another share one sync: nothing is sent between them.
        if self._is_reset_due:
            self._parts.journal.reset(self._frames)
        else:
            for frame in self._frames:
                self._parts.journal.append(frame)
            self._parts.journal.sync()
        self._is_reset_due = False
        self._frames.clear()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case WriteBlock(height, changes):
                self._parts.store.write(changes, sync=True)
                self._inbox.appendleft(BlockWritten(height))
            case Send(peer, message):
                self._network.send(peer, message)
            case SendAll(message):
                self._network.broadcast(message)
            case Blame(peer, reason, item):
                self._counters[f"blamed_{reason}"] += 1
                _log.warning("peer blamed", peer=peer.hex(), reason=reason, item=item)
                self._network.report(peer, reason)
            case SetTimeout(height, round_, step, delay_ms):
                self._later(delay_ms, TimeoutElapsed(height, round_, step))
            case SetGossipTimer(delay_ms):
                self._later(delay_ms, GossipDue())
            case Feed(input_):
                self._feed(input_)
            case Answer(token, admissions):
                self._answers[token] = admissions
            case Committed():
                self._on_committed(effect)
            case Dropped(tx_ids):
                self._on_dropped(tx_ids)
            case EvidenceNoted(evidence):
                self._counters["evidence"] += 1
                _log.warning("evidence of equivocation", evidence=repr(evidence))
            case ForkSeen(fork, changes):
                self._parts.store.write(changes, sync=True)
                _log.error("two blocks of one height are final", reason=FORK_SEEN, **describe_fork(fork))
            case Halt(reason, item):
                raise LocalError(reason, item)
            case _:
                raise AssertionError(f"no such effect: {effect!r}")

    def _later(self, delay_ms: int, input_: Input) -> None:
        asyncio.get_running_loop().call_later(delay_ms / 1000, self.tell, input_)

    def _feed(self, input_: Input) -> None:
        if isinstance(input_, TransactionsDue):
            # Votes and blocks that have arrived in the meantime go first.
            asyncio.get_running_loop().call_soon(self.tell, input_)
        else:
            self._inbox.append(input_)

    def _on_committed(self, effect: Committed) -> None:
        executed = effect.executed
        header = executed.block.header
        self._counters["blocks"] += 1
        self._counters["transactions"] += len(executed.transactions)
        _log.debug("block committed", height=header.height, transactions=len(executed.transactions))
        if self._housekeeper is not None:
            self._housekeeper.on_block(header.height)
        if self._replica is not None:
            self._replica.on_events(self._parts.store, [one for r in executed.receipts for one in r.events])
        for index, receipt in enumerate(executed.receipts):
            for future in self._waiters.pop(receipt.tx_id, ()):
                if not future.done():
                    future.set_result(Outcome(receipt.tx_id, None, header.height, index, receipt.events))
        if header.next_validators_hash != header.validators_hash:
            _log.info("validators change", height=header.height + 1, validators=len(self._core.validators))
            self._network.recheck_allowed()
        if self._subscribers:
            events = tuple(receipt.events for receipt in executed.receipts)
            block = CommittedBlock(header.height, executed.block_id, header.time_ms, executed.transactions, events)
            for callback in list(self._subscribers.values()):
                callback(block)

    def _on_dropped(self, tx_ids: tuple[Hash, ...]) -> None:
        for tx_id in tx_ids:
            self._counters["dropped"] += 1
            error = self._core.mempool.find_dropped(tx_id)
            for future in self._waiters.pop(tx_id, ()):
                if not future.done():
                    future.set_result(Outcome(tx_id, error))

    # — the network's side —

    def on_peer_up(self, key: PublicKey, height: int) -> None:
        """A peer has proven its key."""
        _log.info("peer up", peer=key.hex(), height=height)
        if self._replica is not None:
            self._replica.on_peer_up(key)
        self.tell(PeerUp(key, height))

    def on_peer_down(self, key: PublicKey, reason: str) -> None:
        """A peer is gone."""
        _log.info("peer down", peer=key.hex(), reason=reason)
        if self._replica is not None:
            self._replica.on_peer_down(key)
        self.tell(PeerDown(key))

    def on_message(self, key: PublicKey, message: PeerMessage) -> None:
        """A peer said something."""
        if isinstance(message, SnapshotRequest | SnapshotPart):
            if self._housekeeper is not None:
                self._housekeeper.on_message(key, message)
        elif not isinstance(message, DocumentBlockRequest | DocumentBlock):
            self.tell(MessageReceived(key, message))
        elif self._replica is not None:
            self._replica.on_message(key, message)

    # — the door's side (NodeService) —

    @property
    def reader(self) -> Reader:
        """Committed bytes."""
        return self._parts.store

    @property
    def table(self) -> TransactionTable:
        """Every transaction and event there is."""
        return self._parts.table

    @property
    def tree(self) -> StateTree:
        """The state tree of the committed head."""
        return self._core.chain.tree

    @property
    def core(self) -> Core:
        """The core, to be looked at."""
        return self._core

    def get_status(self) -> NodeStatus:
        """How this node stands."""
        return NodeStatus(
            moniker=self._parts.moniker,
            version=VERSION,
            public_key=self._parts.own_key,
            is_validator=self._is_signing(),
            is_syncing=self._core.is_syncing,
            round=self._core.round,
            peers=tuple(describe_peers(self._network)),
            mempool_transactions=len(self._core.mempool),
            mempool_bytes=self._core.mempool.size_bytes,
            counters={**self._counters, **self._count_peers()},
        )

    def _is_signing(self) -> bool:
        is_member = self._core.validators.find_index(self._parts.own_key) is not None
        return is_member and (self._core.watch is None or self._core.watch.may_sign)

    def _count_peers(self) -> dict[str, int]:
        refused = {f"peers_refused_{reason}": count for reason, count in self._network.refusals.items()}
        banned = sum(one.is_banned for one in self._network.standings())
        skew_ms = self._core.clock_skew_ms
        gauges = {} if skew_ms is None else {CLOCK_SKEW: skew_ms}
        return {**refused, "peers_banned": banned, "copies_left_out": self._core.intake.left_out, **gauges}

    async def submit(self, raws: Sequence[bytes], *, wait: Wait, timeout_ms: int) -> list[Outcome]:
        """Admit transactions, in order, each on its own; one outcome each, in order."""
        token = self._next_token
        self._next_token += 1
        self.tell(Submitted(token, tuple(raws)))
        stopping = tuple(Admission(None, Overloaded("node_is_stopping")) for _ in raws)
        admissions = self._answers.pop(token, stopping)
        for admission in admissions:
            if admission.error is not None:
                self._counters[f"refused_{admission.error.reason}"] += 1
        if wait is Wait.ADMITTED:
            return [Outcome(one.tx_id, one.error) for one in admissions]
        pairs = [(one, self._start_waiting(one)) for one in admissions]
        waiting = [future for _, future in pairs if future is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_ms / 1000)
        return [self._get_outcome(admission, future) for admission, future in pairs]

    def simulate(self, raw: bytes) -> tuple[Event, ...]:
        """Run the rules on what is committed and pending, and keep nothing. Raises ``Rejected``."""
        return self._core.simulate(raw, now_ms())

    def find_pending(self, tx_id: Hash) -> Transaction | None:
        """A transaction that waits for a block."""
        return self._core.mempool.find(tx_id)

    def list_pending(self, limit: int, *, after: int = 0) -> list[tuple[int, Transaction]]:
        """The first of those that wait, past a number of arrival."""
        return self._core.mempool.list_page(limit, after=after)

    def find_dropped(self, tx_id: Hash) -> Rejected | None:
        """Why a transaction that was admitted here is neither pending nor committed."""
        return self._core.mempool.find_dropped(tx_id)

    def subscribe(self, callback: Callable[[CommittedBlock], None]) -> Callable[[], None]:
        """Hear of every block from now on; the answer ends the subscription."""
        number = self._next_token
        self._next_token += 1
        self._subscribers[number] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(number, None)

        return unsubscribe

    def _start_waiting(self, admission: Admission) -> asyncio.Future[Outcome] | None:
        if admission.error is not None or admission.tx_id is None or len(self._waiters) >= WAITERS_MAX:
            return None
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        # A validator alone may have committed it before the submission returned.
        place = chain_store.find_transaction_place(self._parts.store, admission.tx_id)
        if place is None:
            self._waiters.setdefault(admission.tx_id, []).append(future)
        else:
            events = chain_store.get_receipt(self._parts.store, place, self._parts.table).events
            future.set_result(Outcome(admission.tx_id, None, place.height, place.index, events))
        return future

    def _get_outcome(self, admission: Admission, future: asyncio.Future[Outcome] | None) -> Outcome:
        if future is None:
            return Outcome(admission.tx_id, admission.error, timed_out=admission.error is None)
        if future.done():
            return future.result()
        future.cancel()
        assert admission.tx_id is not None
        waiters = self._waiters.get(admission.tx_id, [])
        if future in waiters:
            waiters.remove(future)
        if not waiters:
            self._waiters.pop(admission.tx_id, None)
        return Outcome(admission.tx_id, timed_out=True)


def open_store(store: Store, make_genesis_batch: Callable[[], dict[bytes, bytes | None]]) -> None:
    """Write the genesis batch into a store that holds nothing yet."""
    if chain_store.is_empty(store):
        store.write(make_genesis_batch(), sync=True)
