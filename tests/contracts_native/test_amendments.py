"""A site changes from a date on, never before what was reported; lots are minted as of their own time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native.amendments import WEIGHTS_MAX, AmendSite, SetShares, SharesSet, SiteAmended
from contracts_native.lots import LotId, SliceRef, TransferEnergy, get_lot, get_slices
from contracts_native.meters import Channel, get_meter
from contracts_native.readings import SubmitReadings
from contracts_native.sites import STORAGE_EFFICIENCY_PER_MILLE, Technology, get_site, get_site_throughout, get_zone_at
from ledger.primitives import Address
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    DAY_0_MS,
    ORACLE,
    QUARTER_MS,
    RIVAL,
    UTILITY,
    Person,
    SigningMeter,
    World,
    check_energy_conserved,
)
from tests.contracts_native.trade import make_market

AMENDED_MS = DAY_0_MS + 8 * QUARTER_MS
INVESTOR = CAROL


class Plant:
    """Alice's plant of 10 kW."""

    def __init__(self, technology: Technology = Technology.SOLAR) -> None:
        self.world = World()
        self.meter: SigningMeter = self.world.add_producer(ALICE, technology=technology)
        self.site = get_meter(self.world.state, self.meter.meter_id).site

    def amend(self, *, from_ms: int = AMENDED_MS, zone: str | None = None, capacity_w: int | None = None) -> AmendSite:
        return AmendSite(self.site, from_ms, zone, capacity_w)

    def apply(self, payload: AmendSite | SetShares, *more: Person) -> None:
        self.world.apply(payload, by=UTILITY, cosigners=[ALICE, *more])

    def refuses(self, payload: AmendSite | SetShares, reason: str, *more: Person) -> None:
        self.world.refuses(payload, reason, by=UTILITY, cosigners=[ALICE, *more])

    def shares(self, *parts: tuple[Person, int]) -> SetShares:
        return SetShares(self.site, tuple((person.address, weight) for person, weight in parts))

    def holders(self, lot: LotId) -> list[tuple[Address, int]]:
        return [(one.holder, one.wh) for one in get_slices(self.world.state, lot)]


def test_an_amendment_changes_what_it_names_from_its_date_on() -> None:
    plant = Plant()
    payload = replace(plant.amend(zone="FR", capacity_w=20_000), label="roof and shed", design_document=b"v2")
    applied = plant.world.apply(payload, by=UTILITY, cosigners=[ALICE])
    event = applied.one(SiteAmended)
    assert (event.zone, event.capacity_w, event.label, event.from_ms) == ("FR", 20_000, "roof and shed", AMENDED_MS)
    site = get_site(plant.world.state, plant.site)
    assert (site.zone, site.design_document, site.since_ms, site.owner) == ("FR", b"v2", AMENDED_MS, ALICE.address)
    assert get_zone_at(plant.world.state, plant.site, AMENDED_MS - 1) == "DE-LU"
    assert get_zone_at(plant.world.state, plant.site, AMENDED_MS) == "FR"


def test_late_readings_are_minted_as_of_their_own_time() -> None:
    plant = Plant()
    plant.apply(plant.amend(zone="FR"))
    plant.apply(plant.amend(from_ms=AMENDED_MS + 8 * QUARTER_MS, zone="NL"))
    zones = []
    for place in (0, 8, 16):
        (lot,) = plant.world.produce(plant.meter, 100, start_ms=DAY_0_MS + place * QUARTER_MS)
        zones.append(get_lot(plant.world.state, lot).zone)
    assert zones == ["DE-LU", "FR", "NL"]
    check_energy_conserved(plant.world.state)


def test_a_report_lies_on_one_side_of_an_amendment() -> None:
    plant = Plant()
    plant.apply(plant.amend(zone="FR"))
    across = plant.meter.report(Channel.PRODUCTION, (1, 2), start_ms=AMENDED_MS - QUARTER_MS)
    plant.world.refuses(SubmitReadings((across,)), "reading_spans_amendment", by=ORACLE)
    before = plant.meter.report(Channel.PRODUCTION, (1,), start_ms=AMENDED_MS - QUARTER_MS, register_start_wh=5_000)
    plant.world.submit(before)


def test_an_amendment_is_never_before_the_last_reading_nor_before_the_last_amendment() -> None:
    plant = Plant()
    plant.world.produce(plant.meter, *[1] * 8)
    plant.refuses(plant.amend(from_ms=AMENDED_MS - 1, zone="FR"), "amendment_before_last_reading")
    plant.apply(plant.amend(zone="FR"))
    plant.refuses(plant.amend(zone="NL"), "amendment_before_the_last")
    plant.apply(plant.amend(from_ms=AMENDED_MS + 1, zone="NL"))


def test_an_amendment_needs_its_utility_and_its_owner_and_a_change() -> None:
    plant = Plant()
    payload = plant.amend(zone="FR")
    plant.world.refuses(payload, "owner_countersignature_missing", by=UTILITY)
    plant.world.refuses(payload, "site_of_another_utility", by=RIVAL, cosigners=[ALICE])
    plant.world.refuses(payload, "role_missing", by=ALICE)
    plant.refuses(plant.amend(), "amendment_changes_nothing")
    plant.refuses(plant.amend(zone="DE-LU"), "amendment_changes_nothing")
    plant.refuses(replace(payload, site=bytes(16)), "site_unknown")


def test_a_site_does_not_become_smaller_than_its_meters() -> None:
    plant = Plant()
    plant.refuses(plant.amend(capacity_w=9_999), "channel_capacity_above_site")
    plant.apply(plant.amend(capacity_w=10_001))


def test_only_a_storage_has_an_efficiency_to_amend() -> None:
    plant = Plant()
    plant.refuses(replace(plant.amend(), efficiency_per_mille=900), "site_is_no_storage")
    battery = Plant(Technology.STORAGE)
    battery.apply(replace(battery.amend(), efficiency_per_mille=900))
    state = battery.world.state
    before = get_site_throughout(state, battery.site, start_ms=DAY_0_MS, end_ms=DAY_0_MS)
    assert before.efficiency_per_mille == STORAGE_EFFICIENCY_PER_MILLE
    assert get_site(state, battery.site).efficiency_per_mille == 900


def test_consumption_is_matched_in_the_zone_that_it_was_in() -> None:
    market = make_market(zones=("FR", "DE-LU"))
    lots = market.buy(100, 100)
    consumer_site = get_meter(market.world.state, market.consumer.meter_id).site
    payload = AmendSite(consumer_site, DAY_0_MS + QUARTER_MS, "FR")
    market.world.apply(payload, by=UTILITY, cosigners=[BOB])
    market.world.consume(market.consumer, 100, 100)
    market.world.refuses(market.make_claim(SliceRef(lots[0], 0, 10)), "zone_pair_not_allowed", by=BOB)
    market.claim(SliceRef(lots[1], 0, 10))


# Shares


def test_lots_are_minted_to_the_shareholders_from_then_on() -> None:
    plant = Plant()
    (before,) = plant.world.produce(plant.meter, 100)
    payload = plant.shares((ALICE, 1), (INVESTOR, 2))
    applied = plant.world.apply(payload, by=UTILITY, cosigners=[ALICE])
    assert applied.one(SharesSet).shares == payload.shares
    (after,) = plant.world.produce(plant.meter, 100)
    assert plant.holders(before) == [(ALICE.address, 100)]
    assert plant.holders(after) == [(ALICE.address, 33), (INVESTOR.address, 67)]
    plant.world.apply(TransferEnergy(BOB.address, (SliceRef(after, 33, 100),), ""), by=INVESTOR)
    check_energy_conserved(plant.world.state)


def test_shares_hold_for_late_readings_too() -> None:
    plant = Plant()
    plant.apply(plant.amend(zone="FR"))
    plant.apply(plant.shares((INVESTOR, 1)))
    (late,) = plant.world.produce(plant.meter, 100)
    assert get_lot(plant.world.state, late).zone == "DE-LU"
    assert plant.holders(late) == [(INVESTOR.address, 100)]


def test_nobodys_part_shrinks_without_their_signature() -> None:
    plant = Plant()
    plant.world.refuses(plant.shares((INVESTOR, 1)), "owner_countersignature_missing", by=UTILITY)
    plant.apply(plant.shares((ALICE, 1), (INVESTOR, 1)))
    smaller = plant.shares((ALICE, 2), (INVESTOR, 1))
    plant.refuses(smaller, "shareholder_countersignature_missing")
    plant.refuses(plant.shares((ALICE, 1)), "shareholder_countersignature_missing")
    plant.apply(plant.shares((ALICE, 2), (INVESTOR, 2)))
    plant.apply(smaller, INVESTOR)
    plant.apply(plant.shares((ALICE, 1), (INVESTOR, 1)))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (((ALICE, 1), (ALICE, 2)), "shareholder_named_twice"),
        (((ALICE, 1), (INVESTOR, 0)), "share_weight_is_nothing"),
        (((ALICE, WEIGHTS_MAX), (INVESTOR, 1)), "share_weights_too_large"),
        (((ALICE, 1), (BOB, 1)), "shareholder_role_missing"),
        (((ALICE, 1),), "amendment_changes_nothing"),
        ((), "array_length_out_of_range"),
    ],
)
def test_shares_that_cannot_be(parts: tuple[tuple[Person, int], ...], reason: str) -> None:
    plant = Plant()
    plant.refuses(plant.shares(*parts), reason)


def test_a_frozen_or_unknown_shareholder_gets_no_share() -> None:
    plant = Plant()
    plant.world.freeze(INVESTOR)
    plant.refuses(plant.shares((ALICE, 1), (INVESTOR, 1)), "participant_frozen")
    plant.refuses(SetShares(plant.site, ((Address(bytes(20)), 1),)), "participant_unknown")
