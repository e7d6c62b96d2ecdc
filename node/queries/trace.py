"""The questions that the ledger is for: who bought the output of this source, and where did this buyer's come from.

Owns the answers of ``trace_source`` and ``trace_holder``. Both are read from the index (node/index.py), whose grain is
the hour: a period is widened to whole hours, and the answer says which. Sums are always of everything; rows come in
pages.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from contracts_native.sites import Technology
from ledger.errors import Malformed, Rejected
from ledger.fields import Json
from ledger.primitives import ADDRESS_BYTES, Address, format_address, parse_address
from node import index
from node.index import DAY_MS, HOUR_MS, HOURS, Holding
from node.queries.consumption import show_consumption
from node.queries.participants import get_known_participant
from node.queries.sites import get_known_meter, get_known_site
from node.queries.sources import ChosenMeter, SourceFilter, choose_meter, choose_meters, read_filter
from node.queries.view import (
    LIMIT_MAX,
    JsonObject,
    Limit,
    Period,
    TimeMs,
    View,
    make_page,
    read_cursor,
)
from node.queries.view import read_period_in_hours as read_period

HOLDINGS_READ_MAX: Final = 50_000  # a year of a plant with 130 buyers, or of a buyer of 130 plants
WINDOW_DAYS: Final = 42  # a page of hours
_NUMBER: Final = 8  # bytes in a cursor
_WH_MOST: Final = 2 ** (8 * _NUMBER) - 1
_DAY: Final = 4


class RowsBy(enum.StrEnum):
    """What the rows of a source are."""

    HOLDER = "holder"
    HOUR = "hour"


@dataclass(slots=True)
class _Sums:
    """Running sums of Wh, by what became of them: what is held is active, reserved, or past its lifetime."""

    held: int = 0
    claimed: int = 0
    impaired: int = 0
    charged: int = 0
    withdrawn: int = 0

    def add(self, other: _Sums) -> None:
        self.held += other.held
        self.claimed += other.claimed
        self.impaired += other.impaired
        self.charged += other.charged
        self.withdrawn += other.withdrawn

    @property
    def wh(self) -> int:
        """All of it."""
        return self.held + self.claimed + self.impaired + self.charged + self.withdrawn

    def to_json(self) -> JsonObject:
        return {
            "wh": self.wh,
            "held_wh": self.held,
            "claimed_wh": self.claimed,
            "impaired_wh": self.impaired,
            "charged_wh": self.charged,
            "withdrawn_wh": self.withdrawn,
        }


@dataclass(slots=True)
class _Fates:
    """What became of what a source metered, in Wh; ``taken_back``: of what was minted."""

    metered: int = 0
    minted: int = 0
    quarantined: int = 0
    not_minted: int = 0
    taken_back: int = 0

    def add(self, day: index.SourceDay, hours: slice) -> None:
        self.metered += sum(day.metered[hours])
        self.minted += sum(day.minted[hours])
        self.quarantined += sum(day.quarantined[hours])
        self.not_minted += sum(day.not_minted[hours])
        self.taken_back += sum(day.withdrawn[hours])

    def holds(self, rows_wh: int) -> bool:
        """Whether metered = minted − taken back + quarantined + not minted, and minted = Σ rows."""
        accounted_wh = self.minted - self.taken_back + self.quarantined + self.not_minted
        return self.metered == accounted_wh and self.minted == rows_wh

    def to_json(self) -> JsonObject:
        return {
            "metered_wh": self.metered,
            "minted_wh": self.minted,
            "quarantined_wh": self.quarantined,
            "not_minted_wh": self.not_minted,
            "taken_back_wh": self.taken_back,
        }


@dataclass(slots=True)
class _Source:
    """What a holder has of one meter; ``hours`` of one page."""

    sums: _Sums = field(default_factory=_Sums)
    hours: list[Json] = field(default_factory=list)


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
) -> JsonObject:
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
    holders, fates = _sum_by_holder(view, chosen)
    total = _sum_all(holders.values())
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
        **page.to_json("rows"),
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
    limit: Limit = LIMIT_MAX,
    cursor: str | None = None,
) -> JsonObject:
    """Where a participant's energy came from, by source and hour, and how well claims match its consumption.

    Only of a site, a meter, a zone or a technology if one is given. The sums are of the whole period, which is
    widened to whole hours; ``hours`` are those of ``limit`` days of meters, and ``next_cursor`` leads on. Raises
    ``NotFound``, or ``Rejected`` (``period_too_long``).
    """
    address = parse_address(participant)
    get_known_participant(view, address)
    wanted = read_filter(site, meter, zone, technology)
    period = read_period(from_ms, until_ms)
    sources, next_cursor = _collect_sources(view, address, wanted, period, limit=limit, cursor=cursor)
    total = _sum_all(one.sums for one in sources.values())
    return {
        **_show_participant(view, address),
        **period.to_json(),
        **total.to_json(),
        "sources": [_show_source(view, meter_id, one) for meter_id, one in sources.items()],
        "consumption": show_consumption(view, address, period),
        "next_cursor": next_cursor,
    }


def _sum_by_holder(view: View, chosen: Sequence[ChosenMeter]) -> tuple[dict[Address, _Sums], _Fates]:
    holders: defaultdict[Address, _Sums] = defaultdict(_Sums)
    fates = _Fates()
    holdings_left = HOLDINGS_READ_MAX
    for one in chosen:
        for period in one.periods:
            days = _get_days(period)
            for day, holder, holding in index.scan_source(view.reader, one.meter, days):
                if holdings_left == 0:
                    raise Rejected("period_too_long", f"more than {HOLDINGS_READ_MAX} daily entries")
                holdings_left -= 1
                sums = _sum_holding(holding, _get_hours(day, period))
                if sums.wh:
                    holders[holder].add(sums)
            for day, source_day in index.scan_source_days(view.reader, one.meter, days):
                fates.add(source_day, _get_hours(day, period))
    return holders, fates


def _rank_holders(holders: dict[Address, _Sums], cursor: str | None) -> Iterator[tuple[bytes, tuple[Address, _Sums]]]:
    """The largest first, past the cursor."""
    past = read_cursor(cursor, length=_NUMBER + ADDRESS_BYTES)
    ranked = sorted(
        ((_WH_MOST - sums.wh).to_bytes(_NUMBER, "big") + holder, holder) for holder, sums in holders.items()
    )
    return ((key, (holder, holders[holder])) for key, holder in ranked if past is None or key > past)


def _show_holder(view: View, holder: Address, sums: _Sums) -> JsonObject:
    return {**_show_participant(view, holder), **sums.to_json()}


def _iterate_hours(view: View, chosen: Sequence[ChosenMeter], cursor: str | None) -> Iterator[tuple[bytes, JsonObject]]:
    """What became of each hour in which something was metered, past the cursor, in order of time."""
    past = read_cursor(cursor, length=_NUMBER)
    from_ms = 0 if past is None else int.from_bytes(past, "big") + HOUR_MS
    while (found_ms := _find_next_day(view, chosen, from_ms)) is not None:
        # Some weeks at a time: a page does not read what it does not show.
        from_ms, until_ms = max(from_ms, found_ms), found_ms + WINDOW_DAYS * DAY_MS
        yield from _list_window(view, chosen, Period(from_ms, until_ms))
        from_ms = until_ms


def _find_next_day(view: View, chosen: Sequence[ChosenMeter], from_ms: int) -> int | None:
    """The start of the first day, from a time on, on which one of the meters produced; None if there is none."""
    days = [
        next(
            index.scan_source_days(
                view.reader, one.meter, _get_days(Period(max(from_ms, period.start_ms), period.end_ms))
            ),
            None,
        )
        for one in chosen
        for period in one.periods
        if from_ms < period.end_ms
    ]
    return min((found[0] * DAY_MS for found in days if found is not None), default=None)


def _list_window(view: View, chosen: Sequence[ChosenMeter], window: Period) -> Iterator[tuple[bytes, JsonObject]]:
    fates: defaultdict[int, _Fates] = defaultdict(_Fates)
    sums: defaultdict[int, _Sums] = defaultdict(_Sums)
    for one in chosen:
        for period in one.periods:
            start_ms, end_ms = max(window.start_ms, period.start_ms), min(window.end_ms, period.end_ms)
            if start_ms >= end_ms:
                continue
            within = Period(start_ms, end_ms)
            for day, source_day in index.scan_source_days(view.reader, one.meter, _get_days(within)):
                for hour, at in _split_hours(day, within):
                    fates[hour].add(source_day, at)
            for day, _, holding in index.scan_source(view.reader, one.meter, _get_days(within)):
                for hour, at in _split_hours(day, within):
                    sums[hour].add(_sum_holding(holding, at))
    for hour in sorted(hour for hour, fate in fates.items() if fate.metered or fate.minted):
        row = {**fates[hour].to_json(), **sums[hour].to_json(), "holds": fates[hour].holds(sums[hour].wh)}
        yield hour.to_bytes(_NUMBER, "big"), {"start_ms": hour, **row}


def _sum_holding(holding: Holding, hours: slice) -> _Sums:
    return _Sums(
        held=sum(holding.held[hours]) + sum(holding.reserved[hours]),
        claimed=sum(holding.claimed[hours]),
        impaired=sum(holding.impaired[hours]),
        charged=sum(holding.charged[hours]),
        withdrawn=sum(holding.withdrawn[hours]),
    )


def _sum_all(parts: Iterable[_Sums]) -> _Sums:
    total = _Sums()
    for one in parts:
        total.add(one)
    return total


def _collect_sources(
    view: View, holder: Address, wanted: SourceFilter, period: Period, *, limit: int, cursor: str | None
) -> tuple[dict[bytes, _Source], str | None]:
    """(What a holder has of each meter, with the hours of one page; the cursor of the next page)."""
    past = read_cursor(cursor, length=_DAY + index.METER_BYTES)
    sources: defaultdict[bytes, _Source] = defaultdict(_Source)
    known: dict[bytes, ChosenMeter | None] = {}
    shown, last, next_cursor = 0, b"", None
    for count, (day, meter, holding) in enumerate(index.scan_holder(view.reader, holder, _get_days(period))):
        if count == HOLDINGS_READ_MAX:
            raise Rejected("period_too_long", f"more than {HOLDINGS_READ_MAX} days of sources")
        if meter not in known:
            known[meter] = choose_meter(view, wanted, meter, period)
        chosen = known[meter]
        whole = _Sums() if chosen is None else _sum_within(day, holding, chosen)
        if chosen is None or not whole.wh:
            continue
        sources[meter].sums.add(whole)
        key = day.to_bytes(_DAY, "big") + meter
        if past is not None and key <= past:
            continue
        if shown < limit:
            shown, last = shown + 1, key
            sources[meter].hours += _show_hours(day, holding, chosen)
        else:
            next_cursor = last.hex()
    return dict(sources), next_cursor


def _sum_within(day: int, holding: Holding, chosen: ChosenMeter) -> _Sums:
    return _sum_all(_sum_holding(holding, _get_hours(day, period)) for period in chosen.periods)


def _show_hours(day: int, holding: Holding, chosen: ChosenMeter) -> Iterator[Json]:
    """A row for each hour of a day in which a holder has something."""
    # Spelled out: a year of one source is 8,760 of these.
    totals = holding.sum_by_hour()
    for period in chosen.periods:
        within = _get_hours(day, period)
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


def _show_source(view: View, meter: bytes, source: _Source) -> JsonObject:
    site_id = get_known_meter(view, meter).site
    site = get_known_site(view, site_id)
    return {
        "meter": meter.hex(),
        "site": site_id.hex(),
        "label": site.label,
        "technology": site.technology.value,
        "zone": site.zone,
        **source.sums.to_json(),
        "hours": source.hours,
    }


def _show_participant(view: View, address: Address) -> JsonObject:
    return {"participant": format_address(address), "label": get_known_participant(view, address).label}


def _get_days(period: Period) -> range:
    return index.get_days(period.start_ms, period.end_ms)


def _get_hours(day: int, period: Period) -> slice:
    """The hours of a day that lie within a period of whole hours, as places in ``Hours``; perhaps none."""
    start_ms = day * DAY_MS
    first = max(0, (period.start_ms - start_ms) // HOUR_MS)
    return slice(first, max(first, min(HOURS, (period.end_ms - start_ms) // HOUR_MS)))


def _split_hours(day: int, period: Period) -> Iterator[tuple[int, slice]]:
    """(Start in ms, place in ``Hours``) of each hour of a day within a period."""
    within = _get_hours(day, period)
    for hour in range(within.start, within.stop):
        yield day * DAY_MS + hour * HOUR_MS, slice(hour, hour + 1)
