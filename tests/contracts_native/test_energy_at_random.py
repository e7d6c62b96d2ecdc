"""Random sequences of everything that can happen to energy: after each step every sum of the domain holds."""

from __future__ import annotations

from collections import Counter

import pytest

from contracts_native.claims import CLAIMS
from contracts_native.offers import OFFERS
from contracts_native.slices import SliceStatus
from tests.contracts_native.harness import (
    check_energy_conserved,
)
from tests.contracts_native.money import check_credits_conserved
from tests.contracts_native.town import ACTIONS, Town

STEPS = 120


@pytest.mark.parametrize("seed", range(8))
def test_every_sum_holds_after_every_step(seed: int) -> None:
    town = Town(seed)

    def check() -> None:
        totals = check_energy_conserved(town.world.state)
        check_credits_conserved(town.world.state)
        reserved_wh = sum(offer.left_wh for _, offer in OFFERS.scan(town.world.state))
        assert totals[SliceStatus.RESERVED] == reserved_wh
        used_wh = sum(claim.wh for _, claim in CLAIMS.scan(town.world.state))
        assert totals[SliceStatus.CLAIMED] + totals[SliceStatus.CHARGED] == used_wh

    town.run(STEPS, check=check)
    assert town.done.total() > STEPS // 3


def test_each_thing_that_can_happen_does() -> None:
    done: Counter[str] = Counter()
    for seed in range(3):
        town = Town(100 + seed)
        town.run(STEPS, check=lambda: None)
        done.update(town.done)
    assert set(done) == set(ACTIONS)
