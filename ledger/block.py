"""Header, block, and the rules between a block and its parent.

Owns the block id. A header carries the roots after executing its own block, so a final header proves its state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, cast

from ledger.encoding import decode, decode_first, encode
from ledger.errors import Malformed, RuleViolated
from ledger.fields import Bounds, Length, from_plain, to_plain
from ledger.merkle import compute_root
from ledger.primitives import Hash, PublicKey, sha256
from ledger.transaction import CHAIN_ID_BYTES_MAX, TRANSACTION_BYTES_MAX

HEADER_TAG: Final = b"wattprint/header/1\0"
HEADER_BYTES_MAX: Final = 1_024  # with room to spare; the chain id is all that varies
BLOCK_BYTES_MAX: Final = 8 * 1024 * 1024  # beyond any value that governance may choose
BLOCK_TRANSACTIONS_MAX: Final = 50_000
PROTOCOL_VERSION: Final = 1  # that a chain begins with; governance activates later ones by height


@dataclass(frozen=True, slots=True)
class Header:
    """What validators agree on. ``time_ms`` is block time; the roots are those after this block."""

    version: Annotated[int, Bounds(1, 2**31)]
    chain_id: Annotated[str, Length(CHAIN_ID_BYTES_MAX, 1)]
    height: int
    time_ms: int
    parent_id: Hash
    proposer: PublicKey
    transactions_count: Annotated[int, Bounds(0, BLOCK_TRANSACTIONS_MAX)]
    transactions_root: Hash
    events_root: Hash
    state_root: Hash
    validators_hash: Hash
    next_validators_hash: Hash


@dataclass(frozen=True, slots=True)
class Block:
    """A header and the signed transactions it commits to, as bytes."""

    header: Header
    transactions: tuple[bytes, ...]


def compute_block_id(header: Header) -> Hash:
    """The hash of a header: what votes name."""
    return sha256(HEADER_TAG + encode(to_plain(header)))


def compute_transactions_root(transactions: tuple[bytes, ...]) -> Hash:
    """RFC 6962 root over the signed envelopes."""
    return compute_root(transactions)


def encode_block(block: Block) -> bytes:
    """The bytes of a block as they are proposed, stored and sent."""
    return encode((to_plain(block.header), block.transactions))


def decode_block(raw: bytes) -> Block:
    """A block from its bytes. Raises ``Malformed``."""
    values = decode(raw, bytes_max=BLOCK_BYTES_MAX)
    if type(values) is not tuple or len(values) != 2 or type(values[1]) is not tuple:
        raise Malformed("block_malformed", "expected a header and transactions")
    header = from_plain(Header, values[0])
    for tx in values[1]:
        if type(tx) is not bytes or len(tx) > TRANSACTION_BYTES_MAX:
            raise Malformed("block_malformed", "a transaction is bytes")
    return Block(header, cast("tuple[bytes, ...]", values[1]))


def decode_stored_header(raw: bytes) -> Header:
    """The header of a block, whose transactions are not read. Raises ``Malformed``.

    Also for what a stranger sent: no more is looked at than a header can have, whatever it claims to be.
    """
    return from_plain(Header, decode_first(raw[:HEADER_BYTES_MAX]))


def check_header(header: Header, parent: Header) -> None:
    """The rules between a header and its parent. Raises ``RuleViolated``.

    Which version and which validators come next is the state's to say: ``execution.py`` compares those.
    """
    if header.version < parent.version:
        raise RuleViolated("block_version_wrong", header.version)
    if header.chain_id != parent.chain_id:
        raise RuleViolated("block_of_another_chain", header.chain_id)
    if header.height != parent.height + 1:
        raise RuleViolated("block_height_wrong", header.height)
    if header.parent_id != compute_block_id(parent):
        raise RuleViolated("block_parent_wrong", header.parent_id.hex())
    if header.time_ms <= parent.time_ms:
        raise RuleViolated("block_time_not_rising", header.time_ms)
    if header.validators_hash != parent.next_validators_hash:
        raise RuleViolated("block_validators_wrong", header.validators_hash.hex())
