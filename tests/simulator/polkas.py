"""What a vote claims of the votes before it, and whether they were there: the reckoning of safety 5 and 6.

Shared by the judges of engines (`invariants.py`) and of whole nodes (`checkers.py`). Owns a count of its own, of
distinct members whose signatures verify, so that a bug in how `consensus/` counts cannot hide itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from consensus.messages import (
    Message,
    PolkaCertificate,
    Precommit,
    Prevote,
    RoundCertificate,
    SignedVote,
    Vote,
    list_certificate_votes,
)
from ledger.primitives import Hash, PublicKey

Polka: TypeAlias = tuple[int, int, Hash]  # a quorum of prevotes: in which height and round, for which block


def compute_quorum(count: int) -> int:
    """n − f of so many validators."""
    return count - (count - 1) // 3


def find_claimed_polka(vote: Vote) -> Polka | None:
    """The polka that whoever says this vote has seen; None if the vote claims none."""
    if vote.block_id is None:
        return None
    round_ = vote.round if isinstance(vote, Precommit) else vote.valid_round
    return (vote.height, round_, vote.block_id) if round_ >= 0 else None


def list_votes(message: Message) -> tuple[SignedVote, ...]:
    """The single votes that a message brings to whoever hears it, as far as a polka may be made of them."""
    if isinstance(message, SignedVote):
        return (message,)
    return list_certificate_votes(message) if isinstance(message, PolkaCertificate | RoundCertificate) else ()


def count_prevoters(votes: Iterable[SignedVote], polka: Polka, is_genuine: Callable[[SignedVote], bool]) -> int:
    """How many distinct members these votes show to have prevoted the block of a polka in its round."""
    voters: set[PublicKey] = set()
    for signed in votes:
        vote = signed.vote
        is_for_it = type(vote) is Prevote and (vote.height, vote.round, vote.block_id) == polka
        if is_for_it and signed.voter not in voters and is_genuine(signed):
            voters.add(signed.voter)
    return len(voters)


class Quorums:
    """Which blocks a quorum can have precommitted, and which ones a quorum can have prevoted, by honest votes.

    "Can": the faulty are taken to have said whatever would complete a quorum.
    """

    def __init__(self) -> None:
        self._voters: dict[tuple[type[Vote], int, int, Hash], set[int]] = {}
        self._committed: dict[int, list[tuple[int, Hash]]] = {}  # by height
        self._polkas: dict[int, list[tuple[int, Hash]]] = {}

    def find_conflict(self, vote: Vote, voter: int, *, honest_least: int) -> str | None:
        """Take in what an honest member said. The words for it if a polka now follows the commit of another block.

        ``honest_least``: so many honest votes make a quorum with those of the faulty members of this height.
        """
        if vote.block_id is None:
            return None
        voters = self._voters.setdefault((type(vote), vote.height, vote.round, vote.block_id), set())
        if voter in voters:
            return None
        voters.add(voter)
        if len(voters) != honest_least:
            return None
        table = self._polkas if isinstance(vote, Prevote) else self._committed
        table.setdefault(vote.height, []).append((vote.round, vote.block_id))
        for commit_round, block_id in self._committed.get(vote.height, []):
            for polka_round, other in self._polkas.get(vote.height, []):
                if polka_round > commit_round and other != block_id:
                    return f"height {vote.height} committed in round {commit_round}, another polka in {polka_round}"
        return None
