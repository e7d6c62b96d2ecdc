"""What a participant's own meters consumed, hour by hour, and what hourly claims cover of it.

Owns the ``consumption`` of ``trace_holder`` with its matching score. It reads whole reports, not interval by interval:
a year of quarter-hours is twelve entries of the state.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from contracts_native.claims import SCORE_SCALE, compute_matching_score
from contracts_native.matching import get_claimed_wh
from contracts_native.meters import Channel, find_channel
from contracts_native.readings import ReportRecord, find_report_after, find_report_at
from ledger.errors import Rejected
from ledger.primitives import Address
from node.index import HOUR_MS
from node.queries.sites import get_known_meter, list_meters, list_sites
from node.queries.view import JsonObject, Period, View

INTERVALS_READ_MAX: Final = 500_000  # a year of fourteen meters
PER_MILLE: Final = 1_000


@dataclass(slots=True)
class _Hour:
    """Wh of one hour."""

    consumed: int = 0
    claimed: int = 0

    def add(self, consumed_wh: Iterable[int], claimed_wh: Iterable[int]) -> None:
        self.consumed += sum(consumed_wh)
        self.claimed += sum(claimed_wh)


def show_consumption(view: View, owner: Address, period: Period) -> JsonObject:
    """What the owner's meters recorded in a period of whole hours, what hourly claims cover, and the score of that.

    Quarantined values do not count. Raises ``Rejected`` (``period_too_long``).
    """
    meters = [
        meter
        for site in list_sites(view, owner)
        for meter in list_meters(view, site)
        if find_channel(get_known_meter(view, meter), Channel.CONSUMPTION) is not None
    ]
    hours: defaultdict[int, _Hour] = defaultdict(_Hour)
    intervals_left = INTERVALS_READ_MAX
    for meter in meters:
        intervals_left = _add_meter(view, meter, period, hours, intervals_left)
    consumed_wh = sum(one.consumed for one in hours.values())
    score = compute_matching_score([one.consumed for one in hours.values()], [one.claimed for one in hours.values()])
    return {
        "meters": [meter.hex() for meter in meters],
        "consumed_wh": consumed_wh,
        "claimed_hourly_wh": sum(one.claimed for one in hours.values()),
        "matching_score_per_mille": score * PER_MILLE // SCORE_SCALE if consumed_wh else None,
        "hours": [
            {"start_ms": start_ms, "consumed_wh": one.consumed, "claimed_wh": one.claimed}
            for start_ms, one in sorted(hours.items())
        ],
    }


def _add_meter(view: View, meter: bytes, period: Period, hours: defaultdict[int, _Hour], intervals_left: int) -> int:
    """Add the reports of a meter; the answer is how many more intervals may be read."""
    report = find_report_at(view.state, meter, Channel.CONSUMPTION, period.start_ms)
    if report is None:
        report = find_report_after(view.state, meter, Channel.CONSUMPTION, period.start_ms)
    while report is not None and report.start_ms < period.end_ms:
        intervals_left -= len(report.values_wh)
        if intervals_left < 0:
            raise Rejected("period_too_long", f"more than {INTERVALS_READ_MAX} consumption intervals")
        _add_report(report, get_claimed_wh(view.state, meter, report), period, hours)
        report = find_report_after(view.state, meter, Channel.CONSUMPTION, report.start_ms)
    return intervals_left


def _add_report(
    report: ReportRecord, claimed_wh: tuple[int, ...], period: Period, hours: defaultdict[int, _Hour]
) -> None:
    """Add the hours of a report that lie in the period."""
    length_ms = report.interval_s * 1_000
    quarantined = frozenset(report.quarantined)
    at = max(0, -((report.start_ms - period.start_ms) // length_ms))
    stop = min(len(report.values_wh), -((report.start_ms - period.end_ms) // length_ms))
    while at < stop:
        start_ms = report.start_ms + at * length_ms
        hour_ms = start_ms - start_ms % HOUR_MS
        until = min(stop, at + (hour_ms + HOUR_MS - start_ms) // length_ms)
        if not quarantined:
            hours[hour_ms].add(report.values_wh[at:until], claimed_wh[at:until])
        elif counted := [place for place in range(at, until) if place not in quarantined]:
            hours[hour_ms].add([report.values_wh[place] for place in counted], [claimed_wh[place] for place in counted])
        at = until
