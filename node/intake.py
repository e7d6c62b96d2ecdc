"""Transactions of peers on their way into the pool: who waits, whose turn it is, and how far a peer is trusted.

Owns the queues and the counts. A copy that is left out is lost to nobody: whoever admitted it proposes it, and sends
it again.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from ledger.errors import Malformed, NotAdmitted, Rejected
from ledger.primitives import Hash, PublicKey
from ledger.transaction import Transaction
from node.door import Door
from node.mempool import Mempool, Overloaded
from p2p.budgets import TokenBuckets

WAITING_BYTES_MAX: Final = 4 * 1024 * 1024  # of one peer
TURN_TRANSACTIONS: Final = 16  # looked at before anything else gets a turn; about 2 ms
WORTHLESS_PER_SECOND: Final = 20  # that a rule or a signature refused; an honest peer has let its own door judge them
WORTHLESS_BURST: Final = 200
PEERS_MAX: Final = 1_000
# The rules are left to the block for as many copies of a peer as it is trusted with; a committed one earns two.
TRUST_MAX: Final = 5_000
TRUST_EARNED: Final = 2
TRUST_LOST: Final = 10  # for one that a block had to drop


class Intake:
    """The transactions that peers sent, each peer's in a queue of its own."""

    def __init__(self, door: Door, mempool: Mempool) -> None:
        self._door = door
        self._mempool = mempool
        self._queues: OrderedDict[PublicKey, deque[bytes]] = OrderedDict()  # whose turn is next comes first
        self._waiting_bytes: dict[PublicKey, int] = {}
        self._trust: dict[PublicKey, int] = {}
        self._worth = TokenBuckets(per_second=WORTHLESS_PER_SECOND, burst=WORTHLESS_BURST, keys_max=PEERS_MAX)
        self.left_out = 0  # transactions that were not looked at

    def __bool__(self) -> bool:
        return bool(self._queues)

    def take(self, peer: PublicKey, raws: tuple[bytes, ...], now_ms: int) -> bool:
        """Let these wait for their turn, unless they are too many; whether a first turn is now due."""
        size = sum(map(len, raws))
        waiting = self._waiting_bytes.get(peer, 0)
        if not raws or waiting + size > WAITING_BYTES_MAX or not self._is_welcome(peer, now_ms):
            self.left_out += len(raws)
            return False
        was_idle = not self._queues
        self._queues.setdefault(peer, deque()).extend(raws)
        self._waiting_bytes[peer] = waiting + size
        return was_idle

    def admit_some(self, now_ms: int) -> tuple[PublicKey, Rejected] | None:
        """Look at some transactions of the peer whose turn it is.

        The first that no honest peer sends ends it: who is to be blamed, and for what.
        """
        peer, queue = next(iter(self._queues.items()))
        fault, is_welcome = None, self._is_welcome(peer, now_ms)
        for _ in range(min(TURN_TRANSACTIONS, len(queue))):
            if fault is not None or not is_welcome:
                break  # within a turn too, or each refill of one would buy a whole turn
            raw = queue.popleft()
            self._waiting_bytes[peer] -= len(raw)
            refusal = self._admit(peer, raw, now_ms)
            if refusal is None:
                continue
            # An honest peer may be a block behind or ahead of us; only bytes that nobody may send are its fault.
            if isinstance(refusal, Malformed) or refusal.reason == "signature_invalid":
                fault = refusal
            elif refusal.reason != "transaction_already_committed":
                self._worth.spend(peer.hex(), now_ms)
                is_welcome = self._is_welcome(peer, now_ms)
        if not queue or fault is not None or not is_welcome:
            self.left_out += len(queue)
            del self._queues[peer], self._waiting_bytes[peer]
        else:
            self._queues.move_to_end(peer)
        return None if fault is None else (peer, fault)

    def note_committed(self, transactions: Iterable[Transaction], *, height: int) -> None:
        """Block ``height`` holds these, which may still be in the pool: whoever sent them is trusted further.

        A busy node meets transactions in a block before it has looked at the copies that wait here: those are not
        decoded again when their turn comes.
        """
        for tx in transactions:
            source = self._mempool.find_source(tx.tx_id)
            if source is not None:
                self._trust[source] = min(self._trust.get(source, 0) + TRUST_EARNED, TRUST_MAX)
            elif tx.tx_id not in self._mempool:
                committed = NotAdmitted("transaction_already_committed", tx.tx_id.hex())
                self._mempool.refusals.note(tx.raw, committed, tx.tx_id, height=height)

    def note_dropped(self, tx_id: Hash, now_ms: int) -> None:
        """A pending transaction turned out not to apply."""
        source = self._mempool.find_source(tx_id)
        if source is not None:
            self._worth.spend(source.hex(), now_ms)
            self._trust[source] = max(self._trust.get(source, 0) - TRUST_LOST, 0)

    def _is_welcome(self, peer: PublicKey, now_ms: int) -> bool:
        return self._worth.take(peer.hex(), now_ms, 0)

    def _admit(self, peer: PublicKey, raw: bytes, now_ms: int) -> Rejected | None:
        """Take one in; why it is refused, unless there is only no room for it."""
        trust = self._trust.get(peer, 0)
        try:
            if self._door.admit_copy(raw, now_ms, source=peer, is_trusted=trust > 0) and trust:
                self._trust[peer] = trust - 1
        except Overloaded:
            self.left_out += 1
        except Rejected as error:
            return error
        return None
