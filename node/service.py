"""What a node offers to whoever stands at its door: the port between JSON-RPC and the running node.

Owns the shapes only. ``runtime.py`` implements it; ``rpc.py`` and tests use it.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from ledger.errors import Rejected
from ledger.fields import KeyText
from ledger.primitives import Hash
from ledger.receipt import Event
from ledger.state_root import StateTree
from ledger.storage import Reader
from ledger.transaction import Transaction, TransactionTable


class Wait(enum.StrEnum):
    """How far a submitter wants to wait."""

    ADMITTED = "admitted"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a submitted transaction. Exactly one of: refused, or admitted, or committed with its place."""

    tx_id: Hash | None  # None when the bytes did not decode
    error: Rejected | None = None
    height: int | None = None
    index: int | None = None
    events: tuple[Event, ...] = ()
    timed_out: bool = False  # admitted, but not committed within the time given


@dataclass(frozen=True, slots=True)
class CommittedBlock:
    """What subscribers hear of a block, after it is durable."""

    height: int
    block_id: Hash
    time_ms: int
    transactions: tuple[Transaction, ...]
    events: tuple[tuple[Event, ...], ...]  # of each transaction


class Passed(TypedDict):
    """Messages of one kind that passed, and their bytes."""

    messages: int
    bytes: int


class PeerStatus(TypedDict):
    """A connected peer: who it is, how it stands; what passed by kind of message; what waits or is lost by queue."""

    public_key: KeyText
    moniker: str
    host: str
    connected_ms: int
    score: int
    bans: int
    last_misbehaviour: str
    used_ms: int
    paused_ms: int
    received: dict[str, Passed]
    sent: dict[str, Passed]
    waiting: dict[str, int]
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How this node stands, for ``chain_status``, readiness and metrics."""

    moniker: str
    version: str
    public_key: bytes
    is_validator: bool
    is_syncing: bool
    round: int
    peers: tuple[PeerStatus, ...]
    mempool_transactions: int
    mempool_bytes: int
    counters: dict[str, int]  # name → count since start: blocks, transactions, refusals, timeouts, …


class NodeService(Protocol):
    """One running node."""

    @property
    def reader(self) -> Reader:
        """Committed bytes; consistent between two turns of the event loop."""

    @property
    def table(self) -> TransactionTable: ...

    @property
    def tree(self) -> StateTree | None:
        """The state tree of the committed head; None where only the store has it."""

    def get_status(self) -> NodeStatus: ...

    def submit(self, raws: Sequence[bytes], *, wait: Wait, timeout_ms: int) -> Awaitable[list[Outcome]]:
        """Admit transactions, in order, each on its own; one outcome each. Never raises for bad bytes."""

    def simulate(self, raw: bytes) -> tuple[Event, ...]:
        """Run the rules on what is committed and pending, and keep nothing. Raises ``Rejected``."""

    def find_pending(self, tx_id: Hash) -> Transaction | None: ...

    def list_pending(self, limit: int, *, after: int = 0) -> list[tuple[int, Transaction]]:
        """Pending transactions in order of arrival, past the number ``after``; each with its own, which only rises."""

    def find_dropped(self, tx_id: Hash) -> Rejected | None:
        """Why a transaction that was once admitted here is no longer pending (``transaction_expired`` too)."""

    def subscribe(self, callback: Callable[[CommittedBlock], None]) -> Callable[[], None]:
        """Hear of every block from now on; the answer ends the subscription."""
