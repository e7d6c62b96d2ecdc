"""What a Byzantine validator makes of the honest program's messages, before they leave.

A wrapper around a real engine: `twist` takes one outgoing message and answers what is sent in its place, to whom.
Everything it signs bears its own key; what it forges in the name of others bears no valid signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from consensus.messages import (
    VALID_ROUND_NONE,
    CommitCertificate,
    CommitSignature,
    Message,
    PolkaCertificate,
    PolkaSignature,
    Precommit,
    Prevote,
    Proposal,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Vote,
)
from ledger.primitives import Hash, PublicKey, Signature
from tests.simulator.scenario import Behaviour, Corrupt

FORGED: Final = Signature(b"forged.." * 8)
SPAM_VOTES: Final = 12
REPLAYED: Final = 3


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message on its way to some nodes, with what travels beside it."""

    to: frozenset[int]
    message: Message
    body: bytes | None = None
    polka: PolkaCertificate | None = None


@dataclass(frozen=True, slots=True)
class Bag:
    """What a Byzantine validator has at hand."""

    key: PublicKey
    others: tuple[PublicKey, ...]
    chain_hash: Hash
    sign_vote: Callable[[Vote], SignedVote]
    sign_proposal: Callable[[Proposal], SignedProposal]
    make_block: Callable[[int], tuple[Hash, bytes]]  # of a block time
    list_blocks: Callable[[], list[Hash]]  # those proposed in this height
    heard: Sequence[Message]
    random: Random


def twist(bag: Bag, corrupt: Iterable[Corrupt], parcel: Parcel) -> list[Parcel]:
    """What leaves in the place of one parcel."""
    parcels = [parcel]
    for move in corrupt:
        if bag.random.randrange(100) < move.percent:
            parcels = [new for old in parcels for new in _TWISTS[move.behaviour](bag, move, old)]
    return parcels


def _withhold(_bag: Bag, move: Corrupt, parcel: Parcel) -> list[Parcel]:
    return [replace(parcel, to=parcel.to - move.towards)]


def _equivocate(bag: Bag, move: Corrupt, parcel: Parcel) -> list[Parcel]:
    message = parcel.message
    rest = replace(parcel, to=parcel.to - move.towards)
    victims = parcel.to & move.towards
    if isinstance(message, SignedVote) and message.voter == bag.key:
        values = [value for value in (None, *bag.list_blocks()) if value != message.vote.block_id]
        if values:
            vote = _revalue(message.vote, bag.random.choice(values))
            return [rest, Parcel(victims, bag.sign_vote(vote))]
    if isinstance(message, SignedProposal) and message.proposer == bag.key:
        time_ms = message.proposal.time_ms + 1
        block_id, body = bag.make_block(time_ms)
        other = replace(message.proposal, block_id=block_id, valid_round=VALID_ROUND_NONE, time_ms=time_ms)
        return [rest, Parcel(victims, bag.sign_proposal(other), body)]
    return [parcel]


def _forget(bag: Bag, _move: Corrupt, parcel: Parcel) -> list[Parcel]:
    """Votes for the round's newest block as if it had never locked."""
    message = parcel.message
    blocks = bag.list_blocks()
    if not isinstance(message, SignedVote) or message.voter != bag.key or not blocks:
        return [parcel]
    vote = _revalue(message.vote, blocks[-1])
    return [replace(parcel, message=bag.sign_vote(vote))]


def _replay(bag: Bag, move: Corrupt, parcel: Parcel) -> list[Parcel]:
    old = [message for message in bag.heard if isinstance(message, SignedVote | RoundCertificate)]
    picked = bag.random.sample(old, min(REPLAYED, len(old)))
    return [parcel, *(Parcel(move.towards, message) for message in picked)]


def _forge(bag: Bag, move: Corrupt, parcel: Parcel) -> list[Parcel]:
    message = parcel.message
    blocks = bag.list_blocks()
    if not isinstance(message, SignedVote) or not blocks:
        return [parcel]
    vote, block_id = message.vote, bag.random.choice(blocks)
    own = bag.sign_vote(_revalue(vote, block_id))
    stolen = [heard.signature for heard in bag.heard if isinstance(heard, SignedVote)] or [FORGED]
    signatures = [bag.random.choice([FORGED, *stolen]) for _ in bag.others]
    pairs = list(zip(bag.others, signatures, strict=True))
    forged: Message
    match bag.random.randrange(4):
        case 0:
            polka = tuple(PolkaSignature(key, VALID_ROUND_NONE, signature) for key, signature in pairs)
            forged = PolkaCertificate(vote.height, vote.round, block_id, polka)
        case 1:
            commit = tuple(CommitSignature(key, signature) for key, signature in pairs)
            forged = CommitCertificate(bag.chain_hash, vote.height, vote.round, block_id, commit)
        case 2:
            forged = RoundCertificate(vote.height, vote.round, (own,) * (len(bag.others) + 1))
        case _:
            named = tuple(SignedVote(own.vote, key, signature) for key, signature in pairs)
            forged = RoundCertificate(vote.height, vote.round, named)
    return [parcel, Parcel(move.towards, forged)]


def _spam(bag: Bag, move: Corrupt, parcel: Parcel) -> list[Parcel]:
    message = parcel.message
    if not isinstance(message, SignedVote) or message.voter != bag.key:
        return [parcel]
    flood = []
    for _ in range(SPAM_VOTES):
        round_ = message.vote.round + bag.random.choice([0, 0, 1, 2, 7, 9, 1_000])
        value = Hash(bag.random.randbytes(32))
        vote: Vote = Precommit(message.vote.height, round_, value)
        if bag.random.randrange(2):
            vote = Prevote(message.vote.height, round_, value, bag.random.randrange(-1, round_))
        flood.append(Parcel(move.towards, bag.sign_vote(vote)))
    return [parcel, *flood]


def _revalue(vote: Vote, value: Hash | None) -> Vote:
    if isinstance(vote, Precommit):
        return replace(vote, block_id=value)
    return replace(vote, block_id=value, valid_round=VALID_ROUND_NONE)


def _pass(_bag: Bag, _move: Corrupt, parcel: Parcel) -> list[Parcel]:
    return [parcel]


_TWISTS: Final[dict[Behaviour, Callable[[Bag, Corrupt, Parcel], list[Parcel]]]] = {
    Behaviour.EQUIVOCATE: _equivocate,
    Behaviour.WITHHOLD: _withhold,
    Behaviour.LIE_ABOUT_VALIDITY: _pass,  # the arena asks for it where a block is checked
    Behaviour.REPLAY: _replay,
    Behaviour.AMNESIA: _forget,
    Behaviour.FORGE: _forge,
    Behaviour.SPAM: _spam,
}
