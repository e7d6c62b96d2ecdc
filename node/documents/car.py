"""CAR version 1: the blocks of a DAG in one stream, with the names of its roots in front.

What is written has one root and is read by every daemon. What is read is verified block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ledger.errors import Malformed
from node.documents.cid import (
    BLOCK_BYTES_MAX,
    CID_BYTES,
    Block,
    Cid,
    decode_link,
    decode_varint,
    encode_varint,
    is_named,
)
from node.documents.store import Readable, StoreFailed

ROOTS_MAX: Final = 16
HEADER_BYTES_MAX: Final = 1_024
_VARINT_BYTES_MAX: Final = 9

# The header is dag-cbor, and has one form: {"roots": [CIDs], "version": 1}, a CID being tag 42 of bytes after a zero.
_MAP_ROOTS: Final = b"\xa2\x65roots"
_VERSION_1: Final = b"\x67version\x01"
_TAG_CID: Final = b"\xd8\x2a\x58"


@dataclass(frozen=True, slots=True)
class Car:
    """An opened archive: its roots, and its blocks as they are read."""

    roots: tuple[Cid, ...]
    blocks: Iterator[Block]


def encode_header(root: Cid) -> bytes:
    """The header of an archive with one root; as long for one root of version 1 as for another."""
    name = b"\0" + bytes(root)
    header = _MAP_ROOTS + b"\x81" + _TAG_CID + bytes((len(name),)) + name + _VERSION_1
    return encode_varint(len(header)) + header


def encode_block(block: Block) -> bytes:
    """A block as it stands in an archive."""
    name = bytes(block.cid)
    return encode_varint(len(name) + len(block.data)) + name + block.data


def read_car(stream: Readable) -> Car:
    """Opens an archive. Raises ``Malformed`` (``car_malformed``, ``cid_invalid``); so may its blocks as they are
    read, and ``StoreFailed`` (``block_hash_wrong``).
    """
    header = _read_section(stream, bytes_max=HEADER_BYTES_MAX)
    if header is None:
        raise Malformed("car_malformed", "empty")
    return Car(_decode_roots(header), _read_blocks(stream))


def _read_blocks(stream: Readable) -> Iterator[Block]:
    while (section := _read_section(stream, bytes_max=CID_BYTES + BLOCK_BYTES_MAX)) is not None:
        name_bytes = CID_BYTES if section[:1] == b"\x01" else CID_BYTES - 2
        cid = decode_link(section[:name_bytes])
        data = section[name_bytes:]
        if not is_named(cid, data):
            raise StoreFailed("block_hash_wrong", cid)
        yield Block(cid, data)


def _decode_roots(header: bytes) -> tuple[Cid, ...]:
    count = header[len(_MAP_ROOTS)] - 0x80 if len(header) > len(_MAP_ROOTS) else -1
    if not header.startswith(_MAP_ROOTS) or not header.endswith(_VERSION_1) or not 0 <= count <= ROOTS_MAX:
        raise Malformed("car_malformed", "not a header of version 1")
    position, roots = len(_MAP_ROOTS) + 1, []
    for _ in range(count):
        start = position + len(_TAG_CID) + 2
        if header[position : position + len(_TAG_CID)] != _TAG_CID or header[start - 1 : start] != b"\0":
            raise Malformed("car_malformed", "a root is not a CID")
        position = start + header[start - 2] - 1
        roots.append(decode_link(header[start:position]))
    if header[position:] != _VERSION_1:
        raise Malformed("car_malformed", "not a header of version 1")
    return tuple(roots)


def _read_section(stream: Readable, *, bytes_max: int) -> bytes | None:
    """The next section, or None at the end of the stream, which may only be between two sections."""
    prefix = b""
    while not prefix or prefix[-1] >= 0x80:
        byte = stream.read(1)
        if not byte and not prefix:
            return None
        if not byte or len(prefix) == _VARINT_BYTES_MAX:
            raise Malformed("car_malformed", "a length is cut short, or too long")
        prefix += byte
    length, _ = decode_varint(prefix, 0, reason="car_malformed")
    if not 0 < length <= bytes_max:
        raise Malformed("car_malformed", f"a section of {length} bytes, at most {bytes_max}")
    section = bytearray()
    while len(section) < length and (piece := stream.read(length - len(section))):
        section += piece
    if len(section) < length:
        raise Malformed("car_malformed", "cut short")
    return bytes(section)
