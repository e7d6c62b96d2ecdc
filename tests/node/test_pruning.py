"""Old blocks go, and nothing that anybody may still need goes with them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from contracts_native.table import load_table
from ledger.block import compute_block_id
from ledger.errors import CorruptStore, Rejected, RuleViolated
from ledger.storage import (
    BLOCKS,
    CERTIFICATES,
    INDEXES,
    RECEIPTS,
    STATE,
    TRANSACTION_IDS,
    MemoryStore,
    compute_prefix_end,
    format_height,
)
from node import chain_store, pruning
from node.leveldb_store import WRITE_BUFFER_BYTES, LevelDbStore
from node.pruning import compute_line, find_oldest_evidence, iterate_prune
from node.snapshots import iterate_chunks
from node.sync import collect_blocks
from node.verification import verify_store
from tests.node.recovery_chain import LIFETIME_BLOCKS, ShortCluster, copy_store, make_chain
from tests.simulator.checkers import check_agreement


@pytest.fixture(scope="module")
def net() -> ShortCluster:
    return make_chain(height=16)


@pytest.fixture
def short_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence is void after three blocks: what is kept is then kept for the transactions."""
    monkeypatch.setattr(pruning, "EVIDENCE_BLOCKS_MAX", 3)


def prune(store: MemoryStore, line: int) -> None:
    for batch in iterate_prune(store, line=line):
        store.write(batch)


def list_prefix(store: MemoryStore, prefix: bytes) -> list[tuple[bytes, bytes]]:
    return list(store.scan(prefix, compute_prefix_end(prefix)))


@pytest.mark.usefixtures("short_evidence")
def test_blocks_below_the_line_keep_their_header_and_nothing_else(net: ShortCluster) -> None:
    before, store = copy_store(net[0].store), copy_store(net[0].store)
    head = chain_store.read_head_height(store)
    line = compute_line(store, retain_blocks=1)
    assert line == head + 1 - LIFETIME_BLOCKS
    prune(store, line)
    for height in range(1, head + 1):
        header = chain_store.get_header(store, height)
        assert header == chain_store.get_header(before, height)
        assert chain_store.find_height(store, compute_block_id(header)) == height
        is_kept = height >= line
        assert (chain_store.find_block(store, height) is not None) == is_kept
        assert (store.get(RECEIPTS + format_height(height)) is not None) == is_kept
        assert (store.get(CERTIFICATES + format_height(height)) is not None) == is_kept
    for prefix in (STATE, INDEXES, b"n"):
        assert list_prefix(store, prefix) == list_prefix(before, prefix)
    kept_ids = {key for key, place in list_prefix(before, TRANSACTION_IDS) if place[:8] >= format_height(line)}
    assert {key for key, _ in list_prefix(store, TRANSACTION_IDS)} == kept_ids


@pytest.mark.usefixtures("short_evidence")
def test_a_pruned_store_still_verifies_still_gives_snapshots_and_goes_on(net: ShortCluster) -> None:
    whole = list(iterate_chunks(copy_store(net[0].store)))
    net.crash(3)
    for node in net.nodes:
        prune(node.store, compute_line(node.store, retain_blocks=1))
    assert {step.is_executed for step in verify_store(net[0].store, net.genesis, load_table())} == {False}
    assert list(iterate_chunks(net[0].store)) == whole
    net.restart(3)
    net.run_until(height=net[0].height + 2)
    check_agreement(net)


@pytest.mark.usefixtures("short_evidence")
def test_stopped_between_two_batches_it_goes_on_where_it_was(
    net: ShortCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "HEIGHTS_PER_BATCH", 2)
    at_once, stepwise = make_chain(height=16)[1].store, make_chain(height=16)[1].store
    line = compute_line(at_once, retain_blocks=1)
    prune(at_once, line)
    for _ in range(line):
        batch = next(iterate_prune(stepwise, line=compute_line(stepwise, retain_blocks=1)), None)
        if batch is not None:
            stepwise.write(batch)
            assert list(verify_store(stepwise, net.genesis, load_table()))
    assert dict(stepwise.scan(b"", b"\xff")) == dict(at_once.scan(b"", b"\xff"))


def test_what_evidence_may_speak_of_stays_whatever_the_operator_says(net: ShortCluster) -> None:
    store = copy_store(net[1].store)
    assert find_oldest_evidence(store) == chain_store.read_oldest_height(store)
    assert compute_line(store, retain_blocks=1) == chain_store.read_oldest_height(store)


def test_evidence_ends_after_two_days_or_a_hundred_thousand_blocks_whichever_is_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = make_chain(height=10, seed=5)
    store = copy_store(net[0].store)
    times = [chain_store.get_header(store, height).time_ms for height in range(net[0].height + 1)]
    monkeypatch.setattr(pruning, "EVIDENCE_AGE_MS_MAX", times[-1] - times[7])
    assert find_oldest_evidence(store) == 7
    monkeypatch.setattr(pruning, "EVIDENCE_BLOCKS_MAX", 1)
    assert find_oldest_evidence(store) == net[0].height - 1


@pytest.mark.usefixtures("short_evidence")
def test_the_certificate_of_a_height_that_changed_the_validators_stays() -> None:
    net = make_chain(height=16, seed=6)
    store = copy_store(net[0].store)
    store.write({chain_store.HANDOVERS + format_height(3): b""})
    prune(store, compute_line(store, retain_blocks=1))
    kept = [height for height in range(1, 8) if chain_store.find_certificate(store, height) is not None]
    assert kept == [3]


@pytest.mark.usefixtures("short_evidence")
def test_a_pruned_block_is_never_served_as_a_block() -> None:
    store = make_chain(height=16)[0].store
    raw = store.get(BLOCKS + format_height(2))
    assert raw is not None
    place = chain_store.TransactionPlace(2, 0)
    prune(store, compute_line(store, retain_blocks=1))
    assert collect_blocks(store, 2, 10) == ()
    for read in (chain_store.get_transaction, chain_store.get_receipt):
        with pytest.raises(Rejected, match="block_not_kept: height 2"):
            read(store, place, load_table())
    store.write({chain_store.OLDEST_KEY: None})  # even if the line is forgotten
    with pytest.raises(CorruptStore):
        chain_store.find_block(store, 2)


def test_to_keep_nothing_is_refused(net: ShortCluster) -> None:
    with pytest.raises(RuleViolated, match="retain_too_few"):
        compute_line(net[0].store, retain_blocks=0)


def fill_and_forget(store: LevelDbStore, *, blocks: int, kept: int) -> list[bytes]:
    """Blocks of 4,000 bytes, of which only the last few are kept; the keys of those."""
    random = Random(1)
    keys = [BLOCKS + format_height(height) for height in range(blocks)]
    for key in keys:
        store.write({key: random.randbytes(4_000)}, sync=False)
    for key in keys[:-kept]:
        store.write({key: None}, sync=False)
    return keys[-kept:]


def test_compacting_gives_back_the_room_of_what_was_forgotten(tmp_path: Path) -> None:
    store = LevelDbStore(tmp_path / "state")
    kept = fill_and_forget(store, blocks=4_000, kept=100)
    store.compact()
    # Of what was written, not of what was there before: LevelDB's own thread may have begun already.
    assert store.size_bytes() < 4_000 * 4_000 // 10
    assert [key for key, _ in store.scan(BLOCKS, compute_prefix_end(BLOCKS))] == kept
    store.close()


def test_compacting_reaches_what_is_still_on_its_way_to_disk(tmp_path: Path) -> None:
    """The buffer was handed to LevelDB's thread a moment ago, and no table holds anything yet."""
    store = LevelDbStore(tmp_path / "state")
    fill_and_forget(store, blocks=WRITE_BUFFER_BYTES // 4_000 + 60, kept=50)
    store.compact()
    assert store.size_bytes() < WRITE_BUFFER_BYTES // 10
    store.close()
