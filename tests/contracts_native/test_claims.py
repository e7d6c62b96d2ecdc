"""A watt-hour is claimed once; an hourly claim never goes beyond what its beneficiary's meter recorded."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from contracts_native import matching
from contracts_native.claims import (
    SCORE_SCALE,
    ClaimEnergy,
    ClaimStatus,
    EnergyClaimed,
    compute_matching_score,
    get_claim,
)
from contracts_native.lots import SliceRef, TransferEnergy, get_slices
from contracts_native.matching import CLAIMED
from contracts_native.sites import Technology
from contracts_native.slices import SliceStatus
from ledger.errors import Rejected, RuleViolated
from ledger.parameters import Parameters
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    DAY_0_MS,
    HOUR_MS,
    QUARTER_MS,
    STRANGER,
    World,
    check_energy_conserved,
)
from tests.contracts_native.trade import make_market


def test_an_hourly_claim_cancels_slices_against_the_same_interval() -> None:
    market = make_market()
    first, second = market.buy(100, 200)
    market.world.consume(market.consumer, 60, 500)
    payload = market.make_claim(SliceRef(first, 0, 60), SliceRef(second, 0, 200))
    applied = market.world.apply(payload, by=BOB)
    claim_id = applied.make_id("claim")
    claim = get_claim(market.world.state, claim_id)
    assert (claim.wh, claim.is_hourly, claim.status) == (260, True, ClaimStatus.CLAIMED)
    assert (claim.claimant, claim.beneficiary, claim.statement) == (BOB.address, BOB.address, payload.statement)
    assert applied.all_of(EnergyClaimed)[0] == EnergyClaimed(
        claim_id, first, 0, 60, BOB.address, BOB.address, True, market.consumer.meter_id
    )
    assert [(one.end_wh, one.status, one.reference) for one in get_slices(market.world.state, first)] == [
        (60, SliceStatus.CLAIMED, claim_id),
        (100, SliceStatus.ACTIVE, b""),
    ]
    assert market.list_claimed() == (60, 200)
    assert check_energy_conserved(market.world.state)[SliceStatus.CLAIMED] == 260


def test_a_volumetric_claim_needs_no_consumption_and_says_so() -> None:
    market = make_market(zones=("FR", "DE-LU"))
    (lot,) = market.buy(100)
    applied = market.world.apply(market.make_claim(SliceRef(lot, 0, 100), hourly=False, beneficiary=CAROL), by=BOB)
    event = applied.one(EnergyClaimed)
    assert (event.is_hourly, event.consumption_meter, event.beneficiary) == (False, None, CAROL.address)
    assert not get_claim(market.world.state, event.claim).is_hourly


@pytest.mark.parametrize("hourly", [True, False])
def test_a_watt_hour_is_claimed_once_whoever_claims_for_whom(hourly: bool) -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.world.consume(market.consumer, 1_000)
    market.world.apply(market.make_claim(SliceRef(lot, 0, 60)), by=BOB)
    beneficiary = BOB if hourly else CAROL
    again = market.make_claim(SliceRef(lot, 59, 61), hourly=hourly, beneficiary=beneficiary)
    market.world.refuses(again, "slice_already_claimed", by=BOB)
    twice = market.make_claim(SliceRef(lot, 60, 80), SliceRef(lot, 79, 90), hourly=hourly, beneficiary=beneficiary)
    market.world.refuses(twice, "slice_already_claimed", by=BOB)
    market.world.refuses(market.make_claim(SliceRef(lot, 60, 70), hourly=False), "slice_not_held", by=ALICE)


def test_consumption_is_not_exceeded_by_one_claim_or_by_many() -> None:
    market = make_market()
    first, second = market.buy(100, 100)
    market.world.consume(market.consumer, 50, 80)
    market.world.refuses(market.make_claim(SliceRef(first, 0, 51)), "consumption_exceeded", by=BOB)
    market.world.apply(market.make_claim(SliceRef(first, 0, 30)), by=BOB)
    market.world.refuses(market.make_claim(SliceRef(first, 30, 51)), "consumption_exceeded", by=BOB)
    halves = market.make_claim(SliceRef(second, 0, 40), SliceRef(second, 40, 81))
    market.world.refuses(halves, "consumption_exceeded", by=BOB)
    market.world.apply(market.make_claim(SliceRef(first, 30, 50), SliceRef(second, 0, 80)), by=BOB)
    assert market.list_claimed() == (50, 80)
    check_energy_conserved(market.world.state)


def test_a_claim_of_an_interval_with_no_consumption_record_is_refused() -> None:
    market = make_market()
    first, second = market.buy(100, 100)
    market.world.refuses(market.make_claim(SliceRef(first, 0, 1)), "consumption_not_recorded", by=BOB)
    market.world.consume(market.consumer, 50)
    market.world.refuses(market.make_claim(SliceRef(second, 0, 1)), "consumption_not_recorded", by=BOB)


def test_a_longer_consumption_interval_encloses_shorter_lots() -> None:
    market = make_market(consumption_s=3_600)
    lots = market.buy(100, 100, 100, 100, 100)
    market.world.consume(market.consumer, 250)
    market.world.apply(market.make_claim(SliceRef(lots[0], 0, 100), SliceRef(lots[3], 0, 100)), by=BOB)
    market.world.refuses(market.make_claim(SliceRef(lots[1], 0, 51)), "consumption_exceeded", by=BOB)
    market.world.apply(market.make_claim(SliceRef(lots[1], 0, 50)), by=BOB)
    market.world.refuses(market.make_claim(SliceRef(lots[4], 0, 1)), "consumption_not_recorded", by=BOB)
    assert market.list_claimed() == (250,)


def test_shorter_consumption_intervals_of_the_same_period_are_filled_in_order() -> None:
    market = make_market(production_s=3_600)
    (lot,) = market.buy(1_000)
    market.world.consume(market.consumer, 100, 0)
    market.world.consume(market.consumer, 300, 50, 999)
    market.world.apply(market.make_claim(SliceRef(lot, 0, 250), SliceRef(lot, 250, 410)), by=BOB)
    assert market.list_claimed() == (100, 0)
    assert market.list_claimed(DAY_0_MS + 2 * QUARTER_MS) == (300, 10, 0)
    market.world.refuses(market.make_claim(SliceRef(lot, 410, 451)), "consumption_exceeded", by=BOB)
    market.world.apply(market.make_claim(SliceRef(lot, 410, 450)), by=BOB)
    assert market.list_claimed(DAY_0_MS + 2 * QUARTER_MS) == (300, 50, 0), "the next hour is another period"
    check_energy_conserved(market.world.state)


def test_a_period_without_any_consumption_record_is_refused() -> None:
    market = make_market(production_s=3_600)
    first, second = market.buy(1_000, 1_000)
    market.world.refuses(market.make_claim(SliceRef(first, 0, 1)), "consumption_not_recorded", by=BOB)
    market.world.consume(market.consumer, 100, start_ms=DAY_0_MS + 2 * QUARTER_MS)
    market.world.apply(market.make_claim(SliceRef(first, 0, 100)), by=BOB)
    market.world.refuses(market.make_claim(SliceRef(second, 0, 1)), "consumption_not_recorded", by=BOB)


def test_a_claim_fills_a_limited_number_of_consumption_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    market = make_market(production_s=3_600)
    (lot,) = market.buy(400)
    market.world.consume(market.consumer, 100, 100, 100, 100)
    monkeypatch.setattr(matching, "PERIOD_PARTS_MAX", 2)
    market.world.refuses(market.make_claim(SliceRef(lot, 0, 201)), "claim_too_fragmented", by=BOB)
    market.world.apply(market.make_claim(SliceRef(lot, 0, 200)), by=BOB)


def test_a_lot_longer_than_the_matching_period_is_not_matched() -> None:
    market = make_market(production_s=3_600, parameters=Parameters(matching_period_s=1_800))
    (lot,) = market.buy(1_000)
    market.world.consume(market.consumer, 100, 100, 100, 100)
    market.world.refuses(market.make_claim(SliceRef(lot, 0, 1)), "consumption_not_recorded", by=BOB)


def test_lots_across_two_consumption_intervals_are_matched_by_the_period() -> None:
    market = make_market(production_s=600)
    lots = market.buy(100, 100, 100)
    market.world.consume(market.consumer, 40, 50, 0, 0)
    market.world.apply(market.make_claim(SliceRef(lots[1], 0, 90)), by=BOB)
    assert market.list_claimed() == (40, 50, 0, 0)


def test_quarantined_consumption_is_not_claimed_against() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.world.consume(market.consumer, 1_000_000, 20)
    market.world.refuses(market.make_claim(SliceRef(lot, 0, 1)), "consumption_quarantined", by=BOB)
    by_period = make_market(production_s=3_600)
    (lot,) = by_period.buy(100)
    by_period.world.consume(by_period.consumer, 1_000_000, 20)
    by_period.world.refuses(by_period.make_claim(SliceRef(lot, 0, 21)), "consumption_exceeded", by=BOB)
    by_period.world.apply(by_period.make_claim(SliceRef(lot, 0, 20)), by=BOB)
    assert by_period.list_claimed() == (0, 20)


@pytest.mark.parametrize(
    ("zones", "allowed"),
    [(("DE-LU", "DE-LU"), True), (("FR", "DE-LU"), True), (("DE-LU", "FR"), False), (("NL", "DE-LU"), False)],
)
def test_zone_pairs_are_allowed_one_way(zones: tuple[str, str], allowed: bool) -> None:
    market = make_market(zones=zones, parameters=Parameters(zone_pairs=(("FR", "DE-LU"),)))
    (lot,) = market.buy(100)
    market.world.consume(market.consumer, 100)
    payload = market.make_claim(SliceRef(lot, 0, 100))
    if allowed:
        market.world.apply(payload, by=BOB)
    else:
        market.world.refuses(payload, "zone_pair_not_allowed", by=BOB)


def test_lots_lie_within_the_period_of_the_claim() -> None:
    market = make_market()
    first, second = market.buy(100, 100)
    payload = market.make_claim(SliceRef(first, 0, 1), SliceRef(second, 0, 1), hourly=False)
    late = replace(payload, period_start_ms=DAY_0_MS + 1)
    market.world.refuses(late, "claim_outside_period", by=BOB)
    early = replace(payload, period_end_ms=DAY_0_MS + 2 * QUARTER_MS - 1)
    market.world.refuses(early, "claim_outside_period", by=BOB)
    empty = replace(payload, period_end_ms=DAY_0_MS)
    market.world.refuses(empty, "claim_period_empty", by=BOB)
    market.world.apply(replace(payload, period_end_ms=DAY_0_MS + 2 * QUARTER_MS), by=BOB)


def test_a_statement_number_is_used_once_for_a_beneficiary() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    payload = market.make_claim(SliceRef(lot, 0, 10), hourly=False)
    market.world.apply(payload, by=BOB)
    again = replace(payload, slices=(SliceRef(lot, 10, 20),))
    market.world.refuses(again, "statement_already_used", by=BOB)
    market.world.apply(replace(again, beneficiary=CAROL.address), by=BOB)


def test_the_consumption_meter_is_the_beneficiarys_and_consumes() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.world.consume(market.consumer, 100)
    payload = market.make_claim(SliceRef(lot, 0, 10))
    for_carol = replace(payload, beneficiary=CAROL.address)
    market.world.refuses(for_carol, "consumption_meter_not_of_beneficiary", by=BOB)
    producing = replace(payload, beneficiary=ALICE.address, consumption_meter=market.producer.meter_id)
    market.world.refuses(producing, "meter_channel_unknown", by=BOB)
    market.world.refuses(replace(payload, consumption_meter=bytes(16)), "meter_unknown", by=BOB)


def test_a_beneficiary_is_registered_and_not_frozen() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    payload = market.make_claim(SliceRef(lot, 0, 10), hourly=False, beneficiary=STRANGER)
    market.world.refuses(payload, "participant_unknown", by=BOB)
    market.world.freeze(CAROL)
    payload = market.make_claim(SliceRef(lot, 0, 10), hourly=False, beneficiary=CAROL)
    market.world.refuses(payload, "participant_frozen", by=BOB)


def test_an_expired_lot_is_not_claimed() -> None:
    market = make_market()
    (lot,) = market.buy(100)
    market.world.time_ms = DAY_0_MS + QUARTER_MS + Parameters().lot_lifetime_s * 1_000
    market.world.refuses(market.make_claim(SliceRef(lot, 0, 10), hourly=False), "lot_expired", by=BOB)


def test_a_refused_claim_leaves_nothing_claimed() -> None:
    market = make_market()
    first, second = market.buy(100, 100)
    market.world.consume(market.consumer, 100, 10)
    market.world.refuses(
        market.make_claim(SliceRef(first, 0, 100), SliceRef(second, 0, 11)), "consumption_exceeded", by=BOB
    )
    assert market.list_claimed() == (0, 0)
    assert CLAIMED.find(market.world.state, market.consumer.meter_id, DAY_0_MS) is None


def test_a_producer_claims_its_own_use_at_home() -> None:
    world = World()
    meter = world.register_meter(ALICE, world.register_site(ALICE, technology=Technology.WIND))
    (lot,) = world.produce(meter, 100)
    world.consume(meter, 100)
    payload = ClaimEnergy(
        (SliceRef(lot, 0, 100),), ALICE.address, "", DAY_0_MS, DAY_0_MS + HOUR_MS, "1", meter.meter_id
    )
    world.apply(payload, by=ALICE)


def test_an_unknown_claim_is_named_so() -> None:
    with pytest.raises(RuleViolated, match="claim_unknown"):
        get_claim(World().state, bytes(16))


def test_a_matching_score_counts_no_more_than_was_consumed() -> None:
    assert compute_matching_score([100, 100], [100, 100]) == SCORE_SCALE
    assert compute_matching_score([100, 100], [200, 0]) == SCORE_SCALE // 2
    assert compute_matching_score([300], [100]) == 3_333
    assert compute_matching_score([0], [0]) == SCORE_SCALE


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("production_s", [300, 900, 3_600])
def test_random_claims_and_transfers_conserve_every_watt_hour(seed: int, production_s: int) -> None:
    random = Random(seed)
    market = make_market(production_s=production_s)
    count = 4 * 3_600 // production_s
    lots = market.buy(*[random.randrange(1, production_s) for _ in range(count)])
    market.world.consume(market.consumer, *[random.randrange(800) for _ in range(16)])
    claimed_wh = 0
    for _ in range(40):
        refs = []
        for _ in range(random.randrange(1, 4)):
            lot = random.choice(lots)
            whole = random.choice(get_slices(market.world.state, lot))
            first_wh = random.randrange(whole.first_wh, whole.end_wh)
            refs.append(SliceRef(lot, first_wh, random.randrange(first_wh, whole.end_wh) + 1))
        try:
            if random.random() < 0.3:
                market.world.apply(TransferEnergy(CAROL.address, tuple(refs), ""), by=BOB)
            else:
                market.world.apply(market.make_claim(*refs), by=BOB)
                claimed_wh += sum(ref.end_wh - ref.first_wh for ref in refs)
        except Rejected as error:
            known = {"slice_already_claimed", "slice_not_held", "consumption_exceeded"}
            if error.reason not in known:
                raise
        assert check_energy_conserved(market.world.state)[SliceStatus.CLAIMED] == claimed_wh
    assert claimed_wh > 0
    total = sum(sum(claimed.wh) for _, claimed in CLAIMED.scan(market.world.state))
    assert total == claimed_wh
