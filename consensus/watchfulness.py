"""Whether a key may sign whose record of what it signed is missing, or older than its chain: it watches first.

Owns the rule against two nodes with one key (a copied key, a restored backup): ten heights in a row, seen as they
happen, in which the key spoke nowhere, and an operator who allows it. Pure.
"""

from __future__ import annotations

from typing import Final

from consensus.messages import Status, Step
from consensus.round import HeightState
from consensus.validators import ValidatorSet
from ledger.primitives import Height, PublicKey

QUIET_HEIGHTS: Final = 10


class Watchfulness:
    """Watches one key from the start of a node on. Once it lets the key sign, what the key says is our own word."""

    __slots__ = ("_heard", "_is_fresh", "_is_permitted", "_is_released", "_own_key", "quiet_heights")

    def __init__(self, own_key: PublicKey, *, is_permitted: bool, is_fresh: bool = False) -> None:
        """``is_permitted``: the operator allows it. ``is_fresh``: neither a chain nor a record yet, as at genesis."""
        self._own_key = own_key
        self._is_permitted = is_permitted
        self._is_fresh = is_fresh
        self._is_released = False
        self._heard = True  # the height that is under way at the start is not seen whole
        self.quiet_heights = 0

    @property
    def may_sign(self) -> bool:
        """Whether the key may sign at the height that has just begun."""
        return self._is_released

    @property
    def is_fresh(self) -> bool:
        """Whether the chain is so young, as far as is known, that a home without a record is no surprise."""
        return self._is_fresh

    def note_chain(self, height: int) -> None:
        """A peer has decided this height. A chain that is under way may have heard our key before."""
        if height > QUIET_HEIGHTS:
            self._is_fresh = False

    def note_status(self, status: Status, validators: ValidatorSet) -> None:
        """A peer tells whose votes it holds. That of our key counts as heard: nobody else relays it in time."""
        index = validators.find_index(self._own_key)
        if index is not None and any(summary.voters >> index & 1 for summary in status.votes):
            self._heard = True

    def note_height(self, ended: HeightState | None, height: Height, validators: ValidatorSet) -> None:
        """``height`` begins, decided by ``validators``; ``ended`` is the one that was under way, None at the start."""
        if self._is_released:
            return
        if ended is not None:
            self._count(ended, height)
        self.note_chain(height - 1)
        # Where every vote is needed, no height can pass without ours: then the operator's word is all there is.
        is_needed = validators.f == 0 and validators.find_index(self._own_key) is not None
        is_quiet = self._is_fresh or is_needed or self.quiet_heights >= QUIET_HEIGHTS
        self._is_released = self._is_permitted and is_quiet

    def _count(self, ended: HeightState, height: Height) -> None:
        # What was caught up with, and not seen as it happened, says nothing: our key may have voted in it.
        was_seen = ended.step is Step.COMMIT and ended.height + 1 == height
        index = ended.validators.find_index(self._own_key)
        spoke = self._heard or (index is not None and ended.votes.has_heard(index))
        self.quiet_heights = self.quiet_heights + 1 if was_seen and not spoke else 0
        self._heard = False
