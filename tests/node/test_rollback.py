"""Going back to an earlier height: the state of then, the journal kept safe, nothing half-written after a kill."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from contracts_native.table import load_table
from ledger.errors import Rejected, RuleViolated
from ledger.storage import BLOCKS, CERTIFICATES, MemoryStore, Store, compute_prefix_end, format_height
from node import chain_store
from node.leveldb_store import WRITE_BUFFER_BYTES, LevelDbStore
from node.rollback import (
    ReplaceError,
    check_no_chain,
    finish_replacement,
    replace_store,
    roll_back,
    set_journal_aside,
    verify_snapshot,
)
from node.snapshot_files import SnapshotFile, write_snapshot_file
from node.verification import Verified, verify_store
from tests.node.recovery_chain import ShortCluster, copy_store, make_chain
from tests.simulator.checkers import check_agreement

MARK: Final = b"amark"
WRITE_BYTES: Final = 100_000
WRITES_OF_TWO_LOGS: Final = WRITE_BUFFER_BYTES // WRITE_BYTES + 10


@pytest.fixture(scope="module")
def net() -> ShortCluster:
    return make_chain(height=12)


def go_back(source: MemoryStore, net: ShortCluster, until: int) -> tuple[MemoryStore, list[Verified]]:
    target = MemoryStore()
    return target, list(roll_back(source, target, net.genesis, load_table(), until=until))


def test_the_store_is_as_it_was_at_that_height_to_the_byte() -> None:
    net = make_chain(height=7, seed=31)
    net.run_until(height=8)
    then = copy_store(net[0].store)
    height = chain_store.read_head_height(then)
    net.run_with_load(height=12)
    target, steps = go_back(copy_store(net[0].store), net, height)
    assert dict(target.scan(b"", b"\xff")) == dict(then.scan(b"", b"\xff"))
    assert [step.height for step in steps] == list(range(height + 1))
    assert all(step.is_executed for step in verify_store(target, net.genesis, load_table()))


def test_back_to_genesis_is_an_empty_chain(net: ShortCluster) -> None:
    target, _ = go_back(copy_store(net[0].store), net, 0)
    expected = chain_store.compute_genesis_batch(net.genesis, load_table())
    assert dict(target.scan(b"", b"\xff")) == expected


def test_a_node_that_was_rolled_back_fetches_the_blocks_again() -> None:
    net = make_chain(height=12, seed=32)
    net.crash(3)
    net[3].store, _ = go_back(copy_store(net[3].store), net, 5)
    net[3].lose_journal()
    net.restart(3)
    net.run_until(height=net[0].height + 2)
    check_agreement(net)


@pytest.mark.parametrize("until", [-1, 10_000])
def test_a_height_that_is_not_below_the_head_is_refused(net: ShortCluster, until: int) -> None:
    with pytest.raises(RuleViolated, match="height_not_below_head"):
        go_back(copy_store(net[0].store), net, until)


def test_a_block_that_does_not_verify_stops_it(net: ShortCluster) -> None:
    source = copy_store(net[0].store)
    source.write({CERTIFICATES + format_height(3): source.get(CERTIFICATES + format_height(4))})
    with pytest.raises(Rejected, match="certificate_of_another_block"):
        go_back(source, net, 5)


def test_without_the_first_blocks_it_begins_at_a_snapshot(net: ShortCluster, tmp_path: Path) -> None:
    whole = copy_store(net[0].store)
    past, _ = go_back(whole, net, 6)
    write_snapshot_file(tmp_path / "snapshot", past)
    file = SnapshotFile(tmp_path / "snapshot")
    source = copy_store(whole)
    source.write({chain_store.OLDEST_KEY: format_height(7)} | {BLOCKS + format_height(h): None for h in range(1, 7)})
    with pytest.raises(RuleViolated, match="blocks_not_kept"):
        go_back(source, net, 9)
    snapshot = (file, verify_snapshot(file, net.genesis, lambda: None))
    target = MemoryStore()
    list(roll_back(source, target, net.genesis, load_table(), until=9, snapshot=snapshot))
    expected, _ = go_back(whole, net, 9)
    for prefix in (b"s", b"n", b"x"):
        stop = compute_prefix_end(prefix)
        assert list(target.scan(prefix, stop)) == list(expected.scan(prefix, stop))
    with pytest.raises(RuleViolated, match="height_below_snapshot"):
        list(roll_back(source, MemoryStore(), net.genesis, load_table(), until=5, snapshot=snapshot))
    file.close()


def write_store(path: Path, mark: bytes) -> None:
    store = LevelDbStore(path)
    store.write({MARK: mark})
    store.close()


def read_mark(path: Path) -> bytes | None:
    store = LevelDbStore(path)
    mark = store.get(MARK)
    store.close()
    return mark


def test_a_fill_that_fails_leaves_store_and_journal_as_they_were(tmp_path: Path) -> None:
    write_store(tmp_path / "state", b"old")
    (tmp_path / "journal").write_bytes(b"frames")

    def fill(store: Store) -> None:
        store.write({MARK: b"half"})
        raise RuleViolated("no_good")

    with pytest.raises(RuleViolated, match="no_good"):
        replace_store(tmp_path / "state", fill, journal_path=tmp_path / "journal")
    assert read_mark(tmp_path / "state") == b"old"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["journal", "state"]


def test_a_power_cut_after_the_swap_leaves_the_new_store_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of the database that nobody synced are lost then, also one before that of the last, synced, write."""
    synced, sync = set[int](), os.fsync

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def fill(store: Store) -> None:
        for number in range(WRITES_OF_TWO_LOGS):
            store.write({MARK + format_height(number): bytes(WRITE_BYTES)}, sync=False)
        store.write({MARK: b"whole"}, sync=True)

    monkeypatch.setattr("node.files.os.fsync", note)
    replace_store(tmp_path / "state", fill)
    logs = list((tmp_path / "state").glob("*.log"))
    assert logs
    for log in logs:
        if log.stat().st_ino not in synced:
            log.write_bytes(b"")
    store = LevelDbStore(tmp_path / "state")
    assert store.get(MARK) == b"whole"
    assert all(store.get(MARK + format_height(number)) is not None for number in range(WRITES_OF_TWO_LOGS))
    store.close()


def test_the_journal_is_set_aside_and_every_one_of_them_is_kept(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for number in (1, 2):
        journal.write_bytes(b"%d" % number)
        replace_store(tmp_path / "state", lambda store: store.write({MARK: b"new"}), journal_path=journal)
        assert not journal.exists()
        assert (tmp_path / f"journal.aside-{number}").read_bytes() == b"%d" % number
    assert set_journal_aside(journal) is None
    assert read_mark(tmp_path / "state") == b"new"


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({"state": b"old", "state.new": b"half"}, b"old"),  # killed while it was filled
        ({"state": b"old", "state.ready": b"new"}, b"new"),  # whole, not yet in place
        ({"state.old": b"old", "state.ready": b"new"}, b"new"),  # between the two renames
        ({"state.old": b"old", "state": b"new"}, b"new"),  # in place, the old one not yet deleted
        ({"state": b"old", "state.old": b"older", "state.ready": b"new"}, b"new"),
    ],
)
def test_a_kill_at_any_point_of_the_swap_is_mended(tmp_path: Path, present: dict[str, bytes], expected: bytes) -> None:
    for name, mark in present.items():
        write_store(tmp_path / name, mark)
    finish_replacement(tmp_path / "state")
    assert read_mark(tmp_path / "state") == expected
    assert [one.name for one in tmp_path.iterdir()] == ["state"]


def test_a_home_with_a_chain_takes_no_snapshot(tmp_path: Path, net: ShortCluster) -> None:
    check_no_chain(tmp_path / "state")
    store = LevelDbStore(tmp_path / "state")
    store.write(chain_store.compute_genesis_batch(net.genesis, load_table()))
    store.close()
    with pytest.raises(ReplaceError, match="store_not_empty"):
        check_no_chain(tmp_path / "state")
