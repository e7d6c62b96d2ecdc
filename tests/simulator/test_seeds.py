"""A few hundred seeds of random weather; a failure prints the one command that replays it."""

from __future__ import annotations

import pytest

from tests.simulator.stories import run_seed

SEEDS_PER_TEST = 25


@pytest.mark.parametrize("first", range(0, 300, SEEDS_PER_TEST))
def test_promises_hold_in_any_weather_of_four(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        run_seed(seed)


@pytest.mark.parametrize("validators", [1, 2, 3, 5, 7])
def test_promises_hold_for_other_sizes(validators: int) -> None:
    for seed in range(8):
        run_seed(1_000 + seed, validators=validators)


def test_same_seed_is_the_same_run() -> None:
    first, second = run_seed(42), run_seed(42)
    assert first.observed.commits == second.observed.commits
    assert first.observed.commit_heights == second.observed.commit_heights
    assert len(first.observed.commits) > 10
