"""Random sequences of every transaction: after each step the ledger says what the plain model says."""

from __future__ import annotations

from typing import Final

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from contracts_native.table import load_table
from tests.contracts_native.harness import check_energy_conserved
from tests.properties.rules_bills import BillRules, EscrowRules
from tests.properties.rules_energy import ReadingRules, TradeRules
from tests.properties.rules_people import PaperRules, PeopleRules, PlaceRules

EXAMPLES: Final = 120  # about 30 s of processor time; HYPOTHESIS_PROFILE=search makes it as long as one likes
STEPS: Final = 60
# Which validators there are is no matter of energy or money; it has tests of its own.
ELSEWHERE: Final = "governance."


class Machine(PeopleRules, PlaceRules, PaperRules, ReadingRules, TradeRules, BillRules, EscrowRules):
    """All rules together."""

    def teardown(self) -> None:
        check_energy_conserved(self.world.state)


def test_the_ledger_agrees_with_the_model_whatever_happens() -> None:
    Machine.done.clear()
    profile = settings()
    is_search = profile.max_examples > EXAMPLES
    chosen = settings(max_examples=profile.max_examples if is_search else EXAMPLES, stateful_step_count=STEPS)
    run_state_machine_as_test(Machine, settings=chosen)
    expected = {tag for tag in load_table().payloads if not tag.startswith(ELSEWHERE)}
    assert set(Machine.done) == expected, "each transaction applied somewhere"
