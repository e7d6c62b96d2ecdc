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
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from consensus.codec import decode_message, encode_message
from consensus.light_client import HeaderLink, LightBlock, verify_light_block
from consensus.messages import ChainContext, CommitCertificate
from consensus.validators import Validator, ValidatorSet
from ledger.block import Header, compute_block_id
from ledger.encoding import DECODE_BYTES_MAX, Plain, decode, encode
from ledger.errors import CorruptStore, Malformed, RuleViolated
from ledger.fields import from_plain, to_plain
from ledger.genesis import GenesisDocument, compute_genesis_hash
from ledger.parameters import get_parameters
from ledger.primitives import HASH_BYTES, Hash, sha256
from ledger.state import State
from ledger.storage import (
    INDEXES,
    RECEIPTS,
    STATE,
    Reader,
    compute_prefix_end,
    format_height,
)
from ledger.validators import ValidatorRecord
from node import chain_store

FORMAT: Final = "wattprint-snapshot-1"
CHUNK_BYTES: Final = 1024 * 1024
CHUNKS_MAX: Final = 65_536  # 64 GiB
LINKS_MAX: Final = 1_000  # changes of the set of validators since genesis
MANIFEST_BYTES_MAX: Final = 12 * 1024 * 1024  # one message to a peer carries it
RECORD_BYTES_MAX: Final = DECODE_BYTES_MAX + 64
KEYS_PER_TURN: Final = 10_000  # hashed into the tree, or written, at a time

LENGTH_BYTES: Final = 4
_ID_TAG: Final = b"wattprint/snapshot/1\0"


class RecordKind(IntEnum):
    """What a record of the stream is, in the order of the stream; receipts follow their block."""

    STATE = 1
    BLOCK = 2
    RECEIPTS = 3
    INDEX = 4


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
        buffer += len(packed).to_bytes(LENGTH_BYTES, "big") + packed
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
        yield RecordKind.STATE, key, value
    oldest = compute_oldest_needed(head, get_parameters(State(reader)).transaction_lifetime_blocks)
    if oldest < chain_store.read_oldest_height(reader):
        raise RuleViolated("blocks_not_kept", f"height {oldest}")
    for height in range(oldest, head + 1):
        body, receipts = chain_store.find_block_bytes(reader, height), reader.get(RECEIPTS + format_height(height))
        if body is None or receipts is None:
            raise CorruptStore(f"block {height} or its receipts are missing")
        yield RecordKind.BLOCK, body, b""
        yield RecordKind.RECEIPTS, receipts, b""
    for key, value in reader.scan(INDEXES, compute_prefix_end(INDEXES)):
        yield RecordKind.INDEX, key, value


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
        case (str() as name, genesis, tuple() as links, int() as size_bytes, tuple() as hashes) if (
            name == FORMAT and size_bytes is not True  # which equals 1, and has other bytes
        ):
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


def _read_hash(plain: Plain) -> Hash:
    if type(plain) is not bytes or len(plain) != HASH_BYTES:
        raise Malformed("manifest_malformed", "the hash of a chunk")
    return Hash(plain)
