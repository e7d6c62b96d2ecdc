"""The facts that the engine is told. Each names what happened; `now_ms` is the node's clock.

The caller tells them in the order they happened, one at a time, and performs the effects of one before the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from consensus.messages import (
    Certificate,
    PolkaCertificate,
    Request,
    SignedProposal,
    SignedVote,
    Status,
    Step,
)
from consensus.validators import ValidatorSet
from ledger.primitives import Hash, Height, PublicKey


@dataclass(frozen=True, slots=True)
class HeightStarted:
    """The block before is durable (or the node has just started): ``height`` is to be decided by ``validators``.

    Also told after catching up by several heights. ``parent_time_ms`` is the time in the header of the block before.
    """

    height: Height
    validators: ValidatorSet
    now_ms: int
    parent_time_ms: int


@dataclass(frozen=True, slots=True)
class TransactionsAvailable:
    """There is something to put into a block. Told once per height is enough, after ``HeightStarted``."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A proposal with its body, and its polka if it is a re-proposal.

    The caller has checked that ``body`` is a block whose id is ``block_id`` and whose header bears ``time_ms`` (and
    drops the message otherwise): a stranger must not be able to spoil a good id with a wrong body.
    """

    proposal: SignedProposal
    body: bytes
    polka: PolkaCertificate | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class VoteReceived:
    """A peer's vote, or one that a peer passed on."""

    vote: SignedVote
    now_ms: int


@dataclass(frozen=True, slots=True)
class CertificateReceived:
    """A bundle of votes: a polka, a commit, or votes of a round."""

    certificate: Certificate
    now_ms: int


@dataclass(frozen=True, slots=True)
class StatusReceived:
    """Where a peer stands; ``peer`` is the key of the node that the connection belongs to."""

    peer: PublicKey
    status: Status
    now_ms: int


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A peer asks for votes or for a body."""

    peer: PublicKey
    request: Request
    now_ms: int


@dataclass(frozen=True, slots=True)
class BlockBuilt:
    """The answer to ``BuildBlock``: our own block, already known to be valid."""

    height: Height
    round: int
    block_id: Hash
    time_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class BlockChecked:
    """The answer to ``CheckBlock``."""

    block_id: Hash
    valid: bool


@dataclass(frozen=True, slots=True)
class TimeoutElapsed:
    """A timeout that ``ScheduleTimeout`` asked for. Late or outdated ones do no harm."""

    height: Height
    round: int
    step: Step
    now_ms: int


@dataclass(frozen=True, slots=True)
class GossipTick:
    """About once a second: send our status, and what seems to have been lost."""

    now_ms: int


Input: TypeAlias = (
    HeightStarted
    | TransactionsAvailable
    | ProposalReceived
    | VoteReceived
    | CertificateReceived
    | StatusReceived
    | RequestReceived
    | BlockBuilt
    | BlockChecked
    | TimeoutElapsed
    | GossipTick
)
