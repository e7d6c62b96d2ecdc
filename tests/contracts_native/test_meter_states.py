"""A meter is suspended, resumed, retired and given new keys, from a date on and never before what it reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contracts_native.meters import (
    METER_TRANSITIONS,
    METERS,
    Channel,
    MeterKeyRotated,
    MeterStatus,
    MeterStatusChanged,
    ResumeMeter,
    RetireMeter,
    RotateMeterKey,
    SuspendMeter,
    get_last_end_ms,
    get_meter,
)
from contracts_native.readings import SubmitReadings
from ledger.errors import Rejected
from ledger.primitives import MeterKey
from ledger.transaction import Payload
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    DAY_0_MS,
    NOW_MS,
    ORACLE,
    QUARTER_MS,
    RIVAL,
    UTILITY,
    Person,
    SigningMeter,
    World,
    check_energy_conserved,
    compute_meter_key,
)

PRODUCTION = Channel.PRODUCTION
HOUR_1, HOUR_2, HOUR_3 = (DAY_0_MS + hours * 4 * QUARTER_MS for hours in (1, 2, 3))


def make_world() -> tuple[World, SigningMeter]:
    world = World()
    return world, world.add_producer(ALICE)


def suspend(meter: SigningMeter, from_ms: int = HOUR_1) -> SuspendMeter:
    return SuspendMeter(meter.meter_id, from_ms, "seal was broken")


def report_at(meter: SigningMeter, start_ms: int, count: int = 4, *, register_wh: int = 5_000) -> SubmitReadings:
    values_wh = (0,) * count
    return SubmitReadings((meter.report(PRODUCTION, values_wh, start_ms=start_ms, register_start_wh=register_wh),))


def rotation(meter: SigningMeter, name: str, from_ms: int = HOUR_1) -> RotateMeterKey:
    return RotateMeterKey(meter.meter_id, compute_meter_key(name.encode().ljust(32), "ed25519"), from_ms)


def test_no_interval_of_a_suspended_time_counts_and_every_other_does() -> None:
    world, meter = make_world()
    applied = world.apply(suspend(meter), by=UTILITY)
    change = MeterStatusChanged(meter.meter_id, MeterStatus.SUSPENDED, HOUR_1, "seal was broken")
    assert applied.one(MeterStatusChanged) == change
    world.refuses(report_at(meter, HOUR_1), "meter_not_active", by=ORACLE)
    world.refuses(report_at(meter, HOUR_1 - QUARTER_MS, 2), "meter_not_active", by=ORACLE)
    world.apply(ResumeMeter(meter.meter_id, HOUR_2), by=UTILITY)
    for start_ms in (HOUR_1 - QUARTER_MS, HOUR_1, HOUR_2 - QUARTER_MS):
        world.refuses(report_at(meter, start_ms, 2), "meter_not_active", by=ORACLE)
    world.refuses(report_at(meter, DAY_0_MS, 16), "meter_not_active", by=ORACLE)
    world.apply(report_at(meter, HOUR_2), by=ORACLE)
    world.apply(report_at(meter, DAY_0_MS), by=ORACLE)
    check_energy_conserved(world.state)


def test_pauses_add_up() -> None:
    world, meter = make_world()
    for from_ms, until_ms in ((HOUR_1, HOUR_1 + QUARTER_MS), (HOUR_2, HOUR_2 + QUARTER_MS)):
        world.apply(suspend(meter, from_ms), by=UTILITY)
        world.apply(ResumeMeter(meter.meter_id, until_ms), by=UTILITY)
    for start_ms in (HOUR_1, HOUR_2):
        world.refuses(report_at(meter, start_ms, 1), "meter_not_active", by=ORACLE)
    world.apply(report_at(meter, HOUR_2 + QUARTER_MS), by=ORACLE)
    world.apply(report_at(meter, HOUR_1 + QUARTER_MS, 3), by=ORACLE)
    world.apply(report_at(meter, DAY_0_MS, 4), by=ORACLE)


def test_a_retired_meter_still_tells_what_it_measured_before() -> None:
    world, meter = make_world()
    world.apply(suspend(meter), by=UTILITY)
    world.apply(RetireMeter(meter.meter_id, "replaced"), by=UTILITY)
    world.refuses(report_at(meter, HOUR_1), "meter_not_active", by=ORACLE)
    world.apply(report_at(meter, DAY_0_MS), by=ORACLE)


def test_changes_are_dated_after_the_last_reading_and_not_ahead() -> None:
    world, meter = make_world()
    world.apply(report_at(meter, DAY_0_MS, 8), by=ORACLE)
    assert get_last_end_ms(world.state, meter.meter_id) == HOUR_2
    world.refuses(suspend(meter, HOUR_2 - 1), "meter_change_before_last_reading", by=UTILITY)
    early = rotation(meter, "two", HOUR_2 - 1)
    world.refuses(early, "meter_change_before_last_reading", by=UTILITY, cosigners=[ALICE])
    world.refuses(suspend(meter, NOW_MS + 1), "meter_change_in_the_future", by=UTILITY)
    world.apply(suspend(meter, HOUR_2), by=UTILITY)
    world.refuses(ResumeMeter(meter.meter_id, HOUR_2), "meter_change_before_the_last", by=UTILITY)
    world.apply(ResumeMeter(meter.meter_id, HOUR_3), by=UTILITY)
    world.refuses(suspend(meter, HOUR_3), "meter_change_before_the_last", by=UTILITY)


def test_each_key_signs_for_its_own_time_only() -> None:
    world, meter = make_world()
    old = SigningMeter(UTILITY.address, meter.serial, interval_s=900, scheme="ed25519")
    world.apply(report_at(meter, HOUR_1 - QUARTER_MS, 1), by=ORACLE)
    new = SigningMeter(RIVAL.address, "new key", interval_s=900, scheme="p256")
    new.meter_id = meter.meter_id
    rotate = RotateMeterKey(meter.meter_id, new.key, HOUR_1)
    applied = world.apply(rotate, by=UTILITY, cosigners=[ALICE])
    assert applied.one(MeterKeyRotated) == MeterKeyRotated(meter.meter_id, new.key, HOUR_1)
    new.skip_to(10)
    old.skip_to(10)
    world.refuses(report_at(old, HOUR_1), "reading_signature_invalid", by=ORACLE)
    world.refuses(report_at(new, DAY_0_MS, 2), "reading_signature_invalid", by=ORACLE)
    world.apply(report_at(new, HOUR_1), by=ORACLE)
    old.skip_to(20)
    world.apply(report_at(old, DAY_0_MS, 3), by=ORACLE)


def test_a_report_does_not_span_two_keys() -> None:
    world, meter = make_world()
    world.apply(rotation(meter, "two"), by=UTILITY, cosigners=[ALICE])
    world.refuses(report_at(meter, HOUR_1 - QUARTER_MS, 2), "reading_spans_key_change", by=ORACLE)
    world.apply(report_at(meter, HOUR_1 - QUARTER_MS, 1), by=ORACLE)


def test_keys_rotate_forward_only_and_belong_to_one_meter() -> None:
    world, meter = make_world()
    other = world.add_producer(BOB)
    first_key = meter.key
    world.apply(rotation(meter, "two"), by=UTILITY, cosigners=[ALICE])
    world.refuses(rotation(meter, "three"), "meter_change_before_the_last", by=UTILITY, cosigners=[ALICE])
    back = RotateMeterKey(meter.meter_id, first_key, HOUR_2)
    world.refuses(back, "meter_key_already_used", by=UTILITY, cosigners=[ALICE])
    world.refuses(replace(back, key=other.key), "meter_key_already_used", by=UTILITY, cosigners=[ALICE])
    world.refuses(replace(back, key=MeterKey(b"\x01" + bytes(31))), "meter_key_invalid", by=UTILITY, cosigners=[ALICE])
    world.refuses(rotation(meter, "three", HOUR_2), "owner_countersignature_missing", by=UTILITY)
    world.refuses(rotation(meter, "three", HOUR_2), "meter_of_another_utility", by=RIVAL, cosigners=[ALICE])
    world.apply(rotation(meter, "three", HOUR_2), by=UTILITY, cosigners=[ALICE])


@pytest.mark.parametrize(("person", "reason"), [(ALICE, "role_missing"), (RIVAL, "meter_of_another_utility")])
def test_only_its_utility_changes_a_meter(person: Person, reason: str) -> None:
    world, meter = make_world()
    payloads: list[Payload] = [suspend(meter), ResumeMeter(meter.meter_id, HOUR_1), RetireMeter(meter.meter_id, "x")]
    for payload in payloads:
        world.refuses(payload, reason, by=person)


ACTIONS: dict[str, Callable[[SigningMeter], Payload]] = {
    "meter.suspend": lambda meter: suspend(meter, HOUR_2),
    "meter.resume": lambda meter: ResumeMeter(meter.meter_id, HOUR_2),
    "meter.retire": lambda meter: RetireMeter(meter.meter_id, "x"),
    "meter.rotate_key": lambda meter: rotation(meter, "another", HOUR_2),
}
AFTER: dict[MeterStatus, dict[str, MeterStatus]] = {
    MeterStatus.PROPOSED: {},
    MeterStatus.ACTIVE: {"meter.suspend": MeterStatus.SUSPENDED, "meter.rotate_key": MeterStatus.ACTIVE},
    MeterStatus.SUSPENDED: {
        "meter.resume": MeterStatus.ACTIVE,
        "meter.retire": MeterStatus.RETIRED,
        "meter.rotate_key": MeterStatus.SUSPENDED,
    },
    MeterStatus.RETIRED: {},
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", MeterStatus)
def test_a_meter_goes_only_where_the_domain_lets_it(status: MeterStatus, action: str) -> None:
    world, meter = make_world()
    if status in (MeterStatus.SUSPENDED, MeterStatus.RETIRED):
        world.apply(suspend(meter), by=UTILITY)
    if status is MeterStatus.RETIRED:
        world.apply(RetireMeter(meter.meter_id, "x"), by=UTILITY)
    if status is MeterStatus.PROPOSED:  # no transaction leaves a meter proposed
        before = get_meter(world.state, meter.meter_id)
        METERS.put(world.state, meter.meter_id, value=replace(before, status=status))
        world.commit()
    wanted = AFTER[status].get(action)
    payload = ACTIONS[action](meter)
    cosigners = [ALICE] if action == "meter.rotate_key" else []
    if wanted is None:
        with pytest.raises(Rejected, match=f"meter_not_open_to_this: {meter.meter_id.hex()} is {status}"):
            world.apply(payload, by=UTILITY, cosigners=cosigners)
    else:
        world.apply(payload, by=UTILITY, cosigners=cosigners)
    assert get_meter(world.state, meter.meter_id).status is (wanted or status)


def test_the_table_says_what_was_walked() -> None:
    walked = {(status, tag): after for status, row in AFTER.items() for tag, after in row.items()}
    registered = {(MeterStatus.PROPOSED, "meter.register"): MeterStatus.ACTIVE}
    assert dict(METER_TRANSITIONS) == {**registered, **walked}
