"""Questions about energy: balances, slices, lots and claims.

Owns the answers of ``energy_balance``, ``energy_slices``, ``lot_get``, ``claim_get`` and ``claim_list``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Annotated, Final, Literal, TypedDict

from contracts_native.claims import CLAIMS, IMPAIRMENTS, Claim, ClaimStatus, get_lost_wh
from contracts_native.lots import Lot, get_slices_at
from contracts_native.sites import Shares, Technology
from contracts_native.slices import Slice, SliceStatus
from ledger.errors import Rejected
from ledger.fields import AddressText, JsonOf, Shown, to_json
from ledger.parameters import get_parameters
from ledger.primitives import Address, format_address, parse_address
from node import chain_store, index
from node.answers import Merged, Named, Without, leave_out, merge
from node.index import DAY_MS, HOUR_MS, Holding, List
from node.queries.errors import NotFound
from node.queries.lot_ids import LotKey, LotRange, get_known_lot, iterate_lots, parse_lot_id, show_lot_id
from node.queries.participants import get_known_participant
from node.queries.sites import get_known_site
from node.queries.view import (
    LIMIT_DEFAULT,
    Limit,
    ObjectId,
    Paged,
    Period,
    TimeMs,
    View,
    make_page,
    read_cursor,
    read_id,
    read_optional_address,
    read_period,
    scan_objects,
)

EXPIRED_DAYS_READ_MAX: Final = 50_000  # meters' days whose lots are past their lifetime
_DAY, _METER, _NUMBER = 4, 16, 8
_CURSOR_BYTES: Final = _DAY + _METER + 3 * _NUMBER  # day, meter, start of the lot, its version, first Wh of the slice


@dataclass(frozen=True, slots=True)
class HeldSlice:
    """A slice with the lot that it is part of."""

    lot: Lot
    slice: Slice


class EnergyBalance(TypedDict):
    """What a participant has, in Wh."""

    holder: AddressText
    active_wh: int
    reserved_wh: int
    expired_wh: int
    claimed_wh: int
    claimed_for_others_wh: int
    impaired_wh: int
    charged_wh: int
    withdrawn_wh: int


class SliceWh(TypedDict):
    """How much a slice is."""

    wh: int


SliceRow = Annotated[Merged[Shown[Slice], SliceWh], Named("SliceRow")]


class HeldLot(LotKey):
    """The lot that a slice is part of."""

    site: ObjectId
    technology: Annotated[str, JsonOf(Technology)]
    zone: str
    start_ms: TimeMs
    end_ms: TimeMs


HeldSliceRow = Annotated[Merged[HeldLot, SliceRow], Named("HeldSliceRow")]


class EnergySlices(Paged):
    """The slices of a holder."""

    holder: AddressText
    slices: list[HeldSliceRow]


class LotRow(LotKey):
    """A lot, whoever holds it. ``shares``: of each shareholder its address and weight."""

    meter: ObjectId
    site: ObjectId
    technology: Annotated[str, JsonOf(Technology)]
    zone: str
    start_ms: TimeMs
    end_ms: TimeMs
    wh: int
    shares: Annotated[list[list[str | int]], JsonOf(Shares)]


class LotAnswer(LotRow):
    """A lot, and the slices that partition it."""

    slices: list[SliceRow]


class ClaimKey(TypedDict):
    """Which claim it is, and whether it is matched by the hour."""

    claim: ObjectId
    is_hourly: bool


class ClaimLosses(TypedDict):
    """How many slices a claim has, and what of it no longer counts."""

    slices_count: int
    lost_wh: int
    replaced_wh: int


class ClaimedRange(LotRange):
    """A slice that was claimed, and what the claim lost of it."""

    lost_wh: int


class ClaimedRanges(TypedDict):
    """The slices of a claim."""

    slices: list[ClaimedRange]


ClaimRow = Annotated[Merged[Merged[ClaimKey, Without[Shown[Claim], Literal["slices"]]], ClaimLosses], Named("ClaimRow")]
ClaimAnswer = Annotated[Merged[ClaimRow, ClaimedRanges], Named("ClaimAnswer")]


class ClaimList(Paged):
    """Claims without their slices."""

    claims: list[ClaimRow]


def energy_balance(view: View, *, holder: str) -> EnergyBalance:
    """What a participant has, in Wh by status. Raises ``NotFound``.

    ``active_wh``: held and not past its lifetime. ``reserved_wh``: set aside for offers. ``claimed_wh``: used for this
    participant, whoever held it. ``claimed_for_others_wh``: what it held and used for others, where it counts as
    claimed. ``impaired_wh``: was used for it, and no longer counts. ``charged_wh``: went into a storage of its own.
    ``withdrawn_wh``: it held this when it turned out not to be.
    """
    address = parse_address(holder)
    get_known_participant(view, address)
    sums = index.get_balance(view.reader, address)
    expired_wh = _compute_expired_wh(view, address)
    return {
        "holder": holder,
        "active_wh": sums.held - expired_wh,
        "reserved_wh": sums.reserved,
        "expired_wh": expired_wh,
        "claimed_wh": sums.claimed,
        "claimed_for_others_wh": sums.used_for_others,
        "impaired_wh": sums.impaired,
        "charged_wh": sums.charged,
        "withdrawn_wh": sums.withdrawn,
    }


def energy_slices(
    view: View,
    *,
    holder: str,
    site: str | None = None,
    technology: Technology | None = None,
    zone: str | None = None,
    from_ms: TimeMs | None = None,
    until_ms: TimeMs | None = None,
    status: SliceStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> EnergySlices:
    """The slices that a participant holds or has used, of lots that start in a period. Raises ``NotFound``."""
    address = parse_address(holder)
    get_known_participant(view, address)
    site_id = None if site is None else read_id(site, name="site")
    if site_id is not None:
        get_known_site(view, site_id)

    def keep(one: HeldSlice) -> bool:
        return (
            site_id in (None, one.lot.site)
            and technology in (None, one.lot.technology)
            and zone in (None, one.lot.zone)
            and status in (None, one.slice.status)
        )

    rows = _iterate_slices(view, address, read_period(from_ms, until_ms), cursor)
    page = make_page(rows, limit, _show_held_slice, keep=keep)
    return {"holder": holder, "slices": page.items, "next_cursor": page.next_cursor}


def lot_get(view: View, *, lot: str) -> LotAnswer:
    """A lot, and the slices that partition it now. ``lot`` is ``meter:start_ms:version``. Raises ``NotFound``."""
    found = get_known_lot(view, parse_lot_id(lot))
    return {**show_lot(found), "slices": show_slices(view, found)}


def claim_get(view: View, *, claim: str) -> ClaimAnswer:
    """A claim with its slices, and what it lost of each. Raises ``NotFound`` (``claim_not_found``).

    ``lost_wh`` no longer counts, since the energy or the consumption was corrected; ``replaced_wh`` of it was made good
    by other claims.
    """
    claim_id = read_id(claim, name="claim")
    found = CLAIMS.find(view.state, claim_id)
    if found is None:
        raise NotFound("claim_not_found", claim)
    slices: list[ClaimedRange] = [
        {**show_lot_id(ref.lot), "first_wh": ref.first_wh, "end_wh": ref.end_wh, "lost_wh": lost}
        for ref, lost in zip(found.slices, get_lost_wh(view.state, claim_id, found), strict=True)
    ]
    return merge(_show_claim(view, claim_id, found), {"slices": slices})


def claim_list(
    view: View,
    *,
    beneficiary: str | None = None,
    claimant: str | None = None,
    status: ClaimStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> ClaimList:
    """Claims without their slices: of a beneficiary or a claimant oldest first, otherwise by id.

    ``lost_wh`` and ``replaced_wh`` as in ``claim_get``.
    """
    for_whom, by_whom = read_optional_address(beneficiary), read_optional_address(claimant)

    def keep(row: tuple[bytes, Claim]) -> bool:
        one = row[1]
        return for_whom in (None, one.beneficiary) and by_whom in (None, one.claimant) and status in (None, one.status)

    lists = ((List.CLAIMS_OF_BENEFICIARY, for_whom), (List.CLAIMS_OF_CLAIMANT, by_whom))
    found = scan_objects(view, CLAIMS, lists, cursor)
    page = make_page(found, limit, lambda row: _show_claim(view, *row), keep=keep)
    return {"claims": page.items, "next_cursor": page.next_cursor}


def show_lot(lot: Lot) -> LotRow:
    """What is known of a lot, whoever holds it."""
    return {
        **show_lot_id(lot.lot),
        "meter": lot.lot.meter.hex(),
        "site": lot.site.hex(),
        "technology": lot.technology.value,
        "zone": lot.zone,
        "start_ms": lot.start_ms,
        "end_ms": lot.end_ms,
        "wh": lot.wh,
        "shares": [[format_address(holder), weight] for holder, weight in lot.shares],
    }


def show_slices(view: View, lot: Lot) -> list[SliceRow]:
    """The slices of a lot as they stand at the head."""
    return [_show_slice(one) for one in get_slices_at(view.state, lot.lot, time_ms=get_head_time_ms(view))]


def get_head_time_ms(view: View) -> int:
    """Block time of the head."""
    return chain_store.get_header(view.reader, chain_store.read_head_height(view.reader)).time_ms


def _compute_expired_wh(view: View, holder: Address) -> int:
    """What a holder kept until its lots were past their lifetime; reads only days that are that old."""
    time_ms = get_head_time_ms(view)
    last_end_ms = time_ms - get_parameters(view.state).lot_lifetime_s * 1_000
    if last_end_ms <= 0:
        return 0
    expired_wh = 0
    old = index.scan_holder(view.reader, holder, index.get_days(0, last_end_ms))
    for count, (day, meter, holding) in enumerate(old):
        if count == EXPIRED_DAYS_READ_MAX:
            raise Rejected("balance_too_large_to_sum", format_address(holder))
        for hour, held_wh in enumerate(holding.held):
            start_ms = day * DAY_MS + hour * HOUR_MS
            if start_ms + HOUR_MS <= last_end_ms:
                expired_wh += held_wh
            elif held_wh and start_ms < last_end_ms:  # lots of a quarter-hour: some have ended, some have not
                period = Period(start_ms, start_ms + HOUR_MS)
                expired_wh += sum(
                    one.slice.end_wh - one.slice.first_wh
                    for one in _list_slices(view, holder, meter, period, time_ms=time_ms)
                    if one.slice.status is SliceStatus.EXPIRED
                )
    return expired_wh


def _iterate_slices(
    view: View, holder: Address, period: Period, cursor: str | None
) -> Iterator[tuple[bytes, HeldSlice]]:
    """Slices by day, meter, lot and place in the lot. The index tells which hours are worth looking at."""
    past = read_cursor(cursor, length=_CURSOR_BYTES)
    time_ms = get_head_time_ms(view)
    days = index.get_days(period.start_ms, period.end_ms)
    first_meter = b""
    if past is not None:
        first_day = int.from_bytes(past[:_DAY], "big")
        if first_day >= days.start:
            days, first_meter = range(first_day, days.stop), past[_DAY : _DAY + _METER]
    for day, meter, holding in index.scan_holder(view.reader, holder, days, first_meter=first_meter):
        for hour in _list_hours(holding):
            start_ms = day * DAY_MS + hour * HOUR_MS
            within = Period(max(start_ms, period.start_ms), min(start_ms + HOUR_MS, period.end_ms))
            for one in _list_slices(view, holder, meter, within, time_ms=time_ms):
                numbers = (one.lot.start_ms, one.lot.lot.version, one.slice.first_wh)
                key = (
                    day.to_bytes(_DAY, "big") + meter + b"".join(number.to_bytes(_NUMBER, "big") for number in numbers)
                )
                if past is None or key > past:
                    yield key, one


def _list_slices(view: View, holder: Address, meter: bytes, period: Period, *, time_ms: int) -> list[HeldSlice]:
    lots = list(iterate_lots(view.state, meter, from_ms=period.start_ms, until_ms=period.end_ms))
    return [
        HeldSlice(lot, one)
        for lot in sorted(lots, key=lambda lot: (lot.start_ms, lot.lot.version))
        for one in get_slices_at(view.state, lot.lot, time_ms=time_ms)
        if one.holder == holder
    ]


def _list_hours(holding: Holding) -> list[int]:
    """The hours in which a holder has slices, or had some and used them."""
    columns = zip(*astuple(holding), strict=True)
    return [hour for hour, statuses in enumerate(columns) if any(statuses)]


def _show_held_slice(one: HeldSlice) -> HeldSliceRow:
    lot: HeldLot = {
        **show_lot_id(one.lot.lot),
        "site": one.lot.site.hex(),
        "technology": one.lot.technology.value,
        "zone": one.lot.zone,
        "start_ms": one.lot.start_ms,
        "end_ms": one.lot.end_ms,
    }
    return merge(lot, _show_slice(one.slice))


def _show_slice(one: Slice) -> SliceRow:
    return merge(to_json(one), {"wh": one.end_wh - one.first_wh})


def _show_claim(view: View, claim_id: bytes, claim: Claim) -> ClaimRow:
    impairment = IMPAIRMENTS.find(view.state, claim_id)
    key: ClaimKey = {"claim": claim_id.hex(), "is_hourly": claim.is_hourly}
    losses: ClaimLosses = {
        "slices_count": len(claim.slices),
        "lost_wh": 0 if impairment is None else sum(impairment.lost_wh),
        "replaced_wh": 0 if impairment is None else impairment.replaced_wh,
    }
    return merge(merge(key, leave_out(to_json(claim), "slices")), losses)
