"""Blocks: their bytes, their id, and the rules between a header and its parent."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.block import (
    BLOCK_BYTES_MAX,
    HEADER_BYTES_MAX,
    PROTOCOL_VERSION,
    Block,
    Header,
    check_header,
    compute_block_id,
    compute_transactions_root,
    decode_block,
    decode_stored_header,
    encode_block,
)
from ledger.encoding import Plain, encode
from ledger.errors import Malformed, Rejected
from ledger.fields import INTEGER_MAX, to_plain
from ledger.primitives import Hash, PublicKey
from ledger.transaction import TRANSACTION_BYTES_MAX
from tests.ledger.toy import change_header


def hash_of(letter: str) -> Hash:
    return Hash(letter.encode() * 32)


PARENT = Header(
    version=PROTOCOL_VERSION,
    chain_id="toy-1",
    height=4,
    time_ms=1_000,
    parent_id=hash_of("p"),
    proposer=PublicKey(b"k" * 32),
    transactions_count=0,
    transactions_root=hash_of("t"),
    events_root=hash_of("e"),
    state_root=hash_of("s"),
    validators_hash=hash_of("v"),
    next_validators_hash=hash_of("n"),
)
HEADER = replace(
    PARENT, height=5, time_ms=1_001, parent_id=compute_block_id(PARENT), validators_hash=PARENT.next_validators_hash
)


@given(st.lists(st.binary(max_size=50), max_size=5).map(tuple))
def test_a_block_survives_its_bytes(transactions: tuple[bytes, ...]) -> None:
    block = Block(HEADER, transactions)
    assert decode_block(encode_block(block)) == block


def test_the_id_depends_on_every_part_of_the_header() -> None:
    changed: dict[str, Plain] = {
        "version": 2,
        "chain_id": "toy-2",
        "height": 6,
        "time_ms": 2,
        "proposer": PublicKey(bytes(32)),
        "transactions_count": 1,
        **{name: hash_of("x") for name in Header.__slots__ if isinstance(getattr(HEADER, name), bytes)},
    }
    assert changed.keys() == set(Header.__slots__)
    ids = {compute_block_id(change_header(HEADER, **{name: value})) for name, value in changed.items()}
    assert len(ids | {compute_block_id(HEADER)}) == len(changed) + 1


def test_the_transactions_root_depends_on_content_order_and_number() -> None:
    lists = [(), (b"a",), (b"b",), (b"a", b"b"), (b"b", b"a"), (b"a", b"b", b"b"), (b"ab",)]
    assert len({compute_transactions_root(items) for items in lists}) == len(lists)


WRONG: list[tuple[Plain, str]] = [
    (None, "block_malformed"),
    ((), "block_malformed"),
    ((to_plain(HEADER),), "block_malformed"),
    ((to_plain(HEADER), (), ()), "block_malformed"),
    ((to_plain(HEADER), None), "block_malformed"),
    ((to_plain(HEADER), ("text",)), "block_malformed"),
    ((to_plain(HEADER), (None,)), "block_malformed"),
    ((to_plain(HEADER), (bytes(TRANSACTION_BYTES_MAX + 1),)), "block_malformed"),
    ((None, ()), "field_has_wrong_type"),
    (((1, 2), ()), "field_count_wrong"),
    ((b"x", ()), "field_has_wrong_type"),
]


@pytest.mark.parametrize(("plain", "reason"), WRONG)
def test_a_block_of_another_shape_is_refused(plain: Plain, reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        decode_block(encode(plain))
    assert refusal.value.reason == reason


def test_an_oversize_block_is_refused_unread() -> None:
    with pytest.raises(Malformed, match="encoding_too_large"):
        decode_block(bytes(BLOCK_BYTES_MAX + 1))


@given(st.binary(max_size=300))
def test_garbage_is_no_block(garbage: bytes) -> None:
    with pytest.raises(Malformed):
        decode_block(garbage)


def test_a_header_is_read_without_the_transactions_behind_it() -> None:
    block = Block(PARENT, (b"x" * 5_000,))
    assert decode_stored_header(encode_block(block)) == PARENT
    largest = replace(
        PARENT, version=2**31, chain_id="c" * 64, height=INTEGER_MAX, time_ms=INTEGER_MAX, transactions_count=50_000
    )
    assert len(encode(to_plain(largest))) < HEADER_BYTES_MAX
    assert decode_stored_header(encode_block(Block(largest, ()))) == largest


def test_a_header_of_a_stranger_costs_no_more_than_a_header() -> None:
    count = 2**20
    hostile = b"\x92\xdd" + count.to_bytes(4, "big") + b"\x91\xc0" * count + b"\x90"
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="encoding_invalid"):
            decode_stored_header(hostile)
        assert tracemalloc.get_traced_memory()[1] < 2 * 1024 * 1024  # half of which is the reader's own buffer
    finally:
        tracemalloc.stop()


def test_a_header_that_follows_its_parent_passes() -> None:
    check_header(HEADER, PARENT)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (replace(HEADER, version=PROTOCOL_VERSION - 1), "block_version_wrong"),
        (replace(HEADER, chain_id="toy-2"), "block_of_another_chain"),
        (replace(HEADER, height=4), "block_height_wrong"),
        (replace(HEADER, height=6), "block_height_wrong"),
        (replace(HEADER, parent_id=hash_of("x")), "block_parent_wrong"),
        (replace(HEADER, time_ms=PARENT.time_ms), "block_time_not_rising"),
        (replace(HEADER, time_ms=PARENT.time_ms - 1), "block_time_not_rising"),
        (replace(HEADER, validators_hash=hash_of("v")), "block_validators_wrong"),
    ],
)
def test_a_header_that_does_not_follow_its_parent_is_refused(header: Header, reason: str) -> None:
    with pytest.raises(Rejected) as refusal:
        check_header(header, PARENT)
    assert refusal.value.reason == reason
