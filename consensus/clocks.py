"""How far our clock is from the other authorities', by what their fresh proposals say the time is.

A proposal is late by its way, and more so after a cut: the median over proposers leaves out what befell one of them,
and the next proposals put the rest right. Nothing is decided by this; an operator reads it.
"""

from __future__ import annotations

from consensus.round import HeightState, is_fresh
from ledger.primitives import PublicKey


class PeerClocks:
    """The last offset seen of each proposer."""

    __slots__ = ("_ahead_ms",)

    def __init__(self) -> None:
        self._ahead_ms: dict[PublicKey, int] = {}  # proposer → our clock less its, when its proposal came

    def note_height(self, state: HeightState, own_key: PublicKey | None) -> None:
        """A height is over: its proposals are all signed by whose turn it was, timely or not."""
        members = {member.public_key for member in state.validators.members}
        self._ahead_ms = {key: ahead_ms for key, ahead_ms in self._ahead_ms.items() if key in members}
        for known in state.proposals.values():
            proposal, proposer = known.signed.proposal, known.signed.proposer
            if is_fresh(proposal) and proposer != own_key:
                self._ahead_ms[proposer] = known.received_ms - proposal.time_ms

    def compute_skew_ms(self) -> int | None:
        """How far our clock is ahead of the others' (behind: less than 0); None before a first proposal of theirs."""
        ordered = sorted(self._ahead_ms.values())
        return ordered[(len(ordered) - 1) // 2] if ordered else None
