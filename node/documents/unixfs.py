"""The nodes of a file's tree: dag-pb (links and data) around UnixFS v1 (kind, size, sizes of the parts).

Both are protobuf; the few fields that exist are written and read here by hand, because what is hashed must be the
same bytes everywhere. Reading is strict about order, sizes and limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.errors import Malformed
from node.documents.cid import BLOCK_BYTES_MAX, Cid, decode_link, decode_varint, encode_varint

# UnixFS kinds
KIND_RAW: Final = 0
KIND_DIRECTORY: Final = 1
KIND_FILE: Final = 2

LINKS_MAX: Final = 1_024  # the widest layout in use; ours has 174
NAME_BYTES_MAX: Final = 1_024

_VARINT, _BYTES = 0, 2  # protobuf wire types


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a node. ``tree_bytes``: all blocks under it, itself included; what IPFS calls Tsize."""

    cid: Cid
    name: bytes
    tree_bytes: int


@dataclass(frozen=True, slots=True)
class Node:
    links: tuple[Link, ...]
    data: bytes | None


@dataclass(frozen=True, slots=True)
class FileNode:
    """What a UnixFS node of a file says: its own content first, then the sizes of its parts, and the sum of all."""

    content: bytes
    part_sizes: tuple[int, ...]
    size: int


def encode_node(links: Sequence[Link], data: bytes) -> bytes:
    """The canonical dag-pb bytes: links first, then the data."""
    parts = []
    for link in links:
        body = _encode_bytes(1, bytes(link.cid)) + _encode_bytes(2, link.name) + _encode_number(3, link.tree_bytes)
        parts.append(_encode_bytes(2, body))
    return b"".join(parts) + _encode_bytes(1, data)


def encode_file(*, content: bytes, part_sizes: Sequence[int]) -> bytes:
    """The UnixFS data of a file's node: ``content`` in a leaf, or the sizes of the parts in an inner node."""
    size = len(content) + sum(part_sizes)
    head = _encode_number(1, KIND_FILE) + (_encode_bytes(2, content) if content else b"")
    return head + _encode_number(3, size) + b"".join(_encode_number(4, part) for part in part_sizes)


def decode_node(data: bytes) -> Node:
    """The node of a dag-pb block. Raises ``Malformed``: ``dag_node_malformed``, ``dag_too_wide``, ``cid_invalid``."""
    assert len(data) <= BLOCK_BYTES_MAX
    links: list[Link] = []
    payload: bytes | None = None
    for field, value in _read_fields(data, reason="dag_node_malformed"):
        if not isinstance(value, bytes) or payload is not None:
            raise Malformed("dag_node_malformed", "links come first, then the data, once")
        if field == 2:
            if len(links) == LINKS_MAX:
                raise Malformed("dag_too_wide", f"more than {LINKS_MAX} links")
            links.append(_decode_node_link(value))
        elif field == 1:
            payload = value
        else:
            raise Malformed("dag_node_malformed", f"field {field}")
    return Node(tuple(links), payload)


def decode_file(node: Node) -> FileNode:
    """What a node of a file says. Raises ``Malformed``: ``document_not_a_file``, ``unixfs_malformed``.

    The sizes add up and no part is empty: so the size of a root bounds the whole tree.
    """
    kind, content, size, last = -1, b"", 0, 0
    part_sizes: list[int] = []
    for field, value in _read_fields(node.data or b"", reason="unixfs_malformed"):
        if field < last or (field == last and field != 4):
            raise Malformed("unixfs_malformed", "the fields are out of order")
        last = field
        match field, value:
            case 1, int():
                kind = value
            case 2, bytes():
                content = value
            case 3, int():
                size = value
            case 4, int() if value > 0 and len(part_sizes) < LINKS_MAX:
                part_sizes.append(value)
            case (7, int()) | (8, bytes()):  # mode and time of change: of no use here
                pass
            case _:
                raise Malformed("unixfs_malformed", f"field {field}")
    if kind not in (KIND_RAW, KIND_FILE):
        raise Malformed("document_not_a_file", f"UnixFS kind {kind}")
    if len(part_sizes) != len(node.links) or size != len(content) + sum(part_sizes):
        raise Malformed("unixfs_malformed", "the sizes do not add up")
    return FileNode(content, tuple(part_sizes), size)


def _decode_node_link(data: bytes) -> Link:
    cid, name, tree_bytes, last = None, b"", 0, 0
    for field, value in _read_fields(data, reason="dag_node_malformed"):
        if field <= last:
            raise Malformed("dag_node_malformed", "a link's fields are out of order")
        last = field
        match field, value:
            case 1, bytes():
                cid = decode_link(value)
            case 2, bytes() if len(value) <= NAME_BYTES_MAX:
                name = value
            case 3, int():
                tree_bytes = value
            case _:
                raise Malformed("dag_node_malformed", f"field {field} of a link")
    if cid is None:
        raise Malformed("dag_node_malformed", "a link without a CID")
    return Link(cid, name, tree_bytes)


def _read_fields(data: bytes, *, reason: str) -> Iterator[tuple[int, int | bytes]]:
    position = 0
    while position < len(data):
        key, position = decode_varint(data, position, reason=reason)
        value, position = decode_varint(data, position, reason=reason)
        field, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            yield field, value
        elif wire_type == _BYTES and value <= len(data) - position:
            yield field, data[position : position + value]
            position += value
        else:
            raise Malformed(reason, "a field is cut short, or of an unknown form")


def _encode_number(field: int, value: int) -> bytes:
    return encode_varint(field << 3 | _VARINT) + encode_varint(value)


def _encode_bytes(field: int, value: bytes) -> bytes:
    return encode_varint(field << 3 | _BYTES) + encode_varint(len(value)) + value
