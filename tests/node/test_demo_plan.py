"""The demo's pure parts: the data are read strictly, the plan never sells what was not produced, checks can fail."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from node.demo.checks import Checklist
from node.demo.data import (
    DATA_DIRECTORY,
    QUARTER_MS,
    QUARTERS_PER_DAY,
    Community,
    DemoError,
    Place,
    load_community,
    parse_community,
)
from node.demo.plan import (
    PREFERENCE,
    Part,
    allocate,
    compute_offered_wh,
    compute_price_cents,
    group_hours,
    group_sales,
)
from node.demo.questions import get_quantile

SITES: Final = """site,direction,kind,rated_w,simbench_id,simbench_profile
a,production,solar,10,x,y
b,consumption,farm,9,x,y
"""
DAY_0_MS: Final = 1_465_171_200_000  # 2016-06-06T00:00Z


def make_series(*, quarters: int = QUARTERS_PER_DAY, skip: int | None = None, cell: str = "5") -> str:
    """A day of two columns; one quarter-hour left out, another value in the last row."""
    rows = [
        f"2016-06-06T{quarter // 4:02}:{quarter % 4 * 15:02}:00Z,{quarter},{cell if quarter == quarters - 1 else 3}"
        for quarter in range(quarters)
        if quarter != skip
    ]
    return "\n".join(["start_utc,a,b", *rows]) + "\n"


def make_community(*, solar_wh: int, wind_wh: int, needs_wh: tuple[int, ...]) -> Community:
    """A day in which every quarter-hour is alike: a roof, a wind turbine, and some consumers."""
    day = QUARTERS_PER_DAY
    return Community(
        DAY_0_MS,
        1,
        (Place("roof", "solar", 10_000, (solar_wh,) * day), Place("mill", "wind", 10_000, (wind_wh,) * day)),
        tuple(Place(f"home{number}", "household", 5_000, (wh,) * day) for number, wh in enumerate(needs_wh)),
    )


@pytest.fixture(scope="module")
def community() -> Community:
    return load_community(DATA_DIRECTORY, days=7)


@pytest.fixture(scope="module")
def parts(community: Community) -> list[Part]:
    return allocate(community)


def test_the_files_hold_eleven_producers_and_twenty_consumers(community: Community) -> None:
    assert (len(community.producers), len(community.consumers)) == (11, 20)
    assert {len(place.values_wh) for place in community.places} == {7 * QUARTERS_PER_DAY}
    assert community.start_ms == DAY_0_MS
    assert community.get_start_ms(1) == DAY_0_MS + QUARTER_MS
    assert community.intervals == 31 * 672


def test_a_day_is_read_in_its_order() -> None:
    read = parse_community(SITES, make_series(), days=1)
    assert read.producers[0].values_wh == tuple(range(QUARTERS_PER_DAY))
    assert read.consumers[0].get_day_wh(0)[-1] == 5


@pytest.mark.parametrize(
    ("series", "at_fault"),
    [
        (make_series(skip=40), "line 42: not the next quarter-hour"),
        (make_series(cell="-1"), "line 97: a value is missing or negative"),
        (make_series(cell="4.5"), "line 97: not a time and numbers"),
        (make_series(cell="4,4"), "line 97: a value is missing or negative"),
        (make_series(quarters=50), "96 rows wanted, 50 found"),
        ("", "96 rows wanted, 0 found"),
    ],
)
def test_damaged_data_is_refused_with_its_line(series: str, at_fault: str) -> None:
    with pytest.raises(DemoError) as caught:
        parse_community(SITES, series, days=1)
    assert caught.value.reason == "demo_data_damaged"
    assert at_fault in caught.value.item


@pytest.mark.parametrize("days", [0, 29])
def test_days_that_the_file_has_not_are_refused(days: int) -> None:
    with pytest.raises(DemoError, match="demo_days_out_of_range"):
        parse_community(SITES, make_series(), days=days)


def test_a_site_without_its_column_is_refused() -> None:
    with pytest.raises(DemoError, match="demo_data_damaged"):
        parse_community(SITES + "c,consumption,farm,9,x,y\n", make_series(), days=1)


def test_nobody_sells_more_than_it_offers_and_parts_are_end_to_end(community: Community, parts: list[Part]) -> None:
    producers = {one.name: one for one in community.producers}
    ends: dict[tuple[str, int], int] = {}
    for part in parts:
        assert part.first_wh == ends.get((part.seller, part.quarter), 0)
        assert part.wh > 0
        ends[part.seller, part.quarter] = part.end_wh
    assert all(end <= compute_offered_wh(producers[seller], quarter) for (seller, quarter), end in ends.items())


def test_nobody_buys_more_than_it_consumes_in_any_quarter_hour(community: Community, parts: list[Part]) -> None:
    consumers = {one.name: one for one in community.consumers}
    bought: Counter[tuple[str, int]] = Counter()
    for part in parts:
        bought[part.buyer, part.quarter] += part.wh
    assert all(wh <= consumers[buyer].values_wh[quarter] for (buyer, quarter), wh in bought.items())


def test_every_consumer_ends_with_every_kind_of_source(community: Community, parts: list[Part]) -> None:
    kinds = {one.name: one.kind for one in community.producers}
    for consumer in community.consumers:
        assert {kinds[part.seller] for part in parts if part.buyer == consumer.name} == set(PREFERENCE)


def test_local_solar_is_used_up_before_wind() -> None:
    plan = allocate(make_community(solar_wh=70, wind_wh=10_000, needs_wh=(40, 40)))
    first = [part for part in plan if part.quarter == 0]
    assert [(part.seller, part.buyer, part.first_wh, part.end_wh) for part in first] == [
        ("roof", "home0", 0, 40),
        ("roof", "home1", 40, 70),
        ("mill", "home1", 0, 10),
    ]


def test_when_sources_are_short_each_is_first_in_its_turn() -> None:
    plan = allocate(make_community(solar_wh=40, wind_wh=0, needs_wh=(40, 40, 40)))
    assert Counter(part.buyer for part in plan) == {"home0": 32, "home1": 32, "home2": 32}


def test_the_same_data_give_the_same_plan(community: Community, parts: list[Part]) -> None:
    assert allocate(community) == parts


def test_sales_and_hours_hold_every_part_once(community: Community, parts: list[Part]) -> None:
    sales, hours = group_sales(community, parts), group_hours(parts)
    assert sorted(map(str, parts)) == sorted(str(part) for sale in sales for part in sale.parts)
    assert sorted(map(str, parts)) == sorted(str(part) for hour in hours for part in hour.parts)
    assert all(part.quarter // QUARTERS_PER_DAY == sale.day for sale in sales for part in sale.parts)
    assert all(part.quarter // 4 == hour.hour for hour in hours for part in hour.parts)


def test_daily_prices_add_up_to_the_price_of_the_whole(community: Community, parts: list[Part]) -> None:
    kinds = {one.name: one.kind for one in community.producers}
    cents: Counter[tuple[str, str]] = Counter()
    sold_wh: Counter[tuple[str, str]] = Counter()
    for sale in group_sales(community, parts):
        assert sale.cents >= 0
        cents[sale.seller, sale.buyer] += sale.cents
        sold_wh[sale.seller, sale.buyer] += sum(part.wh for part in sale.parts)
    for (seller, buyer), wh in sold_wh.items():
        assert cents[seller, buyer] == compute_price_cents(kinds[seller], wh)


def test_a_comparison_that_does_not_hold_fails_the_list() -> None:
    checks = Checklist()
    assert not checks.holds, "no comparison, no proof"
    checks.compare("same", 5, 5)
    checks.compare("at most", 4, 4, relation="≤")
    checks.compare("less", 3, 4, relation="<")
    assert checks.holds
    for left, right, relation in ((5, 6, "="), (5, 4, "≤"), (4, 4, "<")):
        failing = Checklist(list(checks.comparisons))
        failing.compare("wrong", left, right, relation=relation)
        assert not failing.holds
    checks.compare("a reason", "accepted", "slice_already_claimed")
    assert not checks.holds


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_quantile_is_a_value_that_occurred(percent: int, value: int) -> None:
    assert get_quantile(list(range(1, 101)), percent) == value
    assert get_quantile([], percent) == 0
