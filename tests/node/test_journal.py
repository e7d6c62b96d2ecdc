"""The journal after a crash: a torn end is cut off, a damaged file stops the node, nothing synced is ever forgotten."""

from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path

import pytest

from node import journal as journal_module
from node.journal import SECTOR_BYTES, Journal, JournalCorrupt, JournalError, parse_journal


def write_journal(path: Path, *syncs: list[bytes]) -> list[int]:
    """Writes one record per list; gives the size of the file after each."""
    journal, frames = Journal.open(path)
    assert frames == []
    sizes = []
    for frames in syncs:
        for frame in frames:
            journal.append(frame)
        journal.sync()
        sizes.append(journal.size_bytes())
    journal.close()
    return sizes


def read_frames(path: Path) -> list[bytes]:
    journal, frames = Journal.open(path)
    journal.close()
    return frames


def test_synced_frames_come_back_in_order(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal", [b"vote 1"], [b"", b"vote 2"], [bytes(1000)])
    assert read_frames(tmp_path / "journal") == [b"vote 1", b"", b"vote 2", bytes(1000)]


def test_what_was_not_synced_is_not_there(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    journal.append(b"kept")
    journal.sync()
    journal.append(b"never sent")
    journal.close()
    assert read_frames(tmp_path / "journal") == [b"kept"]


def test_cut_at_every_byte_of_the_tail_the_records_before_stay_and_writing_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _, before, after = write_journal(path, [b"first"], [b"second"], [b"third a", b"third b"])
    whole = path.read_bytes()
    for cut in range(before, after):
        path.write_bytes(whole[:cut])
        journal, frames = Journal.open(path)
        assert frames == [b"first", b"second"]
        assert path.stat().st_size == before
        journal.append(b"again")
        journal.sync()
        journal.close()
        assert read_frames(path) == [b"first", b"second", b"again"]


def test_every_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write_journal(path, [b"first"], [b"second, the middle one"], [b"third"])
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            with pytest.raises(JournalCorrupt):
                parse_journal(bytes(damaged), name="journal")


def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first, _ = write_journal(path, [b"first"], [b"second"])
    damaged = bytearray(path.read_bytes())
    damaged[first - 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(JournalCorrupt, match="journal_damaged_in_middle") as refusal:
        Journal.open(path)
    assert str(path) in refusal.value.item
    assert path.read_bytes() == damaged


def test_sectors_that_never_arrived_are_a_torn_end() -> None:
    start, whole = make_large_record()
    for sector in range(start // SECTOR_BYTES, -(-len(whole) // SECTOR_BYTES)):
        missing = bytearray(whole)
        first, stop = max(start, sector * SECTOR_BYTES), min(len(whole), (sector + 1) * SECTOR_BYTES)
        missing[first:stop] = bytes(stop - first)
        assert parse_journal(bytes(missing), name="journal") == ([b"first"], start)


def test_a_file_that_grew_without_its_data_is_a_torn_end() -> None:
    start, whole = make_large_record()
    for arrived in (0, SECTOR_BYTES, 3 * SECTOR_BYTES):
        stop = max(start, arrived)
        torn = whole[:stop] + bytes(len(whole) - stop)
        assert parse_journal(torn, name="journal") == ([b"first"], start)


def test_a_damaged_last_record_is_not_taken_for_a_torn_one() -> None:
    start, whole = make_large_record()
    for place in range(start, len(whole), 37):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        with pytest.raises(JournalCorrupt, match="journal_damaged_at_end"):
            parse_journal(bytes(damaged), name="journal")


def make_large_record() -> tuple[int, bytes]:
    """A journal of a small record and one over several sectors, and where the second begins."""
    large = random.Random(7).randbytes(3_000)
    small = journal_module.MAGIC + journal_module.format_record([b"first"], is_restart=False)
    return len(small), small + journal_module.format_record([large], is_restart=False)


def test_a_restart_leaves_its_own_frames_only(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    journal.append(b"height 4")
    journal.sync()
    journal.append(b"not synced")
    journal.reset([b"height 5"])
    journal.append(b"vote of 5")
    journal.sync()
    journal.close()
    assert read_frames(tmp_path / "journal") == [b"height 5", b"vote of 5"]


def test_a_restart_cut_at_any_byte_is_whole_or_did_not_happen(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, _ = Journal.open(path)
    journal.append(b"height 4")
    journal.sync()
    before = journal.size_bytes()
    journal.reset([b"height 5", b"more"])
    journal.close()
    whole = path.read_bytes()
    for cut in range(before, len(whole) + 1):
        path.write_bytes(whole[:cut])
        expected = [b"height 5", b"more"] if cut == len(whole) else [b"height 4"]
        assert read_frames(path) == expected


def test_a_height_costs_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    monkeypatch.setattr(os, "fsync", synced.append)
    journal.reset()
    journal.sync()
    assert len(synced) == 1
    journal.close()


def test_a_large_journal_begins_a_new_file_at_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "JOURNAL_BYTES_MAX", 1_000)
    path = tmp_path / "journal"
    journal, _ = Journal.open(path)
    for height in range(20):
        journal.reset([b"height %d" % height])
        journal.append(bytes([height]) * 300)
        journal.sync()
        assert journal.size_bytes() == path.stat().st_size < 2_000
    with pytest.raises(JournalError, match="journal_locked"):  # the new file is locked as the old was
        Journal.open(path)
    journal.close()
    assert read_frames(path) == [b"height 19", bytes([19]) * 300]
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_that_was_never_named_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write_journal(path, [b"kept"])
    (tmp_path / "journal.new").write_bytes(b"half a fi")
    assert read_frames(path) == [b"kept"]


def test_a_full_disk_is_named_and_nothing_more_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    write_journal(path, [b"kept"])
    journal, _ = Journal.open(path)
    monkeypatch.setattr(os, "write", fail_as_full)
    journal.append(b"lost")
    with pytest.raises(JournalError, match="disk_full"):
        journal.sync()
    with pytest.raises(AssertionError):
        journal.append(b"another")
    monkeypatch.undo()
    journal.close()
    assert read_frames(path) == [b"kept"]


def fail_as_full(_descriptor: int, _data: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_another_kind_of_file_is_not_recognised(tmp_path: Path) -> None:
    for content in (b"", b"wpjr", b"wpjrnl2\n", b"SQLite format 3\0"):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(JournalCorrupt, match="journal_not_recognised"):
            Journal.open(tmp_path / "other")


def test_a_directory_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="journal_not_usable"):
        Journal.open(tmp_path)


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    with pytest.raises(JournalError, match="journal_locked"):
        Journal.open(tmp_path / "journal")
    journal.close()
    journal.close()
    assert read_frames(tmp_path / "journal") == []


@pytest.mark.parametrize("body", [b"\0", b"\0\0\0\5four", b"\0\0\0\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_record_whose_frames_do_not_fill_it_is_refused_though_its_sums_are_right(body: bytes) -> None:
    summed = struct.pack(">IBI", len(body), 1, zlib.crc32(body))
    record = summed + zlib.crc32(summed).to_bytes(4, "big") + body + b"\xa5"
    with pytest.raises(JournalCorrupt, match="journal_record_malformed: name at byte 8"):
        parse_journal(b"wpjrnl1\n" + record, name="name")
