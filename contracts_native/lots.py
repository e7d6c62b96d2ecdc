"""Lots and slices: watt-hours with an identity, and who holds them.

Owns the one rule that all rests on: the slices of a lot partition it exactly, whatever happens to them. A report mints
all its lots in one record; a lot gets a record of its own only when it is first touched, since most never are.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Final

from contracts_native.meters import MeterId
from contracts_native.participants import check_not_frozen
from contracts_native.sites import Shares, Site, SiteId, Technology, Zone
from ledger.errors import RuleViolated
from ledger.fields import Bounds, Length
from ledger.parameters import get_parameters
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction

LOT_SLICES_MAX: Final = 1_024  # about 40 kB; a lot is read and written whole
SLICES_PER_TRANSACTION_MAX: Final = 1_000
INTERVALS_PER_REPORT_MAX: Final = 3_000  # a month of quarter-hours
REFERENCE_BYTES_MAX: Final = 64
FIRST_VERSION: Final = 1


class SliceStatus(enum.StrEnum):
    """`active ⇄ reserved → claimed`; `active → expired`, `active → withdrawn`. Expiry follows from time alone."""

    ACTIVE = "active"
    RESERVED = "reserved"
    CLAIMED = "claimed"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


Reference = Annotated[str, Length(REFERENCE_BYTES_MAX)]
WhTuple = Annotated[tuple[int, ...], Length(INTERVALS_PER_REPORT_MAX, 1)]


@dataclass(frozen=True, slots=True)
class LotId:
    """What one production interval of one meter minted. The first version is 1."""

    meter: MeterId
    start_ms: int
    version: Annotated[int, Bounds(1, 2**31)]

    def __str__(self) -> str:
        return f"{self.meter.hex()}:{self.start_ms}:{self.version}"


@dataclass(frozen=True, slots=True)
class SliceRef:
    """The watt-hours [``first_wh``, ``end_wh``) of a lot; may span several slices if one holder has them all."""

    lot: LotId
    first_wh: int
    end_wh: int

    def __str__(self) -> str:
        return f"{self.lot} [{self.first_wh}, {self.end_wh})"


SliceRefs = Annotated[tuple[SliceRef, ...], Length(SLICES_PER_TRANSACTION_MAX, 1)]


@dataclass(frozen=True, slots=True)
class Slice:
    """A range of a lot. ``reference``: the claim, offer or escrow that has it; empty while active."""

    first_wh: int
    end_wh: int
    holder: Address
    status: SliceStatus
    reference: Annotated[bytes, Length(16)]


@dataclass(frozen=True, slots=True)
class Mint:
    """The lots of one report: ``wh`` for each interval in order, 0 where none was minted."""

    site: SiteId
    technology: Technology
    zone: Zone
    start_ms: int
    interval_s: int
    version: int
    wh: WhTuple
    shares: Shares


@dataclass(frozen=True, slots=True)
class LotSlices:
    """The slices of a lot that was touched, in order."""

    slices: Annotated[tuple[Slice, ...], Length(LOT_SLICES_MAX, 1)]


@dataclass(frozen=True, slots=True)
class Lot:
    """What is known of a lot, whoever holds it."""

    lot: LotId
    site: bytes
    technology: Technology
    zone: str
    start_ms: int
    interval_s: int
    wh: int
    shares: tuple[tuple[Address, int], ...]

    @property
    def end_ms(self) -> int:
        """When its production ended."""
        return self.start_ms + self.interval_s * 1_000


MINTS: Table[Mint] = Table("lm", Mint, missing="lot_unknown")  # meter, start of the report
SLICES: Table[LotSlices] = Table("ls", LotSlices, missing="lot_unknown")  # meter, start of the lot, version


@event("energy.minted")
@dataclass(frozen=True, slots=True)
class EnergyMinted(Event):
    """The lots of one report exist from now on, each split between the holders by ``split_by_shares``."""

    meter: MeterId
    site: SiteId
    start_ms: int
    interval_s: int
    version: int
    wh: WhTuple
    shares: Shares


@event("energy.moved")
@dataclass(frozen=True, slots=True)
class EnergyMoved(Event):
    """A range of a lot has a new holder."""

    lot: LotId
    first_wh: int
    end_wh: int
    sender: Address
    recipient: Address
    reference: Reference


def mint(
    state: State, meter: bytes, site_id: bytes, site: Site, *, start_ms: int, interval_s: int, wh: tuple[int, ...]
) -> None:
    """Mint the lots of a report whose intervals were never reported before; nothing if all are zero."""
    if not any(wh):
        return
    record = Mint(site_id, site.technology, site.zone, start_ms, interval_s, FIRST_VERSION, wh, site.shares)
    assert MINTS.find(state, meter, start_ms) is None, "a lot is minted once"
    MINTS.put(state, meter, start_ms, value=record)
    state.emit(EnergyMinted(meter, site_id, start_ms, interval_s, FIRST_VERSION, wh, site.shares))


def find_lot(state: State, lot: LotId) -> Lot | None:
    """A lot by its id, or None if no such interval was minted."""
    found = MINTS.find_floor(state, lot.meter, lot.start_ms)
    if found is None:
        return None
    record = found[1]
    index, rest = divmod(lot.start_ms - record.start_ms, record.interval_s * 1_000)
    if rest or index >= len(record.wh) or record.wh[index] == 0 or lot.version != record.version:
        return None
    return Lot(
        lot,
        record.site,
        record.technology,
        record.zone,
        lot.start_ms,
        record.interval_s,
        record.wh[index],
        record.shares,
    )


def get_lot(state: State, lot: LotId) -> Lot:
    """A lot by its id. Raises ``RuleViolated`` (``lot_unknown``)."""
    found = find_lot(state, lot)
    if found is None:
        raise RuleViolated("lot_unknown", lot)
    return found


def split_by_shares(wh: int, shares: Sequence[tuple[Address, int]]) -> list[int]:
    """Parts of ``wh`` in proportion to the weights, by largest remainder; equal remainders go by order.

    The parts are in the order of the shares and sum exactly to ``wh``.
    """
    total = sum(weight for _, weight in shares)
    parts = [wh * weight // total for _, weight in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: -(wh * shares[index][1] % total))
    for index in by_remainder[: wh - sum(parts)]:
        parts[index] += 1
    return parts


def make_first_slices(wh: int, shares: Sequence[tuple[Address, int]]) -> tuple[Slice, ...]:
    """The slices of a lot as it is minted; a shareholder whose part is 0 Wh gets none."""
    slices: list[Slice] = []
    first_wh = 0
    for (holder, _), part_wh in zip(shares, split_by_shares(wh, shares), strict=True):
        if part_wh:
            slices.append(Slice(first_wh, first_wh + part_wh, holder, SliceStatus.ACTIVE, b""))
            first_wh += part_wh
    return tuple(slices)


def get_slices(state: State, lot: LotId) -> tuple[Slice, ...]:
    """The slices of a lot in order, as stored. Raises ``RuleViolated`` (``lot_unknown``)."""
    return _get_slices(state, get_lot(state, lot))


def get_slices_at(state: State, lot: LotId, *, time_ms: int) -> tuple[Slice, ...]:
    """The slices of a lot as they stand at a time: what is active after the lot expired is ``expired``."""
    found = get_lot(state, lot)
    slices = _get_slices(state, found)
    if not is_expired(state, found, time_ms=time_ms):
        return slices
    return tuple(
        replace(one, status=SliceStatus.EXPIRED) if one.status is SliceStatus.ACTIVE else one for one in slices
    )


def is_expired(state: State, lot: Lot, *, time_ms: int) -> bool:
    """Whether a lot's lifetime is over: it may no longer be moved, reserved or claimed."""
    return time_ms >= lot.end_ms + get_parameters(state).lot_lifetime_s * 1_000


def move(state: State, ref: SliceRef, *, owner: Address, to: Address, reference: str, time_ms: int) -> None:
    """Give active watt-hours to another holder, and say so. Raises ``RuleViolated`` or ``NotPermitted``."""
    check_not_frozen(state, owner)
    check_not_frozen(state, to)
    _change(state, ref, owner=owner, before=SliceStatus.ACTIVE, after=(to, SliceStatus.ACTIVE, b""), time_ms=time_ms)
    state.emit(EnergyMoved(ref.lot, ref.first_wh, ref.end_wh, owner, to, reference))


def reserve(state: State, ref: SliceRef, *, owner: Address, reference: bytes, time_ms: int) -> None:
    """Set active watt-hours aside for an offer or an escrow, which ``reference`` names."""
    assert reference, "a reserved slice names its reason"
    check_not_frozen(state, owner)
    after = (owner, SliceStatus.RESERVED, reference)
    _change(state, ref, owner=owner, before=SliceStatus.ACTIVE, after=after, time_ms=time_ms)


def release(state: State, ref: SliceRef, *, owner: Address, reference: bytes) -> None:
    """Make reserved watt-hours active again; neither a freeze nor expiry holds that up."""
    after = (owner, SliceStatus.ACTIVE, b"")
    _change(
        state, ref, owner=owner, before=SliceStatus.RESERVED, after=after, time_ms=None, expected_reference=reference
    )


def claim(state: State, ref: SliceRef, *, owner: Address, reference: bytes, time_ms: int) -> Lot:
    """Cancel active watt-hours for the claim that ``reference`` names; they never move again."""
    check_not_frozen(state, owner)
    after = (owner, SliceStatus.CLAIMED, reference)
    return _change(state, ref, owner=owner, before=SliceStatus.ACTIVE, after=after, time_ms=time_ms)


def _get_slices(state: State, lot: Lot) -> tuple[Slice, ...]:
    record = SLICES.find(state, lot.lot.meter, lot.start_ms, lot.lot.version)
    return make_first_slices(lot.wh, lot.shares) if record is None else record.slices


def _change(
    state: State,
    ref: SliceRef,
    *,
    owner: Address,
    before: SliceStatus,
    after: tuple[Address, SliceStatus, bytes],
    time_ms: int | None,
    expected_reference: bytes = b"",
) -> Lot:
    """Replace [first, end) by one slice. ``time_ms`` None: also after the lot expired."""
    lot = get_lot(state, ref.lot)
    if ref.first_wh >= ref.end_wh:
        raise RuleViolated("range_empty", ref)
    if ref.end_wh > lot.wh:
        raise RuleViolated("range_outside_lot", f"{ref} of {lot.wh} Wh")
    slices = _get_slices(state, lot)
    left = bisect_right(slices, ref.first_wh, key=_get_end_wh)
    right = left
    while right < len(slices) and slices[right].first_wh < ref.end_wh:
        _check_slice(slices[right], ref, owner=owner, status=before, reference=expected_reference)
        right += 1
    if time_ms is not None and is_expired(state, lot, time_ms=time_ms):
        raise RuleViolated("lot_expired", ref)
    changed = _replace_range(slices, left, right, Slice(ref.first_wh, ref.end_wh, *after))
    if len(changed) > max(LOT_SLICES_MAX, len(slices)):
        raise RuleViolated("lot_too_fragmented", f"{ref.lot}: {LOT_SLICES_MAX} slices")
    assert is_partition(changed, lot.wh), f"the slices of {ref.lot} no longer partition it"
    SLICES.put(state, ref.lot.meter, ref.lot.start_ms, ref.lot.version, value=LotSlices(changed))
    return lot


def _check_slice(one: Slice, ref: SliceRef, *, owner: Address, status: SliceStatus, reference: bytes) -> None:
    if one.status is SliceStatus.CLAIMED:
        raise RuleViolated("slice_already_claimed", ref)
    if one.holder != owner:
        raise RuleViolated("slice_not_held", f"{ref} is not held by {format_address(owner)}")
    if one.status is not status:
        reason = {SliceStatus.RESERVED: "slice_reserved", SliceStatus.WITHDRAWN: "slice_withdrawn"}
        raise RuleViolated(reason.get(one.status, "slice_not_reserved"), ref)
    if one.reference != reference:
        raise RuleViolated("slice_reserved_for_another", ref)


def _replace_range(slices: tuple[Slice, ...], left: int, right: int, new: Slice) -> tuple[Slice, ...]:
    """``slices[left:right]`` cover ``new``: cut what sticks out, put ``new`` in, merge what became equal."""
    parts: list[Slice] = [] if left == 0 else [slices[left - 1]]
    if slices[left].first_wh < new.first_wh:
        parts.append(replace(slices[left], end_wh=new.first_wh))
    parts.append(new)
    if slices[right - 1].end_wh > new.end_wh:
        parts.append(replace(slices[right - 1], first_wh=new.end_wh))
    if right < len(slices):
        parts.append(slices[right])
    merged = [parts[0]]
    for part in parts[1:]:
        last = merged[-1]
        if (part.holder, part.status, part.reference) == (last.holder, last.status, last.reference):
            merged[-1] = replace(last, end_wh=part.end_wh)
        else:
            merged.append(part)
    return slices[: max(left - 1, 0)] + tuple(merged) + slices[right + 1 :]


def is_partition(slices: Sequence[Slice], wh: int) -> bool:
    """Whether slices cover [0, ``wh``) in order, without gap, overlap or empty slice."""
    return (
        slices[0].first_wh == 0
        and slices[-1].end_wh == wh
        and all(one.end_wh == after.first_wh for one, after in pairwise(slices))
        and all(one.first_wh < one.end_wh for one in slices)
    )


def _get_end_wh(one: Slice) -> int:
    return one.end_wh


@transaction("energy.transfer", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class TransferEnergy(Payload):
    """Give watt-hours to another participant."""

    recipient: Address
    slices: SliceRefs
    reference: Reference

    def apply(self, state: State, tx: TxContext) -> None:
        if self.recipient == tx.sender:
            raise RuleViolated("recipient_is_sender", format_address(tx.sender))
        for ref in self.slices:
            move(state, ref, owner=tx.sender, to=self.recipient, reference=self.reference, time_ms=tx.time_ms)
