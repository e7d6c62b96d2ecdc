"""Questions about sites and meters.

Owns the answers of ``site_get``, ``site_list``, ``meter_get`` and ``meter_list``.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from contracts_native.meters import CHANNELS, METERS, ChannelRecord, Meter, MeterStatus
from contracts_native.sites import SITES, Site, Technology
from ledger.fields import Shown, to_json
from node.answers import Merged, Named, merge
from node.index import List, scan_list
from node.queries.errors import NotFound
from node.queries.view import (
    LIMIT_DEFAULT,
    Limit,
    ObjectId,
    Paged,
    View,
    make_page,
    read_id,
    read_optional_address,
    scan_objects,
)


class SiteKey(TypedDict):
    """Which site it is."""

    site: ObjectId


class SiteMeters(TypedDict):
    """The meters of a site, in the order of their registration."""

    meters: list[ObjectId]


class MeterKey(TypedDict):
    """Which meter it is."""

    meter: ObjectId


class MeterStands(TypedDict):
    """By channel what was last accepted, null before the first report."""

    last_accepted: dict[str, Shown[ChannelRecord] | None]


SiteRow = Annotated[Merged[SiteKey, Shown[Site]], Named("SiteRow")]
SiteAnswer = Annotated[Merged[SiteRow, SiteMeters], Named("SiteAnswer")]
MeterRow = Annotated[Merged[MeterKey, Shown[Meter]], Named("MeterRow")]
MeterAnswer = Annotated[Merged[MeterRow, MeterStands], Named("MeterAnswer")]


class SiteList(Paged):
    """Sites."""

    sites: list[SiteRow]


class MeterList(Paged):
    """Meters."""

    meters: list[MeterRow]


def site_get(view: View, *, site: str) -> SiteAnswer:
    """A site with the ids of its meters. Raises ``NotFound``."""
    site_id = read_id(site, name="site")
    found = get_known_site(view, site_id)
    return merge(_show_site((site_id, found)), {"meters": [meter.hex() for meter in list_meters(view, site_id)]})


def site_list(
    view: View,
    *,
    owner: str | None = None,
    utility: str | None = None,
    technology: Technology | None = None,
    zone: str | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> SiteList:
    """Sites, perhaps only those of an owner, a utility, a technology, a grid zone."""
    of_owner = read_optional_address(owner)
    of_utility = read_optional_address(utility)

    def keep(row: tuple[bytes, Site]) -> bool:
        site = row[1]
        return (
            of_utility in (None, site.utility)
            and technology in (None, site.technology)
            and zone in (None, site.zone)
            and of_owner in (None, site.owner)
        )

    rows = scan_objects(view, SITES, ((List.SITES_OF_OWNER, of_owner),), cursor)
    page = make_page(rows, limit, _show_site, keep=keep)
    return {"sites": page.items, "next_cursor": page.next_cursor}


def meter_get(view: View, *, meter: str) -> MeterAnswer:
    """A meter, and for each channel the last accepted sequence number, end and register. Raises ``NotFound``."""
    meter_id = read_id(meter, name="meter")
    found = get_known_meter(view, meter_id)
    last: dict[str, Shown[ChannelRecord] | None] = {}
    for spec in found.channels:
        record = CHANNELS.find(view.state, meter_id, spec.channel)
        last[spec.channel.value] = None if record is None else to_json(record)
    return merge(_show_meter((meter_id, found)), {"last_accepted": last})


def meter_list(
    view: View,
    *,
    site: str | None = None,
    utility: str | None = None,
    status: MeterStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> MeterList:
    """Meters, perhaps only those of a site, of a utility, in a status."""
    site_id = None if site is None else read_id(site, name="site")
    of_utility = read_optional_address(utility)

    def keep(row: tuple[bytes, Meter]) -> bool:
        return of_utility in (None, row[1].utility) and status in (None, row[1].status)

    rows = scan_objects(view, METERS, ((List.METERS_OF_SITE, site_id),), cursor)
    page = make_page(rows, limit, _show_meter, keep=keep)
    return {"meters": page.items, "next_cursor": page.next_cursor}


def get_known_site(view: View, site: bytes) -> Site:
    """A registered site. Raises ``NotFound`` (``site_not_found``)."""
    found = SITES.find(view.state, site)
    if found is None:
        raise NotFound("site_not_found", site.hex())
    return found


def get_known_meter(view: View, meter: bytes) -> Meter:
    """A registered meter. Raises ``NotFound`` (``meter_not_found``)."""
    found = METERS.find(view.state, meter)
    if found is None:
        raise NotFound("meter_not_found", meter.hex())
    return found


def list_meters(view: View, site: bytes) -> list[bytes]:
    """The ids of a site's meters, in the order of their registration."""
    return [meter for _, meter in scan_list(view.reader, List.METERS_OF_SITE, site)]


def list_sites(view: View, owner: bytes) -> list[bytes]:
    """The ids of an owner's sites, in the order of their registration."""
    return [site for _, site in scan_list(view.reader, List.SITES_OF_OWNER, owner)]


def _show_site(row: tuple[bytes, Site]) -> SiteRow:
    return merge({"site": row[0].hex()}, to_json(row[1]))


def _show_meter(row: tuple[bytes, Meter]) -> MeterRow:
    return merge({"meter": row[0].hex()}, to_json(row[1]))
