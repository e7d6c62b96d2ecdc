"""Traces by zone, technology, site and meter, by hour and in pages; whole lists of lots and movements."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from contracts_native.amendments import AmendSite
from contracts_native.meters import Channel
from contracts_native.sites import Technology
from ledger.errors import Rejected
from ledger.primitives import format_address
from node.queries import lists, sources, trace, view
from node.queries.lot_ids import format_lot_id
from node.queries.view import JsonObject
from tests.contracts_native.harness import ALICE, BOB, DAY_0_MS, DAY_MS, HOUR_MS, QUARTER_MS, UTILITY
from tests.node.books_chain import make_books
from tests.node.query_answers import Answer, claim, move, number, part, read_all, rows, text
from tests.node.query_chain import QueryChain, add_plants, list_slices, trade_at_random


@pytest.fixture(scope="module")
def books() -> QueryChain:
    return make_books()


def test_a_zone_and_a_technology_are_traced_over_all_their_sites(books: QueryChain) -> None:
    everything = [trace.trace_source(books.view, zone=zone) for zone in ("DE-LU", "FR")]
    assert [one["minted_wh"] for one in everything] == [600, 110]
    assert all(one["holds"] is True for one in everything)
    wind = trace.trace_source(books.view, technology=Technology.WIND)
    assert {row["label"]: (row["held_wh"], row["claimed_wh"]) for row in rows(wind, "rows")} == {
        "carol": (80, 0),
        "bob": (10, 20),
    }
    assert len(everything[0]["meters"]) == 1, "a meter that only consumes is no source"
    nothing = trace.trace_source(books.view, zone="FR", technology=Technology.SOLAR)
    assert (nothing["metered_wh"], nothing["holds"], nothing["rows"]) == (0, True, [])


def test_a_source_has_to_be_named_somehow(books: QueryChain) -> None:
    with pytest.raises(Rejected, match="parameters_conflict"):
        trace.trace_source(books.view)
    with pytest.raises(Rejected, match="parameters_conflict"):
        trace.trace_holder(books.view, participant=text(BOB), site="00" * 16, meter="00" * 16)


def test_hours_of_a_source_are_complete_each_on_its_own() -> None:
    world, random_ = QueryChain(), random.Random(5)
    meters, lots = add_plants(world, random_)
    trade_at_random(world, lots, random_, steps=20)
    for meter in meters:
        source = meter.meter_id.hex()

        def ask(cursor: str | None, source: str = source) -> Answer:
            return trace.trace_source(world.view, meter=source, by=trace.RowsBy.HOUR, limit=5, cursor=cursor)

        hours = read_all(ask, "rows")
        assert all(hour["holds"] is True for hour in hours)
        assert [hour["start_ms"] for hour in hours] == sorted({number(hour["start_ms"]) for hour in hours})
        expected: dict[int, int] = {}
        for lot, one in list_slices(world, lots):
            if lot.meter == meter.meter_id:
                hour_ms = lot.start_ms - lot.start_ms % HOUR_MS
                expected[hour_ms] = expected.get(hour_ms, 0) + one.end_wh - one.first_wh
        assert {number(hour["start_ms"]): hour["minted_wh"] for hour in hours} == expected


def test_holders_of_a_source_come_in_pages_that_each_have_all_the_sums(books: QueryChain) -> None:
    def ask(cursor: str | None) -> Answer:
        answer = trace.trace_source(books.view, technology=Technology.SOLAR, limit=1, cursor=cursor)
        assert (answer["minted_wh"], answer["holds"]) == (600, True)
        return answer

    assert [row["label"] for row in read_all(ask, "rows")] == ["alice", "bob"]


@pytest.mark.parametrize("name", ["zone", "technology", "site", "meter"])
def test_a_holders_sources_can_be_narrowed(books: QueryChain, name: str) -> None:
    everything = rows(trace.trace_holder(books.view, participant=text(BOB)), "sources")
    assert len(everything) == 2
    for one in everything:
        value = Technology(str(one[name])) if name == "technology" else one[name]
        ask: Callable[..., Answer] = trace.trace_holder
        answer = ask(books.view, participant=text(BOB), **{name: value})
        assert rows(answer, "sources") == [one]
        assert answer["wh"] == one["wh"]


def test_a_holders_hours_come_in_pages_of_days() -> None:
    world = QueryChain()
    meter = world.add_producer(ALICE)
    world.produce(meter, *[10] * 96 * 3)
    whole = rows(trace.trace_holder(world.view, participant=text(ALICE)), "sources")[0]
    assert len(rows(whole, "hours")) == 72
    found: list[JsonObject] = []
    cursor: str | None = None
    for _ in range(3):
        page = trace.trace_holder(world.view, participant=text(ALICE), limit=1, cursor=cursor)
        assert page["wh"] == 2_880
        found += rows(rows(page, "sources")[0], "hours")
        cursor = None if page["next_cursor"] is None else str(page["next_cursor"])
    assert (found, cursor) == (rows(whole, "hours"), None)


def test_hours_of_consumption_come_with_the_pages_of_days_each_once() -> None:
    world = QueryChain()
    meter, load = world.add_producer(ALICE), world.add_consumer(ALICE)
    world.produce(meter, *[10] * 96 * 3)
    world.consume(load, *[20] * 96 * 5)
    whole = part(trace.trace_holder(world.view, participant=text(ALICE)), "consumption")
    assert len(rows(whole, "hours")) == 5 * 24

    def ask(cursor: str | None) -> Answer:
        answer = trace.trace_holder(world.view, participant=text(ALICE), limit=1, cursor=cursor)
        consumption = part(answer, "consumption")
        assert {**consumption, "hours": []} == {**whole, "hours": []}
        return {"hours": consumption["hours"], "next_cursor": answer["next_cursor"]}

    assert len(rows(ask(None), "hours")) == 24
    assert read_all(ask, "hours") == rows(whole, "hours")


@pytest.mark.parametrize("seed", range(4))
def test_any_period_sums_to_its_lots_whatever_stretches_of_the_index_it_cuts(seed: int) -> None:
    world, random_ = QueryChain(), random.Random(seed)
    world.time_ms = DAY_0_MS + 150 * DAY_MS
    meter = world.add_producer(ALICE)
    lots = []
    for day in range(0, 120, 6):
        lots += world.produce(meter, *[random_.randint(1, 99) for _ in range(8)], start_ms=DAY_0_MS + day * DAY_MS)
    for lot in random_.sample(lots, 40):
        move(world, lot, 0, 1, by=ALICE, to=BOB)
    for _ in range(12):
        ends = sorted(random_.sample(range(120 * 24), 2))
        from_ms, until_ms = (DAY_0_MS + hour * HOUR_MS for hour in ends)
        expected: Counter[str] = Counter()
        for lot, one in list_slices(world, lots):
            if from_ms <= lot.start_ms < until_ms:
                expected[format_address(one.holder)] += one.end_wh - one.first_wh
        source = trace.trace_source(world.view, meter=meter.meter_id.hex(), from_ms=from_ms, until_ms=until_ms)
        assert {str(row["participant"]): row["wh"] for row in rows(source, "rows")} == expected
        assert (source["minted_wh"], source["holds"]) == (expected.total(), True)
        for person in (ALICE, BOB):
            answer = trace.trace_holder(world.view, participant=text(person), from_ms=from_ms, until_ms=until_ms)
            assert answer["wh"] == expected[text(person)]
            hours = [hour for one in rows(answer, "sources") for hour in rows(one, "hours")]
            assert sum(number(hour["wh"]) for hour in hours) == expected[text(person)]


def test_a_site_counts_to_each_zone_for_its_time_there() -> None:
    world = QueryChain()
    site = world.register_site(ALICE)
    meter = world.register_meter(ALICE, site, channels=[Channel.PRODUCTION])
    world.produce(meter, *[10] * 8)
    world.apply(AmendSite(site, DAY_0_MS + 2 * HOUR_MS, zone="FR"), by=UTILITY, cosigners=[ALICE])
    world.produce(meter, *[30] * 8)
    before, after = (trace.trace_source(world.view, zone=zone) for zone in ("DE-LU", "FR"))
    assert (before["minted_wh"], after["minted_wh"]) == (80, 240)
    assert (before["holds"], after["holds"]) == (True, True)
    assert trace.trace_holder(world.view, participant=text(ALICE), zone="DE-LU")["wh"] == 80
    assert trace.trace_source(world.view, zone="FR", until_ms=DAY_0_MS + 2 * HOUR_MS)["minted_wh"] == 0


def test_sites_too_many_to_look_through_are_refused(books: QueryChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SITES_READ_MAX", 1)
    with pytest.raises(Rejected, match="sites_too_many"):
        trace.trace_source(books.view, zone="FR")


# — whole lists —


def test_every_lot_is_listed_with_what_became_of_it(books: QueryChain) -> None:
    found = read_all(lambda cursor: lists.lot_list(books.view, limit=2, cursor=cursor), "lots")
    assert sorted(number(one["wh"]) for one in found) == [50, 60, 100, 200, 300]
    for one in found:
        statuses = ("active", "reserved", "claimed", "charged", "expired", "withdrawn")
        assert sum(number(one[f"{status}_wh"]) for status in statuses) == one["wh"]
    meter = str(found[0]["meter"])
    of_meter = read_all(lambda cursor: lists.lot_list(books.view, meter=meter, limit=1, cursor=cursor), "lots")
    assert of_meter == [one for one in found if one["meter"] == meter]
    late = lists.lot_list(books.view, from_ms=DAY_0_MS + 2 * QUARTER_MS, until_ms=DAY_0_MS + 3 * QUARTER_MS)
    assert sorted(number(one["wh"]) for one in rows(late, "lots")) == [60, 300]


def test_every_movement_is_listed_once_in_the_order_of_the_chain(
    books: QueryChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows(lists.movement_list(books.view), "movements")
    assert [one["event"] for one in whole] == ["energy.moved"] * 4 + ["energy.claimed"] * 3
    assert [one["height"] for one in whole] == sorted(number(one["height"]) for one in whole)
    monkeypatch.setattr(view, "ROWS_READ_MAX", 2)  # a page may end where nothing was found
    assert read_all(lambda cursor: lists.movement_list(books.view, limit=3, cursor=cursor), "movements") == whole
    meter = str(whole[-1]["lot"]).partition(":")[0]
    monkeypatch.undo()
    of_meter = rows(lists.movement_list(books.view, meter=meter), "movements")
    assert of_meter == [one for one in whole if str(one["lot"]).startswith(meter)]


def test_movements_of_a_period_are_those_of_its_blocks() -> None:
    world = QueryChain()
    (lot,) = world.produce(world.add_producer(ALICE), 100)
    move(world, lot, 0, 10, by=ALICE, to=BOB)
    world.time_ms += DAY_MS
    claim(world, lot, 0, 10, by=BOB)
    middle_ms = world.time_ms - HOUR_MS
    (early,) = rows(lists.movement_list(world.view, until_ms=middle_ms), "movements")
    (late,) = rows(lists.movement_list(world.view, from_ms=middle_ms), "movements")
    assert (early["event"], late["event"]) == ("energy.moved", "energy.claimed")
    assert (early["lot"], early["sender"]) == (format_lot_id(lot), format_address(ALICE.address))
    assert rows(lists.movement_list(world.view, from_ms=world.time_ms + DAY_MS), "movements") == []
