"""The residual mix: what nobody claimed of each zone's production before its lifetime was over, by hour.

Owns the answer of ``energy_residual_mix``. It is derived, never stored: expiry follows from block time alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final, TypedDict

from contracts_native.meters import METERS, Channel, find_channel
from contracts_native.sites import SITES, get_zone_at
from ledger.errors import Rejected
from ledger.parameters import get_parameters
from node import index
from node.index import DAY_MS, HOUR_MS
from node.queries.energy import get_head_time_ms
from node.queries.view import Period, PeriodShown, TimeMs, View, read_period_in_hours, scan_table

HOLDINGS_READ_MAX: Final = 200_000  # a year of a hundred plants with five holders


class MixHour(TypedDict):
    """What nobody claimed of an hour, in all and by technology."""

    start_ms: TimeMs
    wh: int
    by_technology: dict[str, int]


class ResidualMix(PeriodShown):
    """What nobody claimed of a period, in all, by technology and by hour."""

    zone: str
    wh: int
    by_technology: dict[str, int]
    hours: list[MixHour]


def energy_residual_mix(
    view: View, *, zone: str, from_ms: TimeMs | None = None, until_ms: TimeMs | None = None
) -> ResidualMix:
    """Unclaimed Wh of a grid zone's hours whose lots are all past their lifetime, by technology.

    What an open offer still reserves counts once the offer ends. The period is widened to whole hours. Raises
    ``Rejected`` (``period_too_long``).
    """
    period = read_period_in_hours(from_ms, until_ms)
    lifetime_ms = get_parameters(view.state).lot_lifetime_s * 1_000
    last_end_ms = min(period.end_ms, get_head_time_ms(view) - lifetime_ms)
    hours = _collect(view, zone, Period(period.start_ms, max(period.start_ms, last_end_ms)))
    shown: list[MixHour] = [
        {"start_ms": start_ms, "wh": sum(by_technology.values()), "by_technology": _show(by_technology)}
        for start_ms, by_technology in sorted(hours.items())
    ]
    total: Counter[str] = Counter()
    for by_technology in hours.values():
        total.update(by_technology)
    return {
        "zone": zone,
        **period.to_json(),
        "wh": sum(total.values()),
        "by_technology": _show(total),
        "hours": shown,
    }


def _collect(view: View, zone: str, period: Period) -> defaultdict[int, Counter[str]]:
    """Start of an hour → Wh by technology, for hours that end within the period."""
    hours: defaultdict[int, Counter[str]] = defaultdict(Counter)
    read = 0
    for meter_id, meter in scan_table(view, METERS, None):
        if find_channel(meter, Channel.PRODUCTION) is None:
            continue
        technology = SITES.get(view.state, meter.site).technology.value
        days = index.get_days(period.start_ms, period.end_ms)
        for day, _, holding in index.scan_source(view.reader, meter_id, days):
            read += 1
            if read > HOLDINGS_READ_MAX:
                raise Rejected("period_too_long", f"more than {HOLDINGS_READ_MAX} daily entries")
            for hour, wh in enumerate(holding.held):
                start_ms = day * DAY_MS + hour * HOUR_MS
                is_within = period.start_ms <= start_ms and start_ms + HOUR_MS <= period.end_ms
                if wh and is_within and get_zone_at(view.state, meter.site, start_ms) == zone:
                    hours[start_ms][technology] += wh
    return hours


def _show(by_technology: Counter[str]) -> dict[str, int]:
    return {name: by_technology[name] for name in sorted(by_technology)}
