"""The LevelDB store keeps the promises of the Store port, and says clearly why it cannot be opened."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.errors import CorruptStore
from ledger.storage import Changes, MemoryStore, compute_prefix_end
from node.leveldb_store import CACHE_BYTES, WRITE_BUFFER_BYTES, LevelDbStore, StoreError

KEYS = st.binary(min_size=1, max_size=3)
BATCHES = st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=8), max_size=6), max_size=5)


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path / "chain")
    store.write({b"a": b"1", b"b": b"2"})
    store.write({b"a": None, b"c": b""})
    store.close()

    again = LevelDbStore(tmp_path / "chain")
    assert [again.get(key) for key in (b"a", b"b", b"c", b"d")] == [None, b"2", b"", None]
    again.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, start=KEYS, stop=KEYS, reverse=st.booleans())
def test_it_answers_as_the_store_in_memory_does(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Changes], start: bytes, stop: bytes, reverse: bool
) -> None:
    memory, disk = MemoryStore(), LevelDbStore(tmp_path_factory.mktemp("chain"))
    for changes in batches:
        memory.write(changes)
        disk.write(changes, sync=False)
    everything = (b"", b"\xff" * 4)
    assert list(disk.scan(*everything)) == list(memory.scan(*everything))
    assert list(disk.scan(start, stop, reverse=reverse)) == list(memory.scan(start, stop, reverse=reverse))
    assert disk.get(start) == memory.get(start)
    disk.close()


def test_a_scan_shows_what_was_there_when_it_was_asked_for(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path)
    store.write({b"k1": b"old", b"k2": b"old"})
    entries = store.scan(b"k", compute_prefix_end(b"k"))
    store.write({b"k1": b"new", b"k3": b"new"})
    assert list(entries) == [(b"k1", b"old"), (b"k2", b"old")]
    store.close()


def test_a_batch_that_cannot_be_built_leaves_nothing_behind(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path)
    wrong: Any = {b"a": b"1", b"b": "a text, not bytes"}
    with pytest.raises(TypeError):
        store.write(wrong)
    assert store.get(b"a") is None
    store.close()


def test_a_second_holder_is_refused_and_the_first_keeps_its_lock(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path)
    for _ in range(2):
        with pytest.raises(StoreError, match="store_locked") as refusal:
            LevelDbStore(tmp_path)
        assert str(tmp_path) in refusal.value.item
    store.close()
    LevelDbStore(tmp_path).close()


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "chain").write_text("not a directory")
    with pytest.raises(StoreError, match="store_not_usable"):
        LevelDbStore(tmp_path / "chain")


def test_a_damaged_manifest_is_called_corrupt_and_the_lock_is_released(tmp_path: Path) -> None:
    LevelDbStore(tmp_path).close()
    current = (tmp_path / "CURRENT").read_bytes()
    (tmp_path / "CURRENT").write_bytes(b"junk")
    with pytest.raises(StoreError, match="store_corrupt"):
        LevelDbStore(tmp_path)
    (tmp_path / "CURRENT").write_bytes(current)
    LevelDbStore(tmp_path).close()


def test_a_flipped_byte_in_a_table_is_never_read_as_data(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path)
    store.write({b"key%03d" % i: bytes([i]) * 50 for i in range(100)})
    store.compact()
    store.close()
    (table,) = tmp_path.glob("*.ldb")
    data = bytearray(table.read_bytes())
    data[20] ^= 1
    table.write_bytes(data)

    store = LevelDbStore(tmp_path)
    with pytest.raises(CorruptStore, match="store_corrupt"):
        store.get(b"key000")
    with pytest.raises(CorruptStore, match="store_corrupt"):
        list(store.scan(b"k", b"l"))
    store.close()


def test_a_batch_torn_by_a_power_cut_is_dropped_and_the_one_before_stays(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path)
    store.write({b"height": b"1"})
    store.write({b"height": b"2", b"block": b"x" * 100})
    store.close()
    (log,) = tmp_path.glob("*.log")
    log.write_bytes(log.read_bytes()[:-50])

    store = LevelDbStore(tmp_path)
    assert (store.get(b"height"), store.get(b"block")) == (b"1", None)
    store.close()


def test_compacting_gives_back_the_room_of_replaced_values(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path)
    for round_ in range(4):
        store.write({b"k%d" % i: bytes([round_, i]) * 2_000 for i in range(50)}, sync=False)
    before = store.size_bytes()
    store.write({b"k%d" % i: None for i in range(50)})
    store.compact()
    assert store.size_bytes() < before
    assert store.get(b"k1") is None
    store.close()


def test_what_leveldb_holds_in_memory_stays_within_its_cache_and_two_buffers(tmp_path: Path) -> None:
    store, random = LevelDbStore(tmp_path), Random(7)
    held = []
    for round_ in range(8):
        store.write({b"%d %d" % (round_, at): random.randbytes(100_000) for at in range(70)}, sync=False)
        assert sum(len(value) for _, value in store.scan(b"0", b"9")) == (round_ + 1) * 70 * 100_000
        held.append(store.memory_bytes())
    store.close()
    assert held[0] > 70 * 100_000
    assert max(held) < CACHE_BYTES + 3 * WRITE_BUFFER_BYTES  # a batch goes into a buffer whole


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path)
    store.close()
    store.close()
