"""Content identifiers: what a block of IPFS is called, in bytes and in text, and whether a block deserves its name.

The ledger and the command line know one form, CIDv1 in canonical base32. Links inside a DAG may be of version 0,
and a daemon may answer in another base: those are read, never written in new documents.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from ledger.errors import Malformed

RAW: Final = 0x55  # a leaf: the content itself
DAG_PB: Final = 0x70  # a node of a tree, or a leaf wrapped by older programs
DIGEST_BYTES: Final = 32
MULTIHASH_PREFIX: Final = bytes((0x12, DIGEST_BYTES))  # SHA-256
CID_BYTES: Final = 36  # version, codec, hash function, length, digest
CID_TEXT_LENGTH: Final = 59
TEXT_LENGTH_MAX: Final = 100  # base16 needs 73
BLOCK_BYTES_MAX: Final = 2 * 1024 * 1024  # what daemons exchange at most

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_V0_TEXT_LENGTH: Final = 46

Digest: TypeAlias = bytes


@dataclass(frozen=True, slots=True, order=True)
class Cid:
    """The name of a block: codec and SHA-256. Version 0 occurs in links only, and always means dag-pb."""

    codec: int
    digest: Digest
    version: int = 1

    def __post_init__(self) -> None:
        assert len(self.digest) == DIGEST_BYTES
        assert (self.version, self.codec) in ((1, RAW), (1, DAG_PB), (0, DAG_PB))

    def __bytes__(self) -> bytes:
        """36 bytes, or for version 0 the 34 bytes of the multihash alone."""
        head = bytes((self.version, self.codec)) if self.version else b""
        return head + MULTIHASH_PREFIX + self.digest

    def __str__(self) -> str:
        return format_cid(self)


@dataclass(frozen=True, slots=True)
class Block:
    """A block and its name. Whoever makes one from bytes of a stranger checks it with ``is_named``."""

    cid: Cid
    data: bytes


def compute_cid(codec: int, data: bytes, *, version: int = 1) -> Cid:
    """The name of a block."""
    return Cid(codec, hashlib.sha256(data).digest(), version)


def is_named(cid: Cid, data: bytes) -> bool:
    """Whether ``data`` hashes to its name."""
    return hashlib.sha256(data).digest() == cid.digest


def format_cid(cid: Cid) -> str:
    """The text of a CID: base32 in lower case, 59 characters; base58 for version 0."""
    if cid.version == 0:
        return _encode_base58(bytes(cid))
    return "b" + base64.b32encode(bytes(cid)).decode().lower().rstrip("=")


def parse_cid(text: str) -> Cid:
    """The CID that a person or the ledger names. Raises ``Malformed`` (``cid_invalid``) for anything but our form.

    One document has one text: another base, upper case, a path, version 0 are refused, however well they parse.
    """
    if len(text) != CID_TEXT_LENGTH or not text.isascii() or not text.startswith("b"):
        raise Malformed("cid_invalid", ascii(text[:TEXT_LENGTH_MAX]))
    try:
        cid = decode_cid(base64.b32decode(text[1:].upper() + "======"))
    except (binascii.Error, Malformed):
        raise Malformed("cid_invalid", ascii(text)) from None
    if format_cid(cid) != text:
        raise Malformed("cid_invalid", ascii(text))
    return cid


def decode_cid(data: bytes) -> Cid:
    """The CID of 36 bytes: version 1, raw or dag-pb, SHA-256. Raises ``Malformed`` (``cid_invalid``)."""
    if len(data) != CID_BYTES or data[0] != 1 or data[1] not in (RAW, DAG_PB) or data[2:4] != MULTIHASH_PREFIX:
        raise Malformed("cid_invalid", data[: CID_BYTES + 1].hex())
    return Cid(data[1], data[4:])


def decode_link(data: bytes) -> Cid:
    """The CID of a link: 36 bytes, or 34 for version 0. Raises ``Malformed`` (``cid_invalid``)."""
    if len(data) == CID_BYTES - 2 and data[:2] == MULTIHASH_PREFIX:
        return Cid(DAG_PB, data[2:], version=0)
    return decode_cid(data)


def parse_any_base(text: str) -> Cid:
    """The CID that a daemon names, in whichever base it likes. Raises ``Malformed`` (``cid_invalid``)."""
    if len(text) > TEXT_LENGTH_MAX or not text.isascii():
        raise Malformed("cid_invalid", ascii(text[:TEXT_LENGTH_MAX]))
    if len(text) == _V0_TEXT_LENGTH and text.startswith("Qm"):
        return decode_link(_decode_base58(text))
    base, digits = text[:1], text[1:]
    try:
        match base:
            case "b" | "B":
                data = base64.b32decode(digits + "=" * (-len(digits) % 8), casefold=True)
            case "z":
                data = _decode_base58(digits)
            case "f" | "F":
                data = bytes.fromhex(digits)
            case "u":
                data = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
            case _:
                raise Malformed("cid_invalid", text)
    except ValueError:
        raise Malformed("cid_invalid", text) from None
    return decode_cid(data)


def encode_varint(value: int) -> bytes:
    """An unsigned LEB128 number, as protobuf, CAR and multiformats write it."""
    assert value >= 0
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def decode_varint(data: bytes, start: int, *, reason: str) -> tuple[int, int]:
    """The number at ``start`` and where it ends; at most 63 bits, in its shortest form. Raises ``Malformed``."""
    value = shift = 0
    for position in range(start, min(start + 9, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if byte == 0 and position > start:
                break
            return value, position + 1
    raise Malformed(reason, "a number is cut short, too long, or not in its shortest form")


def _encode_base58(data: bytes) -> str:
    value, text = int.from_bytes(data, "big"), ""
    while value:
        value, digit = divmod(value, 58)
        text = _BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def _decode_base58(text: str) -> bytes:
    value = 0
    for letter in text:
        digit = _BASE58.find(letter)
        if digit < 0:
            raise Malformed("cid_invalid", text)
        value = value * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + value.to_bytes((value.bit_length() + 7) // 8, "big")
