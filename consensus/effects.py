"""The orders that the engine gives. The caller performs them in the order of the list.

A `Persist` stands before everything it guards: nothing after it may happen before it is on disk. Several in a row
may share one sync.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from consensus.messages import CommitCertificate, Evidence, Message, PolkaCertificate, Step
from ledger.primitives import Hash, Height, PublicKey


@dataclass(frozen=True, slots=True)
class BuildBlock:
    """Build our proposal for this round. The block's header bears exactly ``time_ms``; answer: ``BlockBuilt``."""

    height: Height
    round: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class CheckBlock:
    """Execute and check a body; answer: ``BlockChecked``. Asked once per block id, and again after a restart."""

    height: Height
    block_id: Hash
    time_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Persist:
    """Append ``frame`` to the journal and sync; with ``reset``, what the journal held before is dropped first."""

    frame: bytes
    reset: bool


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every peer. A proposal goes with its body, and with its polka if it is a re-proposal."""

    message: Message
    body: bytes | None = None
    polka: PolkaCertificate | None = None


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send to one peer, as for ``Broadcast``."""

    peer: PublicKey
    message: Message
    body: bytes | None = None
    polka: PolkaCertificate | None = None


@dataclass(frozen=True, slots=True)
class ScheduleTimeout:
    """Tell ``TimeoutElapsed`` with the same (height, round, step) after ``delay_ms``.

    Step NEW_HEIGHT may be scheduled more than once for a height (block interval, heartbeat): each one counts.
    Timeouts of heights that are over may be dropped.
    """

    height: Height
    round: int
    step: Step
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Decide:
    """The block is final: check it again, write it with its certificate, then tell ``HeightStarted`` of the next.

    If the same height has just been caught up with from a peer, the caller ignores it: the block is the same one.
    """

    height: Height
    round: int
    block_id: Hash
    body: bytes
    certificate: CommitCertificate


@dataclass(frozen=True, slots=True)
class RequestCatchup:
    """A peer stands at ``height``, above ours: ask it for blocks and certificates."""

    peer: PublicKey
    height: Height


@dataclass(frozen=True, slots=True)
class ServeHeight:
    """A peer still decides ``height``, which we have: send it the block and its commit certificate."""

    peer: PublicKey
    height: Height


@dataclass(frozen=True, slots=True)
class EvidenceFound:
    """A validator signed what no honest one does: two payloads for one (height, round, type), or against its lock."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Halt:
    """A quorum committed a block that we find invalid: stop and say so; nothing here can mend it."""

    height: Height
    block_id: Hash


@dataclass(frozen=True, slots=True)
class Refused:
    """The input just handled holds what no honest node sends: blame the peer it came from. Nothing was changed by it.

    Reasons: ``proposer_unexpected``, ``proposal_signature_invalid``, ``voter_unknown``, ``vote_signature_invalid``.
    """

    reason: str
    item: str


Effect: TypeAlias = (
    BuildBlock
    | CheckBlock
    | Persist
    | Broadcast
    | SendTo
    | ScheduleTimeout
    | Decide
    | RequestCatchup
    | ServeHeight
    | EvidenceFound
    | Halt
    | Refused
)
