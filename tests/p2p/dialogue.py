"""Two sessions joined back to back, for tests that read as a dialogue; no IO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nacl.signing import SigningKey

from ledger.primitives import Hash, PublicKey, Signature
from p2p.messages import decode_frame
from p2p.session import Channel, FrameToSend, LocalNode, PeerLeft, PeerRefused, Role, Session, SessionEvent

START_MS = 1_000_000
CHAIN_ID = "test-1"
GENESIS_HASH = Hash(b"g" * 32)


def make_local(
    seed: int, *, chain_id: str = CHAIN_ID, genesis_hash: Hash = GENESIS_HASH, moniker: str | None = None
) -> LocalNode:
    """A node whose key comes from ``seed``."""
    key = SigningKey(bytes([seed]) * 32)
    return LocalNode(
        public_key=PublicKey(bytes(key.verify_key)),
        sign=lambda data: Signature(key.sign(data).signature),
        chain_id=chain_id,
        genesis_hash=genesis_hash,
        moniker=moniker or f"node-{seed}",
    )


ALICE = make_local(1)
BOB = make_local(2)
CAROL = make_local(3)


CERTIFICATES = {Role.DIALLER: Hash(b"d" * 32), Role.LISTENER: Hash(b"l" * 32)}


def make_channel(role: Role, peer: LocalNode | None = None) -> Channel:
    """What the side ``role`` sees of the one channel; its peer is the other of Alice, who dials, and Bob."""
    peer = peer or (BOB if role is Role.DIALLER else ALICE)
    return Channel(CERTIFICATES[role], CERTIFICATES[role.opposite], peer.public_key)


def make_session(
    local: LocalNode,
    role: Role,
    *,
    channel: Channel | None = None,
    nonce: bytes | None = None,
    find_refusal: Callable[[PublicKey], str | None] = lambda _key: None,
    expected_key: PublicKey | None = None,
) -> Session:
    return Session(
        local,
        role=role,
        channel=channel or make_channel(role),
        nonce=nonce or local.public_key[::-1],
        height=7,
        listen_port=8601,
        find_refusal=find_refusal,
        started_ms=START_MS,
        expected_key=expected_key,
    )


def get_refusal(events: list[SessionEvent]) -> str:
    """The reason of the one event, which must be a refusal whose farewell says the same."""
    (event,) = events
    assert isinstance(event, PeerRefused), event
    farewell = decode_frame(event.farewell)
    assert getattr(farewell, "reason", None) == event.reason
    return event.reason


@dataclass
class Dialogue:
    """Alice dials Bob. ``play`` carries frames to and fro until both are silent, and keeps what each side saw."""

    alice: Session
    bob: Session

    def play(self, now_ms: int = START_MS) -> tuple[list[SessionEvent], list[SessionEvent]]:
        seen: dict[str, list[SessionEvent]] = {"alice": [], "bob": []}
        sides = {"alice": self.alice, "bob": self.bob}
        others = {"alice": "bob", "bob": "alice"}
        in_flight = [("bob", self.alice.start(now_ms).frame), ("alice", self.bob.start(now_ms).frame)]
        while in_flight:
            receiver, frame = in_flight.pop(0)
            for event in sides[receiver].receive(frame, now_ms):
                if isinstance(event, FrameToSend):
                    in_flight.append((others[receiver], event.frame))
                    continue
                seen[receiver].append(event)
                if isinstance(event, PeerRefused):
                    in_flight.append((others[receiver], event.farewell))
        return seen["alice"], seen["bob"]

    def get_reasons(self) -> tuple[set[str], set[str]]:
        """Why each side ended, after playing: its own refusal, or the other's farewell."""
        alice, bob = self.play()
        return (
            {event.reason for event in alice if isinstance(event, PeerRefused | PeerLeft)},
            {event.reason for event in bob if isinstance(event, PeerRefused | PeerLeft)},
        )


def make_dialogue() -> Dialogue:
    return Dialogue(
        make_session(ALICE, Role.DIALLER, expected_key=BOB.public_key),
        make_session(BOB, Role.LISTENER),
    )


def make_established() -> Dialogue:
    dialogue = make_dialogue()
    dialogue.play()
    assert dialogue.alice.is_established
    assert dialogue.bob.is_established
    return dialogue
