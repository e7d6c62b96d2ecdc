"""What a participant's own meters consumed, hour by hour, and what hourly claims cover of it.

Owns the ``consumption`` of ``trace_holder`` with its matching score. It reads whole reports, not interval by interval:
a year of quarter-hours is twelve entries of the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from contracts_native.claims import SCORE_SCALE, compute_matching_score
from contracts_native.matching import get_claimed_wh
from contracts_native.meters import Channel, find_channel
from contracts_native.readings import ReportRecord, iterate_reports
from ledger.errors import Rejected
from ledger.primitives import Address
from node.index import HOUR_MS
from node.queries.sites import get_known_meter, list_meters, list_sites
from node.queries.view import JsonObject, Period, View

INTERVALS_READ_MAX: Final = 500_000  # a year of fourteen meters
PER_MILLE: Final = 1_000


_NOTHING: Final = (0, 0)
Hours = dict[int, tuple[int, int]]  # start → Wh that were consumed, and that hourly claims took of them


def show_consumption(view: View, owner: Address, period: Period, shown: Period) -> JsonObject:
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
    for report in iterate_reports(view.state, meter, Channel.CONSUMPTION, from_ms=period.start_ms):
        if report.start_ms >= period.end_ms:
            break
        intervals_left -= len(report.values_wh)
        if intervals_left < 0:
            raise Rejected("period_too_long", f"more than {INTERVALS_READ_MAX} consumption intervals")
        _add_report(report, get_claimed_wh(view.state, meter, report), period, hours)
    return intervals_left


def _add_report(report: ReportRecord, claimed_wh: Sequence[int], period: Period, hours: Hours) -> None:
    """Add the hours of a report that lie in the period."""
    length_ms = report.interval_s * 1_000
    values_wh: Sequence[int] = report.values_wh
    if report.quarantined:
        quarantined = frozenset(report.quarantined)
        values_wh = [0 if place in quarantined else wh for place, wh in enumerate(values_wh)]
        claimed_wh = [0 if place in quarantined else wh for place, wh in enumerate(claimed_wh)]
    at = max(0, -((report.start_ms - period.start_ms) // length_ms))
    stop = min(len(values_wh), -((report.start_ms - period.end_ms) // length_ms))
    if at >= stop:
        return
    start_ms = report.start_ms + at * length_ms
    hour_ms = start_ms - start_ms % HOUR_MS
    first_until = at + (hour_ms + HOUR_MS - start_ms) // length_ms
    for until in (*range(first_until, stop, HOUR_MS // length_ms), stop):
        consumed, claimed = hours.get(hour_ms, _NOTHING)
        hours[hour_ms] = consumed + sum(values_wh[at:until]), claimed + sum(claimed_wh[at:until])
        at, hour_ms = until, hour_ms + HOUR_MS
