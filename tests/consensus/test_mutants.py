"""Every deliberate bug is caught within its budget of scenarios; one that survives is a hole in the tests.

The scenarios are the first of those that the sound engine passes in tests/simulator/test_directed.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.consensus.mutants import MUTANTS, Mutant
from tests.simulator.copies import fast_signatures
from tests.simulator.directed import build_scenario, list_scenarios
from tests.simulator.minimise import find_failure
from tests.simulator.scenario import Scenario

ON_THE_LIST = {
    *("ignore_lock", "forget_lock_on_restart", "skip_polka_check", "quorum_minus_one", "no_jump_at_f_plus_one"),
    *("constant_timeouts", "journal_after_send", "accept_reproposal_without_its_polka", "count_a_sender_twice"),
    *("no_time_check_at_all", "time_check_on_reproposals"),
}


def list_for(mutant: Mutant) -> Iterable[Scenario]:
    """The scenarios that may be needed to catch it."""
    if mutant.family is None:
        return list_scenarios(0, mutant.budget)
    return (build_scenario(mutant.family, seed) for seed in range(mutant.budget))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught_within_its_budget(mutant: Mutant) -> None:
    with fast_signatures(), mutant.apply():
        caught = (find_failure(scenario) for scenario in list_for(mutant))
        failure = next((found for found in caught if found is not None), None)
    assert failure is not None, f"{mutant.name} survived {mutant.budget} directed scenarios"
    assert failure[0] in mutant.promises, f"caught, but by {failure[0]}"


def test_every_bug_of_the_design_is_a_mutant() -> None:
    assert {mutant.name for mutant in MUTANTS} >= ON_THE_LIST


def test_mutants_leave_no_trace() -> None:
    for mutant in MUTANTS:
        with mutant.apply():
            pass
    with fast_signatures():
        assert [find_failure(scenario) for scenario in list_scenarios(0, 16)] == [None] * 16
