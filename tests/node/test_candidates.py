"""However many blocks are proposed at one height, what is kept of them has a limit, and forgetting changes nothing."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from contracts_native.table import load_table
from ledger.block import Block, compute_block_id, compute_transactions_root, encode_block
from ledger.execution import Chain, Executed
from ledger.storage import MemoryStore
from ledger.transaction import TRANSACTION_BYTES_MAX, decode_transaction
from node.candidates import BODIES_BYTES_MAX, OBJECT_BYTES, RESULTS_MAX, Candidates
from node.chain_store import compute_genesis_batch, get_header, load_tree, read_validators
from node.mempool import Mempool
from tests.node.fake_service import GENESIS_MS, UTILITY, VALIDATOR, make_fake_genesis, make_issue, sign_fake

NOW_MS = GENESIS_MS + 1_000


def count_alive(kind: type) -> int:
    """How many objects of a type there are."""
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


def make_candidates() -> Candidates:
    """One transaction is pending."""
    batch = compute_genesis_batch(make_fake_genesis(), load_table())
    store = MemoryStore((key, value) for key, value in batch.items() if value is not None)
    mempool = Mempool(transactions_max=10, bytes_max=10_000)
    raw = sign_fake(make_issue("p"), UTILITY).raw
    mempool.add(decode_transaction(raw, load_table()), NOW_MS, is_from_door=True)
    chain = Chain(store, load_tree(store), get_header(store, 0), load_table())
    return Candidates(chain, read_validators(store), mempool)


@pytest.mark.parametrize(
    ("count", "size"), [(15, TRANSACTION_BYTES_MAX), (50_000, 2)], ids=["large ones", "more than their bytes"]
)
def test_bodies_that_a_peer_makes_up_are_remembered_up_to_a_size(count: int, size: int) -> None:
    candidates = make_candidates()
    template = candidates.build(NOW_MS, VALIDATOR.public_key)[0].block.header
    raws = tuple(number.to_bytes(2, "big").ljust(size, b".") for number in range(count))
    root = compute_transactions_root(raws)
    of_one, before = count * (size + OBJECT_BYTES), count_alive(Block)
    for number in range(BODIES_BYTES_MAX // of_one + 3):
        header = replace(template, time_ms=NOW_MS + number, transactions_root=root)
        candidates.remember(compute_block_id(header), encode_block(Block(header, raws)), header.time_ms)
    assert count_alive(Block) - before == BODIES_BYTES_MAX // of_one


def test_a_height_of_many_rounds_keeps_the_last_results_and_executes_the_others_again() -> None:
    candidates, before = make_candidates(), count_alive(Executed)
    first = candidates.build(NOW_MS, VALIDATOR.public_key)[0]
    block_id, body, root = first.block_id, first.body, first.block.header.state_root
    del first
    for round_ in range(1, 3 * RESULTS_MAX):
        built = candidates.build(NOW_MS + round_, VALIDATOR.public_key)[0]
        assert candidates.execute(built.block_id, built.body) is built
    del built
    assert count_alive(Executed) - before == RESULTS_MAX
    again = candidates.execute(block_id, body)
    assert (again.block_id, again.block.header.state_root, len(again.receipts)) == (block_id, root, 1)


def test_a_result_that_is_asked_for_is_kept_longer_than_one_that_is_not() -> None:
    candidates = make_candidates()
    locked = candidates.build(NOW_MS, VALIDATOR.public_key)[0]
    for round_ in range(1, 3 * RESULTS_MAX):
        candidates.build(NOW_MS + round_, VALIDATOR.public_key)
        assert candidates.execute(locked.block_id, locked.body) is locked
