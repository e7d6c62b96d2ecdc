"""Sites: places that produce, store or consume.

Owns what is known of a site, now and at each time before: its owner, its utility, its grid zone, and the shares in
which its lots are minted. What changes them stands in amendments.py, since it looks at the site's meters.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native.participants import Label, Role
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Bounds, Length
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import Payload, TxContext, transaction

ZONE_BYTES_MAX: Final = 16
SHAREHOLDERS_MAX: Final = 256  # below the slices that a lot may have, so that every lot can be minted
DOCUMENT_BYTES_MAX: Final = 64
CAPACITY_W_MAX: Final = 10**12
INSTANT_MS_MAX: Final = 2**53
PER_MILLE: Final = 1_000
STORAGE_EFFICIENCY_PER_MILLE: Final = 850  # of a site until it is amended; lithium cells with their converters


class Technology(enum.StrEnum):
    """What a site does; a load only consumes."""

    SOLAR = "solar"
    WIND = "wind"
    HYDRO = "hydro"
    BIOMASS = "biomass"
    GEOTHERMAL = "geothermal"
    STORAGE = "storage"
    LOAD = "load"


SiteId = Annotated[bytes, Length(16, 16)]
Zone = Annotated[str, Length(ZONE_BYTES_MAX, 1)]
CapacityW = Annotated[int, Bounds(1, CAPACITY_W_MAX)]
InstantMs = Annotated[int, Bounds(0, INSTANT_MS_MAX)]
EfficiencyPerMille = Annotated[int, Bounds(1, PER_MILLE)]
DocumentRef = Annotated[bytes, Length(DOCUMENT_BYTES_MAX, 1)]
Shares = Annotated[tuple[tuple[Address, int], ...], Length(SHAREHOLDERS_MAX, 1)]  # holder, weight ≥ 1


@dataclass(frozen=True, slots=True)
class Site:
    """A place. ``shares`` says to whom its lots are minted, in proportion to the weights.

    ``since_ms``: from when on this is so; what was before stands in ``PAST_SITES``. ``efficiency_per_mille``: the most
    that a storage gives back of what went in.
    """

    owner: Address
    utility: Address
    technology: Technology
    zone: Zone
    capacity_w: CapacityW
    label: Label
    commissioned_ms: InstantMs
    design_document: DocumentRef | None
    shares: Shares
    since_ms: InstantMs
    efficiency_per_mille: EfficiencyPerMille


SITES: Table[Site] = Table("si", Site, missing="site_unknown", is_hot=True)
PAST_SITES: Table[Site] = Table("sp", Site, missing="site_unknown")  # site, when it was amended


@event("site.registered")
@dataclass(frozen=True, slots=True)
class SiteRegistered(Event):
    """A site exists from now on."""

    site: SiteId
    owner: Address
    utility: Address
    technology: Technology
    zone: Zone
    capacity_w: CapacityW
    label: Label


def get_site(state: State, site: bytes) -> Site:
    """A registered site. Raises ``RuleViolated`` (``site_unknown``)."""
    return SITES.get(state, site)


def get_site_throughout(state: State, site_id: bytes, *, start_ms: int, end_ms: int) -> Site:
    """A site as it was all through a period, with the shares that hold now.

    Raises ``RuleViolated`` (``site_unknown``, ``reading_spans_amendment``).
    """
    site = SITES.get(state, site_id)
    if start_ms >= site.since_ms:
        return site
    found = PAST_SITES.find_above(state, site_id, start_ms)
    if found is None:
        return site
    amended_ms = int.from_bytes(found[0][-8:], "big")
    if end_ms > amended_ms:
        raise RuleViolated("reading_spans_amendment", f"{site_id.hex()} was amended at {amended_ms}")
    return replace(found[1], shares=site.shares)


def get_zone_at(state: State, site_id: bytes, instant_ms: int) -> str:
    """The grid zone that a site was in at a time. Raises ``RuleViolated`` (``site_unknown``)."""
    return get_site_throughout(state, site_id, start_ms=instant_ms, end_ms=instant_ms).zone


@transaction("site.register", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class RegisterSite(Payload):
    """Register a site of the sending utility; its owner countersigns. The id: ``tx.make_id("site")``."""

    owner: Address
    technology: Technology
    zone: Zone
    capacity_w: CapacityW
    label: Label
    commissioned_ms: InstantMs
    design_document: DocumentRef | None = None

    def apply(self, state: State, tx: TxContext) -> None:
        check_countersigned(tx, self.owner)
        site_id = tx.make_id("site")
        site = Site(
            self.owner,
            tx.sender,
            self.technology,
            self.zone,
            self.capacity_w,
            self.label,
            self.commissioned_ms,
            self.design_document,
            shares=((self.owner, 1),),
            since_ms=self.commissioned_ms,
            efficiency_per_mille=STORAGE_EFFICIENCY_PER_MILLE,
        )
        SITES.put(state, site_id, value=site)
        state.emit(
            SiteRegistered(site_id, self.owner, tx.sender, self.technology, self.zone, self.capacity_w, self.label)
        )


def check_countersigned(tx: TxContext, owner: Address) -> None:
    """The owner of a site is among the signers. Raises ``NotPermitted`` (``owner_countersignature_missing``)."""
    if owner not in tx.signers:
        raise NotPermitted("owner_countersignature_missing", format_address(owner))
