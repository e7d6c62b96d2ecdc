"""Questions about what meters measured.

Owns the answer of ``reading_list``: one row an interval, with what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, NotRequired, TypedDict

from contracts_native.lots import FIRST_VERSION
from contracts_native.matching import get_claimed_wh
from contracts_native.meters import Channel
from contracts_native.readings import (
    CORRECTIONS,
    Correction,
    Flag,
    IntervalFact,
    IntervalState,
    ReportRecord,
    find_report_after,
    find_report_at,
    list_facts,
)
from ledger.errors import Malformed
from ledger.fields import HashText, JsonOf, Shown, to_json
from node.answers import Merged, Named, merge
from node.queries.lot_ids import format_lot_id
from node.queries.sites import get_known_meter
from node.queries.view import (
    LIMIT_DEFAULT,
    Limit,
    ObjectId,
    Paged,
    Period,
    TimeMs,
    View,
    make_page,
    read_cursor,
    read_id,
    read_period,
)

CURSOR_BYTES = 9  # place of the channel, start of the interval
CHANNELS_IN_ORDER = (Channel.CONSUMPTION, Channel.PRODUCTION)


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval of an accepted report. ``claimed_wh`` is what hourly claims set against it (consumption)."""

    channel: Channel
    report: ReportRecord
    fact: IntervalFact
    claimed_wh: int


class CorrectionVersion(TypedDict):
    """Which version a correction made."""

    version: int


CorrectionShown = Annotated[Merged[Shown[Correction], CorrectionVersion], Named("CorrectionShown")]


class ReadingRow(TypedDict):
    """One interval, and what became of it. ``claimed_wh`` is only there for consumption."""

    channel: Annotated[str, JsonOf(Channel)]
    start_ms: TimeMs
    interval_s: int
    wh: int
    flag: Annotated[str, JsonOf(Flag)]
    state: Annotated[str, JsonOf(IntervalState)]
    lot: str | None
    minted_wh: int
    correction: CorrectionShown | None
    tx_id: HashText
    claimed_wh: NotRequired[int]


class ReadingList(Paged):
    """What a meter measured."""

    meter: ObjectId
    readings: list[ReadingRow]


def reading_list(
    view: View,
    *,
    meter: str,
    channel: Channel | None = None,
    from_ms: TimeMs | None = None,
    until_ms: TimeMs | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> ReadingList:
    """What a meter measured in the intervals that start in a period, and what became of each. Raises ``NotFound``.

    State: ``minted`` (with its lot, unless the interval produced nothing), ``quarantined``, ``not_minted``,
    ``withdrawn`` or ``recorded`` (consumption, with what hourly claims set against it). ``wh`` is as corrected;
    ``correction`` says who corrected it and why.
    """
    meter_id = read_id(meter, name="meter")
    get_known_meter(view, meter_id)
    rows = _iterate_rows(view, meter_id, channel, read_period(from_ms, until_ms), cursor)
    page = make_page(rows, limit, lambda interval: _show(view, meter_id, interval))
    return {"meter": meter, "readings": page.items, "next_cursor": page.next_cursor}


def iterate_intervals(view: View, meter: bytes, channel: Channel, period: Period) -> Iterator[Interval]:
    """The accepted intervals of a channel that start in a period, in the order of time."""
    report = find_report_at(view.state, meter, channel, period.start_ms)
    if report is None:
        report = find_report_after(view.state, meter, channel, period.start_ms)
    while report is not None and report.start_ms < period.end_ms:
        yield from _iterate_report(view, meter, channel, report, period)
        report = find_report_after(view.state, meter, channel, report.start_ms)


def _iterate_report(
    view: View, meter: bytes, channel: Channel, report: ReportRecord, period: Period
) -> Iterator[Interval]:
    claimed_wh = get_claimed_wh(view.state, meter, report) if channel is Channel.CONSUMPTION else ()
    for index, fact in enumerate(list_facts(view.state, meter, channel, report)):
        if fact.start_ms >= period.end_ms:
            return
        if fact.start_ms >= period.start_ms:
            yield Interval(channel, report, fact, claimed_wh[index] if claimed_wh else 0)


def _iterate_rows(
    view: View, meter: bytes, channel: Channel | None, period: Period, cursor: str | None
) -> Iterator[tuple[bytes, Interval]]:
    past = read_cursor(cursor, length=CURSOR_BYTES)
    first_place = 0 if past is None else past[0]
    if first_place >= len(CHANNELS_IN_ORDER):
        raise Malformed("cursor_invalid", cursor or "")
    for place, one in enumerate(CHANNELS_IN_ORDER):
        if channel not in (None, one) or place < first_place:
            continue
        start_ms = period.start_ms
        if past is not None and place == first_place:
            start_ms = max(start_ms, int.from_bytes(past[1:], "big") + 1)
        for interval in iterate_intervals(view, meter, one, Period(start_ms, period.end_ms)):
            yield bytes([place]) + interval.fact.start_ms.to_bytes(8, "big"), interval


def _show(view: View, meter: bytes, interval: Interval) -> ReadingRow:
    fact = interval.fact
    correction: CorrectionShown | None = None
    if fact.version > FIRST_VERSION:
        record = CORRECTIONS.get(view.state, meter, interval.channel, fact.start_ms, fact.version)
        correction = merge(to_json(record), {"version": fact.version})
    shown: ReadingRow = {
        "channel": interval.channel.value,
        "start_ms": fact.start_ms,
        "interval_s": interval.report.interval_s,
        "wh": fact.wh,
        "flag": fact.flag.value,
        "state": fact.state.value,
        "lot": None if fact.lot is None else format_lot_id(fact.lot),
        "minted_wh": fact.minted_wh,
        "correction": correction,
        "tx_id": interval.report.tx_id.hex(),
    }
    if interval.channel is Channel.CONSUMPTION:
        shown["claimed_wh"] = interval.claimed_wh
    return shown
