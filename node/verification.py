"""The whole chain again, from genesis: is the stored state what the stored blocks say?

Owns the check behind ``wattprint node verify``. It believes the genesis document and nothing else of the store: every
certificate is verified, every transaction's signature and rule runs again, every root is computed anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from consensus.light_client import verify_commit
from consensus.messages import ChainContext, CommitCertificate
from ledger.block import compute_block_id
from ledger.errors import CorruptStore, RuleViolated
from ledger.execution import Chain, Executed, execute_block
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
    compute_prefix_end,
)
from ledger.transaction import Transaction, TransactionTable
from node import chain_store
from node.index import compute_index_changes

NOT_KEPT: Final = frozenset({BLOCKS, CERTIFICATES, RECEIPTS, BLOCK_IDS})
COMPARED: Final = (STATE, STATE_TRIE, INDEXES, TRANSACTION_IDS)


@dataclass(frozen=True, slots=True)
class Verified:
    """How far it has come: a height whose block, certificate and receipts are right."""

    height: int
    head_height: int
    block_id: Hash
    state_root: Hash
    transactions: int  # of this block


def verify_store(reader: Reader, document: GenesisDocument, table: TransactionTable) -> Iterator[Verified]:
    """Execute every stored block on an empty state, one step a height, and compare the stored state at the end.

    Raises ``Rejected`` for the first block that is wrong, and for a stored state that is not the one that follows
    (``stored_state_differs``); ``CorruptStore`` for what cannot be read.
    """
    head_height = chain_store.read_head_height(reader)
    context = ChainContext(document.chain_id, compute_genesis_hash(document))
    memory = MemoryStore()
    memory.write(chain_store.compute_genesis_batch(document, table), sync=False)
    header = chain_store.get_header(memory, 0)
    if chain_store.get_header(reader, 0) != header:
        raise RuleViolated("genesis_block_differs", document.chain_id)
    tree = chain_store.load_tree(memory)
    yield Verified(0, head_height, compute_block_id(header), header.state_root, 0)
    for height in range(1, head_height + 1):
        body, block = chain_store.find_block_bytes(reader, height), chain_store.find_block(reader, height)
        certificate = chain_store.find_certificate(reader, height)
        if body is None or block is None or certificate is None:
            raise CorruptStore(f"block {height} or its certificate is missing")
        verify_commit(certificate, chain_store.read_validators(memory), context)
        executed = execute_block(Chain(memory, tree, header, table), block, body, find_known=_find_nothing)
        if (certificate.height, certificate.block_id) != (height, executed.block_id):
            raise RuleViolated("certificate_of_another_block", f"height {height}")
        if chain_store.get_receipts(reader, height, table) != executed.receipts:
            raise RuleViolated("stored_receipts_differ", f"height {height}")
        memory.write(_compute_kept(memory, executed, certificate), sync=False)
        tree.apply(executed.tree_update)
        header = executed.block.header
        yield Verified(height, head_height, executed.block_id, header.state_root, len(executed.transactions))
    stored = chain_store.load_tree(reader)
    if stored.root != tree.root:
        raise RuleViolated("stored_state_differs", f"root {stored.root.hex()}, expected {tree.root.hex()}")
    _compare(reader, memory)


def _compute_kept(memory: MemoryStore, executed: Executed, certificate: CommitCertificate) -> dict[bytes, bytes | None]:
    """What the next heights read; blocks and receipts stay where they are, so that memory holds the state only."""
    index_changes = compute_index_changes(memory, executed.receipts, executed.block.header)
    batch = chain_store.compute_block_batch(executed, certificate, index_changes)
    return {key: value for key, value in batch.items() if key[:1] not in NOT_KEPT}


def _compare(reader: Reader, memory: MemoryStore) -> None:
    """The tree's root is one thing, the values that rules and questions read another: all must be what follows."""
    for prefix in COMPARED:
        stop = compute_prefix_end(prefix)
        for stored, computed in zip_longest(reader.scan(prefix, stop), memory.scan(prefix, stop)):
            if stored != computed:
                found = stored or computed
                assert found is not None
                raise RuleViolated("stored_state_differs", found[0].hex())


def _find_nothing(_raw: bytes) -> Transaction | None:
    return None
