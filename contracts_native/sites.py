"""Sites: places that produce, store or consume.

Owns what is known of a site: its owner, its utility, its grid zone, and the shares in which its lots are minted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Final

from contracts_native.participants import Label, Role
from ledger.errors import NotPermitted
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
DocumentRef = Annotated[bytes, Length(DOCUMENT_BYTES_MAX, 1)]
Shares = Annotated[tuple[tuple[Address, int], ...], Length(SHAREHOLDERS_MAX, 1)]  # holder, weight ≥ 1


@dataclass(frozen=True, slots=True)
class Site:
    """A place. ``shares`` says to whom its lots are minted, in proportion to the weights."""

    owner: Address
    utility: Address
    technology: Technology
    zone: Zone
    capacity_w: CapacityW
    label: Label
    commissioned_ms: InstantMs
    design_document: DocumentRef | None
    shares: Shares


SITES: Table[Site] = Table("si", Site, missing="site_unknown", is_hot=True)


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
        )
        SITES.put(state, site_id, value=site)
        state.emit(
            SiteRegistered(site_id, self.owner, tx.sender, self.technology, self.zone, self.capacity_w, self.label)
        )


def check_countersigned(tx: TxContext, owner: Address) -> None:
    """The owner of a site is among the signers. Raises ``NotPermitted`` (``owner_countersignature_missing``)."""
    if owner not in tx.signers:
        raise NotPermitted("owner_countersignature_missing", format_address(owner))
