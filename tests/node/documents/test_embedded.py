"""The embedded store: the contract, Kubo's layout, and no document lost to a power cut, a full disk or a rotten bit."""

from __future__ import annotations

import base64
import io
import multiprocessing
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from pathlib import Path

import pytest

from node.documents.cid import MULTIHASH_PREFIX, Cid, format_cid
from node.documents.disk import Disk
from node.documents.embedded import EmbeddedStore
from node.documents.store import StoreFailed
from tests.node.documents.contract import Factory, StoreContract
from tests.node.documents.power import FailingDisk, FragileDisk, KilledDisk, PowerCut, QuickDisk
from tests.node.documents.samples import SIZE_MAX, Pattern, make_blocks, make_content

SEEDS = (("old", 600_000), ("new", 524_289), ("gone", 300_000), ("copy", 270_000))
OLD, NEW, GONE, COPY = (make_content(size, seed) for seed, size in SEEDS)


@pytest.fixture
def make_store(tmp_path: Path) -> Factory:
    return lambda: EmbeddedStore(tmp_path / "store", disk=QuickDisk())


class TestContract(StoreContract):
    """The embedded store keeps every promise."""


def list_blocks(root: Path) -> list[Path]:
    return sorted((root / "blocks").glob("*/*"))


def find_file(root: Path, cid: Cid) -> Path:
    name = base64.b32encode(MULTIHASH_PREFIX + cid.digest).decode().rstrip("=")
    return root / "blocks" / name[-3:-1] / f"{name}.data"


def test_blocks_lie_where_kubo_looks_for_them(tmp_path: Path) -> None:
    EmbeddedStore(tmp_path).put(io.BytesIO(b"hello world"), size_max=11)
    name = "CIQLSTJHXGJU2PQIUUXFFV62PWV7VREE57RXUU4A52IIR55M4LX432I"
    assert [path.relative_to(tmp_path).as_posix() for path in list_blocks(tmp_path)] == [f"blocks/32/{name}.data"]
    assert (tmp_path / "blocks" / "32" / f"{name}.data").read_bytes() == b"hello world"
    assert (tmp_path / "blocks" / "SHARDING").read_text() == "/repo/flatfs/shard/v1/next-to-last/2\n"


def test_a_store_opened_again_has_what_it_had(make_store: Factory) -> None:
    cid = make_store().put(io.BytesIO(OLD), size_max=SIZE_MAX)
    assert make_store().list_pins() == [cid]
    assert b"".join(make_store().open(cid)) == OLD


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda _: b""])
def test_a_damaged_block_is_never_served_and_a_new_put_heals_it(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    store = EmbeddedStore(tmp_path)
    cid = store.put(io.BytesIO(OLD), size_max=SIZE_MAX)
    for path in list_blocks(tmp_path):
        path.write_bytes(change(path.read_bytes()))
    assert not store.has(cid)
    with pytest.raises(StoreFailed, match="block_hash_wrong"):
        list(store.open(cid))
    assert store.put(io.BytesIO(OLD), size_max=SIZE_MAX) == cid
    assert b"".join(store.open(cid)) == OLD


def test_garbage_collection_removes_nothing_while_a_pinned_tree_cannot_be_read(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    cid = store.put(io.BytesIO(OLD), size_max=SIZE_MAX)
    store.unpin(store.put(io.BytesIO(GONE), size_max=SIZE_MAX))
    root = find_file(tmp_path, cid)
    data = root.read_bytes()
    before = list_blocks(tmp_path)
    for damaged in (b"", data[:-1]):
        root.write_bytes(damaged)
        with pytest.raises(StoreFailed, match="block_hash_wrong"):
            store.collect_garbage()
    root.unlink()
    with pytest.raises(StoreFailed, match="block_absent"):
        store.collect_garbage()
    root.write_bytes(data)
    assert list_blocks(tmp_path) == before


def test_a_pin_that_cannot_be_read_stops_garbage_collection(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    store.put(io.BytesIO(OLD), size_max=SIZE_MAX)
    (tmp_path / "pins" / "README").touch()
    with pytest.raises(StoreFailed, match=r"disk_failed.*README"):
        store.collect_garbage()


def test_files_that_are_no_blocks_stay(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    store.unpin(store.put(io.BytesIO(GONE), size_max=SIZE_MAX))
    directory = list_blocks(tmp_path)[0].parent
    strangers = [directory / name for name in ("note.txt", "A" * 55 + ".data", "1" * 55 + ".data", "CIQ.data")]
    for path in strangers:
        path.touch()
    assert store.collect_garbage() == 3
    assert list_blocks(tmp_path) == sorted(strangers)


def test_a_directory_that_holds_other_things_is_never_taken_for_a_store(tmp_path: Path) -> None:
    """Least of all a daemon's own repository, where a garbage collection would remove what only the daemon pins."""
    store = EmbeddedStore(tmp_path / "kubo")
    store.unpin(store.put(io.BytesIO(OLD), size_max=SIZE_MAX))
    (tmp_path / "kubo" / "pins").rmdir()
    EmbeddedStore(tmp_path / "kubo")  # one of ours that lost power while it was made
    (tmp_path / "kubo" / "pins").rmdir()
    (tmp_path / "kubo" / "config").touch()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    for name in ("kubo", "home", "file"):
        with pytest.raises(StoreFailed, match=f"store_directory_foreign: .*/{name}"):
            EmbeddedStore(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_another_layout_of_blocks_is_refused(tmp_path: Path) -> None:
    EmbeddedStore(tmp_path)
    (tmp_path / "blocks" / "SHARDING").write_text("/repo/flatfs/shard/v1/next-to-last/3\n")
    with pytest.raises(StoreFailed, match=r"store_directory_foreign.*SHARDING"):
        EmbeddedStore(tmp_path)


class MeetingDisk(Disk):
    """Stops at its first rename until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def rename(self, source: Path, target: Path) -> None:
        self.reached.set()
        assert self.go_on.wait(10)
        super().rename(source, target)


def test_garbage_is_not_collected_while_a_document_is_being_stored(tmp_path: Path) -> None:
    EmbeddedStore(tmp_path)
    disk = MeetingDisk()
    putting = threading.Thread(
        target=lambda: EmbeddedStore(tmp_path, disk=disk).put(io.BytesIO(NEW), size_max=SIZE_MAX)
    )
    putting.start()
    assert disk.reached.wait(10)
    with pytest.raises(StoreFailed, match="store_busy"):
        EmbeddedStore(tmp_path).collect_garbage()
    disk.go_on.set()
    putting.join(10)
    assert EmbeddedStore(tmp_path).collect_garbage() == 0
    assert EmbeddedStore(tmp_path).list_pins() == [make_blocks(NEW)[-1].cid]


def put_many(root: Path, name: str, count: int) -> None:
    """A process of its own: stores documents that share blocks with others', and gives up each but the last."""
    store = EmbeddedStore(root, disk=QuickDisk())
    for number in range(count):
        mine = store.put(io.BytesIO(OLD + name.encode() + bytes([number])), size_max=SIZE_MAX)
        assert b"".join(store.open(mine)).startswith(OLD)
        if number < count - 1:
            store.unpin(mine)


def test_processes_share_a_store_while_garbage_is_collected(tmp_path: Path) -> None:
    names, context = ("a", "b", "c"), multiprocessing.get_context("spawn")
    store = EmbeddedStore(tmp_path, disk=QuickDisk())
    with ProcessPoolExecutor(len(names), mp_context=context) as executor:
        putting = [executor.submit(put_many, tmp_path, name, 20) for name in names]
        while wait(putting, timeout=0.01).not_done:
            try:
                store.collect_garbage()
            except StoreFailed as error:
                if error.reason != "store_busy":
                    raise
    for one in putting:
        one.result()
    expected = [OLD + name.encode() + bytes([19]) for name in names]
    assert sorted(b"".join(store.open(cid)) for cid in store.list_pins()) == sorted(expected)
    store.collect_garbage()
    assert len(list_blocks(tmp_path)) == len({one.cid for content in expected for one in make_blocks(content)})


def test_a_stream_that_fails_leaves_no_document_and_no_lock(tmp_path: Path) -> None:
    class Broken:
        def read(self, size: int, /) -> bytes:
            raise ConnectionResetError(size)

    store = EmbeddedStore(tmp_path)
    with pytest.raises(ConnectionResetError):
        store.put(Broken(), size_max=SIZE_MAX)
    assert store.list_pins() == []
    assert store.collect_garbage() == 0


def test_memory_does_not_grow_with_the_document(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    tracemalloc.start()
    cid = store.put(Pattern(30_000_000), size_max=SIZE_MAX)
    assert sum(len(piece) for piece in store.open(cid)) == 30_000_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


def prepare(root: Path) -> tuple[Cid, Cid]:
    """A store with a pinned document, and one that nobody wants any more."""
    store = EmbeddedStore(root, disk=QuickDisk())
    old = store.put(io.BytesIO(OLD), size_max=SIZE_MAX)
    gone = store.put(io.BytesIO(GONE), size_max=SIZE_MAX)
    store.unpin(gone)
    return old, gone


def live_through(root: Path, disk: Disk) -> None:
    """A put, a garbage collection, an unpin, a pin and a copy from elsewhere, on a disk that may fail."""
    store = EmbeddedStore(root, disk=disk)
    new = store.put(io.BytesIO(NEW), size_max=SIZE_MAX)
    store.collect_garbage()
    store.unpin(new)
    store.pin(new)
    blocks = make_blocks(COPY)
    store.put_blocks(blocks[-1].cid, reversed(blocks))


def check_nothing_lost(root: Path, old: Cid) -> None:
    """What a store must be after anything: every pin whole, every named block whole, every operation possible."""
    store = EmbeddedStore(root, disk=QuickDisk())
    contents = {format_cid(make_blocks(content)[-1].cid): content for content in (OLD, NEW, COPY)}
    pins = store.list_pins()
    assert old in pins
    for cid in pins:
        assert b"".join(store.open(cid)) == contents[format_cid(cid)]
    for content in (NEW, COPY):
        store.put(io.BytesIO(content), size_max=SIZE_MAX)
    store.collect_garbage()
    assert {format_cid(cid): b"".join(store.open(cid)) for cid in store.list_pins()} == contents
    needed = {block.cid.digest for content in (OLD, NEW, COPY) for block in make_blocks(content)}
    assert len(list_blocks(root)) == len(needed)
    assert [path.name for path in (root / "pins").iterdir() if path.name.startswith(".")] == []


def count_steps(root: Path) -> int:
    prepare(root)
    disk = FailingDisk(fails_at=None)
    live_through(root, disk)
    return disk.steps


@pytest.mark.parametrize("seed", range(3))
def test_power_cut_at_any_step_loses_no_document_and_serves_no_torn_block(tmp_path: Path, seed: int) -> None:
    steps = count_steps(tmp_path / "counted")
    assert steps > 40
    for step in range(steps):
        root = tmp_path / str(step)
        old, _ = prepare(root)
        with pytest.raises(PowerCut):
            live_through(root, FragileDisk(fails_at=step, seed=1_000 * seed + step))
        check_nothing_lost(root, old)


@pytest.mark.parametrize("seed", range(5))
def test_power_cut_right_after_the_first_put_of_a_new_store_keeps_the_document(tmp_path: Path, seed: int) -> None:
    root, disk = tmp_path / "person" / "documents", FragileDisk(fails_at=None, seed=seed)
    new = EmbeddedStore(root, disk=disk).put(io.BytesIO(NEW), size_max=SIZE_MAX)
    disk.cut()
    assert b"".join(EmbeddedStore(root).open(new)) == NEW
    assert EmbeddedStore(root).list_pins() == [new]


@pytest.mark.parametrize("seed", range(5))
def test_power_cut_right_after_a_put_returned_keeps_the_document(tmp_path: Path, seed: int) -> None:
    old, _ = prepare(tmp_path)
    disk = FragileDisk(fails_at=None, seed=seed)
    new = EmbeddedStore(tmp_path, disk=disk).put(io.BytesIO(NEW), size_max=SIZE_MAX)
    disk.cut()
    assert set(EmbeddedStore(tmp_path).list_pins()) == {old, new}
    check_nothing_lost(tmp_path, old)


def test_power_cut_right_after_pinning_what_a_killed_put_left_keeps_the_document(tmp_path: Path) -> None:
    new, pinned = make_blocks(NEW)[-1].cid, 0
    for step in range(count_steps(tmp_path / "counted")):
        root = tmp_path / str(step)
        old, _ = prepare(root)
        disk = KilledDisk(fails_at=step, seed=step)
        with pytest.raises(PowerCut):
            live_through(root, disk)
        try:
            EmbeddedStore(root, disk=disk).pin(new)
        except StoreFailed:
            continue  # the put was killed too early
        pinned += 1
        disk.cut()
        assert new in EmbeddedStore(root).list_pins()
        check_nothing_lost(root, old)
    assert pinned > 5


def test_disk_full_at_any_step_is_named_and_loses_nothing(tmp_path: Path) -> None:
    steps = count_steps(tmp_path / "counted")
    for step in range(steps):
        root = tmp_path / str(step)
        old, _ = prepare(root)
        with pytest.raises(StoreFailed, match="disk_full"):
            live_through(root, FailingDisk(fails_at=step))
        check_nothing_lost(root, old)
