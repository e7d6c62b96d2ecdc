"""Believing a snapshot: every chunk is checked as it comes, and all of it once it is complete; then it becomes writes.

Owns what an importing node demands of the chunks of `snapshots.py`. Nothing is written before ``finish`` has returned:
the caller hands the chunks in a second time, and takes batches for an empty store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from consensus.codec import encode_message
from consensus.validators import ValidatorSet
from ledger.block import Block, compute_block_id, compute_transactions_root, decode_block
from ledger.encoding import Plain, decode, encode
from ledger.errors import Malformed, RuleViolated
from ledger.fields import to_plain
from ledger.genesis import GenesisDocument
from ledger.merkle import compute_root
from ledger.parameters import PARAMETERS, get_parameters
from ledger.primitives import Hash
from ledger.state import State
from ledger.storage import (
    BLOCK_IDS,
    BLOCKS,
    CERTIFICATES,
    INDEXES,
    RECEIPTS,
    STATE,
    STATE_TRIE,
    TRANSACTION_IDS,
    Changes,
    MemoryStore,
    compute_prefix_end,
    format_height,
)
from ledger.transaction import compute_tx_id
from ledger.validators import VALIDATORS, Member, ValidatorRecord
from node import chain_store
from node.snapshots import (
    KEYS_PER_TURN,
    LENGTH_BYTES,
    RECORD_BYTES_MAX,
    Manifest,
    RecordKind,
    check_chunk,
    compute_oldest_needed,
    verify_manifest,
)


class Verifier:
    """Takes the chunks in order, and believes none of them before ``finish`` has returned.

    Holds the state tree's buckets (64 bytes for each key of the state) and the parameters, no values.
    """

    def __init__(self, manifest: Manifest, document: GenesisDocument) -> None:
        """Raises ``Rejected`` when the manifest does not lead to the genesis document."""
        verify_manifest(manifest, document)
        self.manifest = manifest
        self.buckets = MemoryStore()
        self._tree = chain_store.load_tree(self.buckets)
        self._kept: dict[bytes, bytes] = {}  # the two values of the state that the checks read
        self._records = _RecordReader()
        self._chunks_count = 0
        self._state: dict[bytes, bytes | None] = {}
        self._last_key = b""
        self._section = RecordKind.STATE
        self._parent: Block | None = None
        self._awaits_receipts = False
        self.oldest = 0
        self.transactions_count = 0

    def take(self, chunk: bytes) -> None:
        """The next chunk. Raises ``Rejected`` for the first thing in it that is wrong."""
        check_chunk(self.manifest, self._chunks_count, chunk)
        self._chunks_count += 1
        for kind, first, second in self._records.take(chunk):
            self._check_section(kind)
            if kind in (RecordKind.STATE, RecordKind.INDEX):
                self._check_key(STATE if kind == RecordKind.STATE else INDEXES, first)
            if kind == RecordKind.STATE:
                self._take_state(first, second)
            elif kind == RecordKind.BLOCK:
                self._take_block(first)
            elif kind == RecordKind.RECEIPTS:
                self._take_receipts(first)

    def finish(self) -> None:
        """All was taken, and is what the certified header says. Raises ``Rejected``."""
        if self._chunks_count != len(self.manifest.chunk_hashes) or not self._records.is_at_end():
            raise Malformed("snapshot_incomplete", f"{self._chunks_count} of {len(self.manifest.chunk_hashes)} chunks")
        self._flush_state()
        header = self.manifest.header
        if self._tree.root != header.state_root:
            raise RuleViolated("state_root_differs", f"{self._tree.root.hex()}, not {header.state_root.hex()}")
        state = State(MemoryStore(self._kept.items()))
        next_set = chain_store.decode_validator_set(self._kept[VALIDATORS.key()])
        if next_set.compute_hash() != header.next_validators_hash:
            raise RuleViolated("validators_not_those_of_header", f"height {header.height}")
        needed = compute_oldest_needed(header.height, get_parameters(state).transaction_lifetime_blocks)
        last = self._parent
        if last is None or self._awaits_receipts or compute_block_id(last.header) != compute_block_id(header):
            raise RuleViolated("blocks_do_not_lead_to_head", f"height {header.height}")
        if self.oldest > needed:
            raise RuleViolated("blocks_too_few", f"from {self.oldest}, needed from {needed}")

    def get_state_value(self, key: bytes) -> bytes:
        """The parameters or the validators, once finished."""
        return self._kept[key]

    def _check_section(self, kind: RecordKind) -> None:
        section = RecordKind.BLOCK if kind == RecordKind.RECEIPTS else kind
        if section < self._section or self._awaits_receipts != (kind == RecordKind.RECEIPTS):
            raise Malformed("snapshot_malformed", "records out of order")
        if section > self._section:
            self._section, self._last_key = section, b""

    def _check_key(self, prefix: bytes, key: bytes) -> None:
        if not key.startswith(prefix) or key <= self._last_key:
            raise Malformed("snapshot_malformed", f"key {key[:64].hex()}")
        self._last_key = key

    def _take_state(self, key: bytes, value: bytes) -> None:
        self._state[key] = value
        if key in (VALIDATORS.key(), PARAMETERS.key()):
            self._kept[key] = value
        if len(self._state) >= KEYS_PER_TURN:
            self._flush_state()

    def _flush_state(self) -> None:
        update = self._tree.prepare(self._state)
        writes = {STATE_TRIE + path: content for path, content in update.bucket_writes.items()}
        self.buckets.write(writes, sync=False)
        self._tree.apply(update)
        self._state.clear()

    def _take_block(self, body: bytes) -> None:
        block, before = decode_block(body), self._parent
        header = block.header
        if before is None:
            self.oldest = header.height
        elif (header.height, header.parent_id) != (before.header.height + 1, compute_block_id(before.header)):
            raise RuleViolated("blocks_do_not_lead_to_head", f"height {header.height}")
        if compute_transactions_root(block.transactions) != header.transactions_root:
            raise RuleViolated("block_transactions_differ", f"height {header.height}")
        self._parent, self._awaits_receipts = block, True
        self.transactions_count += len(block.transactions)

    def _take_receipts(self, raw: bytes) -> None:
        assert self._parent is not None
        check_receipts(self._parent, raw)
        self._awaits_receipts = False


def check_receipts(block: Block, raw: bytes) -> None:
    """Stored receipts are those of a block whose transactions are checked. Raises ``Rejected``."""
    item = f"height {block.header.height}"
    leaves: list[bytes] = []
    stored = decode(raw)
    if not isinstance(stored, tuple) or len(stored) != len(block.transactions):
        raise RuleViolated("block_receipts_differ", item)
    for index, (envelope, receipt) in enumerate(zip(block.transactions, stored, strict=True)):
        match receipt:
            case (bytes() as tx_id, tuple() as mine) if tx_id == read_tx_id(envelope):
                leaves.extend(_read_leaf(leaf, index, item) for leaf in mine)
            case _:
                raise RuleViolated("block_receipts_differ", item)
    if compute_root(leaves) != block.header.events_root:
        raise RuleViolated("block_receipts_differ", item)


def read_tx_id(envelope: bytes) -> Hash:
    """The id of a transaction that stands in a final block, without reading what it says. Raises ``Malformed``."""
    match decode(envelope):
        case (bytes() as body, *_):
            return compute_tx_id(body)
    raise Malformed("envelope_malformed", "expected a body and its signatures")


def iterate_writes(verifier: Verifier, chunks: Iterable[bytes]) -> Iterator[Changes]:
    """What an empty store becomes, in batches; the last of them makes it a store. ``verifier`` has finished.

    Raises ``Rejected`` when a chunk is not the one that was verified.
    """
    records = _RecordReader()
    batch: dict[bytes, bytes | None] = {}
    height = verifier.oldest
    for index, chunk in enumerate(chunks):
        check_chunk(verifier.manifest, index, chunk)
        for kind, first, second in records.take(chunk):
            if kind == RecordKind.BLOCK:
                batch.update(_compute_block_writes(first))
            elif kind == RecordKind.RECEIPTS:
                batch[RECEIPTS + format_height(height)] = first
                height += 1
            else:
                batch[first] = second
            if len(batch) >= KEYS_PER_TURN:
                yield batch
                batch = {}
    yield batch
    yield dict(verifier.buckets.scan(STATE_TRIE, compute_prefix_end(STATE_TRIE)))
    yield _compute_meta_writes(verifier)


def _compute_block_writes(body: bytes) -> dict[bytes, bytes | None]:
    block = decode_block(body)
    key = format_height(block.header.height)
    writes: dict[bytes, bytes | None] = {BLOCKS + key: body, BLOCK_IDS + compute_block_id(block.header): key}
    for index, envelope in enumerate(block.transactions):
        writes[TRANSACTION_IDS + read_tx_id(envelope)] = key + index.to_bytes(4, "big")
    return writes


def _compute_meta_writes(verifier: Verifier) -> dict[bytes, bytes | None]:
    manifest = verifier.manifest
    writes: dict[bytes, bytes | None] = {}
    for link in manifest.links:
        header = link.header
        key = format_height(header.height)
        writes[CERTIFICATES + key] = encode_message(link.certificate)
        writes[chain_store.VALIDATOR_SETS + header.validators_hash] = _encode_set(link.validators)
        if header.next_validators_hash != header.validators_hash:
            writes[chain_store.HANDOVERS + key] = b""
        if header.height < verifier.oldest:
            writes[BLOCKS + key] = chain_store.encode_header_only(header)
            writes[BLOCK_IDS + compute_block_id(header)] = key
    next_set = verifier.get_state_value(VALIDATORS.key())
    writes[chain_store.VALIDATOR_SETS + manifest.header.next_validators_hash] = next_set
    writes[chain_store.GENESIS_KEY] = encode(to_plain(manifest.genesis))
    writes[chain_store.OLDEST_KEY] = format_height(verifier.oldest)
    writes[chain_store.HEAD_KEY] = format_height(manifest.header.height)
    writes[chain_store.FORMAT_KEY] = chain_store.FORMAT
    return writes


@dataclass(slots=True)
class _RecordReader:
    """Joins chunks and cuts records. Raises ``Malformed`` (``snapshot_malformed``)."""

    _buffer: bytearray = field(default_factory=bytearray)

    def take(self, chunk: bytes) -> Iterator[tuple[RecordKind, bytes, bytes]]:
        self._buffer += chunk
        start = 0
        while len(self._buffer) - start >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + LENGTH_BYTES], "big")
            if length > RECORD_BYTES_MAX:
                raise Malformed("snapshot_malformed", f"a record of {length} bytes")
            end = start + LENGTH_BYTES + length
            if end > len(self._buffer):
                break
            yield self._read(bytes(self._buffer[start + LENGTH_BYTES : end]))
            start = end
        del self._buffer[:start]

    def is_at_end(self) -> bool:
        """Whether nothing of a record is left over."""
        return not self._buffer

    def _read(self, packed: bytes) -> tuple[RecordKind, bytes, bytes]:
        match decode(packed, bytes_max=RECORD_BYTES_MAX):
            case (int() as kind, bytes() as first, bytes() as second) if (
                RecordKind.STATE <= kind <= RecordKind.INDEX and kind is not True  # which equals 1, with other bytes
            ):
                return RecordKind(kind), first, second
        raise Malformed("snapshot_malformed", "a record")


def _encode_set(validators: ValidatorSet) -> bytes:
    members = tuple(Member(one.public_key, one.moniker) for one in validators.members)
    return encode(to_plain(ValidatorRecord(members)))


def _read_leaf(leaf: Plain, index: int, item: str) -> bytes:
    if type(leaf) is bytes:
        event = decode(leaf)
        if isinstance(event, tuple) and event[:1] == (index,):
            return leaf
    raise RuleViolated("block_receipts_differ", item)
