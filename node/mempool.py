"""Transactions that are admitted and not yet in a block.

Owns their order (arrival), their limits, and the memory of what was dropped and why. Form and signatures have been
checked before anything gets here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ledger.errors import NotAdmitted, Rejected
from ledger.primitives import Address, Hash, PublicKey
from ledger.transaction import Transaction
from node.refusals import Refusal, Refusals, make_refusal

DROPPED_REMEMBERED_MAX: Final = 20_000  # ids with a reason; about 6 MB
REGOSSIP_AFTER_MS: Final = 2_000  # pending longer than this: its first sending may have been lost
REGOSSIP_TRANSACTIONS_MAX: Final = 500  # a tick
# A sender may hold three times what it leaves free: three quarters of the pool when it is alone, less with each other
# sender, and there is always room for one that has nothing here.
SENDER_FACTOR: Final = 3


class Overloaded(NotAdmitted):
    """The node has no room for this now; it may be sent again later."""


@dataclass(slots=True)
class Pending:
    """One admitted transaction; ``number`` counts arrivals, ``gossip_due_ms`` is when it is sent to peers again."""

    number: int
    transaction: Transaction
    is_from_door: bool
    source: PublicKey | None
    gossip_due_ms: int
    gossip_delay_ms: int


@dataclass(slots=True)
class Holding:
    """What one sender has in the pool."""

    count: int = 0
    size_bytes: int = 0


class Mempool:
    """Admitted transactions by id, in the order of arrival."""

    def __init__(self, *, transactions_max: int, bytes_max: int) -> None:
        self.transactions_max = transactions_max
        self.bytes_max = bytes_max
        self.size_bytes = 0
        self._pending: dict[Hash, Pending] = {}
        self._last_number = 0
        self._by_raw: dict[bytes, Transaction] = {}
        self._holdings: dict[Address, Holding] = {}
        self._dropped: OrderedDict[Hash, Refusal] = OrderedDict()
        self.refusals = Refusals()

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, tx_id: Hash) -> bool:
        return tx_id in self._pending

    def check_room(self, raw: bytes) -> None:
        """Raises ``Overloaded`` (``mempool_full``) when one more of this size would break a limit."""
        if len(self._pending) >= self.transactions_max or self.size_bytes + len(raw) > self.bytes_max:
            raise Overloaded("mempool_full", f"{len(self._pending)} transactions, {self.size_bytes} bytes pending")

    def check_share(self, tx: Transaction) -> None:
        """Raises ``Overloaded`` (``mempool_share_used``) when the sender has its share of the pool already."""
        held = self._holdings.get(tx.sender)
        if held is None:
            return
        free_count = self.transactions_max - len(self._pending)
        free_bytes = self.bytes_max - self.size_bytes - len(tx.raw)
        if held.count >= SENDER_FACTOR * free_count or held.size_bytes > SENDER_FACTOR * free_bytes:
            raise Overloaded("mempool_share_used", f"{held.count} transactions, {held.size_bytes} bytes of this sender")

    def add(self, tx: Transaction, now_ms: int, *, is_from_door: bool, source: PublicKey | None = None) -> None:
        """Take a transaction in, from the door or from the peer ``source``.

        Raises ``NotAdmitted`` (``transaction_already_pending``) or ``Overloaded``.
        """
        if tx.tx_id in self._pending:
            raise NotAdmitted("transaction_already_pending", tx.tx_id.hex())
        self.check_room(tx.raw)
        self.check_share(tx)
        self._last_number += 1
        due_ms = now_ms + REGOSSIP_AFTER_MS
        self._pending[tx.tx_id] = Pending(self._last_number, tx, is_from_door, source, due_ms, REGOSSIP_AFTER_MS)
        self._by_raw[tx.raw] = tx
        self.size_bytes += len(tx.raw)
        held = self._holdings.setdefault(tx.sender, Holding())
        held.count += 1
        held.size_bytes += len(tx.raw)
        self._dropped.pop(tx.tx_id, None)

    def find(self, tx_id: Hash) -> Transaction | None:
        """A pending transaction by its id."""
        pending = self._pending.get(tx_id)
        return None if pending is None else pending.transaction

    def find_by_raw(self, raw: bytes) -> Transaction | None:
        """A pending transaction by its very bytes: form and signatures were checked when it came in."""
        return self._by_raw.get(raw)

    def find_source(self, tx_id: Hash) -> PublicKey | None:
        """The peer that a pending transaction came from; None for one of the door."""
        pending = self._pending.get(tx_id)
        return None if pending is None else pending.source

    def find_dropped(self, tx_id: Hash) -> Rejected | None:
        """Why a transaction that was pending here left without being committed."""
        refusal = self._dropped.get(tx_id)
        return None if refusal is None else refusal.restate()

    def list_transactions(self) -> list[Transaction]:
        """Every pending transaction, in order of arrival."""
        return [pending.transaction for pending in self._pending.values()]

    def list_page(self, limit: int, *, after: int) -> list[tuple[int, Transaction]]:
        """So many pending transactions that came after the one with the number ``after``, each with its own."""
        later = (pending for pending in self._pending.values() if pending.number > after)
        return [(pending.number, pending.transaction) for pending in islice(later, limit)]

    def iterate(self, *, is_from_door: bool) -> Iterator[Transaction]:
        """The pending transactions that came through the door, or those that peers sent."""
        return (one.transaction for one in self._pending.values() if one.is_from_door == is_from_door)

    def remove(self, tx_ids: Iterable[Hash]) -> None:
        """Forget transactions that a block holds; unknown ids are fine."""
        for tx_id in tx_ids:
            pending = self._pending.pop(tx_id, None)
            if pending is not None:
                self._by_raw.pop(pending.transaction.raw, None)
                self.size_bytes -= len(pending.transaction.raw)
                self._release(pending.transaction)

    def drop(self, tx_id: Hash, error: Rejected, *, height: int) -> None:
        """Forget a transaction that no longer applies after block ``height``, and remember why."""
        pending = self._pending.get(tx_id)
        if pending is not None:
            self.refusals.note(pending.transaction.raw, error, tx_id, height=height)
        self.remove((tx_id,))
        self._dropped[tx_id] = make_refusal(error, tx_id)
        while len(self._dropped) > DROPPED_REMEMBERED_MAX:
            self._dropped.popitem(last=False)

    def drop_expired(self, height: int) -> list[Hash]:
        """Drop what may no longer be in a block of ``height``; their ids."""
        expired = [one.transaction for one in self._pending.values() if one.transaction.valid_until < height]
        for tx in expired:
            error = NotAdmitted("transaction_expired", f"valid until {tx.valid_until}")
            self.drop(tx.tx_id, error, height=height - 1)
        return [tx.tx_id for tx in expired]

    def take_due_for_gossip(self, now_ms: int) -> list[bytes]:
        """What has been pending long enough to be sent again; each time twice as long."""
        due = []
        for pending in self._pending.values():
            if pending.gossip_due_ms <= now_ms:
                pending.gossip_delay_ms *= 2
                pending.gossip_due_ms = now_ms + pending.gossip_delay_ms
                due.append(pending.transaction.raw)
                if len(due) == REGOSSIP_TRANSACTIONS_MAX:
                    break
        return due

    def _release(self, tx: Transaction) -> None:
        held = self._holdings[tx.sender]
        held.count -= 1
        held.size_bytes -= len(tx.raw)
        if not held.count:
            del self._holdings[tx.sender]
