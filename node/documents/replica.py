"""A node's copies of documents: kept for the participants that it works for, fetched from peers, served to peers.

Touches the world (threads for the store). Everything here is ciphertext; a block of a peer is hashed before it is kept,
and a document is pinned only when the whole of it is here. Losing a disk loses no document that another node keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import CancelledError
from functools import partial
from typing import Final, Protocol, TypeVar, cast

from contracts_native.documents import (
    DOCUMENTS,
    VERSIONS,
    Document,
    DocumentAnchored,
    DocumentGranted,
    DocumentRetired,
    DocumentStatus,
    can_read,
)
from ledger.errors import Malformed, Rejected
from ledger.primitives import Address, PublicKey
from ledger.receipt import Event
from ledger.state import State
from ledger.storage import Reader
from node.documents.cid import Cid, decode_cid
from node.documents.reading import walk
from node.documents.store import ABSENT, DocumentStore, StoreFailed
from node.documents.workers import StoreWorkers
from node.logs import Log
from p2p.messages import DocumentBlock, DocumentBlockRequest, DocumentMessage

ANSWER_SECONDS: Final = 10  # for one block, of a peer that has it
COPY_SECONDS: Final = 60  # waited for one peer's blocks of a document, on top of what their size allows
COPY_BYTES_PER_SECOND: Final = 256 * 1024  # slower, and the next document has its turn first
STOP_SECONDS: Final = 5
RETRY_SECONDS: Final = 20  # until what no peer had is asked for again
TASKS_MAX: Final = 64
WANTED_BYTES_MAX: Final = 64 * 1024 * 1024 * 1024  # since the start; whom we work for can be granted anything
BLOCKS_PER_MINUTE: Final = 4_500  # below what a peer's budget lets us ask
BLOCK_SECONDS_LEAST: Final = 60 / BLOCKS_PER_MINUTE

_log = Log("documents")
T = TypeVar("T")


class Peers(Protocol):
    """Who can be asked."""

    def send(self, peer_key: PublicKey, message: DocumentMessage, /) -> bool:
        """Queue a message; False when the peer is not there or has too much to do."""

    def report(self, peer_key: PublicKey, reason: str, /) -> None:
        """Lower a peer's score."""


class Replica:
    """Fetches, one document at a time, and serves. ``keep_for``: whose readable documents are kept here."""

    def __init__(self, store: DocumentStore, peers: Peers, *, keep_for: Collection[Address]) -> None:
        self._store = store
        self._peers = peers
        self._keep_for = frozenset(keep_for)
        self._workers = StoreWorkers()
        self._loop = asyncio.get_running_loop()
        self._connected: list[PublicKey] = []
        self._due: dict[Cid, int] = {}  # what is to be fetched → its size in bytes
        self._wanted_bytes = 0
        # Anyone can anchor another's CID and retire it: content is only forgotten when no document needs it any more.
        self._uses: Counter[Cid] = Counter()  # → in how many versions of documents that are not retired
        self._dropped: set[Cid] = set()
        self._answers: dict[tuple[PublicKey, Cid], asyncio.Future[bytes | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Future[object]] = set()
        self._is_stopping = False
        self._news = asyncio.Event()

    @property
    def due(self) -> int:
        """How many documents are still to be fetched."""
        return len(self._due)

    def start(self, reader: Reader) -> None:
        """Look through what is committed, and begin to fetch what is not here."""
        state = State(reader)
        for key, document in DOCUMENTS.scan(state):
            document_id = key[len(DOCUMENTS.prefix) :]
            cids = _list_cids(state, document_id, document)
            if document.status is DocumentStatus.ACTIVE:
                self._uses.update(cids)
                self._want(state, document_id, document)
            else:
                self._dropped.update(cids)
        self._spawn(self._fetch_always())

    async def stop(self) -> None:
        """End every task; a document that is under way is begun again after the next start."""
        self._is_stopping = True
        for future in self._answers.values():
            future.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._store.close()
        if self._calls:  # a thread that is in the middle of a block ends with it
            await asyncio.wait(self._calls, timeout=STOP_SECONDS)
        self._workers.close()

    def on_events(self, reader: Reader, events: Collection[Event]) -> None:
        """Hear what a block did."""
        state = State(reader)
        for one in events:
            if isinstance(one, DocumentAnchored):
                self._uses[decode_cid(one.cid)] += 1
            if isinstance(one, DocumentAnchored | DocumentGranted) and not self._keep_for.isdisjoint(one.readers):
                self._want(state, one.document, DOCUMENTS.get(state, one.document))
            if isinstance(one, DocumentRetired):
                cids = _list_cids(state, one.document, DOCUMENTS.get(state, one.document))
                for cid in cids:
                    self._uses[cid] -= 1
                    if not self._uses[cid]:
                        del self._uses[cid]
                self._dropped.update(cids)
                self._news.set()

    def on_peer_up(self, peer: PublicKey) -> None:
        """A peer can be asked."""
        self._connected.append(peer)
        self._news.set()

    def on_peer_down(self, peer: PublicKey) -> None:
        """A peer will not answer any more."""
        with contextlib.suppress(ValueError):
            self._connected.remove(peer)
        for (asked, _), future in self._answers.items():
            if asked == peer and not future.done():
                future.set_result(None)

    def on_message(self, peer: PublicKey, message: DocumentMessage) -> None:
        """A peer asks for a block, or answers."""
        try:
            cid = decode_cid(message.cid)
        except Malformed:
            self._peers.report(peer, "document_cid_invalid")
            return
        if isinstance(message, DocumentBlockRequest):
            if not self._spawn(self._serve(peer, cid)):
                self._peers.send(peer, DocumentBlock(bytes(cid), None))
            return
        future = self._answers.get((peer, cid))
        if future is not None and not future.done():  # else it came too late
            future.set_result(message.data)

    def _want(self, state: State, document_id: bytes, document: Document) -> None:
        if document.status is not DocumentStatus.ACTIVE:
            return
        for number in range(1, document.version + 1):
            if any(can_read(state, document_id, number, reader) for reader in self._keep_for):
                version = VERSIONS.get(state, document_id, number)
                cid = decode_cid(version.cid)
                if cid in self._due:
                    continue
                if self._wanted_bytes + version.size_bytes > WANTED_BYTES_MAX:
                    _log.warning("document not kept", cid=str(cid), reason="wanted_bytes_max")
                    continue
                self._wanted_bytes += version.size_bytes
                self._due[cid] = version.size_bytes
        self._news.set()

    async def _forget_dropped(self) -> None:
        """Nobody has a key of these any more: let the store forget them at its next garbage collection."""
        dropped = {cid for cid in self._dropped if self._uses[cid] <= 0}
        for cid in dropped:
            self._due.pop(cid, None)
        if dropped:
            for cid in dropped.intersection(await self._run(self._store.list_pins)):
                await self._run(partial(self._store.unpin, cid))
        self._dropped -= dropped

    async def _serve(self, peer: PublicKey, cid: Cid) -> None:
        try:
            data: bytes | None = await self._run(lambda: next(self._store.open_blocks(cid)).data)
        except (StoreFailed, Rejected):
            data = None
        self._peers.send(peer, DocumentBlock(bytes(cid), data))

    async def _fetch_always(self) -> None:
        while True:
            self._news.clear()
            try:
                await self._forget_dropped()
            except StoreFailed as error:  # tried again when the next document is retired, or after a start
                _log.warning("store not usable", reason=error.reason, item=error.item)
            for cid, size in list(self._due.items()):
                if cid in self._due and await self._fetch(cid, size):
                    self._due.pop(cid, None)
            with contextlib.suppress(TimeoutError):
                # What no peer had is asked for again later, or when something is new.
                await asyncio.wait_for(self._news.wait(), RETRY_SECONDS if self._due else None)

    async def _fetch(self, cid: Cid, size: int) -> bool:
        """Whether a document is here now, whole and pinned."""
        try:
            if cid in await self._run(self._store.list_pins):
                return True
        except StoreFailed as error:
            _log.warning("store not usable", reason=error.reason, item=error.item)
            return False
        for peer in list(self._connected):
            try:
                await self._run(partial(self._copy, peer, cid, size))
            except (StoreFailed, Rejected) as error:
                self._judge(peer, cid, error)
                continue
            _log.info("document kept", cid=str(cid), size_bytes=size, peer=peer.hex())
            return True
        return False

    def _judge(self, peer: PublicKey, cid: Cid, error: StoreFailed | Rejected) -> None:
        _log.debug("document not fetched", cid=str(cid), peer=peer.hex(), reason=error.reason)
        if error.reason in ("block_hash_wrong", "block_too_large"):
            self._peers.report(peer, "document_block_wrong")

    def _copy(self, peer: PublicKey, cid: Cid, size: int) -> None:
        """Runs in a thread: take a document from a peer, block by block, parents first, and pin it.

        What an earlier attempt brought is here already. A peer that answers slowly does not hold up other documents.
        """
        left_seconds: float = COPY_SECONDS
        is_begun = (
            self._find_block(cid) is not None
        )  # parents come first; and a daemon may search long for what it lacks

        def get_block(wanted: Cid) -> bytes:
            nonlocal left_seconds
            here = self._find_block(wanted) if is_begun else None
            if here is not None:
                return here
            if left_seconds <= 0:
                raise StoreFailed("peer_too_slow", wanted)
            started = self._loop.time()
            data = self._fetch_block(peer, wanted)
            left_seconds += len(data) / COPY_BYTES_PER_SECOND - (self._loop.time() - started)
            return data

        blocks = (visit.block for visit in walk(get_block, cid, size_max=size))
        self._store.put_blocks(cid, blocks, size_max=size)

    def _find_block(self, cid: Cid) -> bytes | None:
        try:
            return next(self._store.open_blocks(cid)).data
        except StoreFailed as error:
            if error.reason in ABSENT:
                return None
            raise

    def _fetch_block(self, peer: PublicKey, cid: Cid) -> bytes:
        answer = asyncio.run_coroutine_threadsafe(self._ask(peer, cid), self._loop)
        try:
            data = answer.result(2 * ANSWER_SECONDS)
        except (CancelledError, TimeoutError):  # the node stops
            data = None
        if data is None:
            raise StoreFailed("block_absent", cid)
        return data

    async def _ask(self, peer: PublicKey, cid: Cid) -> bytes | None:
        await asyncio.sleep(BLOCK_SECONDS_LEAST)
        if self._is_stopping:
            return None
        future: asyncio.Future[bytes | None] = self._loop.create_future()
        self._answers[peer, cid] = future
        try:
            if not self._peers.send(peer, DocumentBlockRequest(bytes(cid))):
                return None
            return await asyncio.wait_for(future, ANSWER_SECONDS)
        except TimeoutError:
            return None
        finally:
            del self._answers[peer, cid]

    async def _run(self, call: Callable[[], T]) -> T:
        """A call in a thread. Who is cancelled meanwhile leaves it to its end, which ``stop`` awaits."""
        future = asyncio.ensure_future(self._workers.run(call))
        self._calls.add(cast("asyncio.Future[object]", future))
        future.add_done_callback(self._forget_call)
        return await asyncio.shield(future)

    def _forget_call(self, future: asyncio.Future[T]) -> None:
        self._calls.discard(cast("asyncio.Future[object]", future))
        if not future.cancelled():
            future.exception()  # has been seen, whether or not anyone still waits

    def _spawn(self, work: Coroutine[None, None, None]) -> bool:
        """Begin a task; False when too many are under way."""
        if len(self._tasks) >= TASKS_MAX:
            work.close()
            return False
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True


def _list_cids(state: State, document_id: bytes, document: Document) -> list[Cid]:
    """The CIDs of all versions."""
    return [decode_cid(VERSIONS.get(state, document_id, number).cid) for number in range(1, document.version + 1)]
