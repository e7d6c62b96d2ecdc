"""A prevote names the polka that entitles to it, so that no honest node's votes look like a forgotten lock."""

from __future__ import annotations

from consensus.messages import Prevote, SignedVote, Step
from ledger.primitives import sha256
from tests.consensus.harness import HEIGHT, Solo

A, B = b"block A", b"block B"


def move_lock_from_a_to_b() -> Solo:
    """Locked on A in round 0, and on B in round 1, by the polkas of these rounds; round 2 has begun."""
    solo = Solo().start().propose(A).prevote(A, 0, 1).precommit(None, 0, 1).elapse(Step.PRECOMMIT)
    solo.propose(B, round_=1).prevote(B, 0, 1, 2, round_=1)
    assert (solo.state.locked_round, solo.state.locked_block) == (1, sha256(B))
    return solo.precommit(None, 0, 1, round_=1).elapse(Step.PRECOMMIT, round_=1)


def get_last_prevote(solo: Solo) -> Prevote:
    return [signed.vote for signed in solo.sent(SignedVote) if isinstance(signed.vote, Prevote)][-1]


def test_prevote_for_our_locked_block_offered_as_fresh_names_the_round_of_the_lock() -> None:
    solo = move_lock_from_a_to_b().propose(B, round_=2)
    assert get_last_prevote(solo) == Prevote(HEIGHT, 2, sha256(B), 1)


def test_prevote_for_our_locked_block_with_an_older_polka_names_the_round_of_the_lock() -> None:
    solo = move_lock_from_a_to_b()
    solo.propose(B, round_=2, valid_round=0, polka=solo.polka(B, 0, 1, 2, round_=0))
    assert get_last_prevote(solo) == Prevote(HEIGHT, 2, sha256(B), 1)


def test_prevote_after_a_newer_polka_names_that_polka() -> None:
    solo = move_lock_from_a_to_b().precommit(None, 0, 1, round_=2).elapse(Step.PRECOMMIT, round_=2)
    solo = solo.precommit(None, 0, 1, round_=3).elapse(Step.PRECOMMIT, round_=3)
    solo.propose(A, round_=4, valid_round=2, polka=solo.polka(A, 0, 1, 2, round_=2))
    assert get_last_prevote(solo) == Prevote(HEIGHT, 4, sha256(A), 2)
