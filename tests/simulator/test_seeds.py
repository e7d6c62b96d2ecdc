"""A few hundred storms over whole nodes; a failure prints the command that replays it and the least that still fails.

A storm that ever failed goes into ``KEPT`` and stays there; no seed is ever excluded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from unittest.mock import patch

import pytest

from consensus.codec import encode_message
from tests.consensus.mutants import MUTANTS
from tests.simulator.checkers import list_named
from tests.simulator.minimise import ScenarioFailed, find_failure, judge, minimise
from tests.simulator.scenario import Behaviour, Corrupt
from tests.simulator.stories import KINDS, build_storm, run_long, run_seed, run_storm
from tests.simulator.storm import Cut

SEEDS_PER_TEST: Final = 25
LONG_RUN_HEIGHTS: Final = 20

# (kind, seed, validators) of storms that found a bug once: in a node, or in a judge.
KEPT: Final = (
    ("changing", 44, 4),  # a proposal whose state frame was lost came back from its body after another restart
    ("weather", 75, 4),  # a prevote that the power cut lost was signed again, and a judge took it for said already
    ("byzantine", 136, 4),  # a lock was judged that was written, but not yet synced
    ("liars", 10023, 4),  # only the liars held the other block, and a judge took the alarm for a false one
    ("liars", 10004, 7),  # a peer that was there all along is compared with within five minutes, not one
)


@pytest.mark.parametrize("first", range(0, 300, SEEDS_PER_TEST))
def test_promises_hold_in_any_weather_of_four(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        judge(build_storm("weather", seed, 4))


@pytest.mark.parametrize("first", range(0, 75, SEEDS_PER_TEST))
def test_promises_hold_with_a_byzantine_node_among_four(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        judge(build_storm("byzantine", seed, 4))


def test_promises_hold_with_two_byzantine_nodes_among_seven() -> None:
    for seed in range(4):
        judge(build_storm("byzantine", seed, 7))


@pytest.mark.parametrize("validators", [1, 2, 3, 5, 7])
def test_promises_hold_for_other_sizes(validators: int) -> None:
    for seed in range(1_000, 1_008):
        judge(build_storm("weather", seed, validators))


@pytest.mark.parametrize(("kind", "seed", "validators"), KEPT)
def test_storms_that_once_failed_still_pass(kind: str, seed: int, validators: int) -> None:
    judge(build_storm(kind, seed, validators))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_same_seed_is_the_same_run(kind: str) -> None:
    first, second = (run_seed(46, kind=kind) for _ in range(2))
    assert first.observed.commits == second.observed.commits
    assert first.observed.commit_heights == second.observed.commit_heights
    assert [encode_message(signed) for _, signed in first.observed.sent] == [
        encode_message(signed) for _, signed in second.observed.sent
    ]
    assert len(first.observed.commits) > 10


def test_storms_cut_power_in_the_middle_of_a_record() -> None:
    """Otherwise the disk would have nothing to tear."""
    assert sum(node.disk.cuts_torn for seed in range(12) for node in run_seed(seed).nodes) >= 3


@pytest.mark.parametrize("behaviour", list(Behaviour))
def test_a_byzantine_node_changes_what_leaves_it(behaviour: Behaviour) -> None:
    """The same calm run, once with an honest node and once with one that does nothing but this."""
    calm = replace(build_storm("weather", 7, 4), moves=())
    lies = replace(calm, moves=(Corrupt(2, behaviour, 60, frozenset({0, 1, 3})),))
    honest, twisted = run_storm(calm), run_storm(lies)
    assert twisted.guilty == {2}
    assert honest.observed.commit_heights != twisted.observed.commit_heights


def test_a_failing_storm_is_cut_down_and_told_with_its_command() -> None:
    storm = build_storm("weather", 3, 4)
    needed = {move for move in storm.moves if isinstance(move, Cut)}
    least = minimise(storm, lambda one: needed <= set(one.moves))
    assert set(least.moves) == needed
    assert least.clock_offsets_ms == ()


def test_a_bug_of_the_engine_is_seen_in_storms_too() -> None:
    bug = next(mutant for mutant in MUTANTS if mutant.name == "journal_after_send")
    with bug.apply(), patch("tests.simulator.minimise.TRIES_MAX", 3), pytest.raises(ScenarioFailed) as failed:
        judge(build_storm("weather", 3, 4))
    assert "durable first: sent before it was written" in str(failed.value)
    assert "replay: python -m tests.simulator --storm weather --validators 4 --seed 3" in str(failed.value)
    assert find_failure(build_storm("weather", 3, 4)) is None


def test_two_byzantine_nodes_of_seven_are_named_on_every_chain_and_stop_nothing() -> None:
    """The first heights of the long run that docs/reliability.md tells of."""
    cluster = run_long(1, LONG_RUN_HEIGHTS)
    assert {frozenset(list_named(cluster, node)) for node in cluster.honest} == {frozenset(cluster.guilty)}
