"""What a participant's own meters consumed, hour by hour, and what hourly claims cover of it.

Owns the ``consumption`` of ``trace_holder`` with its matching score. It reads whole reports, not interval by interval:
a year of quarter-hours is twelve entries of the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, TypedDict

import msgpack

from contracts_native.claims import SCORE_SCALE, compute_matching_score
from contracts_native.matching import CLAIMED, ClaimedWh
from contracts_native.meters import Channel, find_channel
from contracts_native.readings import REPORTS, REVISIONS, ReportRecord, find_report_at
from ledger.errors import Rejected
from ledger.primitives import Address
from ledger.storage import compute_prefix_end
from node.index import HOUR_MS
from node.queries.sites import get_known_meter, list_meters, list_sites
from node.queries.view import ObjectId, Period, TimeMs, View

INTERVALS_READ_MAX: Final = 500_000  # a year of fourteen meters
PER_MILLE: Final = 1_000


_NUMBER: Final = 8  # bytes of a start in a key
_OF_REPORT: Final = [ReportRecord.__slots__.index(name) for name in ("interval_s", "values_wh", "quarantined")]
_CLAIMED_WH: Final = [ClaimedWh.__slots__.index("wh")]


@dataclass(frozen=True, slots=True)
class _Report:
    """Consecutive intervals, and what hourly claims took of each."""

    start_ms: int
    length_ms: int
    values_wh: Sequence[int]
    claimed_wh: Sequence[int]

    def leave_out(self, places: Sequence[int]) -> _Report:
        """Without what is quarantined."""
        if not places:
            return self
        refused = frozenset(places)
        values_wh, claimed_wh = (
            [0 if place in refused else one for place, one in enumerate(wh)] for wh in (self.values_wh, self.claimed_wh)
        )
        return replace(self, values_wh=values_wh, claimed_wh=claimed_wh)


Hours = dict[int, tuple[int, int]]  # start → Wh that were consumed, and that hourly claims took of them


class ConsumedHour(TypedDict):
    """What was consumed in an hour, and what hourly claims took of it."""

    start_ms: TimeMs
    consumed_wh: int
    claimed_wh: int


class Consumption(TypedDict):
    """What a participant's own meters consumed. The score is null where nothing was."""

    meters: list[ObjectId]
    consumed_wh: int
    claimed_hourly_wh: int
    matching_score_per_mille: int | None
    hours: list[ConsumedHour]


def show_consumption(view: View, owner: Address, period: Period, shown: Period) -> Consumption:
    """What the owner's meters recorded in a period of whole hours, what hourly claims cover, and the score of that.

    ``hours`` are those that begin in ``shown``. Quarantined values do not count. Raises ``Rejected``
    (``period_too_long``).
    """
    meters = [
        meter
        for site in list_sites(view, owner)
        for meter in list_meters(view, site)
        if find_channel(get_known_meter(view, meter), Channel.CONSUMPTION) is not None
    ]
    hours: Hours = {}
    intervals_left = INTERVALS_READ_MAX
    for meter in meters:
        intervals_left = _add_meter(view, meter, period, hours, intervals_left)
    consumed_wh = sum(consumed for consumed, _ in hours.values())
    score = compute_matching_score(*zip(*hours.values(), strict=True)) if hours else 0
    first_ms, stop_ms = shown.start_ms, shown.end_ms
    return {
        "meters": [meter.hex() for meter in meters],
        "consumed_wh": consumed_wh,
        "claimed_hourly_wh": sum(claimed for _, claimed in hours.values()),
        "matching_score_per_mille": score * PER_MILLE // SCORE_SCALE if consumed_wh else None,
        "hours": [
            {"start_ms": start_ms, "consumed_wh": consumed, "claimed_wh": claimed}
            for start_ms, (consumed, claimed) in sorted(hours.items())
            if first_ms <= start_ms < stop_ms
        ],
    }


def _add_meter(view: View, meter: bytes, period: Period, hours: Hours, intervals_left: int) -> int:
    """Add the reports of a meter; the answer is how many more intervals may be read."""
    first = REPORTS.find_floor(view.state, meter, Channel.CONSUMPTION, period.start_ms)
    from_ms = period.start_ms if first is None else first[1].start_ms
    revised = {
        int.from_bytes(key[-_NUMBER:], "big") for key, _ in REVISIONS.scan(view.state, meter, Channel.CONSUMPTION)
    }
    claims = _scan_values(view, CLAIMED.key(meter, from_ms), CLAIMED.key(meter), _CLAIMED_WH)
    claimed_by_start = {start_ms: wh for start_ms, (wh,) in claims}
    ends = REPORTS.key(meter, Channel.CONSUMPTION, from_ms), REPORTS.key(meter, Channel.CONSUMPTION)
    for start_ms, (interval_s, values_wh, quarantined) in _scan_values(view, *ends, _OF_REPORT):
        if start_ms >= period.end_ms:
            break
        intervals_left -= len(values_wh)
        if intervals_left < 0:
            raise Rejected("period_too_long", f"more than {INTERVALS_READ_MAX} consumption intervals")
        claimed_wh = claimed_by_start.get(start_ms, (0,) * len(values_wh))
        report = _Report(start_ms, interval_s * 1_000, values_wh, claimed_wh)
        if start_ms in revised:
            found = find_report_at(view.state, meter, Channel.CONSUMPTION, start_ms)
            assert found is not None, "what was revised was reported"
            _add_report(replace(report, values_wh=found.values_wh).leave_out(found.quarantined), period, hours)
        else:
            _add_report(report.leave_out(quarantined), period, hours)
    return intervals_left


def _scan_values(view: View, start: bytes, prefix: bytes, fields: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
    """(The number that ends the key, some fields of the record) of stored records."""
    # Not by their table: a year is hundreds of reports with tens of thousands of values, and what this node wrote
    # needs no judging. The store has checked its checksum.
    for key, raw in view.reader.scan(start, compute_prefix_end(prefix)):
        record = msgpack.unpackb(raw, use_list=False)
        yield int.from_bytes(key[-_NUMBER:], "big"), [record[place] for place in fields]


def _add_report(report: _Report, period: Period, hours: Hours) -> None:
    """Add the hours of a report that lie in the period."""
    start_ms, length_ms, values_wh, claimed_wh = report.start_ms, report.length_ms, report.values_wh, report.claimed_wh
    at = max(0, -((start_ms - period.start_ms) // length_ms))
    stop = min(len(values_wh), -((start_ms - period.end_ms) // length_ms))
    if at >= stop:
        return
    first_ms = start_ms + at * length_ms
    hour_ms = first_ms - first_ms % HOUR_MS
    edges = (at, *range(at + (hour_ms + HOUR_MS - first_ms) // length_ms, stop, HOUR_MS // length_ms), stop)
    consumed = [sum(values_wh[one:after]) for one, after in pairwise(edges)]
    claimed = [sum(claimed_wh[one:after]) for one, after in pairwise(edges)] if any(claimed_wh) else [0] * len(consumed)
    for place, pair in enumerate(zip(consumed, claimed, strict=True)):
        known = hours.get(hour_ms + place * HOUR_MS)
        hours[hour_ms + place * HOUR_MS] = pair if known is None else (known[0] + pair[0], known[1] + pair[1])
