"""The facts that a node's core is told. The time arrives beside each of them.

`...Due` inputs are the core's own: it orders them with the effect ``Feed``, so that what must be sent is sent before
long work begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from consensus.effects import BuildBlock, CheckBlock
from consensus.messages import Step
from ledger.primitives import PublicKey
from p2p.messages import PeerMessage


@dataclass(frozen=True, slots=True)
class Started:
    """The node runs: everything else comes after this."""


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A peer has proven its key; ``height`` is what it says it has decided."""

    peer: PublicKey
    height: int


@dataclass(frozen=True, slots=True)
class PeerDown:
    """A peer is gone."""

    peer: PublicKey


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A peer said something."""

    peer: PublicKey
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class Submitted:
    """Somebody at the door submits transactions; the answer carries the same ``token``."""

    token: int
    raws: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TimeoutElapsed:
    """A timeout of the consensus that ``SetTimeout`` asked for."""

    height: int
    round: int
    step: Step


@dataclass(frozen=True, slots=True)
class GossipDue:
    """Collected transactions are to be sent to peers; ``SetGossipTimer`` asked for it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """About once a second."""


@dataclass(frozen=True, slots=True)
class BlockWritten:
    """The batch of ``WriteBlock`` is durable."""

    height: int


@dataclass(frozen=True, slots=True)
class BuildDue:
    """Build our proposal now."""

    order: BuildBlock


@dataclass(frozen=True, slots=True)
class CheckDue:
    """Execute a proposed block now."""

    order: CheckBlock


@dataclass(frozen=True, slots=True)
class TransactionsDue:
    """Look at some of the transactions that peers have sent; the rest follows."""


@dataclass(frozen=True, slots=True)
class EvidenceDue:
    """Submit the evidence that was found."""


@dataclass(frozen=True, slots=True)
class SyncedBlockDue:
    """Execute the next queued block of the catch-up now."""


Input: TypeAlias = (
    Started
    | PeerUp
    | PeerDown
    | MessageReceived
    | Submitted
    | TimeoutElapsed
    | GossipDue
    | Tick
    | BlockWritten
    | BuildDue
    | CheckDue
    | TransactionsDue
    | EvidenceDue
    | SyncedBlockDue
)
