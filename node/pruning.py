"""Forgetting old blocks: what may go, what stays, and the writes that let it go, a few at a time.

Owns the line below which a node keeps headers only. Pure. Above the line everything stays; below it a height keeps its
header and its id, and where the validators changed its certificate, so that the chain of trust has no gap.

The line is never above what others may still need: a block that a transaction still valid could be in (its id refuses
the replay), and one that evidence may still speak of. State, state trie and index are of the head, and are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ledger.block import decode_stored_header
from ledger.errors import CorruptStore, RuleViolated
from ledger.parameters import get_parameters
from ledger.state import State
from ledger.storage import BLOCKS, CERTIFICATES, RECEIPTS, TRANSACTION_IDS, Changes, Reader, format_height
from node import chain_store
from node.snapshot_verifier import read_tx_id
from node.snapshots import compute_oldest_needed

EVIDENCE_BLOCKS_MAX: Final = (
    100_000  # evidence may be this old in blocks, and this old in time: older in either is void
)
EVIDENCE_AGE_MS_MAX: Final = 48 * 3_600_000
HEIGHTS_PER_BATCH: Final = 200
BYTES_PER_BATCH: Final = 4 * 1024 * 1024


def compute_line(reader: Reader, *, retain_blocks: int) -> int:
    """The lowest height to be kept whole. Raises ``Rejected`` (``retain_too_few``) for less than one block."""
    if retain_blocks < 1:
        raise RuleViolated("retain_too_few", retain_blocks)
    head = chain_store.read_head_height(reader)
    lifetime = get_parameters(State(reader)).transaction_lifetime_blocks
    wanted = head + 1 - retain_blocks
    needed = min(compute_oldest_needed(head, lifetime), find_oldest_evidence(reader))
    return max(chain_store.read_oldest_height(reader), min(wanted, needed), 0)


def find_oldest_evidence(reader: Reader) -> int:
    """The lowest height of which evidence could still be brought after the head."""
    head = chain_store.read_head_height(reader)
    since_ms = chain_store.get_header(reader, head).time_ms - EVIDENCE_AGE_MS_MAX
    low = max(chain_store.read_oldest_height(reader), head - EVIDENCE_BLOCKS_MAX, 0)
    high = head
    while low < high:  # block times rise
        middle = (low + high) // 2
        if chain_store.get_header(reader, middle).time_ms < since_ms:
            low = middle + 1
        else:
            high = middle
    return low


def iterate_prune(reader: Reader, *, line: int) -> Iterator[Changes]:
    """Batches that make ``line`` the oldest height kept whole, lowest first; each leaves a sound store behind it.

    The reader shows each batch before the next is asked for.
    """
    handovers = frozenset(chain_store.list_handovers(reader))
    height = max(1, chain_store.read_oldest_height(reader))
    while height < line:
        batch: dict[bytes, bytes | None] = {}
        size = 0
        until = min(line, height + HEIGHTS_PER_BATCH)
        while height < until and size < BYTES_PER_BATCH:
            size += _prune_height(reader, height, batch, keeps_certificate=height in handovers)
            height += 1
        batch[chain_store.OLDEST_KEY] = format_height(height)
        yield batch


def _prune_height(reader: Reader, height: int, batch: dict[bytes, bytes | None], *, keeps_certificate: bool) -> int:
    """Adds the writes for one height; returns about how many bytes it takes to read them."""
    raw, block = chain_store.find_block_bytes(reader, height), chain_store.find_block(reader, height)
    if raw is None or block is None:
        raise CorruptStore(f"block {height} is missing")
    key = format_height(height)
    batch[BLOCKS + key] = chain_store.encode_header_only(decode_stored_header(raw))
    batch[RECEIPTS + key] = None
    if not keeps_certificate:
        batch[CERTIFICATES + key] = None
    for envelope in block.transactions:
        batch[TRANSACTION_IDS + read_tx_id(envelope)] = None
    return len(raw)
