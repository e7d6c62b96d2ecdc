"""From a root to the content, whoever holds the blocks: each is hashed before anything in it is believed.

Owns the limits of a tree: depth, width, size of a block, number of blocks, and the total against the declared size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from ledger.errors import Malformed, RuleViolated
from node.documents.cid import BLOCK_BYTES_MAX, RAW, Block, Cid, Digest, is_named
from node.documents.store import StoreFailed
from node.documents.unixfs import decode_file, decode_node

DEPTH_MAX: Final = 8  # tiers of nodes; three hold a terabyte
BLOCKS_MAX: Final = 200_000  # of one document: 4 GiB in chunks of 256 KiB are 16,384
TREE_BYTES_MAX: Final = 128 * 1024 * 1024  # what so many blocks can weigh beside the content

GetBlock: TypeAlias = Callable[[Cid], bytes]  # raises StoreFailed (block_absent); what it gives is not believed


@dataclass(frozen=True, slots=True)
class Visit:
    """One block of a document, and the piece of content that it holds itself; ``size``: of all below it, too."""

    block: Block
    content: bytes
    size: int


@dataclass(frozen=True, slots=True)
class _Due:
    cid: Cid
    size: int | None  # what the parent declared
    depth: int


def walk(get_block: GetBlock, root: Cid, *, size_max: int) -> Iterator[Visit]:
    """The blocks of a document, parents first, in the order of the content.

    Raises ``StoreFailed`` (``block_absent``, ``block_too_large``, ``block_hash_wrong``), ``Malformed``
    (``dag_too_deep``, ``dag_too_wide``, ``dag_too_large``, ``dag_node_malformed``, ``unixfs_malformed``,
    ``document_not_a_file``), ``RuleViolated`` (``document_too_large``, before anything is given).
    """
    due = [_Due(root, None, 0)]
    visited = 0
    while due:
        item = due.pop()
        visited += 1
        if visited > BLOCKS_MAX:
            raise Malformed("dag_too_large", f"{root} has more than {BLOCKS_MAX} blocks")
        visit, parts = _visit(get_block, item)
        if item.size is None and visit.size > size_max:
            raise RuleViolated("document_too_large", f"{visit.size} bytes, at most {size_max}")
        yield visit
        due += reversed(parts)


def find_digests(get_block: GetBlock, root: Cid) -> Iterator[Digest]:
    """The digest of every block of a document. Raw leaves are named by their parents, and not read."""
    due = [_Due(root, None, 0)]
    visited = 0
    while due:
        item = due.pop()
        visited += 1
        if visited > BLOCKS_MAX:
            raise Malformed("dag_too_large", f"{root} has more than {BLOCKS_MAX} blocks")
        yield item.cid.digest
        if item.cid.codec != RAW:
            due += _visit(get_block, item)[1]


def read_verified(get_block: GetBlock, cid: Cid) -> Block:
    """A block that hashes to its name. Raises ``StoreFailed``: ``block_absent``, ``block_too_large``,
    ``block_hash_wrong``.
    """
    return check_block(cid, get_block(cid))


def check_block(cid: Cid, data: bytes) -> Block:
    """The block, if ``data`` deserves the name. Raises ``StoreFailed``: ``block_too_large``, ``block_hash_wrong``."""
    if len(data) > BLOCK_BYTES_MAX:
        raise StoreFailed("block_too_large", f"{cid}: {len(data)} bytes, at most {BLOCK_BYTES_MAX}")
    if not is_named(cid, data):
        raise StoreFailed("block_hash_wrong", cid)
    return Block(cid, data)


def _visit(get_block: GetBlock, item: _Due) -> tuple[Visit, list[_Due]]:
    if item.depth > DEPTH_MAX:
        raise Malformed("dag_too_deep", f"{item.cid}: more than {DEPTH_MAX} tiers")
    block = read_verified(get_block, item.cid)
    if item.cid.codec == RAW:
        visit, parts = Visit(block, block.data, len(block.data)), []
    else:
        node = decode_node(block.data)
        file = decode_file(node)
        visit = Visit(block, file.content, file.size)
        links = zip(node.links, file.part_sizes, strict=True)
        parts = [_Due(link.cid, size, item.depth + 1) for link, size in links]
    if item.size is not None and visit.size != item.size:
        raise Malformed("unixfs_malformed", f"{item.cid} has {visit.size} bytes, its parent says {item.size}")
    return visit, parts
