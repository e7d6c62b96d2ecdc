"""The wire messages between nodes: their fields, their canonical bytes, and what each may cost.

A frame is one tag byte and then the canonical array of the fields, so a limit by type is checked before anything is
decoded. Consensus messages, blocks and transactions are opaque bytes here: their owners judge what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Self, TypeAlias

from ledger.encoding import Plain, decode, encode
from ledger.errors import Malformed, Rejected
from ledger.primitives import HASH_BYTES, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Hash, PublicKey, Signature

P2P_VERSION: Final = 2  # 2: inside TLS, and the proof signs both certificates
NONCE_BYTES: Final = 32
CID_BYTES: Final = 36
CHAIN_ID_CHARACTERS_MAX: Final = 64
MONIKER_CHARACTERS_MAX: Final = 64
REASON_CHARACTERS_MAX: Final = 64
HEIGHT_MAX: Final = 2**63 - 1
PORT_MAX: Final = 65_535
TRANSACTIONS_PER_MESSAGE_MAX: Final = 10_000
BLOCKS_PER_MESSAGE_MAX: Final = 64
SNAPSHOT_CHUNKS_MAX: Final = 65_536
BLOCKS_ANSWER_BYTES: Final = 4 * 1024 * 1024  # who answers a BlockRequest stops adding blocks past this size

_KIB: Final = 1024
_MIB: Final = 1024 * 1024


class QueueClass(IntEnum):
    """Which outgoing queue a message waits in; the lower number is sent first."""

    CONSENSUS = 0
    BLOCKS = 1
    TRANSACTIONS = 2


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of either side: which chain it follows, and the key that it is about to prove."""

    chain_id: str
    genesis_hash: Hash
    public_key: PublicKey
    nonce: bytes  # 32 bytes, fresh for each connection
    moniker: str
    height: int
    listen_port: int
    version: int = P2P_VERSION

    def to_fields(self) -> Plain:
        head = (self.version, self.chain_id, self.genesis_hash, self.public_key, self.nonce)
        return (*head, self.moniker, self.height, self.listen_port)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        # The version is judged before the shape: another version may have other fields.
        if fields and type(fields[0]) is int and fields[0] != P2P_VERSION:
            raise Rejected("wrong_protocol_version", f"{fields[0]}, here {P2P_VERSION}")
        version, chain_id, genesis_hash, public_key, nonce, moniker, height, port = _expect_fields(fields, 8)
        return cls(
            version=_expect_integer(version, lowest=P2P_VERSION, highest=P2P_VERSION),
            chain_id=_expect_text(chain_id, characters_max=CHAIN_ID_CHARACTERS_MAX),
            genesis_hash=Hash(_expect_bytes(genesis_hash, length=HASH_BYTES)),
            public_key=PublicKey(_expect_bytes(public_key, length=PUBLIC_KEY_BYTES)),
            nonce=_expect_bytes(nonce, length=NONCE_BYTES),
            moniker=_expect_text(moniker, characters_max=MONIKER_CHARACTERS_MAX),
            height=_expect_integer(height, lowest=0, highest=HEIGHT_MAX),
            listen_port=_expect_integer(port, lowest=0, highest=PORT_MAX),
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """The second frame of either side: a signature over the role and both hellos."""

    signature: Signature

    def to_fields(self) -> Plain:
        return (self.signature,)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        (signature,) = _expect_fields(fields, 1)
        return cls(Signature(_expect_bytes(signature, length=SIGNATURE_BYTES)))


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The last frame before a side closes; the reason is a stable snake_case sentence."""

    reason: str

    def to_fields(self) -> Plain:
        return (self.reason,)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        (reason,) = _expect_fields(fields, 1)
        return cls(_expect_text(reason, characters_max=REASON_CHARACTERS_MAX))


@dataclass(frozen=True, slots=True)
class Transactions:
    """A batch of signed transactions, each in its canonical bytes; at most 10,000 of them."""

    items: tuple[bytes, ...]

    def to_fields(self) -> Plain:
        return (self.items,)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        (items,) = _expect_fields(fields, 1)
        listed = _expect_array(items, items_max=TRANSACTIONS_PER_MESSAGE_MAX)
        return cls(tuple(_expect_bytes(item) for item in listed))


@dataclass(frozen=True, slots=True)
class ConsensusMessage:
    """One small message of the consensus (a vote, a status, a certificate) in its own canonical bytes."""

    body: bytes

    def to_fields(self) -> Plain:
        return (self.body,)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        (body,) = _expect_fields(fields, 1)
        return cls(_expect_bytes(body))


@dataclass(frozen=True, slots=True)
class ProposalMessage:
    """A signed proposal with the block it proposes and, for a re-proposal, its polka certificate (else empty)."""

    proposal: bytes
    block_body: bytes
    polka: bytes = b""

    def to_fields(self) -> Plain:
        return (self.proposal, self.block_body, self.polka)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        proposal, block_body, polka = _expect_fields(fields, 3)
        return cls(_expect_bytes(proposal), _expect_bytes(block_body), _expect_bytes(polka))


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """Asks for up to ``count`` (1 to 64) finalised blocks from ``from_height`` on."""

    from_height: int
    count: int

    def to_fields(self) -> Plain:
        return (self.from_height, self.count)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        from_height, count = _expect_fields(fields, 2)
        return cls(
            from_height=_expect_integer(from_height, lowest=0, highest=HEIGHT_MAX),
            count=_expect_integer(count, lowest=1, highest=BLOCKS_PER_MESSAGE_MAX),
        )


@dataclass(frozen=True, slots=True)
class Blocks:
    """Finalised blocks of consecutive heights: pairs of (header with transactions, commit certificate).

    Empty when the asked node has none of them.
    """

    items: tuple[tuple[bytes, bytes], ...]

    def to_fields(self) -> Plain:
        return (self.items,)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        (items,) = _expect_fields(fields, 1)
        listed = _expect_array(items, items_max=BLOCKS_PER_MESSAGE_MAX)
        return cls(tuple(_expect_pair(item) for item in listed))


@dataclass(frozen=True, slots=True)
class HeightStatus:
    """The sender's last finalised height. A hint of where to ask; only a certificate makes it believed."""

    height: int

    def to_fields(self) -> Plain:
        return (self.height,)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        (height,) = _expect_fields(fields, 1)
        return cls(_expect_integer(height, lowest=0, highest=HEIGHT_MAX))


@dataclass(frozen=True, slots=True)
class DocumentBlockRequest:
    """Asks for one block of an encrypted document by its CID, in bytes."""

    cid: bytes

    def to_fields(self) -> Plain:
        return (self.cid,)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        (cid,) = _expect_fields(fields, 1)
        return cls(_expect_bytes(cid, length=CID_BYTES))


@dataclass(frozen=True, slots=True)
class DocumentBlock:
    """The block of a document that was asked for; None where the asked node does not have it, or has no time."""

    cid: bytes
    data: bytes | None

    def to_fields(self) -> Plain:
        return (self.cid, self.data)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        cid, data = _expect_fields(fields, 2)
        return cls(_expect_bytes(cid, length=CID_BYTES), None if data is None else _expect_bytes(data))


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """Asks for a part of a snapshot of the state: for a chunk of the one with this id, or, with no id, what there is.

    ``index`` counts the chunks from 0, and is 0 where there is no id.
    """

    snapshot_id: Hash | None
    index: int

    def to_fields(self) -> Plain:
        return (self.snapshot_id, self.index)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        wanted, index = _expect_fields(fields, 2)
        snapshot_id = None if wanted is None else Hash(_expect_bytes(wanted, length=HASH_BYTES))
        return cls(snapshot_id, _expect_integer(index, lowest=0, highest=SNAPSHOT_CHUNKS_MAX))


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """What was asked for: a chunk, or, with no id, the manifest. Empty where the asked node does not have it."""

    snapshot_id: Hash | None
    index: int
    data: bytes

    def to_fields(self) -> Plain:
        return (self.snapshot_id, self.index, self.data)

    @classmethod
    def from_fields(cls, fields: tuple[Plain, ...]) -> Self:
        wanted, index, data = _expect_fields(fields, 3)
        snapshot_id = None if wanted is None else Hash(_expect_bytes(wanted, length=HASH_BYTES))
        number = _expect_integer(index, lowest=0, highest=SNAPSHOT_CHUNKS_MAX)
        return cls(snapshot_id, number, _expect_bytes(data))


HandshakeMessage: TypeAlias = Hello | Proof | Disconnect
DocumentMessage: TypeAlias = DocumentBlockRequest | DocumentBlock
SnapshotMessage: TypeAlias = SnapshotRequest | SnapshotPart
PeerMessage: TypeAlias = (
    Transactions
    | ConsensusMessage
    | ProposalMessage
    | BlockRequest
    | Blocks
    | HeightStatus
    | DocumentMessage
    | SnapshotMessage
)
Message: TypeAlias = HandshakeMessage | PeerMessage


@dataclass(frozen=True, slots=True)
class MessageRule:
    """What one type of message may cost a receiver, and the queue in which a sender keeps it."""

    tag: int
    size_bytes_max: int  # one frame, its tag byte included
    count_per_minute_max: int
    bytes_per_minute_max: int
    queue: QueueClass
    cost_us: int  # of our processor time to take one in, roughly, and to answer it
    cost_us_per_kib: int
    items_max: int = 16  # of all its arrays together; most have a few fields


# Set at several times the target load (3,000 transactions a second, two blocks a second, 40 validators):
# an honest peer that catches up or re-sends must never meet them, a flood must within seconds. The costs are measured
# with blocks of 4,000 transactions and certificates of 40 validators; what a transaction costs is charged by the node.
MESSAGE_TYPES: Final[Mapping[type[Message], MessageRule]] = MappingProxyType(
    {
        Hello: MessageRule(1, 1 * _KIB, 1, 1 * _KIB, QueueClass.CONSENSUS, 500, 0),
        Proof: MessageRule(2, 128, 1, 128, QueueClass.CONSENSUS, 500, 0),
        Disconnect: MessageRule(3, 512, 1, 512, QueueClass.CONSENSUS, 50, 0),
        Transactions: MessageRule(
            4, 2 * _MIB, 30_000, 512 * _MIB, QueueClass.TRANSACTIONS, 50, 20, 1 + TRANSACTIONS_PER_MESSAGE_MAX
        ),
        ConsensusMessage: MessageRule(5, 64 * _KIB, 60_000, 128 * _MIB, QueueClass.CONSENSUS, 100, 500),
        ProposalMessage: MessageRule(6, 15 * _MIB, 1_200, 1024 * _MIB, QueueClass.CONSENSUS, 500, 20),
        BlockRequest: MessageRule(7, 32, 1_200, 32 * _KIB, QueueClass.BLOCKS, 10_000, 0),
        Blocks: MessageRule(
            8, 15 * _MIB, 1_200, 2048 * _MIB, QueueClass.BLOCKS, 500, 20, 1 + 3 * BLOCKS_PER_MESSAGE_MAX
        ),
        HeightStatus: MessageRule(9, 32, 6_000, 64 * _KIB, QueueClass.BLOCKS, 50, 0),
        DocumentBlockRequest: MessageRule(10, 64, 6_000, 384 * _KIB, QueueClass.TRANSACTIONS, 500, 0),
        DocumentBlock: MessageRule(11, 272 * _KIB, 6_000, 1600 * _MIB, QueueClass.TRANSACTIONS, 50, 10),
        SnapshotRequest: MessageRule(12, 64, 6_000, 384 * _KIB, QueueClass.BLOCKS, 2_000, 0),
        SnapshotPart: MessageRule(13, 13 * _MIB, 6_000, 2048 * _MIB, QueueClass.BLOCKS, 100, 5),
    }
)
FRAME_BYTES_MAX: Final = max(rule.size_bytes_max for rule in MESSAGE_TYPES.values())
_KINDS_BY_TAG: Final[Mapping[int, type[Message]]] = {rule.tag: kind for kind, rule in MESSAGE_TYPES.items()}


def encode_frame(message: Message) -> bytes:
    """The bytes of one frame. Building a message above its own limit is our mistake: an assertion."""
    rule = MESSAGE_TYPES[type(message)]
    frame = bytes((rule.tag,)) + encode(message.to_fields())
    assert len(frame) <= rule.size_bytes_max, f"{type(message).__name__} of {len(frame)} bytes"
    return frame


def get_frame_kind(frame: bytes) -> type[Message]:
    """The type that a frame's tag names. Raises ``message_unknown``, and ``message_too_large`` above its limit."""
    kind = _KINDS_BY_TAG.get(frame[0]) if frame else None
    if kind is None:
        raise Malformed("message_unknown", f"tag {frame[0]}" if frame else "an empty frame")
    if len(frame) > MESSAGE_TYPES[kind].size_bytes_max:
        raise Malformed("message_too_large", f"{kind.__name__} of {len(frame)} bytes")
    return kind


def compute_cost_us(frame: bytes) -> int:
    """What taking in a frame costs us, in microseconds of processor time; of a type nobody knows, next to nothing."""
    kind = _KINDS_BY_TAG.get(frame[0]) if frame else None
    if kind is None:
        return 0
    rule = MESSAGE_TYPES[kind]
    return rule.cost_us + rule.cost_us_per_kib * len(frame) // 1024


def decode_frame(frame: bytes) -> Message:
    """The message of one frame.

    Raises ``Rejected``: ``message_unknown``, ``message_too_large``, ``message_malformed``, ``wrong_protocol_version``.
    """
    kind = get_frame_kind(frame)
    try:
        fields = decode(frame[1:], bytes_max=FRAME_BYTES_MAX, items_max=MESSAGE_TYPES[kind].items_max)
    except Malformed as error:
        raise Malformed("message_malformed", f"{kind.__name__}: {error.reason}") from error
    if not isinstance(fields, tuple):
        raise Malformed("message_malformed", f"{kind.__name__}: not an array")
    return kind.from_fields(fields)


def _expect_fields(fields: tuple[Plain, ...], count: int) -> tuple[Plain, ...]:
    if len(fields) != count:
        raise Malformed("message_malformed", f"{len(fields)} fields, not {count}")
    return fields


def _expect_array(value: Plain, *, items_max: int) -> tuple[Plain, ...]:
    if not isinstance(value, tuple) or len(value) > items_max:
        raise Malformed("message_malformed", f"not an array of at most {items_max}")
    return value


def _expect_pair(value: Plain) -> tuple[bytes, bytes]:
    first, second = _expect_fields(_expect_array(value, items_max=2), 2)
    return _expect_bytes(first), _expect_bytes(second)


def _expect_bytes(value: Plain, *, length: int | None = None) -> bytes:
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise Malformed("message_malformed", "not bytes" if length is None else f"not {length} bytes")
    return value


def _expect_integer(value: Plain, *, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise Malformed("message_malformed", f"not an integer from {lowest} to {highest}")
    return value


def _expect_text(value: Plain, *, characters_max: int) -> str:
    # Only printable text: monikers and reasons end up in logs and terminals.
    if not isinstance(value, str) or len(value) > characters_max or not value.isprintable():
        raise Malformed("message_malformed", f"not printable text of at most {characters_max} characters")
    return value
