"""Whether peers hold the chain that we hold: asks each, now and then, for one block of a height that both have.

Owns whom to ask, what, and when, and what an answer means. A block with another id counts only with the certificate of
a quorum of the validators that this node knows for that height; without one, the peer is a liar. Where it is proven,
the first height that differs is looked for by halving. A peer's mistake raises nothing; it is blamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.messages import ChainContext
from ledger.block import Header, compute_block_id, decode_stored_header
from ledger.errors import Malformed, Rejected
from ledger.primitives import PublicKey
from ledger.storage import Reader
from node import chain_store
from node.effects import Blame, Effect, EvidenceNoted, ForkSeen, Send
from node.evidence import EvidencePool
from node.forks import FinalHeader, Fork, compute_fork_changes, list_forks, make_final_header, read_final_header
from node.sync import Sync
from p2p.messages import BlockRequest

CHECK_EVERY_MS: Final = 300_000  # each peer
CHECK_AGAIN_MS: Final = 30_000  # the soonest, whatever a peer does: reconnect, restart, or propose on another block
ANSWER_TIMEOUT_MS: Final = 10_000
PEERS_MAX: Final = 1_000  # whose last check is remembered when they are gone

BlockItems = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class _Peer:
    """A connected peer: the last height that it says it has, and the highest that is known to be alike."""

    height: int
    alike: int = 0
    is_urgent: bool = True


@dataclass(slots=True)
class _Search:
    """What is asked of one peer. ``differs``: the lowest height that was seen to; ``alike``: none up to here was."""

    asked: int
    alike: int
    is_blind: bool  # ``alike`` is only where we, or the peer, can see no further down
    deadline_ms: int
    differs: int | None = None
    fork: Fork | None = None  # the lowest that is proven
    fault: tuple[str, str] | None = None  # why the lowest that differs is not
    is_own_set: bool = False  # whether that one had to be signed by the set that we know


class ForkWatch:
    """The comparing of chains. ``sync`` learns who follows another one: it is not asked for blocks."""

    def __init__(self, reader: Reader, context: ChainContext, evidence: EvidencePool, sync: Sync) -> None:
        """What was found before the last restart becomes evidence again, unless it is on chain by now."""
        self._reader = reader
        self._context = context
        self._evidence = evidence
        self._sync = sync
        self._peers: dict[PublicKey, _Peer] = {}
        self._searches: dict[PublicKey, _Search] = {}
        self._checked_ms: dict[PublicKey, int] = {}  # when its last search began; the oldest comes first
        for fork in list_forks(reader):
            for duplicate in fork.list_duplicates():
                evidence.add(duplicate)

    def note_peer(self, peer: PublicKey, height: int) -> None:
        """A peer has connected, and says what it has decided."""
        self._peers[peer] = _Peer(height)

    def note_height(self, peer: PublicKey, height: int) -> None:
        """A peer says what it has decided by now. Believed only as a height to ask for."""
        if peer in self._peers:
            self._peers[peer].height = height

    def note_gone(self, peer: PublicKey) -> list[Effect]:
        """The peer is gone; what it has shown stays."""
        self._peers.pop(peer, None)
        return self._conclude(peer) if peer in self._searches else []

    def urge(self, peer: PublicKey, height: int, now_ms: int) -> list[Effect]:
        """A peer has something that stands on another block than ours at ``height``: that height is asked for next."""
        known = self._peers.get(peer)
        if known is None:
            return []
        known.height, known.is_urgent = height, True
        return self._begin(peer, now_ms) if self._is_due(peer, now_ms) else []

    def tick(self, now_ms: int) -> list[Effect]:
        """About once a second: end what was not answered, and begin one search that is due."""
        late = [
            peer
            for peer, search in self._searches.items()
            if not 0 <= search.deadline_ms - now_ms <= ANSWER_TIMEOUT_MS  # also when the clock was set back
        ]
        effects = [effect for peer in late for effect in self._conclude(peer)]
        due = [peer for peer in self._peers if self._is_due(peer, now_ms)]
        if due:
            effects += self._begin(min(due, key=lambda peer: (self._checked_ms.get(peer, 0), peer)), now_ms)
        return effects

    def take(self, peer: PublicKey, items: BlockItems, now_ms: int) -> list[Effect] | None:
        """What follows from blocks that a peer sent; None if they are not the one block that was asked for here."""
        search = self._searches.get(peer)
        if search is None or len(items) > 1:
            return None
        if not items:
            search.alike, search.is_blind = search.asked, True
            return self._go_on(peer, search, now_ms)
        try:
            header = decode_stored_header(items[0][0])
        except Malformed:
            return None
        if header.height != search.asked:
            return None
        self._compare(peer, search, header, items[0][1], now_ms)
        return self._go_on(peer, search, now_ms)

    def _is_due(self, peer: PublicKey, now_ms: int) -> bool:
        known = self._peers[peer]
        passed_ms = now_ms - self._checked_ms.get(peer, now_ms - CHECK_EVERY_MS)
        if 0 <= passed_ms < (CHECK_AGAIN_MS if known.is_urgent else CHECK_EVERY_MS):
            return False  # a clock that was set back holds nothing up
        return peer not in self._searches and not self._sync.is_asked(peer) and self._find_comparable(known) is not None

    def _find_comparable(self, known: _Peer) -> int | None:
        """The highest height that both have, if we still have it whole."""
        height = min(known.height, chain_store.read_head_height(self._reader))
        return height if height >= max(1, chain_store.read_oldest_height(self._reader)) else None

    def _begin(self, peer: PublicKey, now_ms: int) -> list[Effect]:
        known = self._peers[peer]
        height = self._find_comparable(known)
        assert height is not None
        known.is_urgent = False
        self._checked_ms.pop(peer, None)
        self._checked_ms[peer] = now_ms
        if len(self._checked_ms) > PEERS_MAX:
            del self._checked_ms[next(iter(self._checked_ms))]
        floor = max(0, chain_store.read_oldest_height(self._reader) - 1)
        alike = max(floor, min(known.alike, height - 1))
        self._searches[peer] = _Search(height, alike, floor > known.alike, now_ms + ANSWER_TIMEOUT_MS)
        return [Send(peer, BlockRequest(height, 1))]

    def _compare(self, peer: PublicKey, search: _Search, header: Header, certificate: bytes, now_ms: int) -> None:
        height = search.asked
        ours = self._find_ours(height)
        if ours is None:
            search.alike, search.is_blind = height, True  # pruned while we asked
            return
        if ours.compute_block_id() == compute_block_id(header):
            search.alike, search.is_blind = height, False
            self._peers[peer].alike = height
            return
        search.differs = height
        if header.parent_id == ours.header.parent_id:
            search.alike, search.is_blind = height - 1, False
        validators = chain_store.read_validators_at(self._reader, height)
        try:
            theirs = read_final_header(header, certificate, self._context)
            theirs.verify(validators, self._context)
        except Rejected as error:
            search.fault = (error.reason, f"height {height}: {error.item}")
            search.is_own_set = header.validators_hash == ours.header.validators_hash
        else:
            search.fork, search.fault = Fork(peer, now_ms, ours, theirs), None

    def _find_ours(self, height: int) -> FinalHeader | None:
        certificate = chain_store.find_certificate(self._reader, height)
        if certificate is None:
            return None
        return make_final_header(chain_store.get_header(self._reader, height), certificate)

    def _go_on(self, peer: PublicKey, search: _Search, now_ms: int) -> list[Effect]:
        if search.differs is None or search.differs - search.alike <= 1:
            return self._conclude(peer)
        search.asked = (search.alike + search.differs) // 2  # whatever is answered, what is left is halved
        search.deadline_ms = now_ms + ANSWER_TIMEOUT_MS
        return [Send(peer, BlockRequest(search.asked, 1))]

    def _conclude(self, peer: PublicKey) -> list[Effect]:
        search = self._searches.pop(peer)
        if search.differs is None:
            if search.asked == search.alike and not search.is_blind:
                self._sync.set_apart(peer, is_apart=False)
            return []
        if search.fork is None:
            assert search.fault is not None, "what differs is proven or not"
            # On another branch another set may decide; but after a common block it is ours.
            is_after_common = search.differs == search.alike + 1 and not search.is_blind
            return [Blame(peer, *search.fault)] if search.is_own_set or is_after_common else []
        self._sync.set_apart(peer, is_apart=True)
        changes = compute_fork_changes(self._reader, search.fork)
        if not changes:
            return []
        duplicates = search.fork.list_duplicates()
        for duplicate in duplicates:
            self._evidence.add(duplicate)
        return [ForkSeen(search.fork, changes), *map(EvidenceNoted, duplicates)]
