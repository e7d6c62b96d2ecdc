"""Questions that read the whole state: a thread answers them from a frozen store, and the node goes on meanwhile.

Touches the world (threads). One is answered at a time, a few wait, and when the node stops the one under way ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ledger.storage import Reader
from ledger.transaction import TransactionTable
from node.jsonrpc import OVERLOADED, Fault, make_fault
from node.leveldb_store import LevelDbStore
from node.methods import Method
from node.service import NodeService

LONG_READS: Final = frozenset({"chain_audit"})
LONG_READS_MAX: Final = 8  # one under way, the others wait


class ReadStopped(Exception):
    """The node stops: what was being read is of no use any more."""


class StoppableReader:
    """A reader for another thread, which every read can end."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._is_stopped = False

    def stop(self) -> None:
        """Let the next read raise ``ReadStopped``."""
        self._is_stopped = True

    def get(self, key: bytes) -> bytes | None:
        """As the reader's."""
        self._check()
        return self._reader.get(key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """As the reader's."""
        for pair in self._reader.scan(start, stop, reverse=reverse):
            self._check()
            yield pair

    def _check(self) -> None:
        if self._is_stopped:
            raise ReadStopped


@dataclass(frozen=True, slots=True)
class _FrozenService:
    """What a query uses of a service."""

    reader: Reader
    table: TransactionTable
    tree: None = None


class LongReads:
    """Of one server. ``stop`` it before the store is closed."""

    def __init__(self, service: NodeService) -> None:
        self._service = service
        self._turn = asyncio.Lock()
        self._count = 0
        self._reader: StoppableReader | None = None
        self._is_stopped = False

    async def answer(self, method: Method, arguments: dict[str, object]) -> object:
        """The answer of a method in ``LONG_READS``. Raises what it raises, or ``Fault`` (``questions_too_many``)."""
        if self._count >= LONG_READS_MAX:
            raise make_fault(OVERLOADED, "questions_too_many", f"at most {LONG_READS_MAX} of {method.name} at once")
        self._count += 1
        try:
            async with self._turn:
                return await self._read(method, arguments)
        finally:
            self._count -= 1

    async def stop(self) -> None:
        """End what is under way, and refuse what waits."""
        self._is_stopped = True
        if self._reader is not None:
            self._reader.stop()
        async with self._turn:
            pass

    async def _read(self, method: Method, arguments: dict[str, object]) -> object:
        if self._is_stopped:
            raise _make_stop_fault()
        store = self._service.reader
        if not isinstance(store, LevelDbStore):  # in memory, where only this thread may read
            return method.handle(self._service, **arguments)
        frozen = store.freeze()
        self._reader = StoppableReader(frozen)
        try:
            service = _FrozenService(self._reader, self._service.table)
            return await _run_in_thread(method, service, arguments)
        except ReadStopped:
            raise _make_stop_fault() from None
        finally:
            self._reader = None
            frozen.close()


async def _run_in_thread(method: Method, service: _FrozenService, arguments: dict[str, object]) -> object:
    """As ``to_thread``; a caller who is gone leaves only when the thread has, which still reads what is frozen."""
    work = asyncio.ensure_future(asyncio.to_thread(method.handle, service, **arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        raise


def _make_stop_fault() -> Fault:
    return make_fault(OVERLOADED, "node_stops", "ask another node")
