"""A snapshot: the state of a certified height as numbered chunks, and a manifest that binds them to the chain.

Owns the form of both and every check: the chain of trust from the genesis document, the hash of each chunk, the state
root, the blocks behind the head. Pure: whoever reads files or peers hands the chunks in, and takes writes out.

The manifest names the genesis document, a chain of links, and the hash and size of every chunk. A link is a header,
its commit certificate and the set that signed it; there is one for each height after which another set decides, and
the last is the snapshot's own. Chunks cut one stream of records into pieces of ``CHUNK_BYTES``:

| record      | parts          | proven by                                                                         |
|-------------|----------------|-----------------------------------------------------------------------------------|
| 1 state     | key, value     | the state root in the certified header                                            |
| 2 block     | block          | the parent ids from the certified header back, and each block's transactions root |
| 3 receipts  | receipts       | the events root of the block before it                                            |
| 4 index     | key, value     | nothing: trace queries read it, no rule does. The giver's word (docs/operations.md)|

Blocks go back as far as a transaction may still be valid (``transaction_lifetime_blocks``): their transaction ids are
what refuses a replay, and an id is proven only by the whole block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, cast

from consensus.codec import decode_message, encode_message
from consensus.light_client import HeaderLink, LightBlock, verify_light_block
from consensus.messages import ChainContext, CommitCertificate
from consensus.validators import Validator, ValidatorSet
from ledger.block import Block, Header, compute_block_id, compute_transactions_root, decode_block
from ledger.encoding import DECODE_BYTES_MAX, Plain, decode, encode
from ledger.errors import CorruptStore, Malformed, Rejected, RuleViolated
from ledger.fields import from_plain, to_plain
from ledger.genesis import VALIDATORS, GenesisDocument, GenesisValidator, ValidatorRecord, compute_genesis_hash
from ledger.merkle import compute_root
from ledger.parameters import PARAMETERS, get_parameters
from ledger.primitives import HASH_BYTES, Hash, sha256
from ledger.state import State
from ledger.state_root import StateTree
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
    Reader,
    compute_prefix_end,
    format_height,
)
from ledger.transaction import compute_tx_id
from node import chain_store

FORMAT: Final = "wattprint-snapshot-1"
CHUNK_BYTES: Final = 1024 * 1024
CHUNKS_MAX: Final = 65_536  # 64 GiB
LINKS_MAX: Final = 1_000  # changes of the set of validators since genesis
MANIFEST_BYTES_MAX: Final = 12 * 1024 * 1024  # one message to a peer carries it
RECORD_BYTES_MAX: Final = DECODE_BYTES_MAX + 64
KEYS_PER_TURN: Final = 10_000  # hashed into the tree, or written, at a time

_STATE: Final = 1
_BLOCK: Final = 2
_RECEIPTS: Final = 3
_INDEX: Final = 4
_LENGTH_BYTES: Final = 4
_ID_TAG: Final = b"wattprint/snapshot/1\0"


@dataclass(frozen=True, slots=True)
class Link:
    """A height that may be believed: its header, why it is final, and who signed that."""

    header: Header
    certificate: CommitCertificate
    validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot is of, and what it is made of; ``links`` end at the snapshot's own height."""

    genesis: GenesisDocument
    links: tuple[Link, ...]
    size_bytes: int
    chunk_hashes: tuple[Hash, ...]

    @property
    def header(self) -> Header:
        """The header whose state this is."""
        return self.links[-1].header

    def compute_id(self) -> Hash:
        """What honest nodes that made it of one height agree on; their certificates may differ."""
        block_id, genesis_hash = compute_block_id(self.header), compute_genesis_hash(self.genesis)
        return sha256(_ID_TAG + encode((FORMAT, genesis_hash, block_id, self.size_bytes, self.chunk_hashes)))


def iterate_chunks(reader: Reader) -> Iterator[bytes]:
    """The chunks of the head's snapshot, in order; ``reader`` must not move meanwhile.

    Raises ``Rejected`` (``blocks_not_kept``) when the node began later than a transaction may be old.
    """
    buffer = bytearray()
    for record in _iterate_records(reader):
        packed = encode(record)
        buffer += len(packed).to_bytes(_LENGTH_BYTES, "big") + packed
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)


def make_manifest(reader: Reader, *, size_bytes: int, chunk_hashes: Iterable[Hash]) -> Manifest:
    """The manifest of the head's snapshot. Raises ``Rejected`` (``head_not_certified``) right after genesis."""
    head = chain_store.read_head_height(reader)
    heights = [height for height in chain_store.list_handovers(reader) if height < head] + [head]
    links = tuple(_make_link(reader, height) for height in heights)
    return Manifest(chain_store.read_genesis_document(reader), links, size_bytes, tuple(chunk_hashes))


def _make_link(reader: Reader, height: int) -> Link:
    certificate = chain_store.find_certificate(reader, height)
    if certificate is None:
        raise RuleViolated("head_not_certified", f"height {height}")
    header = chain_store.get_header(reader, height)
    return Link(header, certificate, chain_store.get_validator_set(reader, header.validators_hash))


def _iterate_records(reader: Reader) -> Iterator[tuple[int, bytes, bytes]]:
    head = chain_store.read_head_height(reader)
    for key, value in reader.scan(STATE, compute_prefix_end(STATE)):
        yield _STATE, key, value
    oldest = compute_oldest_needed(head, get_parameters(State(reader)).transaction_lifetime_blocks)
    if oldest < chain_store.read_oldest_height(reader):
        raise RuleViolated("blocks_not_kept", f"height {oldest}")
    for height in range(oldest, head + 1):
        body, receipts = chain_store.find_block_bytes(reader, height), reader.get(RECEIPTS + format_height(height))
        if body is None or receipts is None:
            raise CorruptStore(f"block {height} or its receipts are missing")
        yield _BLOCK, body, b""
        yield _RECEIPTS, receipts, b""
    for key, value in reader.scan(INDEXES, compute_prefix_end(INDEXES)):
        yield _INDEX, key, value


def compute_oldest_needed(head: int, lifetime_blocks: int) -> int:
    """The lowest height that can hold a transaction which would still be valid in the block after ``head``."""
    return max(1, head + 1 - lifetime_blocks)


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes of a manifest."""
    links = [_link_to_plain(link) for link in manifest.links]
    return encode((FORMAT, to_plain(manifest.genesis), links, manifest.size_bytes, manifest.chunk_hashes))


def decode_manifest(data: bytes) -> Manifest:
    """The manifest of canonical bytes; nothing of it is believed yet. Raises ``Malformed``."""
    match decode(data, bytes_max=MANIFEST_BYTES_MAX):
        case (str() as name, genesis, tuple() as links, int() as size_bytes, tuple() as hashes) if name == FORMAT:
            chunks_count = -(-size_bytes // CHUNK_BYTES)
            if not 0 < len(links) <= LINKS_MAX or not 0 < chunks_count == len(hashes) <= CHUNKS_MAX:
                raise Malformed("manifest_malformed", f"{len(links)} links, {len(hashes)} chunks, {size_bytes} bytes")
            document = from_plain(GenesisDocument, genesis)
            return Manifest(document, tuple(map(_read_link, links)), size_bytes, tuple(map(_read_hash, hashes)))
        case (str() as name, *_) if name != FORMAT:
            raise Malformed("manifest_of_another_format", ascii(name)[:60])
    raise Malformed("manifest_malformed", "its parts")


def verify_manifest(manifest: Manifest, document: GenesisDocument) -> None:
    """The chain of trust from ``document``, which the caller believes, to the snapshot's header.

    Raises ``Rejected``: ``snapshot_of_another_chain``, ``header_not_next``, ``validators_not_announced``, and as
    ``verify_light_block``.
    """
    if manifest.genesis != document:
        raise RuleViolated("snapshot_of_another_chain", manifest.genesis.chain_id)
    context = ChainContext(document.chain_id, compute_genesis_hash(document))
    first = ValidatorSet(tuple(Validator(one.public_key, one.moniker) for one in document.validators))
    believed, height = first.compute_hash(), 0
    for link in manifest.links:
        header = link.header
        if header.chain_id != document.chain_id or header.height <= height:
            raise RuleViolated("header_not_next", f"height {header.height} of {header.chain_id} after {height}")
        if header.validators_hash != believed:
            raise RuleViolated("validators_not_announced", f"height {header.height}")
        verify_light_block(_make_light_block(link), context)
        believed, height = header.next_validators_hash, header.height


def _make_light_block(link: Link) -> LightBlock:
    header, block_id = link.header, compute_block_id(link.header)
    place = HeaderLink(
        link.certificate.height, block_id, header.parent_id, header.validators_hash, header.next_validators_hash
    )
    if place.height != header.height:
        raise RuleViolated("certificate_of_another_block", f"height {header.height}")
    return LightBlock(place, link.certificate, link.validators)


def check_chunk(manifest: Manifest, index: int, chunk: bytes) -> None:
    """The chunk is the one that the manifest names. Raises ``Rejected`` (``chunk_hash_differs``)."""
    if not 0 <= index < len(manifest.chunk_hashes) or sha256(chunk) != manifest.chunk_hashes[index]:
        raise RuleViolated("chunk_hash_differs", f"chunk {index}")


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
        self._section = _STATE
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
            if kind in (_STATE, _INDEX):
                self._check_key(STATE if kind == _STATE else INDEXES, first)
            if kind == _STATE:
                self._take_state(first, second)
            elif kind == _BLOCK:
                self._take_block(first)
            elif kind == _RECEIPTS:
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

    def _check_section(self, kind: int) -> None:
        section = _BLOCK if kind == _RECEIPTS else kind
        if section < self._section or self._awaits_receipts != (kind == _RECEIPTS):
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
            if kind == _BLOCK:
                batch.update(_compute_block_writes(first))
            elif kind == _RECEIPTS:
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

    def take(self, chunk: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        self._buffer += chunk
        start = 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
            if length > RECORD_BYTES_MAX:
                raise Malformed("snapshot_malformed", f"a record of {length} bytes")
            end = start + _LENGTH_BYTES + length
            if end > len(self._buffer):
                break
            yield self._read(bytes(self._buffer[start + _LENGTH_BYTES : end]))
            start = end
        del self._buffer[:start]

    def is_at_end(self) -> bool:
        """Whether nothing of a record is left over."""
        return not self._buffer

    def _read(self, packed: bytes) -> tuple[int, bytes, bytes]:
        match decode(packed, bytes_max=RECORD_BYTES_MAX):
            case (int() as kind, bytes() as first, bytes() as second) if _STATE <= kind <= _INDEX:
                return kind, first, second
        raise Malformed("snapshot_malformed", "a record")


def _link_to_plain(link: Link) -> Plain:
    members = [(one.public_key, one.moniker) for one in link.validators.members]
    return (to_plain(link.header), encode_message(link.certificate), members)


def _read_link(plain: Plain) -> Link:
    match plain:
        case (header, bytes() as certificate, members):
            decoded = decode_message(certificate)
            if isinstance(decoded, CommitCertificate):
                return Link(from_plain(Header, header), decoded, _read_set(members))
    raise Malformed("manifest_malformed", "a link")


def _read_set(plain: Plain) -> ValidatorSet:
    record = from_plain(ValidatorRecord, (plain,))
    members = tuple(Validator(one.public_key, one.moniker) for one in record.members)
    if len({one.public_key for one in members}) != len(members):
        raise Malformed("manifest_malformed", "a validator named twice")
    return ValidatorSet(members)


def _encode_set(validators: ValidatorSet) -> bytes:
    members = tuple(GenesisValidator(one.public_key, one.moniker) for one in validators.members)
    return encode(to_plain(ValidatorRecord(members)))


def _read_hash(plain: Plain) -> Hash:
    if type(plain) is not bytes or len(plain) != HASH_BYTES:
        raise Malformed("manifest_malformed", "the hash of a chunk")
    return Hash(plain)


def _read_leaf(leaf: Plain, index: int, item: str) -> bytes:
    if type(leaf) is bytes:
        event = decode(leaf)
        if isinstance(event, tuple) and event[:1] == (index,):
            return leaf
    raise RuleViolated("block_receipts_differ", item)
