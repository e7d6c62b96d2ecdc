"""The questions that the ledger is for: who bought the output of this source, and where did this buyer's come from.

Owns the answers of ``trace_source`` and ``trace_holder``. Both are read from the index (node/index.py), whose grain is
the hour: a period is widened to whole hours, and the answer says which. Sums are always of everything; rows come in
pages.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Final, TypedDict

from contracts_native.sites import Technology
from ledger.errors import Malformed
from ledger.fields import AddressText, JsonOf
from ledger.primitives import ADDRESS_BYTES, Address, format_address, parse_address
from node import index, index_sums
from node.index import DAY_MS, HOUR_MS, Holding
from node.index_sums import METER_BYTES
from node.queries.consumption import Consumption, show_consumption
from node.queries.participants import get_known_participant
from node.queries.sites import get_known_meter, get_known_site
from node.queries.source_sums import (
    Allowance,
    HolderSums,
    HolderWh,
    SourceWh,
    get_days,
    get_hours,
    list_hours,
    sum_all,
    sum_by_holder,
    sum_of_holder,
)
from node.queries.sources import ChosenMeter, choose_meter, choose_meters, read_filter
from node.queries.view import (
    LIMIT_MAX,
    Limit,
    ObjectId,
    Page,
    Paged,
    Period,
    PeriodShown,
    TimeMs,
    View,
    make_page,
    read_cursor,
)
from node.queries.view import read_period_in_hours as read_period

ENTRIES_READ_MAX: Final = 50_000  # decades of a plant with 130 buyers; the days of a year of a buyer of 130 plants
HOLDER_DAYS_DEFAULT: Final = 200  # of meters, on a page: two weeks of fourteen plants, half a year of one
WINDOW_DAYS: Final = 42  # a page of hours
_NUMBER: Final = 8  # bytes in a cursor
_WH_MOST: Final = 2 ** (8 * _NUMBER) - 1
_DAY: Final = 4
Choose = Callable[[bytes], ChosenMeter | None]


class RowsBy(enum.StrEnum):
    """What the rows of a source are."""

    HOLDER = "holder"
    HOUR = "hour"


class ParticipantName(TypedDict):
    """Who it is, and the name for people."""

    participant: AddressText
    label: str


class HolderRow(ParticipantName, HolderWh):
    """A holder or beneficiary of a source, and what it has of it."""


class SourceHour(SourceWh, HolderWh):
    """An hour of a source: what became of it, and whether its sums are complete."""

    start_ms: TimeMs
    holds: bool


class SourceTrace(PeriodShown, SourceWh, HolderWh, Paged):
    """Who has the output of a source. The rows are holders or, with ``by`` = ``hour``, hours."""

    site: ObjectId | None
    meter: ObjectId | None
    zone: str | None
    technology: Annotated[str, JsonOf(Technology)] | None
    meters: list[ObjectId]
    holds: bool
    rows: list[HolderRow | SourceHour]


class HeldHour(HolderWh):
    """An hour of a source, as far as a holder has it."""

    start_ms: TimeMs


class HeldSource(HolderWh):
    """A meter whose output a holder has, in all and by hour."""

    meter: ObjectId
    site: ObjectId
    label: str
    technology: Annotated[str, JsonOf(Technology)]
    zone: str
    hours: list[HeldHour]


class HolderTrace(ParticipantName, PeriodShown, HolderWh, Paged):
    """Where a participant's energy came from, and how well claims match what it consumed."""

    sources: list[HeldSource]
    consumption: Consumption


@dataclass(frozen=True, slots=True)
class _HoursPage:
    """The hours of one page by meter, and the part of the period that it covers."""

    by_meter: Mapping[bytes, list[HeldHour]]
    period: Period
    next_cursor: str | None


def trace_source(
    view: View,
    *,
    site: str | None = None,
    meter: str | None = None,
    from_ms: TimeMs | None = None,
    until_ms: TimeMs | None = None,
    zone: str | None = None,
    technology: Technology | None = None,
    by: RowsBy = RowsBy.HOLDER,
    limit: Limit = LIMIT_MAX,
    cursor: str | None = None,
) -> SourceTrace:
    """Who has the output of a meter, a site, a grid zone or a technology, and that the sums are complete.

    ``rows``: every holder and beneficiary, the largest first; with ``by`` = ``hour``, every hour instead. ``holds``
    says that metered = minted − taken back + quarantined + not minted and that minted = Σ rows of all pages. The
    period is widened to whole hours. ``held_wh`` is active, reserved or past its lifetime; ``taken_back_wh`` are lots
    that were withdrawn, used or not. A zone counts for the time in which a site was in it. Raises ``NotFound``, or
    ``Rejected`` (``period_too_long``, ``sites_too_many``).
    """
    wanted = read_filter(site, meter, zone, technology)
    if wanted.is_open:
        raise Malformed("parameters_conflict", "give site, meter, zone or technology")
    period = read_period(from_ms, until_ms)
    chosen = choose_meters(view, wanted, period)
    holders, fates = sum_by_holder(view, chosen, Allowance(ENTRIES_READ_MAX))
    total = sum_all(holders.values())
    page: Page[HolderRow | SourceHour]
    if by is RowsBy.HOLDER:
        page = make_page(_rank_holders(holders, cursor), limit, lambda row: _show_holder(view, *row))
    else:
        page = make_page(_iterate_hours(view, chosen, cursor), limit, lambda row: row)
    return {
        "site": site,
        "meter": meter,
        "zone": zone,
        "technology": None if technology is None else technology.value,
        "meters": [one.meter.hex() for one in chosen],
        **period.to_json(),
        **fates.to_json(),
        **total.to_json(),
        "holds": fates.holds(total.wh),
        "rows": page.items,
        "next_cursor": page.next_cursor,
    }


def trace_holder(
    view: View,
    *,
    participant: str,
    from_ms: TimeMs | None = None,
    until_ms: TimeMs | None = None,
    site: str | None = None,
    meter: str | None = None,
    zone: str | None = None,
    technology: Technology | None = None,
    limit: Limit = HOLDER_DAYS_DEFAULT,
    cursor: str | None = None,
) -> HolderTrace:
    """Where a participant's energy came from, by source and hour, and how well claims match its consumption.

    Only of a site, a meter, a zone or a technology if one is given. The sums are of the whole period, which is
    widened to whole hours; ``hours``, those of the consumption too, are of the next ``limit`` days of meters, and
    ``next_cursor`` leads on. Raises ``NotFound``, or ``Rejected`` (``period_too_long``).
    """
    address = parse_address(participant)
    get_known_participant(view, address)
    wanted = read_filter(site, meter, zone, technology)
    period = read_period(from_ms, until_ms)

    @cache
    def choose(of_meter: bytes) -> ChosenMeter | None:
        return choose_meter(view, wanted, of_meter, period)

    sources = _sum_sources(view, address, choose, period)
    page = _collect_hours(view, address, choose, period, limit=limit, cursor=cursor)
    total = sum_all(sources.values())
    return {
        **_show_participant(view, address),
        **period.to_json(),
        **total.to_json(),
        "sources": [_show_source(view, one, sums, page.by_meter.get(one, [])) for one, sums in sources.items()],
        "consumption": show_consumption(view, address, period, page.period),
        "next_cursor": page.next_cursor,
    }


def _rank_holders(
    holders: dict[Address, HolderSums], cursor: str | None
) -> Iterator[tuple[bytes, tuple[Address, HolderSums]]]:
    """The largest first, past the cursor."""
    past = read_cursor(cursor, length=_NUMBER + ADDRESS_BYTES)
    ranked = sorted(
        ((_WH_MOST - sums.wh).to_bytes(_NUMBER, "big") + holder, holder) for holder, sums in holders.items()
    )
    return ((key, (holder, holders[holder])) for key, holder in ranked if past is None or key > past)


def _show_holder(view: View, holder: Address, sums: HolderSums) -> HolderRow:
    return {**_show_participant(view, holder), **sums.to_json()}


def _iterate_hours(view: View, chosen: Sequence[ChosenMeter], cursor: str | None) -> Iterator[tuple[bytes, SourceHour]]:
    """What became of each hour in which something was metered, past the cursor, in order of time."""
    past = read_cursor(cursor, length=_NUMBER)
    from_ms = 0 if past is None else int.from_bytes(past, "big") + HOUR_MS
    while (found_ms := _find_next_day(view, chosen, from_ms)) is not None:
        # Some weeks at a time: a page does not read what it does not show.
        from_ms, until_ms = max(from_ms, found_ms), found_ms + WINDOW_DAYS * DAY_MS
        for hour_ms, fates, sums in list_hours(view, chosen, Period(from_ms, until_ms)):
            row: SourceHour = {
                "start_ms": hour_ms,
                **fates.to_json(),
                **sums.to_json(),
                "holds": fates.holds(sums.wh),
            }
            yield hour_ms.to_bytes(_NUMBER, "big"), row
        from_ms = until_ms


def _find_next_day(view: View, chosen: Sequence[ChosenMeter], from_ms: int) -> int | None:
    """The start of the first day, from a time on, on which one of the meters produced; None if there is none."""
    days = [
        next(
            index.scan_source_days(
                view.reader, one.meter, get_days(Period(max(from_ms, period.start_ms), period.end_ms))
            ),
            None,
        )
        for one in chosen
        for period in one.periods
        if from_ms < period.end_ms
    ]
    return min((found[0] * DAY_MS for found in days if found is not None), default=None)


def _sum_sources(view: View, holder: Address, choose: Choose, period: Period) -> dict[bytes, HolderSums]:
    """What a holder has of each meter."""
    allowance = Allowance(ENTRIES_READ_MAX)
    parts: defaultdict[bytes, list[HolderSums]] = defaultdict(list)
    for stretch, meter in index_sums.scan_meters(view.reader, holder, index_sums.get_stretches(get_days(period))):
        chosen = choose(meter)
        if chosen is not None and (sums := sum_of_holder(view, holder, chosen, stretch, allowance)) is not None:
            parts[meter].append(sums)
    return {meter: sum_all(several) for meter, several in parts.items()}


def _collect_hours(
    view: View, holder: Address, choose: Choose, period: Period, *, limit: int, cursor: str | None
) -> _HoursPage:
    past = read_cursor(cursor, length=_DAY + METER_BYTES)
    days, first_meter, from_ms = get_days(period), b"", period.start_ms
    if past is not None and (past_day := int.from_bytes(past[:_DAY], "big")) >= days.start:
        days, first_meter, from_ms = range(past_day, days.stop), past[_DAY:], (past_day + 1) * DAY_MS
    allowance = Allowance(ENTRIES_READ_MAX)
    by_meter: defaultdict[bytes, list[HeldHour]] = defaultdict(list)
    shown, last = 0, b""
    for day, meter, holding in index.scan_holder(view.reader, holder, days, first_meter=first_meter):
        allowance.take()
        chosen, key = choose(meter), day.to_bytes(_DAY, "big") + meter
        if chosen is None or (past is not None and key <= past):
            continue
        rows = list(_show_hours(day, holding, chosen))
        if rows and shown == limit:
            last_day = int.from_bytes(last[:_DAY], "big")
            return _HoursPage(by_meter, Period(from_ms, max(from_ms, (last_day + 1) * DAY_MS)), last.hex())
        if rows:
            shown, last = shown + 1, key
            by_meter[meter] += rows
    return _HoursPage(by_meter, Period(from_ms, max(from_ms, period.end_ms)), None)


def _show_hours(day: int, holding: Holding, chosen: ChosenMeter) -> Iterator[HeldHour]:
    """A row for each hour of a day in which a holder has something."""
    # Spelled out: a year of one source is 8,760 of these.
    totals = holding.sum_by_hour()
    for period in chosen.periods:
        within = get_hours(day, period)
        for hour in range(within.start, within.stop):
            if totals[hour]:
                yield {
                    "start_ms": day * DAY_MS + hour * HOUR_MS,
                    "wh": totals[hour],
                    "held_wh": holding.held[hour] + holding.reserved[hour],
                    "claimed_wh": holding.claimed[hour],
                    "impaired_wh": holding.impaired[hour],
                    "charged_wh": holding.charged[hour],
                    "withdrawn_wh": holding.withdrawn[hour],
                }


def _show_source(view: View, meter: bytes, sums: HolderSums, hours: list[HeldHour]) -> HeldSource:
    site_id = get_known_meter(view, meter).site
    site = get_known_site(view, site_id)
    return {
        "meter": meter.hex(),
        "site": site_id.hex(),
        "label": site.label,
        "technology": site.technology.value,
        "zone": site.zone,
        **sums.to_json(),
        "hours": hours,
    }


def _show_participant(view: View, address: Address) -> ParticipantName:
    return {"participant": format_address(address), "label": get_known_participant(view, address).label}
