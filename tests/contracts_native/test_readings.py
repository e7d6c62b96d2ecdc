"""A report is accepted for what its meter signed and nothing else; each interval once, each watt-hour accounted for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from contracts_native.lots import EnergyMinted, LotId, find_lot, get_slices
from contracts_native.meters import METERS, Channel, MeterStatus, get_meter
from contracts_native.readings import (
    SIGNATURES_REMEMBERED_MAX,
    Flag,
    IntervalState,
    ReadingAccepted,
    Report,
    SubmitReadings,
    find_report_after,
    find_report_at,
    get_interval_state,
    get_interval_wh,
    get_recorded_wh,
    remembered_signatures,
)
from contracts_native.sites import SITES, get_site
from ledger.errors import RuleViolated
from ledger.parameters import Parameters
from ledger.primitives import Signature
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    DAY_0_MS,
    ORACLE,
    P256_ORDER,
    QUARTER_MS,
    STRANGER,
    SigningMeter,
    World,
    check_energy_conserved,
)

PRODUCTION = Channel.PRODUCTION
CONSUMPTION = Channel.CONSUMPTION
MOST_WH = 10_000 * 900 * 110 // (3_600 * 100)  # 10 kW for a quarter of an hour, with the margin: 2,750 Wh


def make_world(scheme: str = "ed25519") -> tuple[World, SigningMeter]:
    world = World()
    return world, world.register_meter(ALICE, world.register_site(ALICE), scheme=scheme)


@pytest.mark.parametrize("scheme", ["ed25519", "p256"])
def test_a_signed_report_is_recorded_and_minted_to_the_owner(scheme: str) -> None:
    world, meter = make_world(scheme)
    report = meter.report(PRODUCTION, (100, 0, 2_750))
    applied = world.submit(report)
    accepted = applied.one(ReadingAccepted)
    assert (accepted.meter, accepted.values_wh, accepted.quarantined) == (meter.meter_id, (100, 0, 2_750), ())
    assert applied.one(EnergyMinted).wh == (100, 0, 2_750)
    record = find_report_at(world.state, meter.meter_id, PRODUCTION, DAY_0_MS)
    assert record is not None
    assert (record.values_wh, record.flag, record.tx_id) == ((100, 0, 2_750), Flag.MEASURED, applied.tx_id)
    (whole,) = get_slices(world.state, LotId(meter.meter_id, DAY_0_MS, 1))
    assert (whole.holder, whole.first_wh, whole.end_wh) == (ALICE.address, 0, 100)
    assert find_lot(world.state, LotId(meter.meter_id, DAY_0_MS + QUARTER_MS, 1)) is None, "0 Wh is no lot"
    check_energy_conserved(world.state)


def test_many_meters_report_in_one_transaction_and_both_channels_count_apart() -> None:
    world, meter = make_world()
    other = world.add_producer(BOB)
    reports = (meter.report(PRODUCTION, (1, 2)), meter.report(CONSUMPTION, (3,)), other.report(PRODUCTION, (4,)))
    applied = world.submit(*reports)
    assert [one.values_wh for one in applied.all_of(ReadingAccepted)] == [(1, 2), (3,), (4,)]
    assert [one.wh for one in applied.all_of(EnergyMinted)] == [(1, 2), (4,)]
    world.submit(meter.report(PRODUCTION, (5,)), meter.report(PRODUCTION, (6,)))
    check_energy_conserved(world.state)


def test_anyone_registered_may_relay_and_a_stranger_may_not() -> None:
    world, meter = make_world()
    world.submit(meter.report(PRODUCTION, (1,)), by=BOB)
    world.refuses(SubmitReadings((meter.report(PRODUCTION, (1,)),)), "signer_unknown", by=STRANGER)


def test_one_bad_report_keeps_the_whole_transaction_out() -> None:
    world, meter = make_world()
    good = meter.report(PRODUCTION, (1,))
    bad = replace(meter.report(PRODUCTION, (2,)), values_wh=(3,))
    world.refuses(SubmitReadings((good, bad)), "reading_signature_invalid", by=ORACLE)
    assert find_report_at(world.state, meter.meter_id, PRODUCTION, DAY_0_MS) is None
    world.submit(good)


CHANGES: list[tuple[str, Callable[[Report], Report]]] = [
    ("interval_length_wrong", lambda report: replace(report, interval_s=600)),
    ("interval_not_aligned", lambda report: replace(report, start_ms=report.start_ms + 1)),
    ("interval_not_aligned", lambda report: replace(report, start_ms=report.start_ms + 60_000)),
    ("reading_before_commissioning", lambda report: replace(report, start_ms=DAY_0_MS - QUARTER_MS)),
    ("registers_do_not_add_up", lambda report: replace(report, register_end_wh=report.register_end_wh + 1)),
    ("registers_do_not_add_up", lambda report: replace(report, register_start_wh=report.register_start_wh - 1)),
    ("meter_unknown", lambda report: replace(report, meter=bytes(16))),
]


@pytest.mark.parametrize(("reason", "change"), CHANGES)
def test_a_report_that_is_signed_but_wrong_is_refused(reason: str, change: Callable[[Report], Report]) -> None:
    world, meter = make_world()
    report = meter.sign(change(meter.report(PRODUCTION, (10, 20))))
    world.refuses(SubmitReadings((report,)), reason, by=ORACLE)


FORGERIES: list[Callable[[Report], Report]] = [
    lambda report: replace(report, sequence=report.sequence + 1),
    lambda report: replace(report, start_ms=report.start_ms + QUARTER_MS),
    lambda report: replace(report, values_wh=(20, 10)),
    lambda report: replace(
        report, register_start_wh=report.register_start_wh + 1, register_end_wh=report.register_end_wh + 1
    ),
    lambda report: replace(report, flag=Flag.ESTIMATED),
    lambda report: replace(report, channel=CONSUMPTION),
    lambda report: replace(report, signature=Signature(bytes(64))),
]


@pytest.mark.parametrize("scheme", ["ed25519", "p256"])
@pytest.mark.parametrize("forge", FORGERIES)
def test_nothing_that_the_meter_signed_can_be_changed(scheme: str, forge: Callable[[Report], Report]) -> None:
    world, meter = make_world(scheme)
    report = meter.report(PRODUCTION, (10, 20))
    world.refuses(SubmitReadings((forge(report),)), "reading_signature_invalid", by=ORACLE)
    world.submit(report)


def test_a_forged_report_is_refused_also_when_the_true_one_was_seen() -> None:
    world, meter = make_world()
    report = meter.report(PRODUCTION, (10, 20))
    world.submit(report)
    for forge in FORGERIES[:5]:
        world.refuses(SubmitReadings((forge(report),)), "reading_signature_invalid", by=ORACLE)


def test_a_signature_has_no_second_form() -> None:
    world, meter = make_world("p256")
    report = meter.report(PRODUCTION, (10,))
    high_s = P256_ORDER - int.from_bytes(report.signature[32:], "big")
    twin = replace(report, signature=Signature(report.signature[:32] + high_s.to_bytes(32, "big")))
    world.refuses(SubmitReadings((twin,)), "reading_signature_invalid", by=ORACLE)


def test_another_meters_signature_and_another_chains_are_refused() -> None:
    world, meter = make_world()
    other = world.add_producer(BOB)
    report = other.sign(meter.report(PRODUCTION, (10,)))
    world.refuses(SubmitReadings((report,)), "reading_signature_invalid", by=ORACLE)
    meter.chain_id = "other-1"
    elsewhere = meter.sign(report)
    world.refuses(SubmitReadings((elsewhere,)), "reading_signature_invalid", by=ORACLE)


def test_remembered_signatures_stay_within_their_limit() -> None:
    world, meter = make_world()
    report = meter.report(PRODUCTION, (10,))
    world.submit(report)
    assert remembered_signatures.count() > 0
    for number in range(SIGNATURES_REMEMBERED_MAX + 10):
        remembered_signatures.add(number.to_bytes(32, "big"))
    assert remembered_signatures.count() <= SIGNATURES_REMEMBERED_MAX
    assert (SIGNATURES_REMEMBERED_MAX + 9).to_bytes(32, "big") in remembered_signatures
    assert (0).to_bytes(32, "big") not in remembered_signatures
    world.submit(meter.report(PRODUCTION, (10,)))


@pytest.mark.parametrize("status", [MeterStatus.PROPOSED, MeterStatus.SUSPENDED, MeterStatus.RETIRED])
def test_only_an_active_meter_reports(status: MeterStatus) -> None:
    world, meter = make_world()
    before = get_meter(world.state, meter.meter_id)
    METERS.put(world.state, meter.meter_id, value=replace(before, status=status))
    world.commit()
    world.refuses(SubmitReadings((meter.report(PRODUCTION, (1,)),)), "meter_not_active", by=ORACLE)


def test_a_meter_reports_only_on_its_channels() -> None:
    world = World()
    meter = world.add_consumer(BOB)
    world.refuses(SubmitReadings((meter.report(PRODUCTION, (1,)),)), "meter_channel_unknown", by=ORACLE)


def test_a_reading_may_end_up_to_the_skew_after_block_time() -> None:
    world, meter = make_world()
    payload = SubmitReadings((meter.report(PRODUCTION, (1, 2)),))
    skew_ms = Parameters().reading_skew_s * 1_000
    world.time_ms = DAY_0_MS + 2 * QUARTER_MS - skew_ms - 1
    world.refuses(payload, "reading_in_the_future", by=ORACLE)
    world.time_ms += 1
    world.apply(payload, by=ORACLE)


def test_a_sequence_number_rises() -> None:
    world, meter = make_world()
    first = meter.report(PRODUCTION, (1,))
    world.submit(first)
    second = meter.report(PRODUCTION, (1,))
    for sequence in (first.sequence, 0):
        stale = meter.sign(replace(second, sequence=sequence))
        world.refuses(SubmitReadings((stale,)), "sequence_not_rising", by=ORACLE)
    world.refuses(SubmitReadings((first,)), "sequence_not_rising", by=ORACLE)
    world.submit(meter.sign(replace(second, sequence=first.sequence + 7)))


@pytest.mark.parametrize("offset", [-1, 0, 1, 2, 3])
def test_no_interval_is_reported_twice(offset: int) -> None:
    world, meter = make_world()
    start_ms = DAY_0_MS + 10 * QUARTER_MS
    world.submit(meter.report(PRODUCTION, (5, 5, 5, 5), start_ms=start_ms))
    overlapping = meter.report(PRODUCTION, (0, 0), start_ms=start_ms + offset * QUARTER_MS, register_start_wh=5_000)
    world.refuses(SubmitReadings((overlapping,)), "interval_already_reported", by=ORACLE)


def test_a_report_around_another_is_refused() -> None:
    world, meter = make_world()
    world.submit(meter.report(PRODUCTION, (5,), start_ms=DAY_0_MS + QUARTER_MS))
    around = meter.report(PRODUCTION, (0, 0, 0), start_ms=DAY_0_MS, register_start_wh=5_000)
    world.refuses(SubmitReadings((around,)), "interval_already_reported", by=ORACLE)


def test_one_transaction_cannot_report_an_interval_twice() -> None:
    world, meter = make_world()
    first = meter.report(PRODUCTION, (5,))
    second = meter.report(PRODUCTION, (5,), start_ms=DAY_0_MS, register_start_wh=5_000)
    world.refuses(SubmitReadings((first, second)), "interval_already_reported", by=ORACLE)


def test_late_backfill_into_a_gap_is_welcome_and_must_fit_its_neighbours() -> None:
    world, meter = make_world()
    world.submit(meter.report(PRODUCTION, (10,)))  # the register: 5,000 → 5,010
    late_ms = DAY_0_MS + 4 * QUARTER_MS
    world.submit(meter.report(PRODUCTION, (10,), start_ms=late_ms, register_start_wh=5_110))
    gap_ms = DAY_0_MS + QUARTER_MS

    def backfill(*values_wh: int, start_ms: int, register_wh: int) -> SubmitReadings:
        report = meter.report(PRODUCTION, values_wh, start_ms=start_ms, register_start_wh=register_wh)
        return SubmitReadings((report,))

    reason = "registers_not_continuous"
    world.refuses(backfill(20, 30, 51, start_ms=gap_ms, register_wh=5_010), reason, by=ORACLE)
    world.refuses(backfill(20, 30, 50, start_ms=gap_ms, register_wh=5_009), reason, by=ORACLE)
    world.refuses(backfill(20, 30, 49, start_ms=gap_ms, register_wh=5_010), reason, by=ORACLE)
    middle_ms = gap_ms + QUARTER_MS
    world.refuses(backfill(30, start_ms=middle_ms, register_wh=5_009), reason, by=ORACLE)
    world.refuses(backfill(30, start_ms=middle_ms, register_wh=5_081), reason, by=ORACLE)
    world.apply(backfill(30, start_ms=middle_ms, register_wh=5_030), by=ORACLE)
    world.apply(backfill(20, start_ms=gap_ms, register_wh=5_010), by=ORACLE)
    world.apply(backfill(50, start_ms=middle_ms + QUARTER_MS, register_wh=5_060), by=ORACLE)
    total_wh = get_recorded_wh(world.state, meter.meter_id, PRODUCTION, from_ms=DAY_0_MS, until_ms=late_ms + QUARTER_MS)
    assert total_wh == 120
    assert check_energy_conserved(world.state)


def test_backfill_does_not_set_the_channel_back() -> None:
    world, meter = make_world()
    later_ms = DAY_0_MS + 8 * QUARTER_MS
    world.submit(meter.report(PRODUCTION, (10,), start_ms=later_ms, register_start_wh=6_000))
    world.submit(meter.report(PRODUCTION, (10,), start_ms=DAY_0_MS, register_start_wh=5_000))
    stale = meter.report(PRODUCTION, (10,), start_ms=later_ms + QUARTER_MS, register_start_wh=5_010)
    world.refuses(SubmitReadings((stale,)), "registers_not_continuous", by=ORACLE)
    world.submit(meter.report(PRODUCTION, (10,), start_ms=later_ms + QUARTER_MS, register_start_wh=6_010))


def test_registers_go_on_from_report_to_report() -> None:
    world, meter = make_world()
    world.submit(meter.report(PRODUCTION, (10,)))
    jump = meter.report(PRODUCTION, (1,), register_start_wh=5_011)
    world.refuses(SubmitReadings((jump,)), "registers_not_continuous", by=ORACLE)
    across_gap = meter.report(PRODUCTION, (1,), start_ms=DAY_0_MS + 2 * QUARTER_MS, register_start_wh=5_009)
    world.refuses(SubmitReadings((across_gap,)), "registers_not_continuous", by=ORACLE)
    world.submit(meter.report(PRODUCTION, (1,), start_ms=DAY_0_MS + 2 * QUARTER_MS, register_start_wh=5_400))


def test_a_value_above_capacity_is_quarantined_never_minted_never_clipped() -> None:
    world, meter = make_world()
    applied = world.submit(meter.report(PRODUCTION, (MOST_WH, MOST_WH + 1, 7)))
    assert applied.one(ReadingAccepted).quarantined == (1,)
    assert applied.one(ReadingAccepted).values_wh == (MOST_WH, MOST_WH + 1, 7)
    assert applied.one(EnergyMinted).wh == (MOST_WH, 0, 7)
    assert find_lot(world.state, LotId(meter.meter_id, DAY_0_MS + QUARTER_MS, 1)) is None
    check_energy_conserved(world.state)
    with pytest.raises(RuleViolated, match="interval_quarantined"):
        get_interval_wh(world.state, meter.meter_id, PRODUCTION, DAY_0_MS + QUARTER_MS)
    with pytest.raises(RuleViolated, match="interval_quarantined"):
        get_recorded_wh(world.state, meter.meter_id, PRODUCTION, from_ms=DAY_0_MS, until_ms=DAY_0_MS + 2 * QUARTER_MS)
    assert get_interval_wh(world.state, meter.meter_id, PRODUCTION, DAY_0_MS + 2 * QUARTER_MS) == 7


def test_a_report_that_is_all_quarantined_mints_nothing() -> None:
    world, meter = make_world()
    assert not world.submit(meter.report(PRODUCTION, (MOST_WH + 1,))).all_of(EnergyMinted)


@pytest.mark.parametrize("flag", [Flag.ESTIMATED, Flag.SUBSTITUTED])
def test_only_measured_production_mints(flag: Flag) -> None:
    world, meter = make_world()
    production = world.submit(meter.report(PRODUCTION, (5,), flag=flag))
    consumption = world.submit(meter.report(CONSUMPTION, (5,)))
    assert not production.all_of(EnergyMinted)
    assert not consumption.all_of(EnergyMinted)
    assert find_lot(world.state, LotId(meter.meter_id, DAY_0_MS, 1)) is None


def test_the_state_of_an_interval_says_what_became_of_it() -> None:
    measured = Flag.MEASURED
    assert get_interval_state(PRODUCTION, measured, is_quarantined=False) is IntervalState.MINTED
    assert get_interval_state(PRODUCTION, measured, is_quarantined=True) is IntervalState.QUARANTINED
    assert get_interval_state(PRODUCTION, Flag.ESTIMATED, is_quarantined=False) is IntervalState.NOT_MINTED
    assert get_interval_state(CONSUMPTION, measured, is_quarantined=False) is IntervalState.RECORDED


def test_a_lot_is_split_between_the_shareholders_of_its_site() -> None:
    world, meter = make_world()
    site_id = get_meter(world.state, meter.meter_id).site
    shares = ((ALICE.address, 1), (BOB.address, 1), (CAROL.address, 1))
    SITES.put(world.state, site_id, value=replace(get_site(world.state, site_id), shares=shares))
    world.commit()
    (lot,) = world.produce(meter, 11)
    held = [(one.holder, one.end_wh - one.first_wh) for one in get_slices(world.state, lot)]
    assert held == [(ALICE.address, 4), (BOB.address, 4), (CAROL.address, 3)]
    check_energy_conserved(world.state)


def test_recorded_wh_needs_every_interval_and_whole_ones() -> None:
    world, meter = make_world()
    world.consume(meter, 1, 2, 3)
    world.consume(meter, 4)
    end_ms = DAY_0_MS + 4 * QUARTER_MS

    def sum_wh(from_ms: int, until_ms: int) -> int:
        return get_recorded_wh(world.state, meter.meter_id, CONSUMPTION, from_ms=from_ms, until_ms=until_ms)

    assert sum_wh(DAY_0_MS, end_ms) == 10
    assert sum_wh(DAY_0_MS + QUARTER_MS, end_ms - 2 * QUARTER_MS) == 2
    assert sum_wh(DAY_0_MS, DAY_0_MS) == 0
    for from_ms, until_ms in [
        (DAY_0_MS, end_ms + QUARTER_MS),
        (DAY_0_MS - QUARTER_MS, end_ms),
        (DAY_0_MS + 1, end_ms),
        (DAY_0_MS, end_ms - 1),
    ]:
        with pytest.raises(RuleViolated, match="interval_not_recorded"):
            sum_wh(from_ms, until_ms)
    with pytest.raises(RuleViolated, match="interval_not_recorded"):
        get_interval_wh(world.state, meter.meter_id, CONSUMPTION, end_ms)
    after = find_report_after(world.state, meter.meter_id, CONSUMPTION, DAY_0_MS)
    assert after is not None
    assert after.values_wh == (4,)
    assert find_report_after(world.state, meter.meter_id, CONSUMPTION, after.start_ms) is None


@pytest.mark.parametrize("seed", range(5))
def test_reports_in_any_order_account_for_every_watt_hour(seed: int) -> None:
    """Pieces of one register arrive in a random order, some overlapping; what stands at the end adds up."""
    random = Random(seed)
    world, meter = make_world()
    values_wh = [random.randrange(3_000) for _ in range(60)]
    registers_wh = [5_000 + sum(values_wh[:index]) for index in range(len(values_wh) + 1)]
    recorded: set[int] = set()
    for _ in range(40):
        first = random.randrange(60)
        stop = random.randrange(first, 60) + 1
        stop = min(stop, first + 8)
        report = meter.report(
            PRODUCTION,
            values_wh[first:stop],
            start_ms=DAY_0_MS + first * QUARTER_MS,
            register_start_wh=registers_wh[first],
        )
        if recorded.isdisjoint(range(first, stop)):
            world.submit(report)
            recorded.update(range(first, stop))
        else:
            world.refuses(SubmitReadings((report,)), "interval_already_reported", by=ORACLE)
    check_energy_conserved(world.state)
    for index in range(60):
        record = find_report_at(world.state, meter.meter_id, PRODUCTION, DAY_0_MS + index * QUARTER_MS)
        assert (record is not None) == (index in recorded)
        if record is not None:
            assert record.values_wh[(DAY_0_MS + index * QUARTER_MS - record.start_ms) // QUARTER_MS] == values_wh[index]
