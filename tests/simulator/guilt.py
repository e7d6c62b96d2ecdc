"""Whom votes convict: by themselves, and by what is missing once all honest nodes have put theirs together.

Shared by the judges of engines (`invariants.py`) and of whole nodes (`overrun.py`). Owns the reckoning of safety 10 and
11, apart from the one in `consensus/`.
"""

from __future__ import annotations

from collections.abc import Iterable

from consensus.messages import Precommit, Prevote, SignedVote
from ledger.primitives import Hash, PublicKey


def is_amnesia(precommit: Precommit, prevote: Prevote) -> bool:
    """Whether no honest node says both: the lock of the one forbids the other."""
    if precommit.block_id is None or prevote.block_id in {None, precommit.block_id}:
        return False
    return precommit.height == prevote.height and prevote.valid_round < precommit.round < prevote.round


def find_guilty(said: Iterable[SignedVote]) -> set[PublicKey]:
    """Validators that these votes prove to be Byzantine: by two votes in one slot, or by amnesia."""
    guilty: set[PublicKey] = set()
    by_voter: dict[PublicKey, list[SignedVote]] = {}
    for signed in said:
        by_voter.setdefault(signed.voter, []).append(signed)
    for voter, votes in by_voter.items():
        slots = {(type(signed.vote), signed.vote.height, signed.vote.round) for signed in votes}
        precommits = [signed.vote for signed in votes if isinstance(signed.vote, Precommit)]
        prevotes = [signed.vote for signed in votes if isinstance(signed.vote, Prevote)]
        is_forgetful = any(is_amnesia(precommit, prevote) for precommit in precommits for prevote in prevotes)
        if len(slots) < len({signed.vote for signed in votes}) or is_forgetful:
            guilty.add(voter)
    return guilty


def find_unjustified(held: Iterable[SignedVote], quorum: int) -> set[PublicKey]:
    """Validators with a prevote that names a polka of an earlier round which these votes do not make up.

    An honest one has seen the polka that it names, and its votes are among those that honest nodes hold.
    """
    prevotes = [signed for signed in held if isinstance(signed.vote, Prevote)]
    voters: dict[tuple[int, int, Hash | None], set[PublicKey]] = {}
    for signed in prevotes:
        slot = (signed.vote.height, signed.vote.round, signed.vote.block_id)
        voters.setdefault(slot, set()).add(signed.voter)
    guilty: set[PublicKey] = set()
    for signed in prevotes:
        vote = signed.vote
        assert isinstance(vote, Prevote)
        if vote.block_id is not None and vote.valid_round >= 0:
            seen = voters.get((vote.height, vote.valid_round, vote.block_id), set())
            guilty |= {signed.voter} if len(seen) < quorum else set()
    return guilty
