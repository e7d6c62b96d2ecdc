"""What a running node does beside the chain: forgets old blocks, makes snapshots, and gives them to peers who join.

Owns the snapshot file of a home and the thread that writes it; decides nothing. Touches the world.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ledger.errors import CorruptStore, Rejected
from ledger.primitives import Hash, PublicKey
from ledger.storage import Store
from node.errors import LocalError
from node.leveldb_store import FrozenReader, LevelDbStore
from node.logs import Log
from node.pruning import compute_line, iterate_prune
from node.snapshot_files import SnapshotFile, SnapshotFileError, write_snapshot_file
from p2p.messages import PeerMessage, SnapshotMessage, SnapshotPart, SnapshotRequest

_log = Log("housekeeping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What is wanted. ``retain_blocks`` None: keep all. ``snapshot_blocks`` None: make no snapshots."""

    retain_blocks: int | None = None
    snapshot_blocks: int | None = None  # one at every multiple of this height, so that all nodes have the same
    snapshot_path: Path | None = None


class Peers(Protocol):
    """What is used of the network."""

    def send(self, peer_key: PublicKey, message: PeerMessage) -> bool: ...


class Housekeeper:
    """Of one node; made in its event loop. ``stop`` it before the store is closed."""

    def __init__(self, upkeep: Upkeep, store: Store, peers: Peers) -> None:
        self._upkeep = upkeep
        self._store = store
        self._peers = peers
        self._file: SnapshotFile | None = None
        self._file_id: Hash | None = None
        self._writing: asyncio.Task[None] | None = None
        self._open()

    async def stop(self) -> None:
        """Wait for a snapshot that is being written, and let go of the file."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._file is not None:
            self._file.close()

    def tick(self) -> None:
        """About once a second: one small batch of pruning, not synced, as it can be done again. ``LocalError``."""
        if self._upkeep.retain_blocks is None:
            return
        line = compute_line(self._store, retain_blocks=self._upkeep.retain_blocks)
        batch = next(iterate_prune(self._store, line=line), None)
        if batch is not None:
            self._store.write(batch, sync=False)

    def on_block(self, height: int) -> None:
        """A block is durable. The store is frozen here and now, and written by a thread."""
        every, path = self._upkeep.snapshot_blocks, self._upkeep.snapshot_path
        if every is None or path is None or height % every or self._writing is not None:
            return
        if isinstance(self._store, LevelDbStore):
            self._writing = asyncio.get_running_loop().create_task(self._make(path, self._store.freeze()))

    def on_message(self, peer: PublicKey, message: SnapshotMessage) -> None:
        """A peer asks; an answer that nobody asked for is dropped."""
        if isinstance(message, SnapshotRequest):
            self._peers.send(peer, SnapshotPart(message.snapshot_id, message.index, self._read(message)))

    def _read(self, request: SnapshotRequest) -> bytes:
        if self._file is None or request.snapshot_id not in (None, self._file_id):
            return b""
        try:
            return self._file.manifest_bytes if request.snapshot_id is None else self._file.read_chunk(request.index)
        except LocalError as error:
            _log.warning("snapshot cannot be read", reason=error.reason, item=error.item)
            return b""

    async def _make(self, path: Path, frozen: FrozenReader) -> None:
        try:
            manifest = await asyncio.to_thread(write_snapshot_file, path, frozen, replace=True)
            _log.info("snapshot written", height=manifest.header.height, chunks=len(manifest.chunk_hashes))
            self._open()
        except (LocalError, Rejected, CorruptStore) as error:
            _log.warning("no snapshot written", error=error)  # the one before stays, and the node goes on
        finally:
            frozen.close()
            self._writing = None

    def _open(self) -> None:
        path = self._upkeep.snapshot_path
        if path is None:
            return
        try:
            file = SnapshotFile(path)
        except (SnapshotFileError, Rejected) as error:
            if not isinstance(error, SnapshotFileError) or error.reason != "snapshot_missing":
                _log.warning("snapshot cannot be read", error=error)
            return
        if self._file is not None:
            self._file.close()
        self._file, self._file_id = file, file.manifest.compute_id()
