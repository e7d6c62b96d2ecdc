"""The whole chain again, from genesis: is the stored state what the stored blocks say?

Owns the check behind ``wattprint node verify``, and the replay that a rollback is made of. It believes the genesis
document and nothing else of the store: certificates, signatures, rules and roots are all checked anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from consensus.light_client import verify_commit
from consensus.messages import ChainContext
from ledger.block import Header, compute_block_id, compute_transactions_root
from ledger.errors import CorruptStore, RuleViolated
from ledger.execution import Chain, execute_block
from ledger.genesis import GenesisDocument, compute_genesis_hash
from ledger.primitives import Hash
from ledger.storage import (
    BLOCK_IDS,
    BLOCKS,
    CERTIFICATES,
    INDEXES,
    RECEIPTS,
    STATE,
    STATE_TRIE,
    TRANSACTION_IDS,
    MemoryStore,
    Reader,
    Store,
    compute_prefix_end,
)
from ledger.transaction import Transaction, TransactionTable
from node import chain_store
from node.index import compute_index_changes
from node.snapshot_verifier import check_receipts
from node.snapshots import KEYS_PER_TURN, make_manifest, verify_manifest

# What the next heights do not read; it stays where it is, so that memory holds the state only.
NOT_KEPT: Final = frozenset({BLOCKS, CERTIFICATES, RECEIPTS, BLOCK_IDS})
ALL_KEPT: Final = frozenset[bytes]()
COMPARED: Final = (STATE, STATE_TRIE, INDEXES, TRANSACTION_IDS)


@dataclass(frozen=True, slots=True)
class Verified:
    """How far it has come: a height whose block, certificate and receipts are right.

    ``is_executed`` False: the block ran before what this store keeps; its place in the chain is checked, not its rules.
    """

    height: int
    head_height: int
    block_id: Hash
    state_root: Hash
    transactions: int  # of this block
    is_executed: bool = True


def verify_store(reader: Reader, document: GenesisDocument, table: TransactionTable) -> Iterator[Verified]:
    """Execute every stored block on an empty state, one step a height, and compare the stored state at the end.

    A store that was pruned, or began at a snapshot, lacks blocks to execute: then the chain of certified headers, the
    blocks that are there and the stored state under the head's root are checked instead.
    Raises ``Rejected`` for the first block that is wrong, and for a stored state that is not the one that follows
    (``stored_state_differs``); ``CorruptStore`` for what cannot be read.
    """
    if chain_store.read_genesis_document(reader) != document:
        raise RuleViolated("genesis_block_differs", document.chain_id)
    if chain_store.read_oldest_height(reader) > 0:
        yield from _verify_kept(reader, document)
        return
    memory = MemoryStore()
    memory.write(chain_store.compute_genesis_batch(document, table), sync=False)
    header = chain_store.get_header(memory, 0)
    if chain_store.get_header(reader, 0) != header:
        raise RuleViolated("genesis_block_differs", document.chain_id)
    head_height = chain_store.read_head_height(reader)
    yield Verified(0, head_height, compute_block_id(header), header.state_root, 0)
    yield from replay_blocks(reader, memory, table, header, until=head_height, dropped=NOT_KEPT)
    expected = chain_store.get_header(reader, head_height).state_root
    stored = chain_store.load_tree(reader)
    if stored.root != expected:
        raise RuleViolated("stored_state_differs", f"root {stored.root.hex()}, expected {expected.hex()}")
    _compare(reader, memory)


def replay_blocks(
    source: Reader, target: Store, table: TransactionTable, header: Header, *, until: int, dropped: frozenset[bytes]
) -> Iterator[Verified]:
    """Execute the blocks of ``source`` after ``header`` on ``target``, whose head that is; written without a sync.

    Keys under the ``dropped`` prefixes are not written. Raises ``Rejected`` for the first block that is wrong.
    """
    document = chain_store.read_genesis_document(target)
    context = ChainContext(document.chain_id, compute_genesis_hash(document))
    chain = Chain(target, chain_store.load_tree(target), header, table)
    head_height = until
    for height in range(header.height + 1, until + 1):
        body, block = chain_store.find_block_bytes(source, height), chain_store.find_block(source, height)
        certificate = chain_store.find_certificate(source, height)
        if body is None or block is None or certificate is None:
            raise CorruptStore(f"block {height} or its certificate is missing")
        verify_commit(certificate, chain_store.read_validators(target), context)
        executed = execute_block(chain, block, body, find_known=_find_nothing)
        if (certificate.height, certificate.block_id) != (height, executed.block_id):
            raise RuleViolated("certificate_of_another_block", f"height {height}")
        if chain_store.get_receipts(source, height, table) != executed.receipts:
            raise RuleViolated("stored_receipts_differ", f"height {height}")
        index_changes = compute_index_changes(target, executed.receipts, executed.block.header)
        batch = chain_store.compute_block_batch(executed, certificate, index_changes)
        target.write({key: value for key, value in batch.items() if key[:1] not in dropped}, sync=False)
        chain = chain.advance(executed)
        state_root = executed.block.header.state_root
        yield Verified(height, head_height, executed.block_id, state_root, len(executed.transactions))


def _verify_kept(reader: Reader, document: GenesisDocument) -> Iterator[Verified]:
    """The chain of trust to the head, the blocks that are kept, and that the stored state has the head's root."""
    head_height = chain_store.read_head_height(reader)
    head = chain_store.get_header(reader, head_height)
    context = ChainContext(document.chain_id, compute_genesis_hash(document))
    verify_manifest(make_manifest(reader, size_bytes=0, chunk_hashes=()), document)  # a chain of trust, no chunks
    oldest = chain_store.read_oldest_height(reader)
    parent = _verify_headers(reader, oldest)
    for height in range(oldest, head_height + 1):
        block, raw = chain_store.find_block(reader, height), reader.get(RECEIPTS + height.to_bytes(8, "big"))
        if block is None or raw is None:
            raise CorruptStore(f"block {height} or its receipts are missing")
        header, block_id = block.header, compute_block_id(block.header)
        if header.height != height or (parent is not None and header.parent_id != compute_block_id(parent)):
            raise RuleViolated("block_parent_wrong", f"height {height}")
        if compute_transactions_root(block.transactions) != header.transactions_root:
            raise RuleViolated("block_transactions_differ", f"height {height}")
        check_receipts(block, raw)
        certificate = chain_store.find_certificate(reader, height)
        if certificate is not None:
            verify_commit(certificate, chain_store.get_validator_set(reader, header.validators_hash), context)
            if (certificate.height, certificate.block_id) != (height, block_id):
                raise RuleViolated("certificate_of_another_block", f"height {height}")
        parent = header
        yield Verified(height, head_height, block_id, header.state_root, len(block.transactions), is_executed=False)
    tree = chain_store.load_tree(reader)
    rebuilt = _rebuild_buckets(reader)
    if tree.root != head.state_root:
        raise RuleViolated("stored_state_differs", f"root {tree.root.hex()}, expected {head.state_root.hex()}")
    _compare_prefix(reader, rebuilt, STATE_TRIE)


def _verify_headers(reader: Reader, end: int) -> Header | None:
    """The headers below ``end`` that are kept lead to one another; returns that of ``end`` − 1, if it is kept."""
    parent: Header | None = None
    for height in range(end):
        header = chain_store.get_header(reader, height) if chain_store.find_block_bytes(reader, height) else None
        if header is not None and parent is not None and header.parent_id != compute_block_id(parent):
            raise RuleViolated("block_parent_wrong", f"height {height}")
        parent = header
    return parent


def _rebuild_buckets(reader: Reader) -> MemoryStore:
    """The state trie's buckets, computed anew from the values of the state."""
    memory = MemoryStore()
    tree = chain_store.load_tree(memory)
    changes: dict[bytes, bytes | None] = {}

    def flush() -> None:
        update = tree.prepare(changes)
        memory.write({STATE_TRIE + path: content for path, content in update.bucket_writes.items()}, sync=False)
        tree.apply(update)
        changes.clear()

    for key, value in reader.scan(STATE, compute_prefix_end(STATE)):
        changes[key] = value
        if len(changes) >= KEYS_PER_TURN:
            flush()
    flush()
    return memory


def _compare(reader: Reader, memory: MemoryStore) -> None:
    """The tree's root is one thing, the values that rules and questions read another: all must be what follows."""
    for prefix in COMPARED:
        _compare_prefix(reader, memory, prefix)


def _compare_prefix(reader: Reader, memory: MemoryStore, prefix: bytes) -> None:
    stop = compute_prefix_end(prefix)
    for stored, computed in zip_longest(reader.scan(prefix, stop), memory.scan(prefix, stop)):
        if stored != computed:
            found = stored or computed
            assert found is not None
            raise RuleViolated("stored_state_differs", found[0].hex())


def _find_nothing(_raw: bytes) -> Transaction | None:
    return None
