"""Where a claim can stand: every pair of a status and a transaction, walked; and how an impaired one is made good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contracts_native.claims import (
    CLAIM_TRANSITIONS,
    IMPAIRMENTS,
    ClaimEnded,
    ClaimImpaired,
    ClaimKind,
    ClaimStatus,
    VoidClaim,
)
from contracts_native.lots import LotId, SliceRef, TransferEnergy
from ledger.errors import Rejected
from tests.contracts_native.harness import ALICE, BOB, CAROL, DAY_0_MS, DAY_MS, check_energy_conserved
from tests.contracts_native.trade import make_market

CLAIMED, IMPAIRED = ClaimStatus.CLAIMED, ClaimStatus.IMPAIRED
REPLACED, VOID = ClaimStatus.REPLACED, ClaimStatus.VOID


class Story:
    """A claim of 40 Wh of each of two lots, and other lots that may replace what it loses."""

    def __init__(self) -> None:
        self.market = make_market()
        self.lots = self.market.buy(100, 100, 100, 100)
        self.market.world.consume(self.market.consumer, 40, 40, 40, 40)
        self.claim_id = self.market.claim(SliceRef(self.lots[0], 0, 40), SliceRef(self.lots[1], 0, 40))

    def bring_to(self, status: ClaimStatus) -> None:
        if status is not CLAIMED:
            self.market.withdraw(self.lots[0])
        if status is REPLACED:
            self.market.claim(SliceRef(self.lots[2], 0, 40), replaces=self.claim_id)
        if status is VOID:
            self.market.world.apply(VoidClaim(self.claim_id), by=BOB)
        assert self.status is status

    @property
    def status(self) -> ClaimStatus:
        return self.market.get_claim(self.claim_id).status


ACTIONS: dict[str, Callable[[Story], object]] = {
    "energy.claim": lambda story: story.market.claim(SliceRef(story.lots[3], 0, 10), replaces=story.claim_id),
    "energy.void_claim": lambda story: story.market.world.apply(VoidClaim(story.claim_id), by=BOB),
    "energy.withdraw": lambda story: story.market.withdraw(story.lots[1]),
    "reading.correct": lambda story: story.market.correct(90, start_ms=story.lots[1].start_ms),
}
AFTER: dict[ClaimStatus, dict[str, ClaimStatus]] = {
    CLAIMED: {"energy.withdraw": IMPAIRED, "reading.correct": IMPAIRED},
    IMPAIRED: {
        "energy.claim": REPLACED,
        "energy.void_claim": VOID,
        "energy.withdraw": IMPAIRED,
        "reading.correct": IMPAIRED,
    },
    REPLACED: {"energy.withdraw": IMPAIRED, "reading.correct": IMPAIRED},
    VOID: {"energy.withdraw": VOID, "reading.correct": VOID},  # they pass it by
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", ClaimStatus)
def test_a_claim_goes_only_where_the_domain_lets_it(status: ClaimStatus, action: str) -> None:
    story = Story()
    story.bring_to(status)
    wanted = AFTER[status].get(action)
    if wanted is None:
        with pytest.raises(Rejected, match=f"claim_not_open_to_this: {story.claim_id.hex()} is {status}"):
            ACTIONS[action](story)
    else:
        ACTIONS[action](story)
    assert story.status is (wanted or status)
    check_energy_conserved(story.market.world.state)


def test_the_table_says_what_was_walked() -> None:
    walked = {(status, tag): after for status, row in AFTER.items() for tag, after in row.items() if status is not VOID}
    assert dict(CLAIM_TRANSITIONS) == walked


def test_a_replacement_makes_good_what_was_lost_or_less_and_once() -> None:
    story = Story()
    story.bring_to(IMPAIRED)
    market = story.market
    too_large = market.make_claim(
        SliceRef(story.lots[2], 0, 40), SliceRef(story.lots[3], 0, 1), replaces=story.claim_id
    )
    market.world.refuses(too_large, "replacement_too_large", by=BOB)
    applied = market.world.apply(market.make_claim(SliceRef(story.lots[2], 0, 25), replaces=story.claim_id), by=BOB)
    assert applied.one(ClaimEnded) == ClaimEnded(story.claim_id, REPLACED, applied.make_id("claim"))
    assert IMPAIRMENTS.get(market.world.state, story.claim_id).replaced_wh == 25
    again = market.make_claim(SliceRef(story.lots[3], 0, 15), replaces=story.claim_id)
    market.world.refuses(again, "claim_not_open_to_this", by=BOB)
    market.withdraw(story.lots[1])
    rest = market.make_claim(SliceRef(story.lots[2], 25, 40), SliceRef(story.lots[3], 0, 40), replaces=story.claim_id)
    market.world.apply(rest, by=BOB)
    assert IMPAIRMENTS.get(market.world.state, story.claim_id).replaced_wh == 80
    assert market.list_claimed() == (0, 0, 40, 40)
    check_energy_conserved(market.world.state)


def test_a_replacement_is_of_the_same_claimant_beneficiary_and_period() -> None:
    story = Story()
    story.bring_to(IMPAIRED)
    market, ref = story.market, SliceRef(story.lots[2], 0, 10)
    good = market.make_claim(ref, replaces=story.claim_id)
    for_carol = replace(good, beneficiary=CAROL.address, consumption_meter=None)
    market.world.refuses(for_carol, "replacement_for_another_beneficiary", by=BOB)
    longer = replace(good, period_end_ms=DAY_0_MS + 2 * DAY_MS)
    market.world.refuses(longer, "replacement_outside_period", by=BOB)
    unknown = replace(good, replaces=bytes(16))
    market.world.refuses(unknown, "claim_unknown", by=BOB)
    market.world.apply(TransferEnergy(CAROL.address, (ref,), ""), by=BOB)
    of_carol = replace(good, consumption_meter=None)
    market.world.refuses(of_carol, "claim_of_another_claimant", by=CAROL)
    market.world.apply(replace(good, slices=(replace(ref, first_wh=10, end_wh=20),)), by=BOB)


def test_a_void_claim_frees_its_consumption_but_not_its_energy() -> None:
    story = Story()
    story.bring_to(IMPAIRED)
    market = story.market
    assert market.list_claimed() == (0, 40, 0, 0)
    market.world.refuses(VoidClaim(story.claim_id), "claim_of_another_claimant", by=ALICE)
    applied = market.world.apply(VoidClaim(story.claim_id), by=BOB)
    assert [(one.lot, one.wh) for one in applied.all_of(ClaimImpaired)] == [(story.lots[1], 40)]
    assert applied.one(ClaimEnded) == ClaimEnded(story.claim_id, VOID, None)
    assert market.list_claimed() == (0, 0, 0, 0)
    used = market.make_claim(SliceRef(story.lots[1], 0, 40))
    market.world.refuses(used, "slice_already_claimed", by=BOB)
    market.claim(SliceRef(story.lots[1], 40, 80))
    check_energy_conserved(market.world.state)


def test_a_volumetric_claim_is_impaired_replaced_and_void_without_consumption() -> None:
    market = make_market()
    lots: list[LotId] = market.buy(100, 100)
    claims = [market.claim(SliceRef(lots[0], first, first + 10), hourly=False) for first in (0, 10)]
    market.withdraw(lots[0])
    market.claim(SliceRef(lots[1], 0, 10), hourly=False, replaces=claims[0])
    market.world.apply(VoidClaim(claims[1]), by=BOB)
    assert [market.get_claim(claim).status for claim in claims] == [REPLACED, VOID]
    assert {market.get_claim(claim).kind for claim in claims} == {ClaimKind.USE}
    check_energy_conserved(market.world.state)
