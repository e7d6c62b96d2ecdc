"""What peers' transactions may cost: how many bytes of each peer wait to be looked at, and how many may be worthless.

Owns the counts. A copy that is left out is lost to nobody: whoever admitted it proposes it, and sends it again.
"""

from __future__ import annotations

from typing import Final

from ledger.errors import Malformed, Rejected
from ledger.primitives import Hash, PublicKey
from node.door import Door
from node.mempool import Mempool, Overloaded
from p2p.budgets import TokenBuckets

WAITING_BYTES_MAX: Final = 4 * 1024 * 1024  # of one peer
WORTHLESS_PER_SECOND: Final = 50  # that a rule or a signature refused; an honest peer has let its own door judge them
WORTHLESS_BURST: Final = 2_000
PEERS_MAX: Final = 1_000


class Intake:
    """The transactions of peers on their way into the pool."""

    def __init__(self, door: Door, mempool: Mempool) -> None:
        self._door = door
        self._mempool = mempool
        self._waiting: dict[PublicKey, int] = {}
        self._worth = TokenBuckets(per_second=WORTHLESS_PER_SECOND, burst=WORTHLESS_BURST, keys_max=PEERS_MAX)
        self.left_out = 0  # transactions that were not looked at

    def take(self, peer: PublicKey, raws: tuple[bytes, ...], now_ms: int) -> bool:
        """Whether these are to be looked at. If so, each is admitted or left once."""
        size = sum(map(len, raws))
        waiting = self._waiting.get(peer, 0)
        if waiting + size > WAITING_BYTES_MAX or not self._worth.take(peer.hex(), now_ms, 0):
            self.left_out += len(raws)
            return False
        self._waiting[peer] = waiting + size
        return True

    def admit(self, peer: PublicKey, raws: tuple[bytes, ...], now_ms: int) -> Rejected | None:
        """Look at some of what was taken. The first that no honest peer sends ends it, and is the answer."""
        self.leave(peer, raws)
        for raw in raws:
            try:
                self._door.admit_copy(raw, now_ms, source=peer)
            except Overloaded:
                self.left_out += 1
            except Rejected as error:
                # An honest peer may be a block behind or ahead of us; only bytes that nobody may send are its fault.
                if isinstance(error, Malformed) or error.reason == "signature_invalid":
                    return error
                if error.reason != "transaction_already_committed":
                    self._worth.spend(peer.hex(), now_ms)
        return None

    def leave(self, peer: PublicKey, raws: tuple[bytes, ...]) -> None:
        """These wait no longer."""
        left = self._waiting.get(peer, 0) - sum(map(len, raws))
        assert left >= 0, "only what was taken waits"
        if left:
            self._waiting[peer] = left
        else:
            self._waiting.pop(peer, None)

    def note_dropped(self, tx_id: Hash, now_ms: int) -> None:
        """A pending transaction turned out not to apply."""
        source = self._mempool.find_source(tx_id)
        if source is not None:
            self._worth.spend(source.hex(), now_ms)
