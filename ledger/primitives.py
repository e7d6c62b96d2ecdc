"""The smallest words of the ledger: addresses, hashes, keys, signatures, and how they are checked.

Owns hashing and signature verification. What a signature check accepts is consensus, so each scheme is verified
by one library everywhere: Ed25519 by libsodium, ECDSA P-256 by OpenSSL (docs/decisions/0002).
"""

from __future__ import annotations

import hashlib
from typing import Final, NewType

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from ledger.errors import Malformed

Address = NewType("Address", bytes)  # 20 bytes, names a participant for ever, whatever keys it rotates to
Hash = NewType("Hash", bytes)  # 32 bytes, SHA-256
PublicKey = NewType("PublicKey", bytes)  # 32 bytes, Ed25519
MeterKey = NewType("MeterKey", bytes)  # 32 bytes: Ed25519; 33 bytes: P-256, SEC1 compressed
Signature = NewType("Signature", bytes)  # 64 bytes: Ed25519, or P-256 as r ‖ s
Height = NewType("Height", int)  # 0 is genesis

ADDRESS_BYTES: Final = 20
HASH_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
P256_KEY_BYTES: Final = 33
SIGNATURE_BYTES: Final = 64
ZERO_HASH: Final = Hash(bytes(HASH_BYTES))

ADDRESS_PREFIX: Final = "wp"
ADDRESS_TEXT_LENGTH: Final = 41  # prefix, 1, 32 letters, and 6 of a checksum
_BECH32_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_VALUES: Final = {letter: value for value, letter in enumerate(_BECH32_ALPHABET)}
_BECH32M_CONSTANT: Final = 0x2BC830A3
_BECH32_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def sha256(data: bytes) -> Hash:
    """SHA-256 of ``data``, 32 bytes."""
    return Hash(hashlib.sha256(data).digest())


def compute_address(public_key: PublicKey) -> Address:
    """The address that a first key gives its participant: 20 bytes of a tagged SHA-256."""
    return Address(hashlib.sha256(b"wattprint/address/1\0" + public_key).digest()[:ADDRESS_BYTES])


def is_valid_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) of ``message`` verifies under ``public_key`` (32 bytes), RFC 8032.

    libsodium refuses small-order keys, non-canonical points and scalars: no signature has a second form.
    """
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, public_key)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


def is_valid_p256(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (r ‖ s, 64 bytes) of SHA-256(``message``) verifies under a SEC1 compressed P-256 key.

    Only the lower of the two possible s is accepted, so that no signature has a second form.
    """
    if len(public_key) != P256_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < _P256_ORDER and 0 < s <= _P256_ORDER // 2):
        return False
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def is_valid_meter_signature(key: MeterKey, message: bytes, signature: Signature) -> bool:
    """Whether a meter's key, of either scheme, signed ``message``; the key's length tells the scheme."""
    if len(key) == P256_KEY_BYTES:
        return is_valid_p256(key, message, signature)
    return is_valid_ed25519(key, message, signature)


def format_address(address: Address) -> str:
    """The text form of an address: bech32m (BIP 350) with the prefix ``wp``."""
    data = _regroup(address, from_bits=8, to_bits=5, pad=True)
    checksum = _bech32_polymod([*_expanded_prefix(), *data, 0, 0, 0, 0, 0, 0]) ^ _BECH32M_CONSTANT
    tail = [(checksum >> 5 * (5 - i)) & 31 for i in range(6)]
    return ADDRESS_PREFIX + "1" + "".join(_BECH32_ALPHABET[value] for value in [*data, *tail])


def parse_address(text: str) -> Address:
    """The address that a text names. Raises ``Malformed`` (``address_invalid``) for anything but our bech32m."""
    prefix, _, tail = text.partition("1")
    if len(text) != ADDRESS_TEXT_LENGTH or prefix != ADDRESS_PREFIX:
        raise Malformed("address_invalid", ascii(text[:100]))
    values = [_BECH32_VALUES.get(letter, -1) for letter in tail]
    if -1 in values or _bech32_polymod([*_expanded_prefix(), *values]) != _BECH32M_CONSTANT:
        raise Malformed("address_invalid", ascii(text))
    raw = bytes(_regroup(values[:-6], from_bits=5, to_bits=8, pad=False))
    if format_address(Address(raw)) != text:
        raise Malformed("address_invalid", ascii(text))
    return Address(raw)


def _expanded_prefix() -> list[int]:
    return [ord(c) >> 5 for c in ADDRESS_PREFIX] + [0] + [ord(c) & 31 for c in ADDRESS_PREFIX]


def _bech32_polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATORS):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _regroup(values: bytes | list[int], *, from_bits: int, to_bits: int, pad: bool) -> list[int]:
    accumulator = bits = 0
    result: list[int] = []
    for value in values:
        accumulator = accumulator << from_bits | value
        bits += from_bits
        while bits >= to_bits:
            bits -= to_bits
            result.append(accumulator >> bits & (1 << to_bits) - 1)
    if pad and bits:
        result.append(accumulator << (to_bits - bits) & (1 << to_bits) - 1)
    return result
