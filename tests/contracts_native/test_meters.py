"""Meters are registered once, at a site of their utility, with a key that nobody else has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native.meters import (
    Channel,
    ChannelSpec,
    MeterRegistered,
    MeterStatus,
    RegisterMeter,
    compute_meter_id,
    find_channel,
    get_meter,
    is_valid_meter_key,
)
from contracts_native.sites import Technology
from ledger.errors import RuleViolated
from ledger.primitives import MeterKey
from tests.contracts_native.harness import ALICE, BOB, DAY_0_MS, RIVAL, UTILITY, World, compute_meter_key

SPECS = (ChannelSpec(Channel.PRODUCTION, 10_000, 900), ChannelSpec(Channel.CONSUMPTION, 20_000, 3_600))
NOT_A_CURVE_POINT = MeterKey(b"\x02" + bytes(31) + b"\x07")
SMALL_ORDER_POINT = MeterKey(b"\x01" + bytes(31))


def make_key(name: str, scheme: str = "ed25519") -> MeterKey:
    return compute_meter_key(name.encode().ljust(32), scheme)


def make_registration(world: World, technology: Technology = Technology.SOLAR) -> RegisterMeter:
    site = world.register_site(ALICE, technology=technology)
    return RegisterMeter(site, "M-1", make_key("one"), SPECS, DAY_0_MS)


@pytest.mark.parametrize("scheme", ["ed25519", "p256"])
def test_meter_is_registered_active_with_both_channels(scheme: str) -> None:
    world = World()
    payload = replace(make_registration(world), key=make_key("one", scheme))
    applied = world.apply(payload, by=UTILITY, cosigners=[ALICE])
    meter_id = compute_meter_id(UTILITY.address, "M-1")
    assert applied.one(MeterRegistered).meter == meter_id
    meter = get_meter(world.state, meter_id)
    assert meter.status is MeterStatus.ACTIVE
    assert find_channel(meter, Channel.CONSUMPTION) == SPECS[1]
    assert find_channel(replace(meter, channels=SPECS[:1]), Channel.CONSUMPTION) is None


def test_meter_needs_the_site_owners_signature() -> None:
    world = World()
    payload = make_registration(world)
    world.refuses(payload, "owner_countersignature_missing", by=UTILITY)
    world.refuses(payload, "owner_countersignature_missing", by=UTILITY, cosigners=[BOB])


def test_only_the_sites_own_utility_registers_a_meter_there() -> None:
    world = World()
    payload = make_registration(world)
    world.refuses(payload, "site_of_another_utility", by=RIVAL, cosigners=[ALICE])
    world.refuses(payload, "role_missing", by=ALICE)
    world.refuses(replace(payload, site=bytes(16)), "site_unknown", by=UTILITY, cosigners=[ALICE])


def test_a_serial_is_registered_once_for_each_utility() -> None:
    world = World()
    payload = make_registration(world)
    world.apply(payload, by=UTILITY, cosigners=[ALICE])
    again = replace(payload, key=make_key("two"))
    world.refuses(again, "meter_already_registered", by=UTILITY, cosigners=[ALICE])
    at_rival = replace(again, site=world.register_site(BOB, utility=RIVAL))
    world.apply(at_rival, by=RIVAL, cosigners=[BOB])


def test_a_key_speaks_for_one_meter() -> None:
    world = World()
    payload = make_registration(world)
    world.apply(payload, by=UTILITY, cosigners=[ALICE])
    world.refuses(replace(payload, serial="M-2"), "meter_key_already_used", by=UTILITY, cosigners=[ALICE])


@pytest.mark.parametrize("key", [NOT_A_CURVE_POINT, SMALL_ORDER_POINT, MeterKey(b"\x05" + bytes(32))])
def test_a_key_that_cannot_sign_is_refused(key: MeterKey) -> None:
    world = World()
    assert not is_valid_meter_key(key)
    payload = replace(make_registration(world), key=key)
    world.refuses(payload, "meter_key_invalid", by=UTILITY, cosigners=[ALICE])


def test_channels_are_named_once_and_report_in_known_lengths() -> None:
    world = World()
    payload = make_registration(world)
    twice = replace(payload, channels=(SPECS[0], SPECS[0]))
    world.refuses(twice, "channel_named_twice", by=UTILITY, cosigners=[ALICE])
    odd = replace(payload, channels=(replace(SPECS[0], interval_s=901),))
    world.refuses(odd, "interval_length_not_allowed", by=UTILITY, cosigners=[ALICE])
    none = replace(payload, channels=())
    world.refuses(none, "array_length_out_of_range", by=UTILITY, cosigners=[ALICE])


def test_a_site_cannot_produce_more_than_it_is() -> None:
    world = World()
    payload = make_registration(world)
    too_large = replace(payload, channels=(replace(SPECS[0], capacity_w=10_001),))
    world.refuses(too_large, "channel_capacity_above_site", by=UTILITY, cosigners=[ALICE])
    at_load = make_registration(world, Technology.LOAD)
    world.refuses(at_load, "load_cannot_produce", by=UTILITY, cosigners=[ALICE])
    world.apply(replace(at_load, channels=SPECS[1:]), by=UTILITY, cosigners=[ALICE])


def test_a_meter_is_not_older_than_its_site() -> None:
    world = World()
    payload = replace(make_registration(world), commissioned_ms=DAY_0_MS - 1)
    world.refuses(payload, "meter_commissioned_before_site", by=UTILITY, cosigners=[ALICE])


def test_an_unknown_meter_is_named_so() -> None:
    with pytest.raises(RuleViolated, match="meter_unknown"):
        get_meter(World().state, bytes(16))
