"""Every wire message survives its bytes, and no other bytes pass for one."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.encoding import Plain, encode
from ledger.errors import Rejected
from ledger.primitives import Hash, PublicKey, Signature
from p2p.messages import (
    FRAME_BYTES_MAX,
    MESSAGE_TYPES,
    P2P_VERSION,
    BlockRequest,
    Blocks,
    ConsensusMessage,
    Disconnect,
    DocumentBlock,
    DocumentBlockRequest,
    HeightStatus,
    Hello,
    Message,
    Proof,
    ProposalMessage,
    SnapshotPart,
    SnapshotRequest,
    Transactions,
    decode_frame,
    encode_frame,
)

HELLO = Hello("test-1", Hash(b"g" * 32), PublicKey(b"k" * 32), b"n" * 32, "node é", 7, 8601)
EXAMPLES: list[Message] = [
    HELLO,
    Proof(Signature(b"s" * 64)),
    Disconnect("shutting_down"),
    Transactions((b"one", b"two")),
    Transactions(()),
    ConsensusMessage(b"vote"),
    ProposalMessage(b"proposal", b"body"),
    ProposalMessage(b"proposal", b"body", b"polka"),
    BlockRequest(from_height=1, count=64),
    Blocks(((b"block", b"certificate"),)),
    Blocks(()),
    HeightStatus(2**63 - 1),
    DocumentBlockRequest(b"c" * 36),
    DocumentBlock(b"c" * 36, b"block"),
    SnapshotRequest(None, 0),
    SnapshotRequest(Hash(b"s" * 32), 65_536),
    SnapshotPart(None, 0, b"manifest"),
    SnapshotPart(Hash(b"s" * 32), 7, b""),
    DocumentBlock(b"c" * 36, None),
]


def build_frame(kind: type[Message], fields: Plain) -> bytes:
    return bytes((MESSAGE_TYPES[kind].tag,)) + encode(fields)


def get_reason(frame: bytes) -> str:
    with pytest.raises(Rejected) as refused:
        decode_frame(frame)
    return refused.value.reason


@pytest.mark.parametrize("message", EXAMPLES, ids=repr)
def test_message_survives_its_bytes(message: Message) -> None:
    assert decode_frame(encode_frame(message)) == message


def test_every_type_has_an_example_and_a_tag_of_its_own() -> None:
    assert {type(message) for message in EXAMPLES} == set(MESSAGE_TYPES)
    assert len({rule.tag for rule in MESSAGE_TYPES.values()}) == len(MESSAGE_TYPES)


def test_every_budget_admits_at_least_one_largest_message_a_minute() -> None:
    for rule in MESSAGE_TYPES.values():
        assert 0 < rule.size_bytes_max <= min(rule.bytes_per_minute_max, FRAME_BYTES_MAX)
        assert rule.count_per_minute_max > 0


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Transactions, 7),
        (Transactions, ()),
        (Transactions, (b"not an array",)),
        (Transactions, (("text",),)),
        (Transactions, ((b"",) * 10_001,)),
        (ConsensusMessage, ("text",)),
        (ConsensusMessage, (b"one", b"more")),
        (ProposalMessage, (b"", b"")),
        (ProposalMessage, (b"", b"", None)),
        (BlockRequest, (-1, 1)),
        (BlockRequest, (1, 0)),
        (BlockRequest, (1, 65)),
        (BlockRequest, (True, 1)),
        (Blocks, (((b"block",),),)),
        (Blocks, ((b"block", b"certificate"),)),
        (HeightStatus, (2**63,)),
        (HeightStatus, (None,)),
        (DocumentBlockRequest, (b"c" * 34,)),
        (DocumentBlock, (b"c" * 36, "text")),
        (DocumentBlock, (None, b"")),
        (Disconnect, ("line\nbreak",)),
        (Disconnect, ("x" * 65,)),
        (Proof, (b"short",)),
        (Hello, ()),
        (Hello, (P2P_VERSION, "c", b"short", b"k" * 32, b"n" * 32, "m", 0, 1)),
        (Hello, (P2P_VERSION, "c", b"g" * 32, b"k" * 32, b"n" * 32, "m\x1b[2J", 0, 1)),
        (Hello, (P2P_VERSION, "c", b"g" * 32, b"k" * 32, b"n" * 32, "m", 0, 65_536)),
        (Hello, (True, "c", b"g" * 32, b"k" * 32, b"n" * 32, "m", 0, 1)),
    ],
)
def test_wrong_shape_is_refused(kind: type[Message], fields: Plain) -> None:
    assert get_reason(build_frame(kind, fields)) == "message_malformed"


def test_another_version_is_named_before_its_shape_is_judged() -> None:
    assert get_reason(build_frame(Hello, (P2P_VERSION + 1, "unknown", "shape"))) == "wrong_protocol_version"


def test_unknown_tags_and_empty_frames_are_refused() -> None:
    assert get_reason(b"") == "message_unknown"
    assert get_reason(b"\x00\x90") == "message_unknown"
    assert get_reason(b"\xff" * 100) == "message_unknown"


def test_size_is_judged_by_type_before_anything_is_decoded() -> None:
    for kind, rule in MESSAGE_TYPES.items():
        frame = bytes((rule.tag,)) + b"\xc1" * rule.size_bytes_max  # 0xc1 can never be decoded
        assert get_reason(frame) == "message_too_large", kind


def test_the_largest_frame_of_small_things_costs_little() -> None:
    """A frame of 15 MiB of arrays with one item each would be a gigabyte once it is built."""
    for kind, rule in MESSAGE_TYPES.items():
        count = (rule.size_bytes_max - 8) // 2
        frame = bytes((rule.tag,)) + b"\x91\xdd" + count.to_bytes(4, "big") + b"\x91\xc0" * count
        tracemalloc.start()
        try:
            assert get_reason(frame) == "message_malformed", kind
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 3 * len(frame) + 500_000, kind


def test_the_most_items_of_a_type_are_admitted() -> None:
    for message in (Transactions((b"",) * 10_000), Blocks(((b"", b""),) * 64)):
        assert decode_frame(encode_frame(message)) == message


def test_non_canonical_bytes_are_refused() -> None:
    tag = bytes((MESSAGE_TYPES[HeightStatus].tag,))
    assert decode_frame(tag + b"\x91\x05") == HeightStatus(5)
    assert get_reason(tag + b"\x91\xcc\x05") == "message_malformed"
    assert get_reason(tag + b"\x91\x05\x00") == "message_malformed"


def test_building_a_message_above_its_limit_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        encode_frame(ConsensusMessage(bytes(MESSAGE_TYPES[ConsensusMessage].size_bytes_max)))


def find_message_or_reason(frame: bytes) -> Message | str:
    try:
        return decode_frame(frame)
    except Rejected as error:
        return error.reason


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=8).map(tuple),
    max_leaves=12,
)


@given(st.sampled_from(sorted(MESSAGE_TYPES, key=lambda kind: kind.__name__)), plain)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_plain_value_is_a_message_of_the_same_bytes_or_a_named_refusal(kind: type[Message], fields: Plain) -> None:
    frame = build_frame(kind, fields)
    outcome = find_message_or_reason(frame)
    if isinstance(outcome, str):
        assert outcome in {"message_malformed", "message_too_large", "wrong_protocol_version"}
    else:
        assert encode_frame(outcome) == frame
