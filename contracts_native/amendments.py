"""Amendments: how a site changes, from a date on and never before what its meters have reported.

Owns ``site.amend`` and ``site.set_shares``. An amendment keeps the site as it was, so that late readings of an earlier
time are minted as of then; shares hold for every lot that is minted from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from contracts_native.meters import Channel, find_channel, get_last_end_ms, list_site_meters
from contracts_native.participants import Label, Role, check_not_frozen, has_role
from contracts_native.sites import (
    PAST_SITES,
    SITES,
    CapacityW,
    DocumentRef,
    EfficiencyPerMille,
    InstantMs,
    Shares,
    Site,
    SiteId,
    Technology,
    Zone,
    check_countersigned,
    get_site,
)
from ledger.errors import NotPermitted, RuleViolated
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.transaction import Payload, TxContext, transaction

WEIGHTS_MAX: Final = 10**9  # the sum of all weights: parts per thousand million
SHAREHOLDER_ROLES: Final = (Role.INVESTOR, Role.INSTITUTION)


@event("site.amended")
@dataclass(frozen=True, slots=True)
class SiteAmended(Event):
    """What a site is from a date on."""

    site: SiteId
    from_ms: InstantMs
    zone: Zone
    capacity_w: CapacityW
    label: Label
    design_document: DocumentRef | None
    efficiency_per_mille: EfficiencyPerMille


@event("site.shares_set")
@dataclass(frozen=True, slots=True)
class SharesSet(Event):
    """To whom the lots of a site are minted from now on."""

    site: SiteId
    shares: Shares


@transaction("site.amend", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class AmendSite(Payload):
    """Change a site of the sending utility from a date on; its owner countersigns. What is not named stays.

    The date lies after the last amendment, and not before the end of the last interval that a meter there reported.
    """

    site: SiteId
    from_ms: InstantMs
    zone: Zone | None = None
    capacity_w: CapacityW | None = None
    label: Label | None = None
    design_document: DocumentRef | None = None
    efficiency_per_mille: EfficiencyPerMille | None = None

    def apply(self, state: State, tx: TxContext) -> None:
        before = _get_own_site(state, self.site, tx)
        after = self._amend(before)
        if replace(after, since_ms=before.since_ms) == before:
            raise RuleViolated("amendment_changes_nothing", self.site.hex())
        if self.from_ms <= before.since_ms:
            raise RuleViolated("amendment_before_the_last", f"{self.from_ms} is not after {before.since_ms}")
        self._check_meters(state, after)
        PAST_SITES.put(state, self.site, self.from_ms, value=before)
        SITES.put(state, self.site, value=after)
        state.emit(
            SiteAmended(
                self.site,
                self.from_ms,
                after.zone,
                after.capacity_w,
                after.label,
                after.design_document,
                after.efficiency_per_mille,
            )
        )

    def _amend(self, before: Site) -> Site:
        if self.efficiency_per_mille is not None and before.technology is not Technology.STORAGE:
            raise RuleViolated("site_is_no_storage", f"{self.site.hex()} is {before.technology}")
        return replace(
            before,
            zone=before.zone if self.zone is None else self.zone,
            capacity_w=before.capacity_w if self.capacity_w is None else self.capacity_w,
            label=before.label if self.label is None else self.label,
            design_document=before.design_document if self.design_document is None else self.design_document,
            efficiency_per_mille=self.efficiency_per_mille or before.efficiency_per_mille,
            since_ms=self.from_ms,
        )

    def _check_meters(self, state: State, after: Site) -> None:
        for meter_id, meter in list_site_meters(state, self.site):
            last_ms = get_last_end_ms(state, meter_id)
            if self.from_ms < last_ms:
                raise RuleViolated("amendment_before_last_reading", f"{meter_id.hex()} reported until {last_ms}")
            spec = find_channel(meter, Channel.PRODUCTION)
            if spec is not None and spec.capacity_w > after.capacity_w:
                raise RuleViolated("channel_capacity_above_site", f"{meter_id.hex()}: {spec.capacity_w} W")


@transaction("site.set_shares", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class SetShares(Payload):
    """Say to whom the lots of a site are minted from now on, in proportion to the weights.

    Sent by the site's utility, signed by its owner and by every shareholder whose part becomes smaller. A shareholder
    is the owner, an investor or an institution.
    """

    site: SiteId
    shares: Shares

    def apply(self, state: State, tx: TxContext) -> None:
        before = _get_own_site(state, self.site, tx)
        self._check_shares(state, before)
        if self.shares == before.shares:
            raise RuleViolated("amendment_changes_nothing", self.site.hex())
        for holder in _list_losers(before.shares, self.shares):
            if holder not in tx.signers:
                raise NotPermitted("shareholder_countersignature_missing", format_address(holder))
        SITES.put(state, self.site, value=replace(before, shares=self.shares))
        state.emit(SharesSet(self.site, self.shares))

    def _check_shares(self, state: State, site: Site) -> None:
        if len({holder for holder, _ in self.shares}) != len(self.shares):
            raise RuleViolated("shareholder_named_twice", self.site.hex())
        if sum(weight for _, weight in self.shares) > WEIGHTS_MAX:
            raise RuleViolated("share_weights_too_large", f"their sum is above {WEIGHTS_MAX}")
        for holder, weight in self.shares:
            if weight < 1:
                raise RuleViolated("share_weight_is_nothing", format_address(holder))
            check_not_frozen(state, holder)
            if holder != site.owner and not has_role(state, holder, SHAREHOLDER_ROLES):
                raise NotPermitted("shareholder_role_missing", format_address(holder))


def _get_own_site(state: State, site_id: bytes, tx: TxContext) -> Site:
    site = get_site(state, site_id)
    if site.utility != tx.sender:
        raise NotPermitted("site_of_another_utility", format_address(site.utility))
    check_countersigned(tx, site.owner)
    return site


def _list_losers(before: Shares, after: Shares) -> list[Address]:
    """The shareholders whose part is smaller than it was."""
    before_sum = sum(weight for _, weight in before)
    after_sum = sum(weight for _, weight in after)
    weights = dict(after)
    return [holder for holder, weight in before if weights.get(holder, 0) * before_sum < weight * after_sum]
