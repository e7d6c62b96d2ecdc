"""The envelope: what a node reads is what was signed, and everything else is refused by name."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.encoding import DEPTH_MAX, Plain, decode, encode
from ledger.errors import Malformed, NotAdmitted, Rejected
from ledger.primitives import PublicKey, Signature, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import (
    ANYONE,
    COSIGNERS_MAX,
    ENVELOPE_VERSION,
    TRANSACTION_BYTES_MAX,
    Payload,
    TransactionTable,
    TxContext,
    check_signatures,
    compute_tx_id,
    decode_transaction,
    make_envelope,
    make_object_id,
    make_table,
    transaction,
    transaction_to_json,
)
from tests.ledger.toy import ALICE, BOB, CHAIN_ID, TABLE, WATCHER, Signer, WriteNote, read_tx, write_tx

NOTE = WriteNote("hello", 7)


def refusal_of(raw: bytes) -> Rejected:
    with pytest.raises(Rejected) as refusal:
        read_tx(raw)
    return refusal.value


def body_of(**changed: Plain) -> bytes:
    """The body of a good transaction with some parts changed."""
    parts: dict[str, Plain] = {
        "version": ENVELOPE_VERSION,
        "chain_id": CHAIN_ID,
        "tag": "toy.note",
        "sender": ALICE.address,
        "cosigners": (),
        "valid_until": 100,
        "salt": bytes(8),
        "payload": ("hello", 7),
    }
    assert parts.keys() >= changed.keys()
    return encode(tuple({**parts, **changed}.values()))


def signed(body: bytes, *signers: Signer) -> bytes:
    message = b"wattprint/transaction/1\0" + body
    return make_envelope(body, [(who.public_key, who.sign(message)) for who in signers or (ALICE,)])


def test_a_signed_transaction_is_read_as_it_was_written() -> None:
    raw = write_tx(NOTE, ALICE, cosigners=[BOB], valid_until=9, salt=b"saltsalt")
    tx = read_tx(raw)
    assert tx.raw == raw
    assert tx.payload == NOTE
    assert (tx.chain_id, tx.tag, tx.valid_until, tx.salt) == (CHAIN_ID, "toy.note", 9, b"saltsalt")
    assert tx.signers == (ALICE.address, BOB.address)
    assert tx.tx_id == compute_tx_id(tx.body)


def test_the_body_that_the_other_tests_change_is_a_good_one() -> None:
    assert read_tx(signed(body_of())).raw == write_tx(NOTE)


def test_the_id_covers_what_is_signed_and_not_the_signatures() -> None:
    body = body_of()
    other = make_envelope(body, [(BOB.public_key, Signature(bytes(64)))])
    assert decode_transaction(other, TABLE).tx_id == read_tx(signed(body)).tx_id
    assert len({read_tx(write_tx(NOTE, salt=bytes([i] * 8))).tx_id for i in range(5)}) == 5


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else_happens(garbage: bytes) -> None:
    with pytest.raises(Rejected):
        decode_transaction(garbage, TABLE)


def test_every_damaged_byte_is_noticed() -> None:
    raw = write_tx(NOTE, cosigners=[BOB])
    chance = random.Random(5)
    for at in range(len(raw)):
        damaged = raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]
        with pytest.raises(Rejected):
            read_tx(damaged)


def test_every_cut_transaction_is_refused() -> None:
    raw = write_tx(NOTE)
    for length in range(len(raw)):
        with pytest.raises(Malformed):
            decode_transaction(raw[:length], TABLE)
    with pytest.raises(Malformed):
        decode_transaction(raw + b"\0", TABLE)


WRONG_PARTS: list[tuple[str, Plain, str]] = [
    ("version", 2, "envelope_version_unknown"),
    ("version", True, "envelope_version_unknown"),
    ("version", b"", "envelope_version_unknown"),
    ("chain_id", b"toy-1", "envelope_malformed"),
    ("chain_id", "c" * 65, "envelope_malformed"),
    ("tag", "toy.unknown", "transaction_type_unknown"),
    ("tag", b"toy.note", "transaction_type_unknown"),
    ("tag", ("toy.note",), "transaction_type_unknown"),
    ("sender", b"short", "address_invalid"),
    ("sender", "a" * 20, "address_invalid"),
    ("cosigners", None, "envelope_malformed"),
    ("cosigners", (b"short",), "address_invalid"),
    ("cosigners", (None,), "address_invalid"),
    ("cosigners", (ALICE.address,), "signer_named_twice"),
    ("cosigners", (BOB.address, BOB.address), "signer_named_twice"),
    ("cosigners", tuple(bytes([i] * 20) for i in range(COSIGNERS_MAX + 1)), "envelope_malformed"),
    ("valid_until", 0, "envelope_malformed"),
    ("valid_until", -1, "envelope_malformed"),
    ("valid_until", True, "envelope_malformed"),
    ("valid_until", "9", "envelope_malformed"),
    ("salt", bytes(7), "envelope_malformed"),
    ("salt", bytes(9), "envelope_malformed"),
    ("salt", "saltsalt", "envelope_malformed"),
    ("payload", None, "field_has_wrong_type"),
    ("payload", ("hello",), "field_count_wrong"),
    ("payload", ("hello", 7, 7), "field_count_wrong"),
    ("payload", (b"hello", 7), "field_has_wrong_type"),
    ("payload", ("hello", -7), "number_out_of_range"),
    ("payload", ("hello", 2**64 - 1), "number_out_of_range"),
    ("payload", ("he\nllo", 7), "text_not_printable"),
]


@pytest.mark.parametrize(("part", "value", "reason"), WRONG_PARTS)
def test_a_wrong_part_of_the_body_is_refused_by_name(part: str, value: Plain, reason: str) -> None:
    assert refusal_of(signed(body_of(**{part: value}))).reason == reason


@pytest.mark.parametrize("body", [encode(()), encode((1,) * 7), encode((1,) * 9), encode(b"body"), encode(None)])
def test_a_body_of_other_parts_is_refused(body: bytes) -> None:
    assert refusal_of(signed(body)).reason == "envelope_malformed"


WRONG_SIGNATURES: list[tuple[Plain, str]] = [
    ((), "signature_count_wrong"),
    (None, "signature_count_wrong"),
    (((ALICE.public_key, bytes(64)),) * 2, "signature_count_wrong"),
    ((b"pair",), "envelope_malformed"),
    (((ALICE.public_key,),), "envelope_malformed"),
    (((b"short", bytes(64)),), "public_key_invalid"),
    ((("k" * 32, bytes(64)),), "public_key_invalid"),
    (((ALICE.public_key, bytes(63)),), "signature_malformed"),
    (((ALICE.public_key, "s" * 64),), "signature_malformed"),
    (((ALICE.public_key, bytes(64)),), "signature_invalid"),
]


@pytest.mark.parametrize(("signatures", "reason"), WRONG_SIGNATURES)
def test_wrong_signatures_are_refused_by_name(signatures: Plain, reason: str) -> None:
    assert refusal_of(encode((body_of(), signatures))).reason == reason


@pytest.mark.parametrize("envelope", [(), (b"body",), (b"body", (), ()), ("body", ()), (None, ()), b"body", 7])
def test_an_envelope_of_another_shape_is_refused(envelope: Plain) -> None:
    assert refusal_of(encode(envelope)).reason == "envelope_malformed"


def test_a_signature_by_another_key_is_refused_and_names_the_signer() -> None:
    body = body_of()
    forged = make_envelope(body, [(ALICE.public_key, BOB.sign(b"wattprint/transaction/1\0" + body))])
    refusal = refusal_of(forged)
    assert refusal.reason == "signature_invalid"
    assert refusal.item == format_address(ALICE.address)


def test_a_signature_of_the_bare_body_does_not_count() -> None:
    body = body_of()
    assert refusal_of(make_envelope(body, [(ALICE.public_key, ALICE.sign(body))])).reason == "signature_invalid"


def test_a_cosigner_must_sign_and_nobody_else_may() -> None:
    body = body_of(cosigners=(BOB.address,))
    assert read_tx(signed(body, ALICE, BOB)).cosigners == (BOB.address,)
    assert refusal_of(signed(body, ALICE)).reason == "signature_count_wrong"
    assert refusal_of(signed(body, ALICE, BOB, WATCHER)).reason == "signature_count_wrong"
    assert refusal_of(signed(body_of(), ALICE, BOB)).reason == "signature_count_wrong"


def test_signatures_stand_in_the_order_of_their_signers() -> None:
    """Form alone cannot tell whose key it is: that is the state's question, and it must refuse the swapped pair."""
    tx = decode_transaction(signed(body_of(cosigners=(BOB.address,)), BOB, ALICE), TABLE)
    check_signatures(tx)
    assert [key for key, _ in tx.signatures] == [BOB.public_key, ALICE.public_key]
    assert tx.signers == (ALICE.address, BOB.address)


def test_an_oversize_transaction_is_refused_unread() -> None:
    raw = encode((bytes(TRANSACTION_BYTES_MAX), ()))
    assert refusal_of(raw).reason == "encoding_too_large"


def nest(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 500, 2_000, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    for raw in (nest(depth), make_envelope(nest(depth), [(ALICE.public_key, Signature(bytes(64)))])):
        with pytest.raises(Malformed, match=r"encoding_too_deep|encoding_invalid"):
            decode_transaction(raw, TABLE)


def second_forms() -> list[bytes]:
    """The same transaction with a longer length or number somewhere: first in the envelope, then in the body."""
    raw, body = write_tx(NOTE), body_of()
    return [
        b"\xdc\x00\x02" + raw[1:],
        b"\xdd\x00\x00\x00\x02" + raw[1:],
        signed(b"\xdc\x00\x08" + body[1:]),
        signed(body.replace(encode(CHAIN_ID), b"\xd9\x05" + CHAIN_ID.encode(), 1)),
        signed(body.replace(encode(bytes(8)), b"\xc5\x00\x08" + bytes(8), 1)),
        signed(body.replace(encode(100) + encode(bytes(8)), b"\xcc\x64" + encode(bytes(8)), 1)),
    ]


@pytest.mark.parametrize("raw", second_forms())
def test_a_second_form_of_the_same_transaction_is_refused(raw: bytes) -> None:
    assert refusal_of(raw).reason == "encoding_not_canonical"


@pytest.mark.parametrize("raw", [b"\x80", b"\x81\x01\x02", b"\xc7\x00\x05", b"\xcb" + bytes(8), b"\xca" + bytes(4)])
def test_maps_extensions_and_floats_are_no_part_of_the_form(raw: bytes) -> None:
    assert refusal_of(raw).reason in ("encoding_invalid", "encoding_not_canonical")


def test_the_json_form_shows_every_part() -> None:
    tx = read_tx(write_tx(NOTE, cosigners=[BOB]))
    assert transaction_to_json(tx) == {
        "tx_id": tx.tx_id.hex(),
        "type": "toy.note",
        "chain_id": CHAIN_ID,
        "sender": format_address(ALICE.address),
        "cosigners": [format_address(BOB.address)],
        "valid_until": 100,
        "salt": "00" * 8,
        "payload": {"name": "hello", "value": 7},
        "signatures": [
            {"public_key": public_key.hex(), "signature": signature.hex()} for public_key, signature in tx.signatures
        ],
    }


def test_ids_of_two_kinds_never_meet() -> None:
    ids = {make_object_id(*parts) for parts in (("a", b"bc"), ("ab", b"c"), ("a", b"b", b"c"), ("a", b""), ("a",))}
    assert len(ids) == 5
    assert {len(one) for one in ids} == {16}


@dataclass(frozen=True, slots=True)
class Value:
    """A stored value."""

    number: int


def declare(tag: str) -> type[Payload]:
    @transaction(tag, roles=ANYONE)
    @dataclass(frozen=True, slots=True)
    class Empty(Payload):
        """Nothing."""

        def apply(self, state: State, tx: TxContext) -> None:
            raise AssertionError((state, tx))

    return Empty


def declare_event(name: str) -> type[Event]:
    @event(name)
    @dataclass(frozen=True, slots=True)
    class Nothing(Event):
        """Nothing."""

    return Nothing


def put_together(
    payloads: Sequence[type[Payload]] = (), events: Sequence[type[Event]] = (), tables: Sequence[Table[object]] = ()
) -> TransactionTable:
    return make_table(payloads=payloads, events=events, tables=tables, authorise=TABLE.authorise, found=TABLE.found)


def test_two_of_one_name_never_come_into_one_table() -> None:
    values = [cast("Table[object]", Table(prefix, Value, missing="value_missing")) for prefix in ("aa", "aa", "ab")]
    put_together([declare("x.one"), declare("x.two")], [declare_event("x.one"), declare_event("x.two")], values[1:])
    with pytest.raises(AssertionError):
        put_together([declare("x.one"), declare("x.one")])
    with pytest.raises(AssertionError):
        put_together(events=[declare_event("x.one"), declare_event("x.one")])
    with pytest.raises(AssertionError):
        put_together(tables=values)


def test_an_unknown_type_is_not_admitted_rather_than_malformed() -> None:
    """A newer node may know it: the sender's bytes are not at fault."""
    assert isinstance(refusal_of(signed(body_of(tag="toy.unknown"))), NotAdmitted)
    assert decode(body_of(tag="toy.unknown"))


def test_a_key_that_is_no_point_verifies_nothing() -> None:
    body = body_of()
    for key in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        raw = make_envelope(body, [(PublicKey(key), Signature(bytes(64)))])
        assert refusal_of(raw).reason == "signature_invalid"
