"""One value, one byte form: what decodes re-encodes to the same bytes, and nothing but ``Malformed`` comes out."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.encoding import DEPTH_MAX, ITEMS_MAX, Plain, decode, encode
from ledger.errors import Malformed

INTEGERS = st.integers(-(2**63), 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | INTEGERS | st.binary() | TEXT
PLAINS: st.SearchStrategy[Plain] = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5), max_leaves=12)


def freeze(value: object) -> object:
    return tuple(freeze(item) for item in value) if isinstance(value, list | tuple) else value


def nested(depth: int) -> Plain:
    value: Plain = 0
    for _ in range(depth):
        value = [value]
    return value


@given(PLAINS)
def test_a_value_survives_its_encoding(value: Plain) -> None:
    decoded = decode(encode(value))
    assert decoded == freeze(value)
    assert encode(decoded) == encode(value)


@given(SCALARS)
def test_scalars_keep_their_type(value: Plain) -> None:
    assert type(decode(encode(value))) is type(value)


@given(st.binary(max_size=60))
def test_garbage_is_malformed_or_the_very_form_of_its_value(garbage: bytes) -> None:
    try:
        value = decode(garbage)
    except Malformed:
        return
    assert encode(value) == garbage


@given(PLAINS, st.data())
def test_a_damaged_encoding_never_gives_the_same_value(value: Plain, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = decode(bytes(encoded))
    except Malformed:
        return
    assert encode(decoded) == encoded != encode(value)


@given(PLAINS, st.binary(min_size=1, max_size=4))
def test_bytes_after_the_value_are_refused(value: Plain, tail: bytes) -> None:
    with pytest.raises(Malformed, match="encoding_invalid"):
        decode(encode(value) + tail)


@given(PLAINS)
def test_a_cut_encoding_is_refused(value: Plain) -> None:
    encoded = encode(value)
    for size in range(len(encoded)):
        with pytest.raises(Malformed, match="encoding_"):
            decode(encoded[:size])


@pytest.mark.parametrize(
    "longer",
    [
        b"\xcc\x01",  # 1 in two bytes
        b"\xcd\x00\xff",  # 255 in three
        b"\xd3" + bytes(7) + b"\x01",  # 1 as a signed 64-bit integer
        b"\xd0\x01",  # 1 as a signed byte
        b"\xd9\x01a",  # one letter with a length byte
        b"\xc5\x00\x01a",  # one byte with a two-byte length
        b"\xdc\x00\x01\x00",  # one item with a two-byte count
        b"\x91\xcc\x01",  # the same inside of an array
    ],
)
def test_a_longer_form_of_a_value_is_refused(longer: bytes) -> None:
    with pytest.raises(Malformed, match="encoding_not_canonical"):
        decode(longer)


@pytest.mark.parametrize(
    "alien",
    [
        msgpack.packb(1.5),
        msgpack.packb([1.5]),
        msgpack.packb({}),
        msgpack.packb({"a": 1}),
        msgpack.packb([[{1: 2}]]),
        msgpack.packb(msgpack.ExtType(5, b"x")),
        msgpack.packb(msgpack.Timestamp(1, 2)),
        msgpack.packb([msgpack.Timestamp(1, 2)]),
        b"\xd6\xff",  # a timestamp cut short
        b"\xa1\xff",  # text that is not UTF-8
        b"\xa3\xed\xa0\x80",  # a lone surrogate
        b"\xc1",  # the byte that msgpack never uses
        b"",
    ],
)
def test_what_is_not_part_of_the_format_is_refused(alien: bytes) -> None:
    with pytest.raises(Malformed, match="encoding_invalid"):
        decode(alien)


def test_depth_is_limited() -> None:
    assert decode(encode(nested(DEPTH_MAX))) == freeze(nested(DEPTH_MAX))
    with pytest.raises(Malformed, match="encoding_too_deep"):
        decode(encode(nested(DEPTH_MAX + 1)))
    with pytest.raises(Malformed, match="encoding_invalid"):
        decode(b"\x91" * 100_000 + b"\x00")


def test_size_is_limited() -> None:
    encoded = encode(b"x" * 10)
    assert decode(encoded, bytes_max=len(encoded)) == b"x" * 10
    with pytest.raises(Malformed, match="encoding_too_large"):
        decode(encoded, bytes_max=len(encoded) - 1)


@pytest.mark.parametrize(
    "claim", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff"]
)
def test_a_claimed_length_beyond_the_data_is_refused(claim: bytes) -> None:
    with pytest.raises(Malformed, match="encoding_invalid"):
        decode(claim + b"\x00")


@pytest.mark.parametrize("size", [255, 256, 5_000, 100_000])
def test_arrays_that_claim_more_than_follows_are_not_built(size: int) -> None:
    """Each level of a tower claims as many items as the whole has bytes, which is all that is checked of one alone."""
    levels = min(1_000, size // 10)
    tower = (b"\xdd" + size.to_bytes(4, "big")) * levels + bytes(size - 5 * levels)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="encoding_invalid"):
            decode(tower)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000 + 4 * size


HEAD = b"\xdd"  # of an array with a count of four bytes
CROWDS = [
    ("small arrays", HEAD + (2**20).to_bytes(4, "big") + b"\x91\xc0" * 2**20, "encoding_too_many_items"),
    ("small texts", HEAD + (2**20).to_bytes(4, "big") + b"\xa2ab" * 2**20, "encoding_too_many_items"),
    ("numbers", HEAD + (ITEMS_MAX + 1).to_bytes(4, "big") + bytes(ITEMS_MAX + 1), "encoding_too_many_items"),
    ("arrays in a map", b"\x91\x81\x00" + HEAD + (2**20).to_bytes(4, "big") + b"\x91\xc0" * 2**20, "encoding_invalid"),
    (
        "a deep one",
        b"\x91" * (DEPTH_MAX + 1) + HEAD + ITEMS_MAX.to_bytes(4, "big") + bytes(ITEMS_MAX),
        "encoding_too_deep",
    ),
    ("a tower", (HEAD + (9_000).to_bytes(4, "big") + b"\xa2ab" * 8_999) * 99 + b"\xc0", "encoding_too_deep"),
    ("a cut one", HEAD + ITEMS_MAX.to_bytes(4, "big") + bytes(ITEMS_MAX - 1), "encoding_invalid"),
    ("a claim", b"\xc6\x7f\xff\xff\xff" + bytes(ITEMS_MAX), "encoding_invalid"),
    ("one and more", b"\x90" + bytes(ITEMS_MAX), "encoding_invalid"),
]


@pytest.mark.parametrize(("crowd", "reason"), [each[1:] for each in CROWDS], ids=[name for name, _, _ in CROWDS])
def test_a_crowd_of_small_things_is_counted_before_it_is_built(crowd: bytes, reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=reason):
            decode(crowd)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * len(crowd) + 100_000


def test_as_many_items_as_allowed_are_decoded() -> None:
    for allowed in ((0,) * (ITEMS_MAX - 1), (b"",) * (ITEMS_MAX - 1), ("ab",) * (ITEMS_MAX - 1)):
        assert decode(encode((allowed,))) == (allowed,)
    long = bytes(5_000)
    assert decode(encode((long, (b"cd",))), items_max=3) == (long, (b"cd",))
    with pytest.raises(Malformed, match="encoding_too_many_items"):
        decode(encode((long, (b"cd",))), items_max=2)
    assert decode(encode(long), items_max=0) == long


def test_tuples_and_lists_are_one_array() -> None:
    assert encode((1, (2, b"x"))) == encode([1, [2, b"x"]])


def test_numbers_beyond_64_bits_have_no_form() -> None:
    for number in (2**64, -(2**63) - 1):
        with pytest.raises(OverflowError):
            encode(number)
