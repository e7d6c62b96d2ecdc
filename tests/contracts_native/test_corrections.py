"""Nothing is edited: what was wrong is withdrawn with a reason and issued again, and the claims on it see that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native.amendments import SetShares
from contracts_native.claims import ClaimImpaired, ClaimStatus
from contracts_native.corrections import (
    CORRECTED_INTERVALS_MAX,
    CorrectReading,
    EnergyReissued,
    ReadingCorrected,
    WithdrawEnergy,
)
from contracts_native.lots import (
    WITHDRAWALS,
    EnergyMinted,
    EnergyWithdrawn,
    LotId,
    LotWithdrawn,
    SliceRef,
    TransferEnergy,
    find_latest_lot,
    find_lot,
    get_lot,
)
from contracts_native.meters import Channel, get_meter
from contracts_native.readings import (
    CORRECTIONS,
    REPORTS,
    Flag,
    IntervalState,
    SubmitReadings,
    find_report_after,
    find_report_at,
    get_interval_wh,
    list_facts,
)
from contracts_native.slices import SliceStatus
from ledger.errors import Malformed
from ledger.parameters import Parameters
from tests.contracts_native.harness import (
    ALICE,
    AUDITOR,
    BOB,
    CAROL,
    DAY_0_MS,
    MEASURER,
    ORACLE,
    QUARTER_MS,
    UTILITY,
    Person,
    World,
    check_energy_conserved,
)
from tests.contracts_native.trade import Market, correction, make_market

PRODUCTION, CONSUMPTION = Channel.PRODUCTION, Channel.CONSUMPTION
TOO_MUCH_WH = 1_000_000


def list_fates(market: Market) -> list[tuple[int, int, IntervalState, int]]:
    record = find_report_at(market.world.state, market.producer.meter_id, PRODUCTION, DAY_0_MS)
    assert record is not None
    facts = list_facts(market.world.state, market.producer.meter_id, PRODUCTION, record)
    return [(fact.wh, fact.version, fact.state, fact.minted_wh) for fact in facts]


def test_a_corrected_interval_has_a_new_version_and_its_lot_names_the_one_before() -> None:
    market = make_market()
    first, second = market.buy(100, 200)
    stored = REPORTS.find_floor(market.world.state, market.producer.meter_id, PRODUCTION, DAY_0_MS)
    applied = market.correct(90)
    corrected = replace(first, version=2)
    assert find_latest_lot(market.world.state, first.meter, first.start_ms) == get_lot(market.world.state, corrected)
    lot = get_lot(market.world.state, corrected)
    assert (lot.wh, lot.predecessor, lot.zone, lot.shares) == (90, 1, "DE-LU", ((ALICE.address, 1),))
    assert market.list_statuses(first) == [(100, "withdrawn")]
    assert market.list_statuses(corrected) == [(90, "active")]
    assert applied.one(EnergyReissued) == EnergyReissued(corrected, 90, first)
    assert applied.one(EnergyMinted).version == 2
    assert applied.one(LotWithdrawn).wh == 100
    assert applied.one(EnergyWithdrawn) == EnergyWithdrawn(first, 0, 100, BOB.address, False)
    event = applied.one(ReadingCorrected)
    assert (event.before_wh, event.wh, event.version, event.reason) == (100, 90, 2, "wrong transformer ratio")
    assert get_interval_wh(market.world.state, first.meter, PRODUCTION, DAY_0_MS) == 90
    assert REPORTS.find_floor(market.world.state, first.meter, PRODUCTION, DAY_0_MS) == stored, "nothing is edited"
    record = CORRECTIONS.get(market.world.state, first.meter, PRODUCTION, DAY_0_MS, 2)
    assert (record.wh, record.corrected_by, record.tx_id) == (90, MEASURER.address, applied.tx_id)
    assert market.list_statuses(second) == [(200, "active")]
    check_energy_conserved(market.world.state)


def test_every_correction_is_a_version_of_its_own() -> None:
    market = make_market()
    (first,) = market.buy(100)
    for version, wh in enumerate((90, 80, 85), start=2):
        market.correct(wh)
        lot = get_lot(market.world.state, replace(first, version=version))
        assert (lot.wh, lot.predecessor) == (wh, version - 1)
        check_energy_conserved(market.world.state)
    assert [market.list_statuses(replace(first, version=version)) for version in (1, 2, 3, 4)] == [
        [(100, "withdrawn")],
        [(90, "withdrawn")],
        [(80, "withdrawn")],
        [(85, "active")],
    ]


def test_a_correction_goes_over_the_ends_of_reports_and_leaves_alone_what_stays() -> None:
    market = make_market()
    lots = [*market.buy(100, 200), *market.buy(300)]
    applied = market.correct(100, 150, 250)
    assert [one.start_ms for one in applied.all_of(ReadingCorrected)] == [lots[1].start_ms, lots[2].start_ms]
    assert find_lot(market.world.state, replace(lots[0], version=2)) is None
    assert market.list_statuses(lots[0]) == [(100, "active")]
    after = find_report_after(market.world.state, market.producer.meter_id, PRODUCTION, DAY_0_MS)
    assert after is not None
    assert after.values_wh == (250,)
    check_energy_conserved(market.world.state)


@pytest.mark.parametrize(
    ("wh", "flag", "state", "minted_wh"),
    [
        (90, Flag.MEASURED, IntervalState.MINTED, 90),
        (0, Flag.MEASURED, IntervalState.MINTED, 0),
        (90, Flag.ESTIMATED, IntervalState.NOT_MINTED, 0),
        (100, Flag.SUBSTITUTED, IntervalState.NOT_MINTED, 0),
        (TOO_MUCH_WH, Flag.MEASURED, IntervalState.QUARANTINED, 0),
    ],
)
def test_only_measured_and_possible_corrections_mint(wh: int, flag: Flag, state: IntervalState, minted_wh: int) -> None:
    market = make_market()
    market.buy(100, 200)
    market.correct(wh, flag=flag)
    assert list_fates(market) == [(wh, 2, state, minted_wh), (200, 1, IntervalState.MINTED, 200)]
    check_energy_conserved(market.world.state)
    market.correct(70)
    assert list_fates(market)[0] == (70, 3, IntervalState.MINTED, 70)
    check_energy_conserved(market.world.state)


@pytest.mark.parametrize(("wh", "flag"), [(TOO_MUCH_WH, Flag.MEASURED), (50, Flag.ESTIMATED), (0, Flag.MEASURED)])
def test_what_minted_nothing_may_mint_once_it_is_corrected(wh: int, flag: Flag) -> None:
    market = make_market()
    market.world.submit(market.producer.report(PRODUCTION, (wh,), flag=flag))
    applied = market.correct(40)
    lot = LotId(market.producer.meter_id, DAY_0_MS, 2)
    assert applied.one(EnergyReissued) == EnergyReissued(lot, 40, None)
    assert get_lot(market.world.state, lot).predecessor == 0
    assert not applied.all_of(LotWithdrawn)
    check_energy_conserved(market.world.state)


def test_a_reissued_lot_goes_to_the_shareholders_of_its_predecessor() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    site = get_meter(market.world.state, market.producer.meter_id).site
    shares = SetShares(site, ((ALICE.address, 1), (CAROL.address, 1)))
    market.world.apply(shares, by=UTILITY, cosigners=[ALICE])
    market.correct(90)
    assert get_lot(market.world.state, replace(lot, version=2)).shares == ((ALICE.address, 1),)


def test_a_withdrawn_lot_is_corrected_to_one_that_names_it() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.withdraw(lot)
    assert list_fates(market) == [(100, 1, IntervalState.WITHDRAWN, 0)]
    check_energy_conserved(market.world.state)
    market.correct(60)
    assert get_lot(market.world.state, replace(lot, version=2)).predecessor == 1
    assert WITHDRAWALS.get(market.world.state, lot.meter, lot.start_ms, 1).reason == "meter was wired backwards"
    check_energy_conserved(market.world.state)


def test_a_withdrawn_lot_never_moves_again_also_when_its_holder_is_frozen() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.world.freeze(BOB)
    applied = market.withdraw(lot)
    assert applied.one(EnergyWithdrawn).holder == BOB.address
    market.world.refuses(WithdrawEnergy((lot,), "again"), "lot_already_withdrawn", by=MEASURER)
    other = make_market()
    (lot,) = other.buy(100)
    other.withdraw(lot)
    other.world.refuses(TransferEnergy(CAROL.address, (SliceRef(lot, 0, 1),), ""), "slice_withdrawn", by=BOB)
    other.world.refuses(other.make_claim(SliceRef(lot, 0, 1), hourly=False), "slice_withdrawn", by=BOB)


def test_a_lot_past_its_lifetime_is_withdrawn_too_and_leaves_the_residual_mix() -> None:
    market = make_market(parameters=Parameters(lot_lifetime_s=3_600))
    lots = market.world.produce(market.producer, 100)
    market.withdraw(*lots)
    assert market.list_statuses(lots[0]) == [(100, "withdrawn")]


@pytest.mark.parametrize("person", [ALICE, UTILITY, AUDITOR, ORACLE])
def test_only_the_measurement_body_corrects_and_withdraws(person: Person) -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.world.refuses(WithdrawEnergy((lot,), "x"), "role_missing", by=person)
    market.world.refuses(correction(market.producer, PRODUCTION, 1), "role_missing", by=person)


def test_the_measurement_body_does_not_correct_its_own_plant() -> None:
    world = World()
    meter = world.add_producer(MEASURER)
    (lot,) = world.produce(meter, 100)
    world.refuses(WithdrawEnergy((lot,), "x"), "correction_of_own_site", by=MEASURER)
    world.refuses(correction(meter, PRODUCTION, 200), "correction_of_own_site", by=MEASURER)


def test_a_correction_is_of_recorded_intervals_and_changes_something() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    good = correction(market.producer, PRODUCTION, 90)
    refusals = [
        (replace(good, values_wh=(100,)), "correction_changes_nothing"),
        (replace(good, values_wh=(90, 80)), "interval_not_recorded"),
        (replace(good, start_ms=DAY_0_MS + QUARTER_MS), "interval_not_recorded"),
        (replace(good, start_ms=DAY_0_MS - QUARTER_MS), "interval_not_recorded"),
        (replace(good, start_ms=DAY_0_MS + 1), "interval_not_recorded"),
        (replace(good, channel=CONSUMPTION), "meter_channel_unknown"),
        (replace(good, meter=bytes(16)), "meter_unknown"),
        (WithdrawEnergy((replace(lot, version=2),), "x"), "lot_unknown"),
        (WithdrawEnergy((lot, lot), "x"), "lot_already_withdrawn"),
    ]
    for payload, reason in refusals:
        market.world.refuses(payload, reason, by=MEASURER)
    unreasoned: list[CorrectReading | WithdrawEnergy] = [replace(good, reason=""), WithdrawEnergy((lot,), "")]
    for payload in unreasoned:
        with pytest.raises(Malformed, match="text_length_out_of_range"):
            market.world.apply(payload, by=MEASURER)
    many = replace(good, values_wh=(1,) * (CORRECTED_INTERVALS_MAX + 1))
    with pytest.raises(Malformed, match="array_length_out_of_range"):
        market.world.apply(many, by=MEASURER)


def test_a_correction_does_not_reopen_an_interval_to_its_meter() -> None:
    market = make_market()
    market.buy(100)
    market.correct(90)
    again = market.producer.report(PRODUCTION, (95,), start_ms=DAY_0_MS, register_start_wh=5_000)
    market.world.refuses(SubmitReadings((again,)), "interval_already_reported", by=ORACLE)


# Claims whose energy or consumption is gone


def test_a_claim_on_a_withdrawn_lot_is_impaired_and_its_consumption_is_free() -> None:
    market = make_market()
    first, second = market.buy(100, 100)
    market.world.consume(market.consumer, 60, 80)
    claim = market.claim(SliceRef(first, 0, 60), SliceRef(second, 0, 80))
    applied = market.withdraw(first)
    assert market.get_claim(claim).status is ClaimStatus.IMPAIRED
    assert market.lost_wh(claim) == (60, 0)
    assert market.list_claimed() == (0, 80)
    assert market.list_statuses(first) == [(60, "claimed"), (100, "withdrawn")], "what was used stays used"
    event = applied.one(ClaimImpaired)
    assert (event.claim, event.lot, event.wh, event.beneficiary) == (claim, first, 60, BOB.address)
    assert check_energy_conserved(market.world.state)[SliceStatus.CLAIMED] == 140
    market.withdraw(second)
    assert market.lost_wh(claim) == (60, 80)
    check_energy_conserved(market.world.state)


def test_a_corrected_interval_impairs_its_claims_and_the_new_lot_may_be_claimed() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.world.consume(market.consumer, 100)
    claim = market.claim(SliceRef(lot, 0, 100))
    market.correct(90)
    assert market.lost_wh(claim) == (100,)
    assert market.list_claimed() == (0,)
    renewed = replace(lot, version=2)
    market.world.apply(TransferEnergy(BOB.address, (SliceRef(renewed, 0, 90),), ""), by=ALICE)
    replacement = market.claim(SliceRef(renewed, 0, 90), replaces=claim)
    assert market.get_claim(claim).status is ClaimStatus.REPLACED
    assert market.get_claim(replacement).replaces == claim
    assert market.list_claimed() == (90,)
    check_energy_conserved(market.world.state)


def test_a_lot_of_several_claims_impairs_each_by_what_it_has() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    claims = [market.claim(SliceRef(lot, first, first + 20), hourly=False) for first in (0, 20, 40)]
    applied = market.withdraw(lot)
    assert [one.claim for one in applied.all_of(ClaimImpaired)] == claims
    assert {market.get_claim(claim).status for claim in claims} == {ClaimStatus.IMPAIRED}
    assert market.list_statuses(lot)[-1] == (100, "withdrawn")
    check_energy_conserved(market.world.state)


def test_less_consumption_impairs_the_latest_claims_first() -> None:
    market = make_market()
    (lot,) = market.buy(200)
    market.world.consume(market.consumer, 100)
    claims = []
    for first, end in ((0, 30), (30, 60), (60, 100)):
        claims.append(market.claim(SliceRef(lot, first, end)))
        market.world.time_ms += 1_000
    market.correct_consumption(90)
    assert [market.lost_wh(claim) for claim in claims] == [(0,), (0,), (10,)]
    market.correct_consumption(50)
    assert [market.lost_wh(claim) for claim in claims] == [(0,), (10,), (40,)]
    assert [market.get_claim(claim).status.value for claim in claims] == ["claimed", "impaired", "impaired"]
    assert market.list_claimed() == (50,)
    check_energy_conserved(market.world.state)
    market.correct_consumption(TOO_MUCH_WH)
    assert [market.lost_wh(claim) for claim in claims] == [(30,), (30,), (40,)], "quarantined: not to be relied on"
    check_energy_conserved(market.world.state)


def test_more_consumption_leaves_claims_alone_and_makes_room() -> None:
    market = make_market()
    (lot,) = market.buy(200)
    market.world.consume(market.consumer, 100)
    claim = market.claim(SliceRef(lot, 0, 100))
    market.correct_consumption(150)
    assert market.get_claim(claim).status is ClaimStatus.CLAIMED
    market.claim(SliceRef(lot, 100, 150))
    assert market.list_claimed() == (150,)
    check_energy_conserved(market.world.state)


def test_a_claim_may_lose_its_consumption_and_then_its_energy() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.world.consume(market.consumer, 100)
    claim = market.claim(SliceRef(lot, 0, 100))
    market.correct_consumption(70)
    assert market.lost_wh(claim) == (30,)
    market.withdraw(lot)
    assert market.lost_wh(claim) == (100,)
    assert market.list_claimed() == (0,)
    check_energy_conserved(market.world.state)


def test_what_was_matched_by_the_period_is_freed_where_it_was() -> None:
    market = make_market(production_s=3_600)
    first, second = market.buy(300, 300)
    market.world.consume(market.consumer, 100, 100, 100, 100, 50, 50, 50, 50)
    early = market.claim(SliceRef(first, 0, 150))
    market.world.time_ms += 1_000
    late = market.claim(SliceRef(first, 150, 300), SliceRef(second, 0, 120))
    assert market.list_claimed() == (100, 100, 100, 0, 50, 50, 20, 0)
    market.correct_consumption(100, 20)
    assert (market.lost_wh(early), market.lost_wh(late)) == ((30,), (50, 0))
    assert market.list_claimed() == (100, 20, 100, 0, 50, 50, 20, 0)
    market.withdraw(first)
    assert (market.lost_wh(early), market.lost_wh(late)) == ((150,), (150, 0))
    assert market.list_claimed() == (0, 0, 0, 0, 50, 50, 20, 0)
    check_energy_conserved(market.world.state)


def test_a_longer_consumption_interval_frees_what_its_lots_had() -> None:
    market = make_market(consumption_s=3_600)
    lots = market.buy(100, 100, 100, 100)
    market.world.consume(market.consumer, 300)
    claim = market.claim(*(SliceRef(lot, 0, 75) for lot in lots))
    market.withdraw(lots[1])
    assert market.list_claimed() == (225,)
    market.correct_consumption(100)
    assert market.lost_wh(claim) == (0, 75, 50, 75)
    check_energy_conserved(market.world.state)
