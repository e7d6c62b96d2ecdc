"""What a signature check accepts is consensus: it is held to the Wycheproof vectors. And the text form of addresses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from hypothesis import given
from hypothesis import strategies as st

from ledger import primitives
from ledger.errors import Malformed
from ledger.primitives import (
    ADDRESS_BYTES,
    Address,
    MeterKey,
    PublicKey,
    Signature,
    compute_address,
    format_address,
    is_valid_ed25519,
    is_valid_meter_signature,
    is_valid_p256,
    parse_address,
    sha256,
)

WYCHEPROOF = Path(__file__).parents[3] / "shared" / "data" / "wycheproof"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
BECH32_LETTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


class Key(TypedDict, total=False):
    pk: str
    uncompressed: str


class Case(TypedDict):
    tcId: int
    msg: str
    sig: str
    result: str


class Group(TypedDict):
    publicKey: Key
    tests: list[Case]


def read_groups(name: str) -> list[Group]:
    file = WYCHEPROOF / name
    if not file.exists():
        pytest.skip(f"needs the shared test data: {name}")
    groups: list[Group] = json.loads(file.read_text())["testGroups"]
    return groups


def compress_point(uncompressed: bytes) -> bytes:
    """SEC1: the parity of y, then x."""
    return bytes([2 + (uncompressed[64] & 1)]) + uncompressed[1:33]


def convert_der(signature: bytes) -> bytes | None:
    """r ‖ s of a strictly DER signature, or None when it has no such form."""
    try:
        r, s = utils.decode_dss_signature(signature)
        if utils.encode_dss_signature(r, s) != signature:
            return None
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    except (ValueError, OverflowError):
        return None


def has_high_s(signature: bytes) -> bool:
    return int.from_bytes(signature[32:], "big") > P256_ORDER // 2


def other_form(signature: bytes) -> bytes:
    """The second signature (r, n − s), which the curve accepts as well."""
    return signature[:32] + (P256_ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


def flip(data: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8 if i == bit // 8 else 0) for i, byte in enumerate(data))


def test_ed25519_accepts_exactly_what_wycheproof_calls_valid() -> None:
    checked = 0
    for group in read_groups("ed25519_test.json"):
        key = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            accepted = is_valid_ed25519(key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            assert accepted == (case["result"] == "valid"), case["tcId"]
            checked += 1
    assert checked == 151


def test_p256_accepts_exactly_the_valid_signatures_with_the_lower_s() -> None:
    checked = twins = 0
    for group in read_groups("ecdsa_secp256r1_sha256_p1363_test.json"):
        key = compress_point(bytes.fromhex(group["publicKey"]["uncompressed"]))
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            valid = case["result"] == "valid"
            assert is_valid_p256(key, message, signature) == (valid and not has_high_s(signature)), case["tcId"]
            if valid and has_high_s(signature):
                assert is_valid_p256(key, message, other_form(signature)), case["tcId"]
                twins += 1
            checked += 1
    assert checked == 262
    assert twins > 50


def test_p256_holds_for_the_der_vectors_once_converted() -> None:
    checked = converted = 0
    for group in read_groups("ecdsa_secp256r1_sha256_test.json"):
        key = compress_point(bytes.fromhex(group["publicKey"]["uncompressed"]))
        for case in group["tests"]:
            checked += 1
            signature = convert_der(bytes.fromhex(case["sig"]))
            valid = case["result"] == "valid"
            if signature is None:
                assert not valid, case["tcId"]
                continue
            converted += 1
            lower = other_form(signature) if valid and has_high_s(signature) else signature
            assert is_valid_p256(key, bytes.fromhex(case["msg"]), lower) == valid, case["tcId"]
            assert not (has_high_s(signature) and is_valid_p256(key, bytes.fromhex(case["msg"]), signature))
    assert checked == 484
    assert converted > 200


def test_a_signature_of_either_scheme_holds_for_its_message_only() -> None:
    message = b"interval"
    ed_key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    ed_public, ed_signature = ed_key.public_key().public_bytes_raw(), ed_key.sign(message)
    p256_key = ec.derive_private_key(7, ec.SECP256R1())
    p256_public = p256_key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    p256_signature = convert_der(p256_key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
    assert p256_signature is not None
    if has_high_s(p256_signature):
        p256_signature = other_form(p256_signature)
    for public, signature in ((ed_public, ed_signature), (p256_public, p256_signature)):
        key = MeterKey(public)
        assert is_valid_meter_signature(key, message, Signature(signature))
        assert not is_valid_meter_signature(key, message + b".", Signature(signature))
        assert not is_valid_meter_signature(key, message, Signature(signature[:-1]))
        assert not is_valid_meter_signature(key, message, Signature(signature + b"\x00"))
        assert not is_valid_meter_signature(MeterKey(public[:-1]), message, Signature(signature))
        for bit in range(0, 512, 5):
            assert not is_valid_meter_signature(key, message, Signature(flip(signature, bit)))
    assert not is_valid_p256(p256_public, message, other_form(p256_signature))


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_ed25519_keys_of_small_order_sign_nothing(key: bytes) -> None:
    for point in (bytes(32), b"\x01" + bytes(31), key):
        assert not is_valid_ed25519(key, b"anything", point + bytes(32))


@given(st.binary(min_size=31, max_size=34), st.binary(max_size=8), st.binary(min_size=63, max_size=65))
def test_garbage_keys_and_signatures_are_refused_without_an_error(key: bytes, message: bytes, signature: bytes) -> None:
    assert not is_valid_ed25519(key, message, signature)
    for prefix in (b"\x02", b"\x03", b"\x04", b"\x00"):
        assert not is_valid_p256(prefix + key[1:], message, signature)


@given(st.binary(min_size=ADDRESS_BYTES, max_size=ADDRESS_BYTES))
def test_an_address_survives_its_text_form(raw: bytes) -> None:
    text = format_address(Address(raw))
    assert text.startswith("wp1")
    assert len(text) == 41
    assert parse_address(text) == raw


def test_addresses_have_the_text_they_always_had() -> None:
    assert format_address(Address(bytes(20))) == "wp1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqwre2f0"
    assert format_address(compute_address(PublicKey(bytes(32)))) == "wp19r350jrcq7e7gedfysfmpu2djvhhnxjk7pru2f"


@given(st.binary(min_size=20, max_size=20), st.integers(3, 40), st.integers(1, 31))
def test_a_mistyped_letter_is_always_noticed(raw: bytes, at: int, step: int) -> None:
    text = format_address(Address(raw))
    letter = BECH32_LETTERS[(BECH32_LETTERS.index(text[at]) + step) % 32]
    with pytest.raises(Malformed, match="address_invalid"):
        parse_address(text[:at] + letter + text[at + 1 :])


@given(st.text(max_size=50) | st.text(BECH32_LETTERS, max_size=50).map(lambda tail: "wp1" + tail))
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="address_invalid"):
        parse_address(text)


@pytest.mark.parametrize(
    "spoil",
    [
        str.upper,
        str.title,
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text[:-1],
        lambda text: text + "q",
        lambda text: "bc" + text[2:],
        lambda text: text.replace("wp1", "wp"),
    ],
)
def test_other_spellings_of_an_address_are_refused(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(Malformed, match="address_invalid"):
        parse_address(spoil(format_address(Address(bytes(range(20))))))


@pytest.mark.parametrize("size", [0, 19, 21, 32])
def test_an_address_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(Malformed, match="address_invalid"):
        parse_address(format_address(Address(bytes(size))))


@pytest.mark.parametrize("text", ["wp1" + "q" * 1_000_000, "wp1" + "q" * 39, "wp1"])
def test_a_text_of_another_length_costs_no_checksum(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksum takes half a second for a megabyte, and a stranger's certificate may hold some."""
    monkeypatch.setattr(primitives, "_bech32_polymod", pytest.fail)
    with pytest.raises(Malformed, match="address_invalid") as refusal:
        parse_address(text)
    assert len(refusal.value.item) < 110


def test_a_refused_text_is_shown_in_ascii() -> None:
    with pytest.raises(Malformed, match="address_invalid") as refusal:
        parse_address("wp1\x1b[31m\u202e")
    assert refusal.value.item.isprintable()


def test_bip_350_bech32m_and_not_bech32() -> None:
    """The checksum of our zero address under the older constant of BIP 173."""
    with pytest.raises(Malformed, match="address_invalid"):
        parse_address("wp1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqmlfxvd")


def test_sha256_is_sha256() -> None:
    assert sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
