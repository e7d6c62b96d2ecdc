"""A battery gives back only what went into it, first in, first out, and what comes out names where it came from."""

from __future__ import annotations

from dataclasses import replace

from contracts_native.amendments import AmendSite
from contracts_native.batteries import (
    LOT_SOURCES_MAX,
    STORED,
    DischargeUncovered,
    EnergyDischarged,
    Source,
    list_sources,
)
from contracts_native.claims import ClaimKind, ClaimStatus, VoidClaim, get_claim, get_lost_wh
from contracts_native.lots import EnergyMinted, LotId, SliceRef, find_lot, get_lot, get_slices
from contracts_native.matching import get_claimed_wh
from contracts_native.meters import Channel, get_meter
from contracts_native.readings import Flag, find_report_at
from contracts_native.sites import Technology
from contracts_native.slices import SliceStatus
from contracts_native.storage import ChargeStorage, EnergyCharged
from ledger.parameters import Parameters
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    DAY_0_MS,
    MEASURER,
    QUARTER_MS,
    UTILITY,
    Applied,
    World,
    check_energy_conserved,
)
from tests.contracts_native.trade import Market, correction, make_market

PRODUCTION, CONSUMPTION = Channel.PRODUCTION, Channel.CONSUMPTION


class Yard:
    """Bob's battery, of an efficiency of 80 %, beside the plant whose output he buys."""

    def __init__(self, *, zone: str = "DE-LU", zones: tuple[tuple[str, str], ...] = ()) -> None:
        self.market: Market = make_market(parameters=Parameters(zone_pairs=zones))
        self.world: World = self.market.world
        site = self.world.register_site(BOB, technology=Technology.STORAGE, zone=zone)
        self.meter = self.world.register_meter(BOB, site)
        payload = AmendSite(site, DAY_0_MS + 1, efficiency_per_mille=800)
        self.world.apply(payload, by=UTILITY, cosigners=[BOB])
        self.start_ms = DAY_0_MS + QUARTER_MS
        self.lots = self.market.buy(100, 100, 100, start_ms=self.start_ms)

    def take_in(self, *values_wh: int) -> None:
        self.world.consume(self.meter, *values_wh, start_ms=self.start_ms)

    def charging(self, *refs: SliceRef) -> ChargeStorage:
        return ChargeStorage(self.meter.meter_id, refs, f"charge {self.world.height}")

    def charge(self, *refs: SliceRef) -> bytes:
        return self.world.apply(self.charging(*refs), by=BOB).make_id("claim")

    def give_back(self, *values_wh: int, place: int = 3, flag: Flag = Flag.MEASURED) -> Applied:
        """Discharge in the intervals from ``place`` quarter-hours after the first charge on."""
        start_ms = self.start_ms + place * QUARTER_MS
        return self.world.submit(self.meter.report(PRODUCTION, values_wh, start_ms=start_ms, flag=flag))

    def lot(self, place: int, version: int = 1) -> LotId:
        return LotId(self.meter.meter_id, self.start_ms + place * QUARTER_MS, version)

    def end_ms(self, place: int) -> int:
        return self.start_ms + (place + 1) * QUARTER_MS

    def left_wh(self) -> list[int]:
        return [stored.left_wh for _, stored in STORED.scan(self.world.state)]


def whole(lot: LotId, wh: int = 100) -> SliceRef:
    return SliceRef(lot, 0, wh)


def test_charging_cancels_slices_against_what_the_storage_took_in() -> None:
    yard = Yard()
    yard.take_in(100, 60)
    applied = yard.world.apply(yard.charging(whole(yard.lots[0]), whole(yard.lots[1], 60)), by=BOB)
    charge = applied.make_id("claim")
    event = applied.all_of(EnergyCharged)[1]
    assert event == EnergyCharged(charge, yard.lots[1], 0, 60, BOB.address, yard.meter.meter_id)
    statuses = [(one.end_wh, one.status) for one in get_slices(yard.world.state, yard.lots[1])]
    assert statuses == [(60, SliceStatus.CHARGED), (100, SliceStatus.ACTIVE)]
    claim = get_claim(yard.world.state, charge)
    assert (claim.kind, claim.wh, claim.consumption_meter) == (ClaimKind.CHARGE, 160, yard.meter.meter_id)
    assert yard.left_wh() == [80, 48]
    assert check_energy_conserved(yard.world.state)[SliceStatus.CHARGED] == 160


def test_what_comes_out_is_minted_as_far_as_it_was_charged_first_in_first_out() -> None:
    yard = Yard()
    yard.take_in(100, 100)
    second = yard.charge(whole(yard.lots[1]))
    first = yard.charge(whole(yard.lots[0]))
    applied = yard.give_back(50, 60, 70)
    assert applied.one(EnergyMinted).wh == (50, 60, 50)
    assert applied.one(DischargeUncovered).wh == (0, 0, 20)
    assert list_sources(yard.world.state, yard.lot(3)) == (Source(first, yard.end_ms(0), 50),)
    both = (Source(first, yard.end_ms(0), 30), Source(second, yard.end_ms(1), 30))
    assert list_sources(yard.world.state, yard.lot(4)) == both
    assert applied.all_of(EnergyDischarged)[1] == EnergyDischarged(yard.lot(4), both)
    lot = get_lot(yard.world.state, yard.lot(5))
    assert (lot.wh, lot.technology) == (50, Technology.STORAGE)
    assert yard.left_wh() == [0, 0]
    check_energy_conserved(yard.world.state)


def test_a_storage_never_mints_without_charge_records() -> None:
    yard = Yard()
    yard.take_in(100)
    applied = yard.give_back(50)
    assert not applied.all_of(EnergyMinted)
    assert applied.one(DischargeUncovered).wh == (50,)
    assert find_lot(yard.world.state, yard.lot(3)) is None
    yard.charge(whole(yard.lots[0]))
    assert find_lot(yard.world.state, yard.lot(3)) is None, "what came out before its record stays unminted"
    estimated = yard.give_back(10, place=4, flag=Flag.ESTIMATED)
    assert not estimated.all_of(EnergyDischarged)
    check_energy_conserved(yard.world.state)


def test_nothing_comes_out_before_it_went_in() -> None:
    yard = Yard()
    yard.take_in(100, 100)
    yard.charge(whole(yard.lots[1]))
    applied = yard.give_back(10, 10, 10, place=0)
    assert applied.one(EnergyMinted).wh == (0, 0, 10)
    check_energy_conserved(yard.world.state)


def test_discharged_energy_moves_and_is_claimed_like_any_other() -> None:
    yard = Yard()
    yard.take_in(100)
    yard.charge(whole(yard.lots[0]))
    yard.give_back(80)
    yard.market.claim(whole(yard.lot(3), 80), hourly=False)
    assert check_energy_conserved(yard.world.state)[SliceStatus.CLAIMED] == 80


def test_charges_and_claims_share_what_the_storage_took_in() -> None:
    yard = Yard()
    yard.take_in(100)
    charge = yard.charge(SliceRef(yard.lots[0], 0, 70))
    claim = replace(yard.market.make_claim(SliceRef(yard.lots[0], 70, 100)), consumption_meter=yard.meter.meter_id)
    yard.world.apply(claim, by=BOB)
    other = yard.market.world.produce(yard.world.add_producer(BOB), 50, start_ms=yard.start_ms)[0]
    yard.world.refuses(yard.charging(whole(other, 1)), "consumption_exceeded", by=BOB)
    record = find_report_at(yard.world.state, yard.meter.meter_id, CONSUMPTION, yard.start_ms)
    assert record is not None
    assert get_claimed_wh(yard.world.state, yard.meter.meter_id, record) == (100,)
    assert get_claim(yard.world.state, charge).wh == 70


def test_a_charge_is_of_the_same_zone_and_interval() -> None:
    elsewhere = Yard(zone="FR", zones=(("DE-LU", "FR"),))
    elsewhere.take_in(100)
    elsewhere.world.refuses(elsewhere.charging(whole(elsewhere.lots[0])), "zone_pair_not_allowed", by=BOB)
    yard = Yard()
    yard.take_in(100)
    yard.world.refuses(yard.charging(whole(yard.lots[1])), "consumption_not_recorded", by=BOB)
    longer = Yard()
    (long,) = longer.world.produce(longer.world.add_producer(BOB, interval_s=3_600), 500)
    longer.world.consume(longer.meter, 100, start_ms=DAY_0_MS)
    longer.world.refuses(longer.charging(whole(long)), "charge_not_recorded", by=BOB)


def test_only_the_operator_charges_a_storage_with_what_it_holds() -> None:
    yard = Yard()
    yard.take_in(100)
    payload = yard.charging(whole(yard.lots[0]))
    yard.world.refuses(payload, "storage_of_another_operator", by=ALICE)
    yard.world.refuses(replace(payload, meter=yard.market.consumer.meter_id), "meter_of_no_storage", by=BOB)
    yard.world.refuses(replace(payload, meter=bytes(16)), "meter_unknown", by=BOB)
    (of_alice,) = yard.world.produce(yard.world.add_producer(ALICE), 50, start_ms=yard.start_ms)
    yard.world.refuses(yard.charging(whole(of_alice, 50)), "slice_not_held", by=BOB)
    yard.world.apply(payload, by=BOB)
    yard.world.refuses(yard.charging(whole(yard.lots[0])), "slice_already_charged", by=BOB)
    again = replace(yard.charging(whole(yard.lots[1])), statement=payload.statement)
    yard.world.refuses(again, "statement_already_used", by=BOB)
    no_intake = yard.world.register_meter(
        BOB, get_meter(yard.world.state, yard.meter.meter_id).site, channels=[PRODUCTION]
    )
    yard.world.refuses(replace(payload, meter=no_intake.meter_id), "meter_channel_unknown", by=BOB)
    yard.world.freeze(BOB)
    yard.world.refuses(yard.charging(whole(yard.lots[1])), "participant_frozen", by=BOB)


def test_a_charge_is_neither_replaced_nor_void() -> None:
    yard = Yard()
    yard.take_in(100)
    charge = yard.charge(whole(yard.lots[0]))
    yard.market.withdraw(yard.lots[0])
    yard.world.refuses(VoidClaim(charge), "charge_cannot_be_void", by=BOB)
    payload = yard.market.make_claim(whole(yard.lots[1]), hourly=False, replaces=charge)
    yard.world.refuses(payload, "charge_cannot_be_replaced", by=BOB)


def test_a_withdrawn_lot_takes_out_of_the_storage_what_is_still_in_it() -> None:
    yard = Yard()
    yard.take_in(100, 100)
    charge = yard.charge(whole(yard.lots[0]), whole(yard.lots[1]))
    yard.give_back(30)
    yard.market.withdraw(yard.lots[0])
    assert get_claim(yard.world.state, charge).status is ClaimStatus.IMPAIRED
    assert get_lost_wh(yard.world.state, charge, get_claim(yard.world.state, charge)) == (100, 0)
    assert yard.left_wh() == [0, 80]
    assert get_lot(yard.world.state, yard.lot(3)).wh == 30, "what came out stays, and names an impaired charge"
    yard.give_back(90, place=4)
    assert get_lot(yard.world.state, yard.lot(4)).wh == 80
    check_energy_conserved(yard.world.state)


def test_less_intake_impairs_the_charge() -> None:
    yard = Yard()
    yard.take_in(100)
    charge = yard.charge(whole(yard.lots[0]))
    fewer = correction(yard.meter, CONSUMPTION, 60, start_ms=yard.start_ms)
    yard.world.apply(fewer, by=MEASURER)
    assert get_lost_wh(yard.world.state, charge, get_claim(yard.world.state, charge)) == (40,)
    assert yard.left_wh() == [48]
    check_energy_conserved(yard.world.state)


def test_what_a_withdrawn_discharge_leaves_is_not_more_than_the_sound_part_of_its_charge() -> None:
    yard = Yard()
    yard.take_in(100)
    yard.charge(SliceRef(yard.lots[0], 0, 100))
    yard.give_back(40, 40)
    fewer = correction(yard.meter, CONSUMPTION, 60, start_ms=yard.start_ms)
    yard.world.apply(fewer, by=MEASURER)
    yard.market.withdraw(yard.lot(3))
    assert yard.left_wh() == [8], "60 Wh at 80 %, less the 40 Wh that are still out"
    check_energy_conserved(yard.world.state)


def test_a_corrected_discharge_takes_again_what_it_needs() -> None:
    yard = Yard()
    yard.take_in(100)
    charge = yard.charge(whole(yard.lots[0]))
    yard.give_back(50)
    start_ms = yard.lot(3).start_ms
    for version, (wh, minted_wh) in enumerate(((20, 20), (500, 80), (30, 30)), start=2):
        yard.world.apply(correction(yard.meter, PRODUCTION, wh, start_ms=start_ms), by=MEASURER)
        lot = yard.lot(3, version)
        assert get_lot(yard.world.state, lot).wh == minted_wh
        assert list_sources(yard.world.state, lot) == (Source(charge, yard.end_ms(0), minted_wh),)
        assert yard.left_wh() == [80 - minted_wh]
        check_energy_conserved(yard.world.state)


def test_a_lot_has_a_limit_of_sources() -> None:
    yard = Yard()
    yard.take_in(100)
    for first in range(99):
        yard.charge(SliceRef(yard.lots[0], first, first + 1))
    assert yard.left_wh() == [0] * 99, "a watt-hour at 80 % leaves nothing whole"
    charges = Yard()
    charges.take_in(2_000)
    producer = charges.world.add_producer(BOB)
    (big,) = charges.world.produce(producer, 2_000, start_ms=charges.start_ms)
    for first in range(0, 2 * (LOT_SOURCES_MAX + 4), 2):
        charges.charge(SliceRef(big, first, first + 2))
    charges.give_back(1_000)
    assert get_lot(charges.world.state, charges.lot(3)).wh == LOT_SOURCES_MAX
    check_energy_conserved(charges.world.state)
