"""Questions about sites and meters.

Owns the answers of ``site_get``, ``site_list``, ``meter_get`` and ``meter_list``.
"""

from __future__ import annotations

from contracts_native.meters import CHANNELS, METERS, Meter, MeterStatus
from contracts_native.sites import SITES, Site, Technology
from ledger.fields import Json, to_json
from node.index import List, scan_list
from node.queries.errors import NotFound
from node.queries.view import (
    LIMIT_DEFAULT,
    JsonObject,
    Limit,
    View,
    make_page,
    merge_json,
    read_id,
    read_optional_address,
    scan_objects,
)


def site_get(view: View, *, site: str) -> JsonObject:
    """A site with the ids of its meters. Raises ``NotFound``."""
    site_id = read_id(site, name="site")
    found = get_known_site(view, site_id)
    meters: list[Json] = [meter.hex() for meter in list_meters(view, site_id)]
    return merge_json({"site": site}, found, meters=meters)


def site_list(
    view: View,
    *,
    owner: str | None = None,
    utility: str | None = None,
    technology: Technology | None = None,
    zone: str | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> JsonObject:
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
    return make_page(rows, limit, _show_site, keep=keep).to_json("sites")


def meter_get(view: View, *, meter: str) -> JsonObject:
    """A meter, and for each channel the last accepted sequence number, end and register. Raises ``NotFound``."""
    meter_id = read_id(meter, name="meter")
    found = get_known_meter(view, meter_id)
    last: dict[str, Json] = {}
    for spec in found.channels:
        record = CHANNELS.find(view.state, meter_id, spec.channel)
        last[spec.channel.value] = None if record is None else to_json(record)
    return {**_show_meter((meter_id, found)), "last_accepted": last}


def meter_list(
    view: View,
    *,
    site: str | None = None,
    utility: str | None = None,
    status: MeterStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> JsonObject:
    """Meters, perhaps only those of a site, of a utility, in a status."""
    site_id = None if site is None else read_id(site, name="site")
    of_utility = read_optional_address(utility)

    def keep(row: tuple[bytes, Meter]) -> bool:
        return of_utility in (None, row[1].utility) and status in (None, row[1].status)

    rows = scan_objects(view, METERS, ((List.METERS_OF_SITE, site_id),), cursor)
    return make_page(rows, limit, _show_meter, keep=keep).to_json("meters")


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


def _show_site(row: tuple[bytes, Site]) -> JsonObject:
    return merge_json({"site": row[0].hex()}, row[1])


def _show_meter(row: tuple[bytes, Meter]) -> JsonObject:
    return merge_json({"meter": row[0].hex()}, row[1])
