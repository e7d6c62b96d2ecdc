"""What the store holds of the chain, read and written as data.

Owns the keys of blocks, certificates, receipts and ids, and the one batch that makes a block durable: it is built
here as a map of changes, and written by the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.codec import decode_message, encode_message
from consensus.messages import CommitCertificate
from consensus.validators import Validator, ValidatorSet
from ledger.block import Block, Header, compute_block_id, decode_block, decode_stored_header, encode_block
from ledger.encoding import decode, encode
from ledger.errors import CorruptStore, Malformed, RuleViolated
from ledger.execution import Chain, Executed
from ledger.fields import from_plain, to_plain
from ledger.genesis import GenesisDocument, compute_genesis_changes, make_genesis_header
from ledger.primitives import Hash
from ledger.receipt import Receipt, decode_receipt_at, decode_receipts, encode_receipts
from ledger.state import State
from ledger.state_root import StateTree
from ledger.storage import (
    BLOCK_IDS,
    BLOCKS,
    CERTIFICATES,
    META,
    RECEIPTS,
    STATE_TRIE,
    TRANSACTION_IDS,
    Changes,
    MemoryStore,
    Reader,
    compute_prefix_end,
    format_height,
)
from ledger.transaction import Transaction, TransactionTable, decode_transaction
from ledger.validators import VALIDATORS, ValidatorRecord, find_validators_at

HEAD_KEY: Final = META + b"head"
GENESIS_KEY: Final = META + b"genesis"
FORMAT_KEY: Final = META + b"format"
OLDEST_KEY: Final = META + b"oldest"  # the lowest height whose block and receipts are kept whole; absent: all are
VALIDATOR_SETS: Final = META + b"validators/"  # ‖ hash of a set → the set: what a chain of trust goes along
HANDOVERS: Final = META + b"handover/"  # ‖ height → nothing: after this block another set decides
FORMAT: Final = b"wattprint-store-2"  # 2: sums of the index over 32 days


@dataclass(frozen=True, slots=True)
class TransactionPlace:
    """Where a committed transaction stands."""

    height: int
    index: int


@dataclass(frozen=True, slots=True)
class BucketReader:
    """The state trie's buckets in a store."""

    reader: Reader

    def get_bucket(self, path: bytes) -> bytes | None:
        """The stored content of a bucket."""
        return self.reader.get(STATE_TRIE + path)


def compute_genesis_batch(document: GenesisDocument, table: TransactionTable) -> dict[bytes, bytes | None]:
    """Everything that a new store holds before the first block."""
    changes = compute_genesis_changes(document, table)
    tree = StateTree.load((), BucketReader(MemoryStore()))
    update = tree.prepare(changes)
    validators = ValidatorSet(tuple(Validator(one.public_key, one.moniker) for one in document.validators))
    header = make_genesis_header(document, state_root=update.root, validators_hash=validators.compute_hash())
    return {
        **changes,
        **_bucket_changes(update.bucket_writes),
        VALIDATOR_SETS + header.validators_hash: changes[VALIDATORS.key()],
        FORMAT_KEY: FORMAT,
        GENESIS_KEY: encode(to_plain(document)),
        BLOCKS + format_height(0): encode_block(Block(header, ())),
        BLOCK_IDS + compute_block_id(header): format_height(0),
        RECEIPTS + format_height(0): encode_receipts((), ()),
        HEAD_KEY: format_height(0),
    }


def compute_block_batch(
    executed: Executed, certificate: CommitCertificate, index_changes: dict[bytes, bytes | None]
) -> dict[bytes, bytes | None]:
    """Everything that becomes durable with a block, in one batch."""
    key = format_height(executed.block.header.height)
    batch: dict[bytes, bytes | None] = dict(executed.changes)
    batch.update(_bucket_changes(executed.tree_update.bucket_writes))
    batch.update(index_changes)
    batch[BLOCKS + key] = executed.body
    batch[CERTIFICATES + key] = encode_message(certificate)
    batch[RECEIPTS + key] = encode_receipts(executed.receipts, executed.event_leaves)
    batch[BLOCK_IDS + executed.block_id] = key
    batch[HEAD_KEY] = key
    header = executed.block.header
    if header.next_validators_hash != header.validators_hash:
        batch[HANDOVERS + key] = b""
    new_set = executed.changes.get(VALIDATORS.key())
    if new_set is not None:
        batch[VALIDATOR_SETS + decode_validator_set(new_set).compute_hash()] = new_set
    for index, tx in enumerate(executed.transactions):
        batch[TRANSACTION_IDS + tx.tx_id] = key + index.to_bytes(4, "big")
    return batch


def is_empty(reader: Reader) -> bool:
    """Whether nothing was ever written to this store. Raises ``CorruptStore`` for a store of another kind."""
    found = reader.get(FORMAT_KEY)
    if found not in (None, FORMAT):
        raise CorruptStore(f"the store has format {found!r}, this program reads {FORMAT!r}")
    return found is None


def read_genesis_document(reader: Reader) -> GenesisDocument:
    """The genesis document that this store began with."""
    raw = reader.get(GENESIS_KEY)
    if raw is None:
        raise CorruptStore("the store has no genesis document")
    try:
        return from_plain(GenesisDocument, decode(raw))
    except Malformed as error:
        raise CorruptStore(f"genesis document: {error}") from error


def read_head_height(reader: Reader) -> int:
    """The height of the last durable block; 0 right after genesis."""
    raw = reader.get(HEAD_KEY)
    if raw is None:
        raise CorruptStore("the store has no head")
    return int.from_bytes(raw, "big")


def read_oldest_height(reader: Reader) -> int:
    """The lowest height whose block and receipts are kept whole: 0 unless the node pruned, or began at a snapshot."""
    raw = reader.get(OLDEST_KEY)
    return 0 if raw is None else int.from_bytes(raw, "big")


def check_kept(reader: Reader, height: int) -> None:
    """The block of a height is kept whole here. Raises ``Rejected`` (``block_not_kept``)."""
    oldest = read_oldest_height(reader)
    if height < oldest:
        raise RuleViolated("block_not_kept", f"height {height}, this node keeps blocks from {oldest} on")


def encode_header_only(header: Header) -> bytes:
    """What is kept of a pruned block: readable as a header, and never to be mistaken for a block."""
    return encode((to_plain(header),))


def list_handovers(reader: Reader) -> list[int]:
    """The heights after which another set of validators decided, in order."""
    return [int.from_bytes(key[-8:], "big") for key, _ in reader.scan(HANDOVERS, compute_prefix_end(HANDOVERS))]


def get_validator_set(reader: Reader, validators_hash: Hash) -> ValidatorSet:
    """The set that a header names by its hash. Raises ``CorruptStore`` if it never decided here."""
    raw = reader.get(VALIDATOR_SETS + validators_hash)
    if raw is None:
        raise CorruptStore(f"the set of validators {validators_hash.hex()} is missing")
    return decode_validator_set(raw)


def decode_validator_set(raw: bytes) -> ValidatorSet:
    """A set of validators from its record in the state. Raises ``CorruptStore``."""
    members = VALIDATORS.decode(raw).members
    return ValidatorSet(tuple(Validator(one.public_key, one.moniker) for one in members))


def find_block_bytes(reader: Reader, height: int) -> bytes | None:
    """The bytes of a block, or None."""
    return reader.get(BLOCKS + format_height(height))


def find_block(reader: Reader, height: int) -> Block | None:
    """A block, or None above the head and below what is kept whole. Raises ``CorruptStore``."""
    raw = None if height < read_oldest_height(reader) else find_block_bytes(reader, height)
    try:
        return None if raw is None else decode_block(raw)
    except Malformed as error:
        raise CorruptStore(f"block {height}: {error}") from error


def get_header(reader: Reader, height: int) -> Header:
    """The header of a block that must be there; its transactions are not read."""
    raw = find_block_bytes(reader, height)
    if raw is None:
        raise CorruptStore(f"block {height} is missing")
    try:
        return decode_stored_header(raw)
    except Malformed as error:
        raise CorruptStore(f"block {height}: {error}") from error


def find_height(reader: Reader, block_id: Hash) -> int | None:
    """The height of a block by its id, or None."""
    raw = reader.get(BLOCK_IDS + block_id)
    return None if raw is None else int.from_bytes(raw, "big")


def find_certificate_bytes(reader: Reader, height: int) -> bytes | None:
    """The bytes of the commit certificate of a height; None for genesis and above the head."""
    return reader.get(CERTIFICATES + format_height(height))


def find_certificate(reader: Reader, height: int) -> CommitCertificate | None:
    """Why the block of a height is final; None for genesis and above the head."""
    raw = find_certificate_bytes(reader, height)
    if raw is None:
        return None
    certificate = decode_message(raw)
    if not isinstance(certificate, CommitCertificate):
        raise CorruptStore(f"certificate {height} is something else")
    return certificate


def find_transaction_place(reader: Reader, tx_id: Hash) -> TransactionPlace | None:
    """Where a committed transaction stands, or None."""
    raw = reader.get(TRANSACTION_IDS + tx_id)
    if raw is None:
        return None
    return TransactionPlace(int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big"))


def get_transaction(reader: Reader, place: TransactionPlace, table: TransactionTable) -> Transaction:
    """A committed transaction. Raises ``Rejected`` (``block_not_kept``)."""
    check_kept(reader, place.height)
    block = find_block(reader, place.height)
    if block is None:
        raise CorruptStore(f"block {place.height} is missing")
    return decode_transaction(block.transactions[place.index], table)


def get_receipt(reader: Reader, place: TransactionPlace, table: TransactionTable) -> Receipt:
    """What a committed transaction did. Raises ``Rejected`` (``block_not_kept``)."""
    check_kept(reader, place.height)
    raw = reader.get(RECEIPTS + format_height(place.height))
    if raw is None:
        raise CorruptStore(f"receipts of block {place.height} are missing")
    return decode_receipt_at(raw, place.index, table.events)


def get_receipts(reader: Reader, height: int, table: TransactionTable) -> tuple[Receipt, ...]:
    """The receipts of a block that must be there."""
    raw = reader.get(RECEIPTS + format_height(height))
    if raw is None:
        raise CorruptStore(f"receipts of block {height} are missing")
    return decode_receipts(raw, table.events)


def load_tree(reader: Reader) -> StateTree:
    """The state tree of the store: reads every bucket once."""
    stop = compute_prefix_end(STATE_TRIE)
    buckets = ((key[len(STATE_TRIE) :], value) for key, value in reader.scan(STATE_TRIE, stop))
    return StateTree.load(buckets, BucketReader(reader))


def load_chain(reader: Reader, table: TransactionTable) -> Chain:
    """What the next block builds on. Raises ``CorruptStore`` when the stored state is not the head's."""
    header = get_header(reader, read_head_height(reader))
    tree = load_tree(reader)
    if tree.root != header.state_root:
        raise CorruptStore(f"the stored state has not the root that header {header.height} names")
    return Chain(reader, tree, header, table)


def read_validators(reader: Reader) -> ValidatorSet:
    """The validators in force for the next height."""
    return make_validator_set(VALIDATORS.get(State(reader)))


def read_validators_at(reader: Reader, height: int) -> ValidatorSet:
    """The validators that decide the block of a height, up to the next one."""
    record = find_validators_at(State(reader), height)
    if record is None:
        raise CorruptStore(f"the validators of height {height} are missing")
    return make_validator_set(record)


def make_validator_set(record: ValidatorRecord) -> ValidatorSet:
    """The set as consensus reads it."""
    return ValidatorSet(tuple(Validator(one.public_key, one.moniker) for one in record.members))


def _bucket_changes(writes: Changes) -> dict[bytes, bytes | None]:
    return {STATE_TRIE + path: content for path, content in writes.items()}
