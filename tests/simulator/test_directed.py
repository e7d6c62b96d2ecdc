"""Directed and random scenarios of bare engines, thousands of them; and that the judges and the minimiser can see.

A failure prints the command that replays it and the least that still fails. A seed that ever failed goes into
``KEPT`` and stays there; no seed is ever excluded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from consensus.messages import Prevote
from tests.consensus.harness import START_MS
from tests.consensus.mutants import MUTANTS, Mutant
from tests.simulator.copies import fast_signatures
from tests.simulator.directed import FAMILIES, build_long_run, build_scenario, list_scenarios
from tests.simulator.guilt import find_guilty, find_unjustified
from tests.simulator.invariants import ForkNamesTheGuilty, NoHonestNodeBlamed, find_index
from tests.simulator.liveness import run_scenario
from tests.simulator.minimise import ScenarioFailed, explain, find_failure, judge_all, minimise
from tests.simulator.scenario import Lose, Scenario

DIRECTED_SEEDS: Final = 10_000
RANDOM_SEEDS: Final = 1_000
SEEDS_PER_TEST: Final = 250
LONG_RUN_HEIGHTS: Final = 40

# (family, seed) of scenarios that found a bug once: in the engine, or in a judge.
KEPT: Final = (
    ("lock_attack", 4161),  # a prevote for a block we had re-locked named too old a polka: it looked like amnesia
    ("lock_attack", 4481),  # the same, of a block that was proposed as a fresh one
    ("lock_attack", 7801),  # the same, with an older polka shown
    ("twins", 17),  # a twin passes on its other copy's vote; the judge of double signing took it for its own
    ("twins", 21),  # the same, of a proposal and the journal
    ("twins", 98876),  # the arena began one height twice: two decisions came in one millisecond
    ("byzantine", 800603),  # the judge of progress took a height for a new one that had come to round 8 before healing
    ("crashes", 32146),  # a proposal whose state frame was lost came back from its body after another restart
)


def find_mutant(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


@pytest.mark.parametrize("first", range(0, DIRECTED_SEEDS, SEEDS_PER_TEST))
def test_promises_hold_under_directed_attack(first: int) -> None:
    assert judge_all(list_scenarios(first, SEEDS_PER_TEST)) == SEEDS_PER_TEST


@pytest.mark.parametrize("first", range(0, RANDOM_SEEDS, SEEDS_PER_TEST // 5))
def test_promises_hold_under_random_faults(first: int) -> None:
    judge_all(build_scenario("weather", seed) for seed in range(first, first + SEEDS_PER_TEST // 5))


@pytest.mark.parametrize(("family", "seed"), KEPT)
def test_scenarios_that_once_failed_still_pass(family: str, seed: int) -> None:
    judge_all([build_scenario(family, seed)])


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_same_seed_is_the_same_run(family: str) -> None:
    with fast_signatures():
        first, second = (run_scenario(build_scenario(family, 3)) for _ in range(2))
    assert first.said == second.said
    assert first.now_ms == second.now_ms
    assert first.said


def test_fast_signatures_change_nothing_but_the_speed() -> None:
    """The same scenario, once with hashes for signatures and once with Ed25519: the same votes in the same order."""
    scenario = build_scenario("byzantine", 2)
    with fast_signatures():
        fast = run_scenario(scenario)
    real = run_scenario(scenario, real_signatures=True)
    assert [signed.vote for signed in fast.said] == [signed.vote for signed in real.said]


def test_two_byzantine_of_seven_change_nothing_but_the_time_and_are_named() -> None:
    with fast_signatures():
        arena = run_scenario(build_long_run(1, LONG_RUN_HEIGHTS))
    assert not arena.is_healed  # all heights were decided while they went on
    assert (arena.now_ms - START_MS) < LONG_RUN_HEIGHTS * 10_000
    judge = next(one for one in arena.judges if isinstance(one, NoHonestNodeBlamed))
    assert judge.named == set(arena.scenario.corrupt)


def test_too_many_faulty_ones_do_fork_the_chain_and_are_found_out() -> None:
    """Otherwise the judge of forks would have nothing to judge, or never need what only all honest nodes know."""
    by_twins, by_liars, without_evidence = 0, 0, 0
    with fast_signatures():
        for seed in range(60):
            arena = run_scenario(build_scenario("overrun", seed))
            fork = next(one for one in arena.judges if isinstance(one, ForkNamesTheGuilty))
            if fork.is_forked:
                proven = find_guilty(fork.held)
                assert len(proven | find_unjustified(fork.held, fork.quorum)) == 2
                by_twins += bool(arena.scenario.twins)
                by_liars += bool(arena.scenario.puppets)
                without_evidence += not proven
    assert min(by_twins, by_liars, without_evidence) >= 3


def test_directed_scenarios_reach_later_rounds() -> None:
    """A generator whose runs all decide at once would prove nothing."""
    with fast_signatures():
        rounds = [run_scenario(build_scenario("lock_attack", seed)).highest_round for seed in range(30)]
    assert sum(rounds) >= 60
    assert max(rounds) >= 5


def test_a_failing_scenario_is_cut_down_to_the_moves_it_needs() -> None:
    """The losses of two rounds are what the failure needs here, and nothing else."""
    scenario = build_scenario("twins", 5)
    needed = {move for move in scenario.moves if isinstance(move, Lose) and move.round in {1, 3}}

    def fails(candidate: Scenario) -> bool:
        return needed <= set(candidate.moves)

    least = minimise(scenario, fails)
    assert set(least.moves) == needed
    assert least.delay_ms_max == 1


def test_a_failure_names_the_promise_the_command_and_the_least_that_fails() -> None:
    with find_mutant("ignore_lock").apply(), pytest.raises(ScenarioFailed) as failed:
        judge_all(list_scenarios(0, 200))
    text = str(failed.value)
    assert "replay: python -m tests.simulator --directed --family" in text
    assert "least that fails" in text


def test_the_least_that_fails_still_fails_by_itself_and_passes_without_the_bug() -> None:
    with fast_signatures(), find_mutant("ignore_lock").apply():
        failing = next(one for one in list_scenarios(0, 200) if find_failure(one) is not None)
        kept = find_failure(failing)
        assert kept is not None
        least = minimise(failing, lambda one: (find_failure(one) or ("",))[0] == kept[0])
        assert find_failure(least) is not None
        assert len(least.moves) < len(failing.moves)
    with fast_signatures():
        assert explain(least) is None
        assert explain(replace(least, moves=())) is None


def test_amnesia_is_proven_from_votes_alone() -> None:
    with fast_signatures():
        arena = run_scenario(build_scenario("byzantine", 3))
    prevotes = [signed for signed in arena.said if isinstance(signed.vote, Prevote)]
    assert prevotes
    assert {find_index(key) for key in find_guilty(arena.said)} <= arena.scenario.faulty
