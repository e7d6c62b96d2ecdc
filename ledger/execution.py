"""The story: how a block is built, how it is executed, how one transaction applies.

Owns the state transition. Builder and voter run the same ``execute_transaction``; a block holds only transactions
that applied, so a voter that meets a refusal refuses the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from ledger.block import (
    BLOCK_BYTES_MAX,
    Block,
    Header,
    check_header,
    compute_block_id,
    compute_transactions_root,
    encode_block,
)
from ledger.errors import NotAdmitted, Rejected, RuleViolated
from ledger.parameters import get_parameters
from ledger.primitives import Hash, PublicKey
from ledger.receipt import Event, Receipt, compute_event_leaves, compute_events_root
from ledger.state import HOT_VALUES_MAX, State
from ledger.state_root import StateTree, StateUpdate
from ledger.storage import TRANSACTION_IDS, Reader
from ledger.transaction import (
    BlockContext,
    BlockEnd,
    Transaction,
    TransactionTable,
    TxContext,
    check_signatures,
    decode_transaction,
)
from ledger.validators import VALIDATORS, get_protocol_version

HEADER_BYTES_RESERVED: Final = 1_024
TRANSACTION_OVERHEAD_BYTES: Final = 5  # the longest length prefix of a transaction in a block


@dataclass(frozen=True, slots=True)
class Chain:
    """What a block builds on: the committed state, its tree, the last header, and the table of transactions.

    ``hot`` keeps decoded values of the committed state from block to block; ``advance`` is the way to the next head.
    """

    reader: Reader
    tree: StateTree
    parent: Header
    table: TransactionTable
    hot: dict[bytes, object] = field(default_factory=dict, repr=False)

    def advance(self, executed: Executed) -> Chain:
        """The chain with a block on top whose changes the reader shows already."""
        self.tree.apply(executed.tree_update)
        if len(self.hot) > HOT_VALUES_MAX:
            self.hot.clear()
        self.hot.update(executed.hot_changes)
        return Chain(self.reader, self.tree, executed.block.header, self.table, self.hot)

    def make_state(self) -> State:
        """A fresh overlay over the committed state."""
        return State(self.reader, hot=self.hot)


@dataclass(frozen=True, slots=True)
class Executed:
    """A block with all that followed from executing it: kept by block id, written whole when the block commits."""

    block: Block
    block_id: Hash
    body: bytes
    transactions: tuple[Transaction, ...]
    receipts: tuple[Receipt, ...]
    event_leaves: tuple[tuple[bytes, ...], ...]  # of each transaction
    changes: dict[bytes, bytes | None]
    hot_changes: dict[bytes, object | None]
    tree_update: StateUpdate


@dataclass(frozen=True, slots=True)
class Dropped:
    """A candidate that no longer applies, and why."""

    transaction: Transaction
    error: Rejected


def build_block(
    chain: Chain, candidates: Iterable[Transaction], *, time_ms: int, proposer: PublicKey
) -> tuple[Executed, tuple[Dropped, ...]]:
    """Build the next block from the candidates that apply, in their order, within the limits in force.

    ``candidates`` have had their signatures checked. What does not apply is reported, what did not fit is not.
    """
    state = chain.make_state()
    limits = get_parameters(state)
    context = make_block_context(chain, state, time_ms)
    room = min(limits.block_bytes_max, BLOCK_BYTES_MAX) - HEADER_BYTES_RESERVED
    taken: list[Transaction] = []
    receipts: list[Receipt] = []
    dropped: list[Dropped] = []
    seen: set[Hash] = set()
    for tx in candidates:
        size = len(tx.raw) + TRANSACTION_OVERHEAD_BYTES
        if len(taken) >= limits.block_transactions_max:
            break
        if size > room:
            continue
        try:
            check_not_used(chain.reader, tx.tx_id, seen)
            events = execute_transaction(state, tx, chain.table, context, index=len(taken))
        except Rejected as error:
            dropped.append(Dropped(tx, error))
            continue
        seen.add(tx.tx_id)
        room -= size
        taken.append(tx)
        receipts.append(Receipt(tx.tx_id, events))
    validators_hash = _finish_block(chain, state, context, proposer)
    raws = tuple(tx.raw for tx in taken)
    changes = state.compute_changes()
    update = chain.tree.prepare(changes)
    leaves = compute_event_leaves(receipts)
    header = _make_header(
        chain.parent, context, proposer, raws, leaves, state_root=update.root, next_validators_hash=validators_hash
    )
    block = Block(header, raws)
    executed = Executed(
        block,
        compute_block_id(header),
        encode_block(block),
        tuple(taken),
        tuple(receipts),
        leaves,
        changes,
        state.get_hot_changes(),
        update,
    )
    return executed, tuple(dropped)


def execute_block(
    chain: Chain, block: Block, body: bytes, *, find_known: Callable[[bytes], Transaction | None]
) -> Executed:
    """Execute a block that somebody else built. Raises ``Rejected`` if any rule refuses it.

    ``find_known`` answers with a transaction whose form and signatures were checked before, by its bytes; any other
    is decoded and checked here.
    """
    check_header(block.header, chain.parent)
    state = chain.make_state()
    limits = get_parameters(state)
    if len(body) > limits.block_bytes_max or len(block.transactions) > limits.block_transactions_max:
        raise RuleViolated("block_too_large", f"{len(body)} bytes, {len(block.transactions)} transactions")
    context = make_block_context(chain, state, block.header.time_ms)
    if block.header.version != context.version:
        raise RuleViolated("block_version_wrong", block.header.version)
    transactions = tuple(_get_checked(raw, chain.table, find_known) for raw in block.transactions)
    receipts: list[Receipt] = []
    seen: set[Hash] = set()
    for index, tx in enumerate(transactions):
        check_not_used(chain.reader, tx.tx_id, seen)
        seen.add(tx.tx_id)
        receipts.append(Receipt(tx.tx_id, execute_transaction(state, tx, chain.table, context, index=index)))
    validators_hash = _finish_block(chain, state, context, block.header.proposer)
    changes = state.compute_changes()
    update = chain.tree.prepare(changes)
    leaves = compute_event_leaves(receipts)
    expected = _make_header(
        chain.parent,
        context,
        block.header.proposer,
        block.transactions,
        leaves,
        state_root=update.root,
        next_validators_hash=validators_hash,
    )
    if block.header != expected:
        raise RuleViolated("block_roots_wrong", _name_difference(block.header, expected))
    return Executed(
        block,
        compute_block_id(block.header),
        body,
        transactions,
        tuple(receipts),
        leaves,
        changes,
        state.get_hot_changes(),
        update,
    )


def execute_transaction(
    state: State, tx: Transaction, table: TransactionTable, context: BlockContext, *, index: int
) -> tuple[Event, ...]:
    """Apply one transaction whole or not at all. Raises ``Rejected`` with the state as it was.

    That the id is new is the caller's to check (``check_not_used``): a pool and a block know different ids.
    """
    declaration = tx.payload.declaration
    check_window(tx, context, lifetime_blocks=get_parameters(state).transaction_lifetime_blocks)
    if declaration.since_version > context.version:
        raise NotAdmitted("transaction_type_not_active", tx.tag)
    table.authorise(state, tx, declaration)
    mark = state.savepoint()
    try:
        tx.payload.apply(state, TxContext(tx.tx_id, index, tx.sender, frozenset(tx.signers), context))
    except Rejected:
        state.rollback(mark)
        raise
    return state.take_events(mark)


def check_window(tx: Transaction, context: BlockContext, *, lifetime_blocks: int) -> None:
    """The transaction is for this chain, and this height is in its window. Raises ``NotAdmitted``."""
    if tx.chain_id != context.chain_id:
        raise NotAdmitted("transaction_of_another_chain", ascii(tx.chain_id))
    if context.height > tx.valid_until:
        raise NotAdmitted("transaction_expired", f"valid until {tx.valid_until}, height is {context.height}")
    if tx.valid_until - context.height > lifetime_blocks:
        raise NotAdmitted("transaction_window_too_long", f"at most {lifetime_blocks} blocks ahead")


def check_not_used(reader: Reader, tx_id: Hash, seen: set[Hash]) -> None:
    """An id is committed once. Raises ``NotAdmitted``."""
    if tx_id in seen or reader.get(TRANSACTION_IDS + tx_id) is not None:
        raise NotAdmitted("transaction_already_committed", tx_id.hex())


def make_block_context(chain: Chain, state: State, time_ms: int) -> BlockContext:
    """The block after the chain's head, as its rules see it. Raises ``RuleViolated`` if its rules are newer than ours.

    Before the first transaction: ``state`` is then as the head left it.
    """
    version = get_protocol_version(state)
    if version > chain.table.version_max:
        raise RuleViolated("protocol_version_not_supported", f"{version}, this program knows {chain.table.version_max}")
    return BlockContext(chain.parent.chain_id, chain.parent.height + 1, time_ms, version)


def _finish_block(chain: Chain, state: State, context: BlockContext, proposer: PublicKey) -> Hash:
    """Run the rule at the end of the block; returns the hash of the set that decides the next one."""
    mark = state.savepoint()
    chain.table.finish_block(state, BlockEnd(context, proposer, compute_block_id(chain.parent)))
    assert not state.take_events(mark), "an event belongs to a transaction"
    return VALIDATORS.get(state).compute_hash()


def _make_header(
    parent: Header,
    context: BlockContext,
    proposer: PublicKey,
    raws: tuple[bytes, ...],
    event_leaves: tuple[tuple[bytes, ...], ...],
    *,
    state_root: Hash,
    next_validators_hash: Hash,
) -> Header:
    return Header(
        version=context.version,
        chain_id=context.chain_id,
        height=context.height,
        time_ms=context.time_ms,
        parent_id=compute_block_id(parent),
        proposer=proposer,
        transactions_count=len(raws),
        transactions_root=compute_transactions_root(raws),
        events_root=compute_events_root(event_leaves),
        state_root=state_root,
        validators_hash=parent.next_validators_hash,
        next_validators_hash=next_validators_hash,
    )


def _get_checked(raw: bytes, table: TransactionTable, find_known: Callable[[bytes], Transaction | None]) -> Transaction:
    known = find_known(raw)
    if known is not None:
        return known
    tx = decode_transaction(raw, table)
    check_signatures(tx)
    return tx


def _name_difference(got: Header, expected: Header) -> str:
    names = [name for name in Header.__slots__ if getattr(got, name) != getattr(expected, name)]
    return ", ".join(names)
