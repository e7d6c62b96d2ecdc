"""Random sequences of every transaction: after each step the ledger says what the plain model says."""

from __future__ import annotations

import random
from typing import Final

from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from contracts_native.table import load_table
from tests.contracts_native.harness import check_energy_conserved
from tests.properties.rules_bills import BillRules, EscrowRules
from tests.properties.rules_council import CouncilRules
from tests.properties.rules_energy import ReadingRules, TradeRules
from tests.properties.rules_people import PaperRules, PeopleRules, PlaceRules
from tests.properties.rules_time import TimeRules

# About 30 s of processor time; HYPOTHESIS_PROFILE=search makes it as long as one likes. After ten examples Hypothesis
# begins to vary those it had, five times each, and most of what they do is the same: so it starts over instead.
EXAMPLES: Final = 10
SEEDS: Final = 24
STEPS: Final = 60
APPLIED_LEAST: Final = 2  # of each transaction
REASONS_LEAST: Final = 120  # for which something was refused


class Machine(
    PeopleRules, PlaceRules, PaperRules, ReadingRules, TradeRules, BillRules, EscrowRules, CouncilRules, TimeRules
):
    """All rules together."""

    def teardown(self) -> None:
        check_energy_conserved(self.world.state)


def test_the_ledger_agrees_with_the_model_whatever_happens() -> None:
    Machine.done.clear()
    Machine.refused.clear()
    profile = settings()
    chosen = settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
    searched = [random.getrandbits(64) for _ in range(profile.max_examples // EXAMPLES)]
    for number in range(SEEDS) if profile.derandomize else searched:
        run_state_machine_as_test(seed(number)(Machine), settings=chosen)
    assert set(Machine.done) == set(load_table().payloads)
    rare = {tag: count for tag, count in Machine.done.items() if count < APPLIED_LEAST}
    assert not rare, "each transaction applied more than once"
    assert len(Machine.refused) >= REASONS_LEAST
