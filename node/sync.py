"""Catching up: whom to ask for blocks, what was asked, and what waits to be executed.

Owns no trust. A block is taken for its certificate, whoever sent it; this file only decides what to ask for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from consensus.codec import decode_message
from consensus.light_client import verify_commit
from consensus.messages import ChainContext, CommitCertificate
from consensus.validators import ValidatorSet
from ledger.block import Block, compute_block_id
from ledger.errors import Malformed, RuleViolated
from ledger.primitives import PublicKey
from ledger.storage import Reader
from node import chain_store
from node.candidates import check_body
from p2p.budgets import TokenBuckets
from p2p.messages import BLOCKS_ANSWER_BYTES

BLOCKS_PER_REQUEST: Final = 64
ANSWER_TIMEOUT_MS: Final = 5_000
QUEUED_BLOCKS_MAX: Final = 128
SERVED_PER_SECOND: Final = 10  # blocks that one peer is sent unasked
PEERS_MAX: Final = 1_000  # whose rate is remembered


@dataclass(frozen=True, slots=True)
class QueuedBlock:
    """A block with its certificate, as bytes, and the peer to blame if they are bad."""

    peer: PublicKey
    block: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask this peer for ``count`` blocks from ``from_height`` on."""

    peer: PublicKey
    from_height: int
    count: int


class Sync:
    """The heights that peers claim, at most one outstanding request, and the queue of blocks received."""

    def __init__(self) -> None:
        self._connected: set[PublicKey] = set()
        self._heights: dict[PublicKey, int] = {}
        self._asked: Ask | None = None
        self._served = TokenBuckets(per_second=SERVED_PER_SECOND, burst=2 * SERVED_PER_SECOND, keys_max=PEERS_MAX)
        self._deadline_ms = 0
        self._apart: set[PublicKey] = set()  # connected peers that follow another chain than ours
        self.queue: deque[QueuedBlock] = deque()

    def note_peer(self, peer: PublicKey, height: int) -> None:
        """A peer is there, and says that it has decided ``height``."""
        self._connected.add(peer)
        self.note_height(peer, height)

    def note_height(self, peer: PublicKey, height: int) -> None:
        """A peer says that it has decided ``height``. Believed only as a reason to ask.

        Of one that is gone it is not: blocks that it sent may still wait here, but it would answer nothing.
        """
        if peer in self._connected and peer not in self._apart:
            self._heights[peer] = max(height, self._heights.get(peer, 0))

    def set_apart(self, peer: PublicKey, *, is_apart: bool) -> None:
        """A connected peer was seen to follow another chain, or ours (again): what it has is of no use, or is."""
        if is_apart:
            self._apart.add(peer)
            self.forget_peer(peer)
        else:
            self._apart.discard(peer)

    def note_gone(self, peer: PublicKey) -> None:
        """The peer is gone, with all that is known of it."""
        self._connected.discard(peer)
        self._apart.discard(peer)
        self.forget_peer(peer)

    def is_asked(self, peer: PublicKey) -> bool:
        """Whether blocks are to come from this peer."""
        return self._asked is not None and self._asked.peer == peer

    def forget_peer(self, peer: PublicKey) -> None:
        """The peer has answered badly, or is gone: its claim counts no more."""
        self._heights.pop(peer, None)
        if self.is_asked(peer):
            self._asked = None

    def get_lag_blocks(self, validators: ValidatorSet, height: int) -> int:
        """How far ``height`` is behind what so many validators claim that they cannot all be lying.

        With fewer connected, what all of them claim; of a node that no validator is connected to, all its peers count.
        One liar must not keep a node from its users.
        """
        of_validators = [claim for key, claim in self._heights.items() if validators.find_index(key) is not None]
        claims = sorted(of_validators or self._heights.values(), reverse=True)
        liars_max = len(validators.members) - validators.quorum
        return claims[min(liars_max, len(claims) - 1)] - height if claims else 0

    def may_serve(self, peer: PublicKey, now_ms: int) -> bool:
        """Whether a peer that seems to be behind is sent a block unasked: saying so costs it nothing, and us a lot."""
        return self._served.take(peer.hex(), now_ms)

    def take_blocks(self, peer: PublicKey, items: tuple[tuple[bytes, bytes], ...]) -> None:
        """Queue what a peer sent, asked for or not; what does not fit is left for the next request.

        Those of another chain are not looked at: each would cost the check of a certificate, and be of no use.
        """
        if self.is_asked(peer):
            if not items:
                self.forget_peer(peer)  # it has nothing of what it claimed
            self._asked = None
        if peer in self._apart:
            return
        room = QUEUED_BLOCKS_MAX - len(self.queue)
        self.queue.extend(QueuedBlock(peer, block, certificate) for block, certificate in items[:room])

    def clear_queue(self) -> None:
        """Throw away what waits: something in it was bad, or the height it starts at is not ours."""
        self.queue.clear()

    def find_next_ask(self, height: int, now_ms: int) -> Ask | None:
        """What to ask, and whom, for the blocks after ``height``; None when nothing is to be asked now."""
        if self._asked is not None and now_ms < self._deadline_ms:
            return None
        if self._asked is not None:
            self.forget_peer(self._asked.peer)  # silent for too long: somebody else is asked
        if self.queue:
            return None
        best = max(self._heights, key=lambda peer: (self._heights[peer], peer), default=None)
        if best is None or self._heights[best] <= height:
            return None
        count = min(BLOCKS_PER_REQUEST, self._heights[best] - height)
        self._asked = Ask(best, height + 1, count)
        self._deadline_ms = now_ms + ANSWER_TIMEOUT_MS
        return self._asked


def collect_blocks(reader: Reader, from_height: int, count: int) -> tuple[tuple[bytes, bytes], ...]:
    """Up to ``count`` stored blocks from a height on, each with its certificate; fewer when the answer grows large.

    None of a height that was pruned: where the validators changed its certificate stays, but of its block a header.
    """
    items: list[tuple[bytes, bytes]] = []
    size = 0
    if from_height < chain_store.read_oldest_height(reader):
        return ()
    for height in range(max(from_height, 1), from_height + count):
        block = chain_store.find_block_bytes(reader, height)
        certificate = chain_store.find_certificate_bytes(reader, height)
        if block is None or certificate is None:
            break
        size += len(block) + len(certificate)
        if items and size > BLOCKS_ANSWER_BYTES:
            break
        items.append((block, certificate))
    return tuple(items)


def check_certified(
    block: Block, certificate_bytes: bytes, validators: ValidatorSet, context: ChainContext
) -> CommitCertificate:
    """The certificate is a quorum's word for this very block. Raises ``Rejected`` if it is not."""
    certificate = decode_message(certificate_bytes)
    if not isinstance(certificate, CommitCertificate) or certificate.height != block.header.height:
        raise Malformed("certificate_of_another_height", type(certificate).__name__)
    verify_commit(certificate, validators, context)
    if compute_block_id(block.header) != certificate.block_id:
        raise RuleViolated("certificate_of_another_block", certificate.block_id.hex())
    check_body(block, certificate.block_id, block.header.time_ms)
    return certificate
