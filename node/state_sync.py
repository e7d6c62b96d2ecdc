"""Joining by a snapshot that peers hold: whom to ask for what, whom to believe, and whom to name as a liar. Pure.

Owns no disk: chunks that check are handed out to be kept, and what to do next comes back as data. A snapshot is taken
only if it leads to the genesis document and more validators offer it than may be faulty: f + 1 of the set that its
own chain of trust ends in. So at least one honest node has made it, also of the index that no root proves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from ledger.errors import Rejected
from ledger.genesis import GenesisDocument
from ledger.primitives import Hash, PublicKey
from node.snapshots import Manifest, check_chunk, decode_manifest, verify_manifest
from p2p.messages import SnapshotPart, SnapshotRequest

ANSWER_TIMEOUT_MS: Final = 10_000
OFFER_AGAIN_MS: Final = 2_000  # until enough offer the same, they are asked again
ASKED_PER_PEER: Final = 2  # chunks under way: one is read while another travels
FAILED_ASKS_MAX: Final = 3  # a peer that let so many requests lapse is asked no more


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this request to this peer."""

    peer: PublicKey
    request: SnapshotRequest


@dataclass(frozen=True, slots=True)
class Liar:
    """This peer sent what no honest one sends; it is asked for nothing more."""

    peer: PublicKey
    reason: str
    item: str


@dataclass(frozen=True, slots=True)
class Keep:
    """A chunk that the manifest names: keep it."""

    index: int
    chunk: bytes


@dataclass(frozen=True, slots=True)
class Complete:
    """Every chunk was handed out: check the whole, and write it."""

    manifest: Manifest


Step: TypeAlias = Ask | Liar | Keep | Complete


@dataclass(slots=True)
class _Peer:
    """What one peer has offered, and what it was asked."""

    offer: Hash | None = None
    asked_offer_ms: int | None = None
    failed_asks: int = 0


class StateSync:
    """One attempt to join. Every method returns the steps that follow."""

    def __init__(self, document: GenesisDocument) -> None:
        self._document = document
        self._peers: dict[PublicKey, _Peer] = {}
        self._liars: set[PublicKey] = set()
        self._manifests: dict[Hash, Manifest] = {}
        self.chosen: Manifest | None = None
        self._chosen_id: Hash | None = None
        self._missing: set[int] = set()
        self._asked: dict[int, tuple[PublicKey, int]] = {}  # chunk → who was asked, until when

    @property
    def chunks_left(self) -> int:
        """How many chunks of the chosen snapshot are still to come."""
        return len(self._missing)

    def note_peer(self, peer: PublicKey) -> list[Step]:
        """A peer has proven its key."""
        if peer not in self._liars:
            self._peers.setdefault(peer, _Peer())
        return []

    def forget_peer(self, peer: PublicKey) -> list[Step]:
        """A peer is gone; others are asked for what it was asked for."""
        self._peers.pop(peer, None)
        for index in [index for index, (asked, _) in self._asked.items() if asked == peer]:
            del self._asked[index]
        return []

    def tick(self, now_ms: int) -> list[Step]:
        """Ask for what is missing. To be called often, and after every part."""
        if self.chosen is None:
            return self._ask_for_offers(now_ms)
        for index, (peer, deadline_ms) in list(self._asked.items()):
            if now_ms >= deadline_ms:
                del self._asked[index]
                self._note_failure(peer)
        if self._missing and not any(one.offer == self._chosen_id for one in self._peers.values()):
            self._begin_anew()  # nobody has this one any more
            return self._ask_for_offers(now_ms)
        return self._ask_for_offers(now_ms) + self._ask_for_chunks(now_ms)

    def take(self, peer: PublicKey, part: SnapshotPart, now_ms: int) -> list[Step]:
        """A peer sent a part; what nobody asked it for is dropped."""
        if peer not in self._peers:
            return []
        steps = self._take_offer(peer, part) if part.snapshot_id is None else self._take_chunk(peer, part)
        return steps + self.tick(now_ms)

    def refuse_whole(self, error: Rejected) -> list[Step]:
        """Every chunk was the one named, and the whole is false: whoever offered it lied. Begins anew without them."""
        liars = [peer for peer, one in self._peers.items() if one.offer == self._chosen_id]
        self._begin_anew()
        return [step for peer in liars for step in self._name_liar(peer, error)]

    def _begin_anew(self) -> None:
        self.chosen, self._chosen_id = None, None
        self._missing.clear()
        self._asked.clear()
        self._manifests.clear()
        for one in self._peers.values():
            one.offer = None

    def _ask_for_offers(self, now_ms: int) -> list[Step]:
        steps: list[Step] = []
        for peer, one in self._peers.items():
            is_due = one.asked_offer_ms is None or now_ms >= one.asked_offer_ms + OFFER_AGAIN_MS
            if is_due and (self.chosen is None or one.asked_offer_ms is None):
                one.asked_offer_ms = now_ms
                steps.append(Ask(peer, SnapshotRequest(None, 0)))
        return steps

    def _take_offer(self, peer: PublicKey, part: SnapshotPart) -> list[Step]:
        one = self._peers[peer]
        if one.asked_offer_ms is None or not part.data:
            return []
        try:
            manifest = decode_manifest(part.data)
            verify_manifest(manifest, self._document)
        except Rejected as error:
            return self._name_liar(peer, error)
        one.offer = manifest.compute_id()
        if self.chosen is not None:
            return []  # it may carry chunks, if it has the one that was chosen
        offers = {other.offer for other in self._peers.values()}
        self._manifests = {offer: known for offer, known in self._manifests.items() if offer in offers}
        self._manifests.setdefault(one.offer, manifest)
        self._choose()
        return []

    def _choose(self) -> None:
        agreed = [offer for offer, manifest in self._manifests.items() if self._is_agreed(offer, manifest)]
        if not agreed:
            return
        self._chosen_id = max(agreed, key=lambda offer: (self._manifests[offer].header.height, offer))
        self.chosen = self._manifests[self._chosen_id]
        self._missing = set(range(len(self.chosen.chunk_hashes)))
        self._manifests.clear()

    def _is_agreed(self, offer: Hash, manifest: Manifest) -> bool:
        validators = manifest.links[-1].validators
        voices = [peer for peer, one in self._peers.items() if one.offer == offer]
        return sum(validators.find_index(peer) is not None for peer in voices) > validators.f

    def _ask_for_chunks(self, now_ms: int) -> list[Step]:
        givers = [peer for peer, one in self._peers.items() if one.offer == self._chosen_id]
        loads = {peer: sum(asked == peer for asked, _ in self._asked.values()) for peer in givers}
        steps: list[Step] = []
        for index in sorted(self._missing.difference(self._asked)):
            peer = min(loads, key=lambda one: (loads[one], one), default=None)
            if peer is None or loads[peer] >= ASKED_PER_PEER:
                break
            loads[peer] += 1
            self._asked[index] = (peer, now_ms + ANSWER_TIMEOUT_MS)
            steps.append(Ask(peer, SnapshotRequest(self._chosen_id, index)))
        return steps

    def _take_chunk(self, peer: PublicKey, part: SnapshotPart) -> list[Step]:
        asked = self._asked.get(part.index)
        if self.chosen is None or part.snapshot_id != self._chosen_id or asked is None or asked[0] != peer:
            return []
        del self._asked[part.index]
        if not part.data:
            self._peers[peer].offer = None  # it has moved on to a newer one
            return []
        try:
            check_chunk(self.chosen, part.index, part.data)
        except Rejected as error:
            return self._name_liar(peer, error)
        self._missing.discard(part.index)
        steps: list[Step] = [Keep(part.index, part.data)]
        return steps if self._missing else [*steps, Complete(self.chosen)]

    def _note_failure(self, peer: PublicKey) -> None:
        one = self._peers.get(peer)
        if one is not None:
            one.failed_asks += 1
            if one.failed_asks >= FAILED_ASKS_MAX:
                one.offer = None

    def _name_liar(self, peer: PublicKey, error: Rejected) -> list[Step]:
        self._liars.add(peer)
        self.forget_peer(peer)
        return [Liar(peer, error.reason, error.item)]
