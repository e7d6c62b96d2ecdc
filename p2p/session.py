"""One connection between two nodes, without any IO: frames and the time go in, events come out.

Owns the handshake that proves both keys, the limits by message type, and the table of what a peer sent and was sent.
Either side sends Hello, answers the other's Hello with Proof, and trusts the other once its Proof verifies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from ledger.encoding import encode
from ledger.errors import Rejected
from ledger.primitives import Hash, PublicKey, Signature, is_valid_ed25519
from p2p.messages import (
    MESSAGE_TYPES,
    NONCE_BYTES,
    REASON_CHARACTERS_MAX,
    Disconnect,
    Hello,
    Message,
    PeerMessage,
    Proof,
    decode_frame,
    encode_frame,
    get_frame_kind,
)

HANDSHAKE_TAG: Final = b"wattprint/p2p/handshake/2\0"
HANDSHAKE_TIMEOUT_MS: Final = 5_000
PINGS_PER_MINUTE_MAX: Final = 120  # and pongs; an honest peer pings only whom it does not hear
MINUTE_MS: Final = 60_000


class Role(Enum):
    """Which side of the connection this is; part of what is signed, so a proof cannot be mirrored."""

    DIALLER = "dialler"
    LISTENER = "listener"

    @property
    def opposite(self) -> Role:
        return Role.LISTENER if self is Role.DIALLER else Role.DIALLER


@dataclass(frozen=True, slots=True)
class LocalNode:
    """Who we are to our peers. ``sign`` gives the Ed25519 signature under ``public_key``."""

    public_key: PublicKey
    sign: Callable[[bytes], Signature]
    chain_id: str
    genesis_hash: Hash
    moniker: str


@dataclass(frozen=True, slots=True)
class Channel:
    """The encrypted channel of a session: the SHA-256 of both sides' certificates, and the peer's node key."""

    own_certificate: Hash
    peer_certificate: Hash
    peer_key: PublicKey


@dataclass(frozen=True, slots=True)
class FrameToSend:
    """The transport must send this frame."""

    kind: type[Message]
    frame: bytes


@dataclass(frozen=True, slots=True)
class PeerAuthenticated:
    """The peer has proved its key; messages may flow."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A well-formed message within its limits. What it means is not judged yet."""

    message: PeerMessage


@dataclass(frozen=True, slots=True)
class PeerRefused:
    """We end the connection: the transport sends ``farewell`` if it can, and closes."""

    reason: str
    item: str
    farewell: bytes


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The peer ended the connection and said why."""

    reason: str


SessionEvent: TypeAlias = FrameToSend | PeerAuthenticated | MessageReceived | PeerRefused | PeerLeft


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed of one message type: in the current minute and in all."""

    count: int
    size_bytes: int
    minute_count: int
    minute_bytes: int


_NO_TRAFFIC: Final = Traffic(0, 0, 0, 0)


class TrafficTable:
    """Message type → traffic, for one direction of one connection."""

    def __init__(self) -> None:
        self._minute = 0
        self._rows: dict[str, Traffic] = {}

    def count(self, name: str, size_bytes: int, now_ms: int) -> Traffic:
        """Add one message and return its type's row, the message included."""
        self._turn_minute(now_ms)
        row = self._rows.get(name, _NO_TRAFFIC)
        row = Traffic(row.count + 1, row.size_bytes + size_bytes, row.minute_count + 1, row.minute_bytes + size_bytes)
        self._rows[name] = row
        return row

    def get_rows(self, now_ms: int) -> Mapping[str, Traffic]:
        """A copy of the table as of ``now_ms``."""
        self._turn_minute(now_ms)
        return dict(self._rows)

    def _turn_minute(self, now_ms: int) -> None:
        minute = now_ms // MINUTE_MS
        if minute <= self._minute:  # a clock that steps back must not open a fresh budget
            return
        self._minute = minute
        self._rows = {name: Traffic(row.count, row.size_bytes, 0, 0) for name, row in self._rows.items()}


class _State(Enum):
    AWAITING_HELLO = "awaiting_hello"
    AWAITING_PROOF = "awaiting_proof"
    ESTABLISHED = "established"
    CLOSED = "closed"


class Session:
    """The state machine of one connection.

    ``channel`` is the TLS connection it runs in. ``find_refusal`` is asked, at each handshake, for the reason to
    refuse a key (``stranger``, ``peer_banned``), or None; it may answer differently over time. ``nonce`` is 32 fresh
    random bytes. ``expected_key`` is the key that a dialler wants to reach. ``budget_percent`` scales what each
    message type may cost in a minute.
    """

    def __init__(
        self,
        local: LocalNode,
        *,
        role: Role,
        channel: Channel,
        nonce: bytes,
        height: int,
        listen_port: int,
        find_refusal: Callable[[PublicKey], str | None],
        started_ms: int,
        expected_key: PublicKey | None = None,
        budget_percent: int = 100,
        handshake_timeout_ms: int = HANDSHAKE_TIMEOUT_MS,
    ) -> None:
        assert len(nonce) == NONCE_BYTES, "a nonce has 32 bytes"
        self._local = local
        self._role = role
        self._channel = channel
        self._find_refusal = find_refusal
        self._expected_key = expected_key
        self._budget_percent = budget_percent
        self._deadline_ms = started_ms + handshake_timeout_ms
        own_hello = Hello(
            local.chain_id, local.genesis_hash, local.public_key, nonce, local.moniker, height, listen_port
        )
        self._own_hello = encode_frame(own_hello)
        self._peer_hello = b""
        self._state = _State.AWAITING_HELLO
        self.peer: Hello | None = None  # known from its Hello on, proven once established
        self.received: Final = TrafficTable()
        self.sent: Final = TrafficTable()

    @property
    def is_established(self) -> bool:
        return self._state is _State.ESTABLISHED

    @property
    def is_closed(self) -> bool:
        return self._state is _State.CLOSED

    def start(self, now_ms: int) -> FrameToSend:
        """Our Hello, the first frame that the transport sends."""
        self.sent.count(Hello.__name__, len(self._own_hello), now_ms)
        return FrameToSend(Hello, self._own_hello)

    def send(self, message: PeerMessage, now_ms: int) -> bytes:
        """The frame of a message, counted as sent. Sending before the handshake is done is our mistake."""
        frame = encode_frame(message)
        self.count_sent(type(message), frame, now_ms)
        return frame

    def count_sent(self, kind: type[Message], frame: bytes, now_ms: int) -> None:
        """Count a frame that was encoded once for many peers."""
        assert self._state is _State.ESTABLISHED, "messages flow only after the handshake"
        self.sent.count(kind.__name__, len(frame), now_ms)

    def receive(self, frame: bytes, now_ms: int) -> list[SessionEvent]:
        """What one frame from the peer means. Never raises, whatever the bytes; a closed session answers nothing."""
        if self._state is _State.CLOSED:
            return []
        if self._state is not _State.ESTABLISHED and now_ms >= self._deadline_ms:
            return self.refuse("handshake_timeout", self._state.value)
        try:
            kind = get_frame_kind(frame)
            self._check_order(kind)
            self._check_rate(kind, len(frame), now_ms)
            return self._handle(decode_frame(frame), frame, now_ms)
        except Rejected as error:
            return self.refuse(error.reason, error.item)

    def receive_ping(self, size_bytes: int, now_ms: int) -> list[SessionEvent]:
        """Count a ping of the transport: answering them must not become a way to keep us busy."""
        row = self.received.count("Ping", size_bytes, now_ms)
        if row.minute_count > PINGS_PER_MINUTE_MAX and self._state is not _State.CLOSED:
            return self.refuse("message_rate_exceeded", "Ping")
        return []

    def refuse(self, reason: str, item: str = "") -> list[SessionEvent]:
        """End the session from our side, for a reason found here or by the caller (its timer, its rules)."""
        if self._state is _State.CLOSED:
            return []
        self._state = _State.CLOSED
        return [PeerRefused(reason, item, encode_frame(Disconnect(reason[:REASON_CHARACTERS_MAX])))]

    def _check_order(self, kind: type[Message]) -> None:
        expected: Mapping[_State, bool] = {
            _State.AWAITING_HELLO: kind is Hello,
            _State.AWAITING_PROOF: kind is Proof,
            _State.ESTABLISHED: kind not in (Hello, Proof),
        }
        if kind is not Disconnect and not expected[self._state]:
            raise Rejected("handshake_out_of_order", f"{kind.__name__} while {self._state.value}")

    def _check_rate(self, kind: type[Message], size_bytes: int, now_ms: int) -> None:
        rule = MESSAGE_TYPES[kind]
        row = self.received.count(kind.__name__, size_bytes, now_ms)
        count_max, bytes_max = rule.count_per_minute_max, rule.bytes_per_minute_max
        if self._state is _State.ESTABLISHED:
            count_max, bytes_max = (limit * self._budget_percent // 100 for limit in (count_max, bytes_max))
        if row.minute_count > count_max or row.minute_bytes > bytes_max:
            raise Rejected("message_rate_exceeded", f"{kind.__name__}: {row.minute_count} in a minute")

    def _handle(self, message: Message, frame: bytes, now_ms: int) -> list[SessionEvent]:
        if isinstance(message, Disconnect):
            self._state = _State.CLOSED
            return [PeerLeft(message.reason)]
        if isinstance(message, Hello):
            return self._handle_hello(message, frame, now_ms)
        if isinstance(message, Proof):
            return self._handle_proof(message)
        return [MessageReceived(message)]

    def _handle_hello(self, hello: Hello, frame: bytes, now_ms: int) -> list[SessionEvent]:
        if (hello.chain_id, hello.genesis_hash) != (self._local.chain_id, self._local.genesis_hash):
            raise Rejected("wrong_chain", f"{hello.chain_id} {hello.genesis_hash.hex()}")
        if hello.public_key == self._local.public_key:
            raise Rejected("connected_to_self", hello.public_key.hex())
        refusal = self._find_refusal(hello.public_key)
        if refusal is not None:
            raise Rejected(refusal, hello.public_key.hex())
        if self._expected_key not in (None, hello.public_key):
            raise Rejected("peer_key_unexpected", hello.public_key.hex())
        if hello.public_key != self._channel.peer_key:
            raise Rejected("certificate_of_another_key", self._channel.peer_key.hex())
        self.peer, self._peer_hello = hello, frame
        self._state = _State.AWAITING_PROOF
        proof = encode_frame(Proof(self._local.sign(self._compute_signed_bytes(self._role))))
        self.sent.count(Proof.__name__, len(proof), now_ms)
        return [FrameToSend(Proof, proof)]

    def _handle_proof(self, proof: Proof) -> list[SessionEvent]:
        assert self.peer is not None, "a proof is awaited only after a hello"
        if not is_valid_ed25519(self.peer.public_key, self._compute_signed_bytes(self._role.opposite), proof.signature):
            raise Rejected("peer_signature_invalid", self.peer.public_key.hex())
        self._state = _State.ESTABLISHED
        return [PeerAuthenticated(self.peer)]

    def _compute_signed_bytes(self, signer: Role) -> bytes:
        # The role keeps a proof from being mirrored; the hellos carry both nonces, both keys and the chain; the
        # certificates tie it to this channel, so that it cannot be relayed through another.
        own = (self._own_hello, self._channel.own_certificate)
        peer = (self._peer_hello, self._channel.peer_certificate)
        dialler, listener = (own, peer) if self._role is Role.DIALLER else (peer, own)
        return HANDSHAKE_TAG + encode((signer.value, dialler, listener))
