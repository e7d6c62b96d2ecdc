"""From a stream to the blocks of its tree, in constant memory: fixed chunks, and a balanced tree above them.

The same bytes give the same CID as ``ipfs add --cid-version=1 --raw-leaves``, for every size. No library on the
package index does both chunking and tree right for every size, so these lines are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ledger.errors import RuleViolated
from node.documents.cid import DAG_PB, RAW, Block, Cid, compute_cid
from node.documents.store import Readable
from node.documents.unixfs import Link, encode_file, encode_node


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file becomes a tree. Every field changes the CID."""

    chunk_bytes: int = 262_144
    links_max: int = 174
    raw_leaves: bool = True
    cid_version: int = 1


LAYOUT: Final = Layout()  # the one that documents are put with


@dataclass(frozen=True, slots=True)
class _Part:
    cid: Cid
    size: int  # bytes of the file under it
    tree_bytes: int  # bytes of all its blocks


def build_blocks(stream: Readable, *, size_max: int, layout: Layout = LAYOUT) -> Iterator[Block]:
    """The blocks of a file, children first; the last one is the root. Memory: one chunk, and one node per tier.

    Raises ``RuleViolated`` (``document_too_large``) as soon as the stream exceeds ``size_max`` bytes.
    """
    tiers: list[list[_Part]] = [[]]  # per height above the leaves: the parts that have no parent yet
    for chunk in _read_chunks(stream, chunk_bytes=layout.chunk_bytes, size_max=size_max):
        block, part = _make_leaf(chunk, layout)
        yield block
        yield from _add(tiers, 0, part, layout)
    height = 0
    while height < len(tiers) - 1 or len(tiers[height]) > 1:
        yield from _fold(tiers, height, layout)
        height += 1


def _add(tiers: list[list[_Part]], height: int, part: _Part, layout: Layout) -> Iterator[Block]:
    # A full tier gets its parent only when one more part arrives: a single full node is the root itself.
    if len(tiers[height]) == layout.links_max:
        yield from _fold(tiers, height, layout)
    tiers[height].append(part)


def _fold(tiers: list[list[_Part]], height: int, layout: Layout) -> Iterator[Block]:
    block, part = _make_node(tiers[height], layout)
    tiers[height] = []
    if height + 1 == len(tiers):
        tiers.append([])
    yield block
    yield from _add(tiers, height + 1, part, layout)


def _make_leaf(chunk: bytes, layout: Layout) -> tuple[Block, _Part]:
    if layout.raw_leaves:
        codec, data = RAW, chunk
    else:
        codec, data = DAG_PB, encode_node((), encode_file(content=chunk, part_sizes=()))
    cid = compute_cid(codec, data, version=layout.cid_version)
    return Block(cid, data), _Part(cid, len(chunk), len(data))


def _make_node(parts: list[_Part], layout: Layout) -> tuple[Block, _Part]:
    sizes = [part.size for part in parts]
    links = [Link(part.cid, b"", part.tree_bytes) for part in parts]
    data = encode_node(links, encode_file(content=b"", part_sizes=sizes))
    cid = compute_cid(DAG_PB, data, version=layout.cid_version)
    return Block(cid, data), _Part(cid, sum(sizes), len(data) + sum(part.tree_bytes for part in parts))


def _read_chunks(stream: Readable, *, chunk_bytes: int, size_max: int) -> Iterator[bytes]:
    """Full chunks, whatever pieces the stream gives; an empty file is one empty chunk."""
    total = 0
    while True:
        chunk = bytearray()
        while len(chunk) < chunk_bytes and (piece := stream.read(chunk_bytes - len(chunk))):
            chunk += piece
            if total + len(chunk) > size_max:
                raise RuleViolated("document_too_large", f"more than {size_max} bytes")
        if chunk or total == 0:
            yield bytes(chunk)
        total += len(chunk)
        if len(chunk) < chunk_bytes:
            return
