"""Beside the chain: a running node forgets a little at a time, and gives its snapshot to whoever asks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from ledger.primitives import Hash, PublicKey
from ledger.storage import format_height
from node import chain_store, pruning
from node.housekeeping import Housekeeper, Upkeep
from node.leveldb_store import LevelDbStore
from node.snapshot_files import SnapshotFile, write_snapshot_file
from node.snapshots import iterate_chunks
from p2p.messages import PeerMessage, SnapshotPart, SnapshotRequest
from tests.node.recovery_chain import LIFETIME_BLOCKS, copy_store, make_chain
from tests.simulator.cluster import make_key

PEER: Final = make_key("peer").public_key


class Sent:
    """A network that remembers what it is to send."""

    def __init__(self) -> None:
        self.parts: list[SnapshotPart] = []

    def send(self, peer_key: PublicKey, message: PeerMessage) -> bool:
        assert peer_key == PEER
        assert isinstance(message, SnapshotPart)
        self.parts.append(message)
        return True


def test_a_tick_forgets_a_few_blocks_until_the_line_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "EVIDENCE_BLOCKS_MAX", 2)
    monkeypatch.setattr(pruning, "HEIGHTS_PER_BATCH", 3)
    store = copy_store(make_chain(height=16)[0].store)
    line = chain_store.read_head_height(store) + 1 - LIFETIME_BLOCKS
    keeper = Housekeeper(Upkeep(retain_blocks=1), store, Sent())
    oldest = []
    for _ in range(6):
        keeper.tick()
        oldest.append(chain_store.read_oldest_height(store))
    assert oldest[0] == 4
    assert oldest[-1] == line
    Housekeeper(Upkeep(), store, Sent()).tick()
    assert chain_store.read_oldest_height(store) == line


def test_without_a_snapshot_it_says_that_it_has_none() -> None:
    sent = Sent()
    keeper = Housekeeper(Upkeep(), copy_store(make_chain(height=2)[0].store), sent)
    keeper.on_message(PEER, SnapshotRequest(None, 0))
    keeper.on_message(PEER, SnapshotPart(None, 0, b"unasked"))
    assert sent.parts == [SnapshotPart(None, 0, b"")]


async def test_every_part_of_its_snapshot_is_given_and_of_no_other(tmp_path: Path) -> None:
    store, path, sent = copy_store(make_chain(height=8)[0].store), tmp_path / "snapshot", Sent()
    manifest = write_snapshot_file(path, store)
    keeper = Housekeeper(Upkeep(snapshot_path=path), store, sent)
    file = SnapshotFile(path)
    snapshot_id = manifest.compute_id()
    keeper.on_message(PEER, SnapshotRequest(None, 0))
    for index in range(len(manifest.chunk_hashes) + 1):
        keeper.on_message(PEER, SnapshotRequest(snapshot_id, index))
    keeper.on_message(PEER, SnapshotRequest(Hash(bytes(32)), 0))
    data = [part.data for part in sent.parts]
    assert data == [file.manifest_bytes, *iterate_chunks(store), b"", b""]
    file.close()
    await keeper.stop()


async def test_a_snapshot_is_of_the_height_at_which_it_was_begun(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path / "state")
    source = make_chain(height=8)[0].store
    store.write(dict(source.scan(b"", b"\xff")))
    head = chain_store.read_head_height(store)
    keeper = Housekeeper(Upkeep(snapshot_blocks=head, snapshot_path=tmp_path / "snapshot"), store, Sent())
    keeper.on_block(head - 1)
    keeper.on_block(head)
    store.write({chain_store.HEAD_KEY: format_height(1)})  # the chain goes on meanwhile
    await keeper.stop()
    file = SnapshotFile(tmp_path / "snapshot")
    assert file.manifest.header == chain_store.get_header(source, head)
    file.close()
    store.close()
