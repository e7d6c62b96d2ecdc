"""The way into a chain by a snapshot from peers: connect, fetch, check, write, disconnect; then the node starts.

Owns the spool file of the chunks on their way, and the short-lived network that fetches them. Touches the world;
whom to ask and whom to believe is decided in `state_sync.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from ledger.errors import Rejected
from ledger.genesis import GenesisDocument
from ledger.primitives import PublicKey
from node.errors import LocalError
from node.logs import Log
from node.rollback import import_snapshot
from node.snapshot_files import SnapshotFile, SpoolFile
from node.state_sync import Ask, Complete, Keep, Liar, StateSync, Step
from p2p.messages import PeerMessage, SnapshotPart
from p2p.network import Network, NetworkHandler

TICK_SECONDS: Final = 0.2
SILENCE_SECONDS: Final = 120  # without a chunk or an agreed offer: nobody has what we need
SPOOL_SUFFIX: Final = ".joining"

_log = Log("joining")


class JoinError(LocalError):
    """No snapshot was to be had. Reasons: ``snapshot_not_offered``."""


class MakeNetwork(Protocol):
    """Makes the network of a home, with this handler."""

    def __call__(self, handler: NetworkHandler) -> Network: ...


class Joiner:
    """Fetches one snapshot into ``store_path``, where there is no chain yet."""

    def __init__(self, document: GenesisDocument, store_path: Path, make_network: MakeNetwork) -> None:
        self._document = document
        self._store_path = store_path
        self._spool_path = store_path.with_name(store_path.name + SPOOL_SUFFIX)
        self._sync = StateSync(document)
        self._network = make_network(self)
        self._spool: SpoolFile | None = None
        self._progress_s = time.monotonic()
        self._is_done = asyncio.Event()
        self._error: LocalError | None = None

    async def run(self) -> None:
        """Returns when the store is written. Raises ``LocalError``, ``OSError`` when the address cannot be bound."""
        await self._network.start()
        try:
            while not self._is_done.is_set():
                self._guard(lambda: self._perform(self._sync.tick(_now_ms())))
                if time.monotonic() - self._progress_s > SILENCE_SECONDS:
                    raise JoinError("snapshot_not_offered", "no more than the faulty ones agree on a snapshot")
                try:
                    await asyncio.wait_for(self._is_done.wait(), TICK_SECONDS)
                except TimeoutError:
                    continue
            if self._error is not None:
                raise self._error
        finally:
            await self._network.stop()
            self._drop_spool()

    def on_peer_up(self, key: PublicKey, height: int) -> None:
        """A peer has proven its key."""
        _log.info("peer up", peer=key.hex(), height=height)
        self._perform(self._sync.note_peer(key))

    def on_peer_down(self, key: PublicKey, reason: str) -> None:
        """A peer is gone."""
        _log.info("peer down", peer=key.hex(), reason=reason)
        self._perform(self._sync.forget_peer(key))

    def on_message(self, key: PublicKey, message: PeerMessage) -> None:
        """Only snapshots are of interest yet; the rest comes again when the node runs."""
        if isinstance(message, SnapshotPart):
            self._guard(lambda: self._perform(self._sync.take(key, message, _now_ms())))

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            act()
        except LocalError as error:
            self._error = error
            self._is_done.set()

    def _perform(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Ask(peer, request):
                    self._network.send(peer, request)
                case Liar(peer, reason, item):
                    _log.warning("peer lied about a snapshot", peer=peer.hex(), reason=reason, item=item)
                    self._network.report(peer, reason)
                case Keep(index, chunk):
                    if self._spool is None:
                        self._spool = SpoolFile(self._spool_path)
                    self._spool.put(index, chunk)
                    self._progress_s = time.monotonic()
                case Complete():
                    self._write(step)

    def _write(self, complete: Complete) -> None:
        assert self._spool is not None
        self._spool.finish(complete.manifest)
        self._spool = None
        file = SnapshotFile(self._spool_path)
        try:
            import_snapshot(file, self._store_path, self._document, lambda: None)
        except Rejected as error:
            self._perform(self._sync.refuse_whole(error))
        else:
            _log.info("snapshot taken", height=complete.manifest.header.height)
            self._is_done.set()
        finally:
            file.close()

    def _drop_spool(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._spool_path.unlink(missing_ok=True)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
