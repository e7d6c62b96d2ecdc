"""Which meters a question is about: one meter, or those of a site, of a grid zone, of a technology.

Owns the choice, with the time for which it holds: a site that was amended into another zone counts to each zone for
its time there. The grain is the hour, as in the index; an hour counts to the zone that it begins in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from contracts_native.meters import Channel, find_channel
from contracts_native.sites import PAST_SITES, SITES, Site, Technology
from ledger.errors import Malformed, Rejected
from node.index import HOUR_MS
from node.queries.sites import get_known_meter, get_known_site, list_meters
from node.queries.view import TIME_MS_MAX, Period, View, read_id, scan_table

SITES_READ_MAX: Final = 20_000  # when no site is named
_AT: Final = 8  # bytes of the moment in the key of a past site


@dataclass(frozen=True, slots=True)
class SourceFilter:
    """What sources have to be; None: anything. A meter of ``site`` and ``meter`` at once is refused."""

    site: bytes | None = None
    meter: bytes | None = None
    zone: str | None = None
    technology: Technology | None = None

    @property
    def is_open(self) -> bool:
        """Whether every source passes."""
        return self == SourceFilter()


@dataclass(frozen=True, slots=True)
class ChosenMeter:
    """A meter, and when it counts: disjoint periods of whole hours, in order."""

    meter: bytes
    periods: tuple[Period, ...]


def read_filter(site: str | None, meter: str | None, zone: str | None, technology: Technology | None) -> SourceFilter:
    """The filter that parameters say. Raises ``Malformed`` (``hex_invalid``, ``parameters_conflict``)."""
    if site is not None and meter is not None:
        raise Malformed("parameters_conflict", "give site or meter")
    site_id = None if site is None else read_id(site, name="site")
    meter_id = None if meter is None else read_id(meter, name="meter")
    return SourceFilter(site_id, meter_id, zone, technology)


def choose_meters(view: View, wanted: SourceFilter, period: Period) -> list[ChosenMeter]:
    """The meters that can produce and pass at some time of a period.

    Raises ``NotFound`` for a site or a meter that is named and not there, ``Rejected`` (``sites_too_many``).
    """
    if wanted.meter is not None:
        chosen = choose_meter(view, wanted, wanted.meter, period)
        return [] if chosen is None else [chosen]
    found = []
    for site_id, site in _list_sites(view, wanted):
        periods = _list_periods(view, wanted, site_id, site, period)
        if periods:
            meters = (meter for meter in list_meters(view, site_id) if _can_produce(view, meter))
            found += [ChosenMeter(meter, periods) for meter in meters]
    return found


def choose_meter(view: View, wanted: SourceFilter, meter: bytes, period: Period) -> ChosenMeter | None:
    """A meter, if it passes at some time of a period. Raises ``NotFound``."""
    site_id = get_known_meter(view, meter).site
    if wanted.meter not in (None, meter) or wanted.site not in (None, site_id):
        return None
    periods = _list_periods(view, wanted, site_id, get_known_site(view, site_id), period)
    return ChosenMeter(meter, periods) if periods else None


def _can_produce(view: View, meter: bytes) -> bool:
    return find_channel(get_known_meter(view, meter), Channel.PRODUCTION) is not None


def _list_sites(view: View, wanted: SourceFilter) -> Iterator[tuple[bytes, Site]]:
    if wanted.site is not None:
        yield wanted.site, get_known_site(view, wanted.site)
        return
    for count, row in enumerate(scan_table(view, SITES, None)):
        if count == SITES_READ_MAX:
            raise Rejected("sites_too_many", f"more than {SITES_READ_MAX}: name a site or a meter")
        yield row


def _list_periods(view: View, wanted: SourceFilter, site_id: bytes, site: Site, period: Period) -> tuple[Period, ...]:
    """The parts of a period in which a site passes."""
    if wanted.technology not in (None, site.technology):
        return ()
    if wanted.zone is None:
        return (period,)
    found = []
    for start_ms, end_ms, zone in _list_zones(view, site_id, site):
        first_ms = max(period.start_ms, -(-start_ms // HOUR_MS) * HOUR_MS)
        until_ms = min(period.end_ms, -(-end_ms // HOUR_MS) * HOUR_MS)
        if zone == wanted.zone and first_ms < until_ms:
            found.append(Period(first_ms, until_ms))
    return tuple(found)


def _list_zones(view: View, site_id: bytes, site: Site) -> Iterator[tuple[int, int, str]]:
    """(Start, end, zone) of each time between two amendments of a site."""
    start_ms = 0
    for key, before in PAST_SITES.scan(view.state, site_id):
        amended_ms = int.from_bytes(key[-_AT:], "big")
        yield start_ms, amended_ms, before.zone
        start_ms = amended_ms
    yield start_ms, TIME_MS_MAX, site.zone
