"""Who may read a document: its key sealed to one reader at a time, and bound to the chain, the document, the reader.

A grant stands on the ledger as 80 bytes. It opens only with the reader's private key, and only in its own place:
moved to another document or another chain, it is noise. Owns also the key's text form, which the age command reads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from ledger.encoding import encode
from ledger.errors import Malformed
from ledger.primitives import Address

DocumentKey = NewType("DocumentKey", bytes)  # 32 bytes: the X25519 private key that one document is encrypted to
Salt = NewType("Salt", bytes)  # 32 bytes

KEY_BYTES: Final = 32
GRANT_BYTES: Final = 80  # 32 of a one-time public key, 32 sealed, 16 of a tag

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_GRANT_TAG: Final = "wattprint/document-grant/1"
_SALT_TAG: Final = b"wattprint/document-salt/1\0"
_COMMITMENT_TAG: Final = b"wattprint/document-commitment/1\0"

_IDENTITY_PREFIX: Final = "age-secret-key-"
_IDENTITY_LENGTH: Final = 74
_BECH32_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


@dataclass(frozen=True, slots=True)
class GrantPlace:
    """Where a grant stands, and nowhere else: chain, document, reader."""

    chain_id: str
    document_id: bytes
    reader: Address


def seal_grant(key: DocumentKey, reader_key: bytes, place: GrantPlace) -> bytes:
    """The 80 bytes that only the holder of ``reader_key`` (X25519 public, 32 bytes) can open, only at ``place``.

    Raises ``Malformed`` (``encryption_key_invalid``) for a key of small order or another length.
    """
    assert len(key) == KEY_BYTES
    try:
        sealed = _SUITE.encrypt(key, X25519PublicKey.from_public_bytes(reader_key), info=_encode_place(place))
    except ValueError:
        raise Malformed("encryption_key_invalid", reader_key.hex()[: 2 * KEY_BYTES]) from None
    assert len(sealed) == GRANT_BYTES
    return sealed


def open_grant(sealed: bytes, reader_private: bytes, place: GrantPlace) -> DocumentKey:
    """The document's key. Raises ``Malformed`` (``grant_not_opened``): altered, another reader's, or out of place."""
    assert len(reader_private) == KEY_BYTES
    if len(sealed) != GRANT_BYTES:
        raise Malformed("grant_not_opened", f"{len(sealed)} bytes, a grant has {GRANT_BYTES}")
    try:
        key = _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(reader_private), info=_encode_place(place))
    except (InvalidTag, ValueError):
        raise Malformed("grant_not_opened", "altered, another reader's, or of another document") from None
    assert len(key) == KEY_BYTES, "the length of a grant fixes that of the key"
    return DocumentKey(key)


def check_encryption_key(reader_key: bytes) -> None:
    """Raises ``Malformed`` (``encryption_key_invalid``) for what nothing could be sealed to."""
    seal_grant(DocumentKey(bytes(KEY_BYTES)), reader_key, GrantPlace("", b"", Address(b"")))


def compute_public_key(private_key: bytes) -> bytes:
    """The X25519 public key of a reader's private key, 32 bytes each."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def derive_salt(key: DocumentKey) -> Salt:
    """The salt of a document's commitment: who has the key can check it, and it is destroyed with the key."""
    return Salt(hashlib.sha256(_SALT_TAG + key).digest())


class Commitment:
    """The salted hash of a plain content, fed piece by piece. Without the salt it tells nothing about the content."""

    def __init__(self, salt: Salt) -> None:
        self._hash = hashlib.sha256(_COMMITMENT_TAG + salt)

    def update(self, piece: bytes) -> None:
        self._hash.update(piece)

    def compute(self) -> bytes:
        """The commitment to what was fed so far, 32 bytes."""
        return self._hash.digest()


def format_identity(key: DocumentKey) -> str:
    """The key as the ``age`` command reads it: ``AGE-SECRET-KEY-1…``, Bech32 (BIP 173) in upper case."""
    bits = int.from_bytes(key, "big") << 4  # 256 bits in 52 digits of 5
    digits = [bits >> 5 * (51 - position) & 31 for position in range(52)]
    check = _compute_polymod([*_expand_prefix(), *digits, 0, 0, 0, 0, 0, 0]) ^ 1
    digits += [check >> 5 * (5 - position) & 31 for position in range(6)]
    return (_IDENTITY_PREFIX + "1" + "".join(_BECH32_ALPHABET[digit] for digit in digits)).upper()


def parse_identity(text: str) -> DocumentKey:
    """The key of such a text. Raises ``Malformed`` (``identity_invalid``), which does not repeat the secret."""
    digits = [_BECH32_ALPHABET.find(letter) for letter in text[len(_IDENTITY_PREFIX) + 1 : -6].lower()]
    if len(text) != _IDENTITY_LENGTH or -1 in digits:
        raise Malformed("identity_invalid")
    bits = 0
    for digit in digits:
        bits = bits << 5 | digit
    key = DocumentKey((bits >> 4).to_bytes(KEY_BYTES, "big"))
    if format_identity(key) != text:
        raise Malformed("identity_invalid")
    return key


def _encode_place(place: GrantPlace) -> bytes:
    return encode((_GRANT_TAG, place.chain_id, place.document_id, place.reader))


def _expand_prefix() -> list[int]:
    codes = [ord(letter) for letter in _IDENTITY_PREFIX]
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _compute_polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATORS):
            if top >> bit & 1:
                checksum ^= generator
    return checksum
