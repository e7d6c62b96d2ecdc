"""Traces, slices, balances and claims: every answer is what the lots say, in pages that together are the whole."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest

from contracts_native.lots import SliceRef
from contracts_native.meters import Channel
from contracts_native.readings import Flag
from contracts_native.sites import Technology
from contracts_native.slices import SliceStatus
from ledger.errors import Rejected
from ledger.fields import Json
from ledger.parameters import Parameters
from ledger.primitives import format_address
from node.queries import chain, consumption, energy, readings, sites, trace, trace_lot
from node.queries.lot_ids import format_lot_id, parse_lot_id
from node.queries.view import JsonObject
from tests.contracts_native.harness import ALICE, BOB, CAROL, DAY_0_MS, DAY_MS, HOUR_MS, QUARTER_MS
from tests.contracts_native.trade import make_market
from tests.node.query_answers import Answer, claim, move, number, part, read_all, rows, text
from tests.node.query_chain import PEOPLE, QueryChain, add_plants, get_beneficiary, list_slices, trade_at_random

# — trace —


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_a_source_sum_to_what_it_minted(seed: int) -> None:
    world, random_ = QueryChain(), random.Random(seed)
    meters, lots = add_plants(world, random_)
    trade_at_random(world, lots, random_, steps=30)
    for meter in meters:
        answer = trace.trace_source(world.view, meter=meter.meter_id.hex())
        found = rows(answer, "rows")
        assert answer["holds"] is True
        assert answer["metered_wh"] == answer["minted_wh"] == sum(number(row["wh"]) for row in found)
        expected: Counter[str] = Counter()
        for lot, one in list_slices(world, lots):
            if lot.meter == meter.meter_id:
                is_claimed = one.status is SliceStatus.CLAIMED
                who = get_beneficiary(world, one) if is_claimed else one.holder
                expected[format_address(who)] += one.end_wh - one.first_wh
        assert {str(row["participant"]): row["wh"] for row in found} == expected
        assert found == sorted(found, key=lambda row: -number(row["wh"]))


@pytest.mark.parametrize("seed", range(3))
def test_a_holders_sources_by_hour_are_the_lots_it_has(seed: int) -> None:
    world, random_ = QueryChain(), random.Random(100 + seed)
    _, lots = add_plants(world, random_)
    trade_at_random(world, lots, random_, steps=30)
    from_ms, until_ms = DAY_0_MS + 8 * HOUR_MS, DAY_0_MS + 27 * HOUR_MS
    for person in PEOPLE:
        answer = trace.trace_holder(world.view, participant=text(person), from_ms=from_ms, until_ms=until_ms)
        found: Counter[tuple[str, int, str]] = Counter()
        for source in rows(answer, "sources"):
            for hour in rows(source, "hours"):
                for status in ("held_wh", "claimed_wh"):
                    found[str(source["meter"]), number(hour["start_ms"]), status] += number(hour[status])
        expected: Counter[tuple[str, int, str]] = Counter()
        for lot, one in list_slices(world, lots):
            is_claimed = one.status is SliceStatus.CLAIMED
            who = get_beneficiary(world, one) if is_claimed else one.holder
            if who == person.address and from_ms <= lot.start_ms < until_ms:
                status = "claimed_wh" if is_claimed else "held_wh"
                hour_ms = lot.start_ms - lot.start_ms % HOUR_MS
                found_at = lot.meter.hex(), hour_ms, status
                expected[found_at] += one.end_wh - one.first_wh
        assert +found == expected
        assert answer["wh"] == sum(expected.values())


def test_a_site_is_traced_over_all_its_meters() -> None:
    world = QueryChain()
    site = world.register_site(ALICE)
    for wh in (100, 30):
        world.produce(world.register_meter(ALICE, site), wh)
    answer = trace.trace_source(world.view, site=site.hex())
    assert len(rows(answer, "meters")) == 2
    assert (answer["minted_wh"], answer["holds"]) == (130, True)
    assert [row["participant"] for row in rows(answer, "rows")] == [text(ALICE)]


def test_what_was_not_minted_is_told_beside_the_rows() -> None:
    world = QueryChain()
    meter = world.add_producer(ALICE)
    world.produce(meter, 100, 2_751)
    world.submit(meter.report(Channel.PRODUCTION, [40], flag=Flag.ESTIMATED))
    answer = trace.trace_source(world.view, meter=meter.meter_id.hex())
    fates = [answer[name] for name in ("metered_wh", "minted_wh", "quarantined_wh", "not_minted_wh")]
    assert fates == [2_891, 100, 2_751, 40]
    assert answer["holds"] is True


def test_a_period_is_widened_to_whole_hours_and_the_answer_says_so() -> None:
    world = QueryChain()
    meter = world.add_producer(ALICE)
    world.produce(meter, *[10] * 12)
    answer = trace.trace_source(
        world.view,
        meter=meter.meter_id.hex(),
        from_ms=DAY_0_MS + HOUR_MS + QUARTER_MS,
        until_ms=DAY_0_MS + HOUR_MS + 2 * QUARTER_MS,
    )
    assert (answer["from_ms"], answer["until_ms"]) == (DAY_0_MS + HOUR_MS, DAY_0_MS + 2 * HOUR_MS)
    assert answer["minted_wh"] == 40
    assert answer["holds"] is True


def test_matching_score_is_hourly_claims_over_consumption() -> None:
    world = QueryChain()
    plant, load = world.add_producer(ALICE), world.add_consumer(BOB)
    lots = world.produce(plant, 100, 100)
    world.consume(load, 90, 210)
    for lot in lots:
        move(world, lot, 0, 100, by=ALICE, to=BOB)
    claim(world, lots[0], 0, 60, by=BOB, meter=load.meter_id)
    claim(world, lots[1], 0, 90, by=BOB, meter=load.meter_id)
    claim(world, lots[1], 90, 100, by=BOB)  # volumetric: counts as claimed, not in the score
    answer = trace.trace_holder(world.view, participant=text(BOB))
    consumption = part(answer, "consumption")
    assert (consumption["consumed_wh"], consumption["claimed_hourly_wh"]) == (300, 150)
    assert consumption["matching_score_per_mille"] == 500
    assert (answer["held_wh"], answer["claimed_wh"]) == (40, 160)
    assert rows(consumption, "hours") == [{"start_ms": DAY_0_MS, "consumed_wh": 300, "claimed_wh": 150}]


def test_consumption_is_that_of_all_meters_as_corrected_without_what_is_quarantined() -> None:
    world = QueryChain()
    market = make_market(world=world)
    load = world.add_consumer(BOB)
    (lot,) = market.buy(60)
    world.consume(market.consumer, 100, 2_751, 300, 40, 50)
    world.consume(market.consumer, 7, start_ms=DAY_0_MS + 3 * HOUR_MS + QUARTER_MS)
    world.consume(load, *range(1, 13))
    market.claim(SliceRef(lot, 0, 60))
    market.correct_consumption(90)
    expected: dict[int, list[int]] = {}
    for meter in (market.consumer, load):
        answer = readings.reading_list(world.view, meter=meter.meter_id.hex(), channel=Channel.CONSUMPTION)
        for row in rows(answer, "readings"):
            if row["state"] == "recorded":
                sums = expected.setdefault(number(row["start_ms"]) // HOUR_MS, [0, 0])
                sums[0] += number(row["wh"])
                sums[1] += number(row["claimed_wh"])
    assert expected[DAY_0_MS // HOUR_MS] == [90 + 300 + 40 + 1 + 2 + 3 + 4, 60]
    for first, stop in ((0, 4), (0, 1), (1, 4), (2, 3), (1, 2)):
        from_ms, until_ms = DAY_0_MS + first * HOUR_MS, DAY_0_MS + stop * HOUR_MS
        traced = trace.trace_holder(world.view, participant=text(BOB), from_ms=from_ms, until_ms=until_ms)
        found = part(traced, "consumption")
        wanted = {hour: sums for hour, sums in expected.items() if from_ms <= hour * HOUR_MS < until_ms}
        assert {
            number(one["start_ms"]) // HOUR_MS: [one["consumed_wh"], one["claimed_wh"]] for one in rows(found, "hours")
        } == wanted
        assert found["consumed_wh"] == sum(consumed for consumed, _ in wanted.values())


def test_a_period_that_is_too_much_to_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = QueryChain()
    meter, load = world.add_producer(ALICE), world.add_consumer(BOB)
    world.produce(meter, *[10] * 192)
    world.consume(load, 10, 10)
    source, from_ms = meter.meter_id.hex(), DAY_0_MS + DAY_MS
    monkeypatch.setattr(trace, "ENTRIES_READ_MAX", 1)
    monkeypatch.setattr(consumption, "INTERVALS_READ_MAX", 1)
    with pytest.raises(Rejected, match="period_too_long"):
        trace.trace_source(world.view, meter=source, until_ms=DAY_0_MS + 2 * DAY_MS)
    with pytest.raises(Rejected, match="period_too_long"):
        trace.trace_holder(world.view, participant=text(ALICE))
    with pytest.raises(Rejected, match="period_too_long"):
        trace.trace_holder(world.view, participant=text(BOB))
    assert trace.trace_source(world.view, meter=source, from_ms=from_ms)["minted_wh"] == 960
    assert trace.trace_holder(world.view, participant=text(ALICE), from_ms=from_ms)["wh"] == 960


def test_who_consumed_nothing_has_no_score() -> None:
    answer = trace.trace_holder(QueryChain().view, participant=text(BOB))
    assert part(answer, "consumption")["matching_score_per_mille"] is None
    assert rows(answer, "sources") == []


def test_a_lots_story_names_each_transaction() -> None:
    world = QueryChain()
    lot, other = world.produce(world.add_producer(ALICE), 100, 50)
    move(world, lot, 20, 70, by=ALICE, to=BOB)
    move(world, other, 0, 50, by=ALICE, to=CAROL)
    claim_id = claim(world, lot, 30, 40, by=BOB)
    story = trace_lot.trace_lot(world.view, lot=format_lot_id(lot))
    moved, claimed = rows(story, "movements")
    assert (moved["event"], moved["first_wh"], moved["end_wh"]) == ("energy.moved", 20, 70)
    assert (moved["sender"], moved["recipient"], moved["reference"]) == (text(ALICE), text(BOB), "sale")
    assert (claimed["event"], claimed["claim"], claimed["is_hourly"]) == ("energy.claimed", claim_id.hex(), False)
    assert [chain.tx_get(world.view, tx_id=str(one["tx_id"]))["height"] for one in (moved, claimed)] == [
        world.height - 2,
        world.height,
    ]
    mint = part(story, "mint")
    assert chain.tx_get(world.view, tx_id=str(mint["tx_id"]))["height"] == mint["height"] == world.height - 3
    assert [one["wh"] for one in rows(story, "slices")] == [20, 10, 10, 30, 30]
    pages = read_all(
        lambda cursor: trace_lot.trace_lot(world.view, lot=format_lot_id(lot), limit=1, cursor=cursor), "movements"
    )
    assert pages == [moved, claimed]


# — energy —


@pytest.mark.parametrize("seed", range(2))
def test_slices_of_a_holder_in_pages_are_all_it_holds(seed: int) -> None:
    world, random_ = QueryChain(), random.Random(seed)
    _, lots = add_plants(world, random_)
    trade_at_random(world, lots, random_, steps=20)
    for person in PEOPLE:

        def ask(cursor: str | None, holder: str = text(person)) -> Answer:
            return energy.energy_slices(world.view, holder=holder, limit=7, cursor=cursor)

        found = [(row["lot"], row["first_wh"], row["end_wh"], row["status"]) for row in read_all(ask, "slices")]
        expected = [
            (format_lot_id(lot), one.first_wh, one.end_wh, one.status.value)
            for lot, one in list_slices(world, lots)
            if one.holder == person.address
        ]
        assert sorted(found) == sorted(expected)
        assert len(set(found)) == len(found)


def test_slices_are_filtered_by_source_period_and_status() -> None:
    world = QueryChain()
    solar, wind = world.add_producer(ALICE), world.add_producer(ALICE, technology=Technology.WIND, zone="FR")
    _, second = world.produce(solar, 100, 100)
    world.produce(wind, 70)
    claim(world, second, 0, 10, by=ALICE)

    def wh_of(**filters: object) -> list[Json]:
        ask = cast("Callable[..., JsonObject]", energy.energy_slices)
        return [row["wh"] for row in rows(ask(world.view, holder=text(ALICE), **filters), "slices")]

    assert sorted(map(number, wh_of())) == [10, 70, 90, 100]
    assert wh_of(technology=Technology.WIND) == wh_of(zone="FR") == [70]
    assert wh_of(status=SliceStatus.CLAIMED) == [10]
    assert wh_of(from_ms=second.start_ms) == [10, 90]
    assert sorted(map(number, wh_of(until_ms=second.start_ms))) == [70, 100]
    wind_site = str(sites.meter_get(world.view, meter=wind.meter_id.hex())["site"])
    assert wh_of(site=wind_site) == [70]


@pytest.mark.parametrize("seed", range(2))
def test_balance_is_the_sum_of_the_slices(seed: int) -> None:
    world, random_ = QueryChain(), random.Random(seed)
    _, lots = add_plants(world, random_)
    trade_at_random(world, lots, random_, steps=20)
    for person in PEOPLE:
        statuses = (
            "active",
            "reserved",
            "expired",
            "claimed",
            "claimed_for_others",
            "impaired",
            "charged",
            "withdrawn",
        )
        expected: Counter[str] = Counter({f"{status}_wh": 0 for status in statuses})
        for _, one in list_slices(world, lots):
            wh, is_claimed = one.end_wh - one.first_wh, one.status is SliceStatus.CLAIMED
            beneficiary = get_beneficiary(world, one) if is_claimed else one.holder
            if beneficiary == person.address:
                expected["claimed_wh" if is_claimed else "active_wh"] += wh
            elif one.holder == person.address:
                expected["claimed_for_others_wh"] += wh
        answer = energy.energy_balance(world.view, holder=text(person))
        assert answer == {"holder": text(person), **expected}


def test_energy_past_its_lifetime_is_expired_to_the_quarter_hour() -> None:
    world = QueryChain(Parameters(lot_lifetime_s=86_400))
    world.time_ms = DAY_0_MS + DAY_MS
    meter = world.add_producer(ALICE)
    world.produce(meter, *[10] * 8)
    world.time_ms = DAY_0_MS + DAY_MS + 6 * QUARTER_MS
    world.register_site(BOB)  # a block at the time at which six of the lots are a day old
    answer = energy.energy_balance(world.view, holder=text(ALICE))
    assert (answer["active_wh"], answer["expired_wh"]) == (20, 60)
    by_status = Counter(
        str(row["status"]) for row in rows(energy.energy_slices(world.view, holder=text(ALICE)), "slices")
    )
    assert by_status == {"expired": 6, "active": 2}


def test_a_lot_is_shown_with_both_forms_of_its_id() -> None:
    world = QueryChain()
    (lot,) = world.produce(world.add_producer(ALICE), 100)
    answer = energy.lot_get(world.view, lot=format_lot_id(lot))
    assert answer["lot"] == f"{lot.meter.hex()}:{lot.start_ms}:1"
    assert answer["lot_id"] == {"meter": lot.meter.hex(), "start_ms": lot.start_ms, "version": 1}
    assert parse_lot_id(str(answer["lot"])) == lot
    assert [one["holder"] for one in rows(answer, "slices")] == [text(ALICE)]


def test_claims_are_listed_by_beneficiary_claimant_and_id() -> None:
    world = QueryChain()
    (lot,) = world.produce(world.add_producer(ALICE), 100)
    move(world, lot, 50, 100, by=ALICE, to=BOB)
    ids = [claim(world, lot, 0, 10, by=ALICE), claim(world, lot, 50, 60, by=BOB), claim(world, lot, 10, 20, by=ALICE)]
    shown = energy.claim_get(world.view, claim=ids[1].hex())
    assert (shown["wh"], shown["is_hourly"], shown["beneficiary"]) == (10, False, text(BOB))
    assert [one["lot"] for one in rows(shown, "slices")] == [format_lot_id(lot)]

    def list_ids(**filters: str) -> list[Json]:
        ask = cast("Callable[..., JsonObject]", energy.claim_list)
        return [
            row["claim"]
            for row in read_all(lambda cursor: ask(world.view, limit=1, cursor=cursor, **filters), "claims")
        ]

    assert list_ids(beneficiary=text(ALICE)) == list_ids(claimant=text(ALICE)) == [ids[0].hex(), ids[2].hex()]
    assert list_ids() == sorted(one.hex() for one in ids)
    assert list_ids(beneficiary=text(CAROL)) == []
