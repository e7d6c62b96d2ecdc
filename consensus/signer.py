"""Our own key, and all that it has signed in this height. The one place where a vote comes into being.

A payload for a (height, round, type) that was signed before is answered with the very bytes of that time: whatever
the rules ask for, no second payload is ever signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from consensus.journal import OwnMessage
from consensus.messages import (
    ChainContext,
    Payload,
    Proposal,
    SignedProposal,
    SignedVote,
    Vote,
    compute_signed_bytes,
)
from ledger.primitives import Height, PublicKey, Signature

SignFunction: TypeAlias = Callable[[bytes], Signature]
_Slot: TypeAlias = tuple[int, type[Payload]]


class Signer:
    """Signs for one height, and remembers it. ``recorded`` is what the journal holds of this height."""

    __slots__ = ("_context", "_height", "_new", "_sign", "_signed", "own_key")

    def __init__(
        self,
        context: ChainContext,
        height: Height,
        own_key: PublicKey,
        sign: SignFunction,
        recorded: Iterable[OwnMessage],
    ) -> None:
        self.own_key = own_key
        self._context = context
        self._height = height
        self._sign = sign
        self._signed: dict[_Slot, OwnMessage] = {}
        self._new: list[OwnMessage] = []  # signed since the last frame of the journal
        for message in recorded:
            self._signed.setdefault(_get_slot(_get_payload(message)), message)

    def sign_vote(self, vote: Vote) -> SignedVote:
        """Our vote of this round and kind: ``vote``, unless another was signed before."""
        earlier = self._signed.get(_get_slot(vote))
        if earlier is not None:
            assert isinstance(earlier, SignedVote)
            return earlier
        signed = SignedVote(vote, self.own_key, self._sign_once(vote))
        self._remember(signed)
        return signed

    def sign_proposal(self, proposal: Proposal) -> SignedProposal:
        """Our proposal of this round: ``proposal``, unless another was signed before."""
        earlier = self.find_proposal(proposal.round)
        if earlier is not None:
            return earlier
        signed = SignedProposal(proposal, self.own_key, self._sign_once(proposal))
        self._remember(signed)
        return signed

    def find_proposal(self, round_: int) -> SignedProposal | None:
        """The proposal that we signed for this round."""
        found = self._signed.get((round_, Proposal))
        assert found is None or isinstance(found, SignedProposal)
        return found

    def list_votes(self) -> list[SignedVote]:
        """Every vote we signed in this height, in the order of signing."""
        return [message for message in self._signed.values() if isinstance(message, SignedVote)]

    def list_proposals(self) -> list[SignedProposal]:
        """Every proposal we signed in this height, in the order of signing."""
        return [message for message in self._signed.values() if isinstance(message, SignedProposal)]

    def take_new(self) -> tuple[OwnMessage, ...]:
        """What was signed since the last call; it must be durable before it is sent."""
        new = tuple(self._new)
        self._new.clear()
        return new

    def _sign_once(self, payload: Payload) -> Signature:
        assert payload.height == self._height, "signing for a height that is not under way"
        assert _get_slot(payload) not in self._signed, "signing twice for one (height, round, type)"
        return self._sign(compute_signed_bytes(self._context, payload))

    def _remember(self, message: OwnMessage) -> None:
        self._signed[_get_slot(_get_payload(message))] = message
        self._new.append(message)


def _get_payload(message: OwnMessage) -> Payload:
    return message.vote if isinstance(message, SignedVote) else message.proposal


def _get_slot(payload: Payload) -> _Slot:
    return payload.round, type(payload)
