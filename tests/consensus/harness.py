"""A bench for one engine among scripted peers, and what it shares with the network bench: keys, and the notary.

A scenario reads as a chain of calls. While it runs it is checked that one payload is sent per key and slot, and that
what is sent is durable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

import nacl.bindings

from consensus.codec import encode_message
from consensus.effects import (
    Broadcast,
    CheckBlock,
    Decide,
    Effect,
    Persist,
    ScheduleTimeout,
    SendTo,
)
from consensus.engine import Engine
from consensus.inputs import (
    BlockChecked,
    HeightStarted,
    Input,
    ProposalReceived,
    TimeoutElapsed,
    TransactionsAvailable,
    VoteReceived,
)
from consensus.journal import StateFrame, decode_frame, replay
from consensus.messages import (
    ChainContext,
    Message,
    Payload,
    PolkaCertificate,
    PolkaSignature,
    Precommit,
    Prevote,
    Proposal,
    SignedProposal,
    SignedVote,
    Step,
    compute_signed_bytes,
)
from consensus.parameters import ConsensusParameters
from consensus.round import HeightState
from consensus.validators import Validator, ValidatorSet
from ledger.primitives import Hash, Height, PublicKey, Signature, sha256

CONTEXT: Final = ChainContext("harness", sha256(b"genesis"))
HEIGHT: Final = Height(8)
START_MS: Final = 1_000_000
BAD: Final = b"bad"  # a body that opens with this fails its check
_T = TypeVar("_T")


class Key:
    """A deterministic Ed25519 key."""

    def __init__(self, number: int) -> None:
        public, self._secret = nacl.bindings.crypto_sign_seed_keypair(sha256(b"harness key %d" % number))
        self.public = PublicKey(public)

    def sign(self, message: bytes) -> Signature:
        return Signature(nacl.bindings.crypto_sign(message, self._secret)[:64])

    def vote(self, vote: Prevote | Precommit) -> SignedVote:
        return SignedVote(vote, self.public, self.sign(compute_signed_bytes(CONTEXT, vote)))

    def propose(self, proposal: Proposal) -> SignedProposal:
        return SignedProposal(proposal, self.public, self.sign(compute_signed_bytes(CONTEXT, proposal)))


KEYS: Final = tuple(Key(number) for number in range(10))


def build_validators(count: int) -> ValidatorSet:
    """The first ``count`` keys as a set."""
    return ValidatorSet(tuple(Validator(key.public, f"v{index}") for index, key in enumerate(KEYS[:count])))


def only(items: Iterable[object], kind: type[_T]) -> list[_T]:
    """Those of one type."""
    return [item for item in items if isinstance(item, kind)]


def block_id(body: bytes | None) -> Hash | None:
    """The id of a body in these tests; nil for None."""
    return None if body is None else sha256(body)


class SafetyBroken(AssertionError):
    """A promise that must always hold did not."""


class Notary:
    """Watches all that leaves a node, over all its restarts: one payload per key and (height, round, type).

    A signature that a crash swallowed before it was on disk or on the wire was never made, for the world.
    """

    def __init__(self) -> None:
        self._payloads: dict[tuple[PublicKey, type[Payload], Height, int], bytes] = {}

    def note_sent(self, own_key: PublicKey, message: Message) -> bool:
        """Check a message about to leave; True if it is our own word, False if we pass on another's."""
        match message:
            case SignedVote(vote, signer, _):
                payload: Payload = vote
            case SignedProposal(proposal, signer, _):
                payload = proposal
            case _:
                return False
        if signer != own_key:
            return False
        data = encode_message(message)
        slot = (signer, type(payload), payload.height, payload.round)
        if self._payloads.setdefault(slot, data) != data:
            raise SafetyBroken(f"two payloads sent: {payload}")
        return True


@dataclass
class Solo:
    """One engine, number ``me`` of ``count``; its peers say what the script says. Methods return self, to chain.

    At height 8 of four validators the proposer of round r is number r mod 4.
    """

    me: int = 3
    count: int = 4
    height: Height = HEIGHT
    watcher: bool = False
    answers: bool = True  # bodies are checked at once
    parameters: ConsensusParameters = field(default_factory=ConsensusParameters)
    now_ms: int = START_MS
    parent_time_ms: int = START_MS - 10_000
    log: list[Effect] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    notary: Notary = field(default_factory=Notary)

    def __post_init__(self) -> None:
        self.validators = build_validators(self.count)
        self.engine = self._build_engine()

    def _build_engine(self) -> Engine:
        if self.watcher:
            return Engine(CONTEXT, self.parameters)
        key = KEYS[self.me]
        return Engine(CONTEXT, self.parameters, own_key=key.public, sign=key.sign, journal=replay(self.frames))

    @property
    def state(self) -> HeightState:
        assert self.engine.state is not None
        return self.engine.state

    def tell(self, input_: Input) -> Self:
        """Hand over one fact; perform journal and checks."""
        effects = self.engine.handle(input_)
        check_durable_first(effects, self.frames, KEYS[self.me].public, self.notary)
        self.log.extend(effects)
        for effect in effects:
            if isinstance(effect, CheckBlock) and self.answers:
                self.tell(BlockChecked(effect.block_id, not effect.body.startswith(BAD)))
        return self

    def idle(self) -> Self:
        """Start the height, without work."""
        return self.tell(HeightStarted(self.height, self.validators, self.now_ms, self.parent_time_ms))

    def start(self) -> Self:
        """Start the height, with work."""
        return self.idle().tell(TransactionsAvailable(self.now_ms))

    def restart(self) -> Self:
        """Crash and come back with the journal; the log begins anew."""
        self.engine = self._build_engine()
        self.log.clear()
        return self.idle()

    def propose(
        self,
        body: bytes,
        *,
        round_: int = 0,
        valid_round: int = -1,
        polka: PolkaCertificate | None = None,
        time_ms: int | None = None,
        by: int | None = None,
    ) -> Self:
        """The round's proposer proposes."""
        key = KEYS[(self.height + round_) % self.count if by is None else by]
        time_ms = self.now_ms if time_ms is None else time_ms
        signed = key.propose(Proposal(self.height, round_, sha256(body), valid_round, time_ms))
        return self.tell(ProposalReceived(signed, body, polka, self.now_ms))

    def prevote(self, body: bytes | None, *voters: int, round_: int = 0, valid_round: int = -1) -> Self:
        """These peers prevote a body, or nil."""
        vote = Prevote(self.height, round_, block_id(body), valid_round)
        for voter in voters:
            self.tell(VoteReceived(KEYS[voter].vote(vote), self.now_ms))
        return self

    def precommit(self, body: bytes | None, *voters: int, round_: int = 0) -> Self:
        """These peers precommit a body, or nil."""
        vote = Precommit(self.height, round_, block_id(body))
        for voter in voters:
            self.tell(VoteReceived(KEYS[voter].vote(vote), self.now_ms))
        return self

    def elapse(self, step: Step, *, round_: int = 0, after_ms: int = 0) -> Self:
        """The timeout of a step fires."""
        self.now_ms += after_ms
        return self.tell(TimeoutElapsed(self.height, round_, step, self.now_ms))

    def polka(self, body: bytes, *voters: int, round_: int = 0) -> PolkaCertificate:
        """A polka certificate signed by these."""
        vote = Prevote(self.height, round_, sha256(body), -1)
        signed = [KEYS[voter].vote(vote) for voter in voters]
        signatures = tuple(PolkaSignature(item.voter, -1, item.signature) for item in signed)
        return PolkaCertificate(self.height, round_, sha256(body), signatures)

    def sent(self, kind: type[_T]) -> list[_T]:
        """Messages broadcast of one type."""
        return only((effect.message for effect in only(self.log, Broadcast)), kind)

    def own_votes(self, kind: type[Prevote] | type[Precommit]) -> list[tuple[int, Hash | None]]:
        """Our votes of one kind, as (round, block)."""
        votes = (signed.vote for signed in self.sent(SignedVote))
        return [(vote.round, vote.block_id) for vote in votes if isinstance(vote, kind)]

    @property
    def prevotes(self) -> list[tuple[int, Hash | None]]:
        return self.own_votes(Prevote)

    @property
    def precommits(self) -> list[tuple[int, Hash | None]]:
        return self.own_votes(Precommit)

    def timeouts(self, step: Step) -> list[tuple[int, int]]:
        """Timeouts scheduled for a step, as (round, delay)."""
        return [(t.round, t.delay_ms) for t in only(self.log, ScheduleTimeout) if t.step is step]

    @property
    def decisions(self) -> list[tuple[int, Hash]]:
        return [(decide.round, decide.block_id) for decide in only(self.log, Decide)]


def check_durable_first(effects: Iterable[Effect], frames: list[bytes], own_key: PublicKey, notary: Notary) -> None:
    """Append what is persisted to ``frames``; what we signed must stand there before it is sent."""
    for effect in effects:
        match effect:
            case Persist(frame, reset):
                if reset:
                    frames.clear()
                frames.append(frame)
            case Broadcast(message) | SendTo(_, message):
                if notary.note_sent(own_key, message) and encode_message(message) not in list_journalled(frames):
                    raise SafetyBroken("sent before it was durable")


def list_journalled(frames: Iterable[bytes]) -> set[bytes]:
    """The bytes of every message of ours that stands in these frames."""
    states = only((decode_frame(frame) for frame in frames), StateFrame)
    return {encode_message(message) for frame in states for message in frame.signed}
