"""Proposals and votes of the next height, kept until it begins. Bounded per sender.

A node that commits a moment later than its peers would otherwise lose the first messages of each height.
"""

from __future__ import annotations

from typing import Final

from consensus.inputs import ProposalReceived, VoteReceived
from consensus.validators import ValidatorSet
from ledger.primitives import PublicKey

VOTES_PER_SENDER_MAX: Final = 8
STRANGERS_MAX: Final = 8  # senders outside the present set, who may belong to the next
PROPOSALS_MAX: Final = 2  # with their bodies


class Inbox:
    """Inputs whose signatures are verified, in the order they came."""

    __slots__ = ("_proposals", "_votes")

    def __init__(self) -> None:
        self._proposals: dict[PublicKey, ProposalReceived] = {}
        self._votes: dict[PublicKey, list[VoteReceived]] = {}

    def has_room_for_proposal(self, sender: PublicKey, validators: ValidatorSet) -> bool:
        """Whether a proposal of this sender would be kept; asked before its signature is checked."""
        is_new = sender not in self._proposals
        return is_new and validators.find_index(sender) is not None and len(self._proposals) < PROPOSALS_MAX

    def has_room_for_vote(self, received: VoteReceived, validators: ValidatorSet) -> bool:
        """Whether this vote would be kept; asked before its signature is checked."""
        sender = received.vote.voter
        kept = self._votes.get(sender)
        if kept is not None:
            return len(kept) < VOTES_PER_SENDER_MAX and all(other.vote != received.vote for other in kept)
        return validators.find_index(sender) is not None or self._count_strangers(validators) < STRANGERS_MAX

    def _count_strangers(self, validators: ValidatorSet) -> int:
        return sum(validators.find_index(sender) is None for sender in self._votes)

    def keep_proposal(self, received: ProposalReceived) -> None:
        """Keep a verified proposal."""
        self._proposals[received.proposal.proposer] = received

    def keep_vote(self, received: VoteReceived) -> None:
        """Keep a verified vote."""
        self._votes.setdefault(received.vote.voter, []).append(received)

    def take_all(self) -> tuple[list[ProposalReceived], list[VoteReceived]]:
        """Empty the inbox."""
        proposals = list(self._proposals.values())
        votes = [received for kept in self._votes.values() for received in kept]
        self._proposals.clear()
        self._votes.clear()
        return proposals, votes
