"""Puppets against whole nodes: locks are attacked, chains are parted, and each judge of it is seen to fail.

A storm that ever failed goes into ``KEPT`` of `test_seeds.py` and stays there; no seed is ever excluded.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.consensus.mutants import MUTANTS
from tests.simulator.minimise import find_failure, judge
from tests.simulator.plots import PLOTS
from tests.simulator.scenario import Crash, SayProposal
from tests.simulator.stories import build_storm, play_storm

SEEDS_PER_TEST: Final = 10

# (bug, how many storms it may take, and the promises that may break): the arena needs 6, 18, 1, 38 and 6 scenarios.
CAUGHT: Final = (
    ("ignore_lock", 16, {"no honest node is blamed", "polkas follow commits", "agreement"}),
    ("older_polka_opens_the_lock", 32, {"no honest node is blamed", "polkas follow commits", "agreement"}),
    ("skip_polka_check", 4, {"precommits are justified"}),
    ("accept_reproposal_without_its_polka", 16, {"prevotes are justified"}),
    ("forget_lock_on_restart", 48, {"lock holds"}),
)


@pytest.mark.parametrize("kind", sorted(PLOTS))
@pytest.mark.parametrize("first", range(0, 30, SEEDS_PER_TEST))
def test_promises_hold_under_attack_of_four(kind: str, first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        judge(build_storm(kind, seed, 4))


@pytest.mark.parametrize("kind", sorted(PLOTS))
@pytest.mark.parametrize("validators", [5, 7])
def test_promises_hold_under_attack_of_more(kind: str, validators: int) -> None:
    for seed in range(2):
        judge(build_storm(kind, seed, validators))


@pytest.mark.parametrize(("bug", "budget", "promises"), CAUGHT, ids=[one[0] for one in CAUGHT])
def test_a_bug_in_the_handling_of_locks_is_caught_on_whole_nodes(bug: str, budget: int, promises: set[str]) -> None:
    with next(mutant for mutant in MUTANTS if mutant.name == bug).apply():
        found = (find_failure(build_storm("lock_attack", seed, 4)) for seed in range(budget))
        failure = next((one for one in found if one is not None), None)
    assert failure is not None, f"{bug} survived {budget} storms"
    assert failure[0] in promises


def test_lock_attacks_reach_later_rounds_lie_and_cut_power() -> None:
    storms = [build_storm("lock_attack", seed, 4) for seed in range(8)]
    nets = [play_storm(storm) for storm in storms]
    rounds = [net.attack._highest_round for net in nets if net.attack is not None]
    assert sum(rounds) >= 16
    assert max(rounds) >= 5
    assert any(node.life > 1 for net in nets for node in net.honest)
    assert any(isinstance(move, Crash) for storm in storms for move in storm.moves)
    assert any(isinstance(move, SayProposal) and move.polka == "forged" for storm in storms for move in storm.moves)
