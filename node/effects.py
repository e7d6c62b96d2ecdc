"""The orders that a node's core gives; performed in the order of the list.

What stands behind a `Persist` or a `WriteBlock` may only happen when that is on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from consensus.messages import CommitCertificate, Evidence, Step
from ledger.errors import Rejected
from ledger.execution import Executed
from ledger.primitives import Hash, PublicKey
from ledger.storage import Changes
from node.forks import Fork
from node.inputs import Input
from p2p.messages import PeerMessage


@dataclass(frozen=True, slots=True)
class Persist:
    """Append a frame to the journal and sync it; ``reset``: it is the first of a new height's journal."""

    frame: bytes
    reset: bool


@dataclass(frozen=True, slots=True)
class WriteBlock:
    """Write one batch, atomically and durably, and then tell ``BlockWritten``."""

    height: int
    changes: Mapping[bytes, bytes | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Send:
    """Send to one peer."""

    peer: PublicKey
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class SendAll:
    """Send to every peer."""

    message: PeerMessage


@dataclass(frozen=True, slots=True)
class Blame:
    """A peer sent what no honest one sends: it loses score, and is banned for a while when it has none left."""

    peer: PublicKey
    reason: str
    item: str


@dataclass(frozen=True, slots=True)
class SetTimeout:
    """Tell ``TimeoutElapsed`` with these values after a delay."""

    height: int
    round: int
    step: Step
    delay_ms: int


@dataclass(frozen=True, slots=True)
class SetGossipTimer:
    """Tell ``GossipDue`` after a delay."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Feed:
    """Tell this input to the core, after the effects before it; others may come between."""

    input: Input


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of one submitted transaction at the door: admitted under its id, or refused."""

    tx_id: Hash | None
    error: Rejected | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The admissions of a submission, in its order."""

    token: int
    admissions: tuple[Admission, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """A block is durable: tell subscribers, and whoever waits for its transactions."""

    executed: Executed
    certificate: CommitCertificate


@dataclass(frozen=True, slots=True)
class Dropped:
    """Pending transactions that left without being committed."""

    tx_ids: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class EvidenceNoted:
    """A validator signed what no honest one does."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class ForkSeen:
    """Two blocks of one height are final: write the record durably, and let the operator hear of it."""

    fork: Fork
    changes: Changes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Halt:
    """The node cannot go on: stop with this word."""

    reason: str
    item: str


Effect: TypeAlias = (
    Persist
    | WriteBlock
    | Send
    | SendAll
    | Blame
    | SetTimeout
    | SetGossipTimer
    | Feed
    | Answer
    | Committed
    | Dropped
    | EvidenceNoted
    | ForkSeen
    | Halt
)
