"""Lots: watt-hours with an identity, and who holds them.

Owns the one rule that all rests on: the slices of a lot partition it exactly, whatever happens to them. A report mints
all its lots in one record; a lot gets a record of its own only when it is first touched, since most never are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native.meters import REASON_BYTES_MAX, MeterId
from contracts_native.participants import check_not_frozen
from contracts_native.sites import Shares, Site, SiteId, Technology, Zone
from contracts_native.slices import (
    SLICE_TRANSITIONS,
    Slice,
    SliceStatus,
    is_partition,
    make_first_slices,
    merge_equal,
    replace_range,
)
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
VERSION_MAX: Final = 2**31

Reference = Annotated[str, Length(REFERENCE_BYTES_MAX)]
Reason = Annotated[str, Length(REASON_BYTES_MAX, 1)]
WhTuple = Annotated[tuple[int, ...], Length(INTERVALS_PER_REPORT_MAX, 1)]


@dataclass(frozen=True, slots=True)
class LotId:
    """What one production interval of one meter minted. The first version is 1; a correction makes the next."""

    meter: MeterId
    start_ms: int
    version: Annotated[int, Bounds(1, VERSION_MAX)]

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

    @property
    def wh(self) -> int:
        """How much it is."""
        return self.end_wh - self.first_wh


SliceRefs = Annotated[tuple[SliceRef, ...], Length(SLICES_PER_TRANSACTION_MAX, 1)]


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
class Reissue:
    """A lot that a correction minted. ``predecessor``: the version of the lot it stands for, 0 if there was none."""

    site: SiteId
    technology: Technology
    zone: Zone
    interval_s: int
    wh: int
    shares: Shares
    predecessor: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """That a lot should never have been, and why."""

    reason: Reason
    withdrawn_by: Address
    withdrawn_ms: int


@dataclass(frozen=True, slots=True)
class LotSlices:
    """The slices of a lot that was touched, in order."""

    slices: Annotated[tuple[Slice, ...], Length(LOT_SLICES_MAX, 1)]


@dataclass(frozen=True, slots=True)
class Lot:
    """What is known of a lot, whoever holds it. ``predecessor`` is 0 for a lot that stands for no other."""

    lot: LotId
    site: bytes
    technology: Technology
    zone: str
    start_ms: int
    interval_s: int
    wh: int
    shares: tuple[tuple[Address, int], ...]
    predecessor: int = 0

    @property
    def end_ms(self) -> int:
        """When its production ended."""
        return self.start_ms + self.interval_s * 1_000


MINTS: Table[Mint] = Table("lm", Mint, missing="lot_unknown")  # meter, start of the report: lots of version 1
REISSUES: Table[Reissue] = Table("lr", Reissue, missing="lot_unknown")  # meter, start of the lot, version ≥ 2
SLICES: Table[LotSlices] = Table("ls", LotSlices, missing="lot_unknown")  # meter, start of the lot, version
WITHDRAWALS: Table[Withdrawal] = Table("lw", Withdrawal, missing="lot_not_withdrawn")  # meter, start, version


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


@event("energy.reserved")
@dataclass(frozen=True, slots=True)
class EnergyReserved(Event):
    """A range of a lot is set aside for what ``reference`` names."""

    lot: LotId
    first_wh: int
    end_wh: int
    holder: Address
    reference: Annotated[bytes, Length(16)]


@event("energy.released")
@dataclass(frozen=True, slots=True)
class EnergyReleased(Event):
    """A range of a lot is no longer set aside; when it was sold, ``energy.moved`` follows."""

    lot: LotId
    first_wh: int
    end_wh: int
    holder: Address
    reference: Annotated[bytes, Length(16)]


@event("energy.lot_withdrawn")
@dataclass(frozen=True, slots=True)
class LotWithdrawn(Event):
    """A lot should never have been: what was not used of it is withdrawn, as the events that follow say."""

    lot: LotId
    wh: int
    reason: Reason


@event("energy.withdrawn")
@dataclass(frozen=True, slots=True)
class EnergyWithdrawn(Event):
    """A range of a lot is nobody's to use; ``was_reserved`` if it had been set aside."""

    lot: LotId
    first_wh: int
    end_wh: int
    holder: Address
    was_reserved: bool


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


def reissue(state: State, lot: LotId, record: Reissue) -> None:
    """Mint the lot of a corrected interval, to the shareholders that ``record`` names."""
    assert lot.version > FIRST_VERSION, lot
    assert find_lot(state, lot) is None, "a lot is minted once"
    REISSUES.put(state, lot.meter, lot.start_ms, lot.version, value=record)
    state.emit(
        EnergyMinted(lot.meter, record.site, lot.start_ms, record.interval_s, lot.version, (record.wh,), record.shares)
    )


def find_lot(state: State, lot: LotId) -> Lot | None:
    """A lot by its id, or None if no such interval was minted."""
    if lot.version != FIRST_VERSION:
        return _find_reissued(state, lot)
    found = MINTS.find_floor(state, lot.meter, lot.start_ms)
    if found is None:
        return None
    record = found[1]
    index, rest = divmod(lot.start_ms - record.start_ms, record.interval_s * 1_000)
    if rest or index >= len(record.wh) or record.wh[index] == 0:
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


def _find_reissued(state: State, lot: LotId) -> Lot | None:
    found = REISSUES.find(state, lot.meter, lot.start_ms, lot.version)
    if found is None:
        return None
    return Lot(
        lot,
        found.site,
        found.technology,
        found.zone,
        lot.start_ms,
        found.interval_s,
        found.wh,
        found.shares,
        found.predecessor,
    )


def find_latest_lot(state: State, meter: bytes, start_ms: int) -> Lot | None:
    """The newest lot of an interval, withdrawn or not, or None if the interval never minted any."""
    found = REISSUES.find_floor(state, meter, start_ms, VERSION_MAX)
    version = FIRST_VERSION if found is None else int.from_bytes(found[0][-8:], "big")
    return find_lot(state, LotId(meter, start_ms, version))


def is_withdrawn(state: State, lot: LotId) -> bool:
    """Whether a lot was withdrawn or superseded; parts of it may have been used before."""
    return WITHDRAWALS.find(state, lot.meter, lot.start_ms, lot.version) is not None


def get_lot(state: State, lot: LotId) -> Lot:
    """A lot by its id. Raises ``RuleViolated`` (``lot_unknown``)."""
    found = find_lot(state, lot)
    if found is None:
        raise RuleViolated("lot_unknown", lot)
    return found


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
    _change(state, ref, owner=owner, to=to, tag="energy.transfer", time_ms=time_ms)
    state.emit(EnergyMoved(ref.lot, ref.first_wh, ref.end_wh, owner, to, reference))


def reserve(state: State, ref: SliceRef, *, owner: Address, reference: bytes, time_ms: int) -> None:
    """Set active watt-hours aside for an offer, which ``reference`` names."""
    assert reference, "a reserved slice names its reason"
    check_not_frozen(state, owner)
    _change(state, ref, owner=owner, to=owner, tag="offer.open", time_ms=time_ms, after_reference=reference)
    state.emit(EnergyReserved(ref.lot, ref.first_wh, ref.end_wh, owner, reference))


def release(state: State, ref: SliceRef, *, owner: Address, reference: bytes) -> None:
    """Make reserved watt-hours active again; neither a freeze nor expiry holds that up."""
    _change(state, ref, owner=owner, to=owner, tag="offer.cancel", time_ms=None, before_reference=reference)
    state.emit(EnergyReleased(ref.lot, ref.first_wh, ref.end_wh, owner, reference))


def deliver(
    state: State, ref: SliceRef, *, owner: Address, to: Address, reference: bytes, text: str, time_ms: int
) -> None:
    """Give reserved watt-hours to whoever accepted the offer that ``reference`` names, and say so."""
    check_not_frozen(state, owner)
    check_not_frozen(state, to)
    _change(state, ref, owner=owner, to=to, tag="offer.accept", time_ms=time_ms, before_reference=reference)
    state.emit(EnergyReleased(ref.lot, ref.first_wh, ref.end_wh, owner, reference))
    state.emit(EnergyMoved(ref.lot, ref.first_wh, ref.end_wh, owner, to, text))


def claim(state: State, ref: SliceRef, *, owner: Address, reference: bytes, time_ms: int) -> Lot:
    """Cancel active watt-hours for the claim that ``reference`` names; they never move again."""
    check_not_frozen(state, owner)
    return _change(state, ref, owner=owner, to=owner, tag="energy.claim", time_ms=time_ms, after_reference=reference)


def charge(state: State, ref: SliceRef, *, owner: Address, reference: bytes, time_ms: int) -> Lot:
    """Cancel active watt-hours for the charge record that ``reference`` names; they went into a storage."""
    check_not_frozen(state, owner)
    return _change(state, ref, owner=owner, to=owner, tag="storage.charge", time_ms=time_ms, after_reference=reference)


def withdraw(state: State, lot_id: LotId, withdrawal: Withdrawal, *, tag: str) -> tuple[Slice, ...]:
    """Withdraw what was not used of a lot; the answer is its slices as they were. A freeze does not hold it up.

    Raises ``RuleViolated`` (``lot_unknown``, ``lot_already_withdrawn``). Whoever calls sees to the offers and claims
    that the slices name.
    """
    lot = get_lot(state, lot_id)
    if is_withdrawn(state, lot_id):
        raise RuleViolated("lot_already_withdrawn", lot_id)
    before = _get_slices(state, lot)
    WITHDRAWALS.put(state, lot_id.meter, lot_id.start_ms, lot_id.version, value=withdrawal)
    state.emit(LotWithdrawn(lot_id, lot.wh, withdrawal.reason))
    after: list[Slice] = []
    for one in before:
        status = SLICE_TRANSITIONS.get((one.status, tag))
        if status is None:
            after.append(one)
            continue
        after.append(replace(one, status=status, reference=b""))
        was_reserved = one.status is SliceStatus.RESERVED
        state.emit(EnergyWithdrawn(lot_id, one.first_wh, one.end_wh, one.holder, was_reserved))
    slices = merge_equal(after)
    assert is_partition(slices, lot.wh), f"the slices of {lot_id} no longer partition it"
    SLICES.put(state, lot_id.meter, lot_id.start_ms, lot_id.version, value=LotSlices(slices))
    return before


def _get_slices(state: State, lot: Lot) -> tuple[Slice, ...]:
    record = SLICES.find(state, lot.lot.meter, lot.start_ms, lot.lot.version)
    return make_first_slices(lot.wh, lot.shares) if record is None else record.slices


def _change(
    state: State,
    ref: SliceRef,
    *,
    owner: Address,
    to: Address,
    tag: str,
    time_ms: int | None,
    before_reference: bytes = b"",
    after_reference: bytes = b"",
) -> Lot:
    """Replace [first, end) by one slice. ``time_ms`` None: also after the lot expired."""
    lot = get_lot(state, ref.lot)
    if ref.first_wh >= ref.end_wh:
        raise RuleViolated("range_empty", ref)
    if ref.end_wh > lot.wh:
        raise RuleViolated("range_outside_lot", f"{ref} of {lot.wh} Wh")
    slices = _get_slices(state, lot)
    left = right = bisect_right(slices, ref.first_wh, key=_get_end_wh)
    status = SliceStatus.ACTIVE
    while right < len(slices) and slices[right].first_wh < ref.end_wh:
        status = _check_slice(slices[right], ref, owner=owner, tag=tag, reference=before_reference)
        right += 1
    if time_ms is not None and is_expired(state, lot, time_ms=time_ms):
        raise RuleViolated("lot_expired", ref)
    changed = replace_range(slices, left, right, Slice(ref.first_wh, ref.end_wh, to, status, after_reference))
    if len(changed) > max(LOT_SLICES_MAX, len(slices)):
        raise RuleViolated("lot_too_fragmented", f"{ref.lot}: {LOT_SLICES_MAX} slices")
    assert is_partition(changed, lot.wh), f"the slices of {ref.lot} no longer partition it"
    SLICES.put(state, ref.lot.meter, ref.lot.start_ms, ref.lot.version, value=LotSlices(changed))
    return lot


_REFUSALS: Final[Mapping[SliceStatus, str]] = {
    SliceStatus.ACTIVE: "slice_not_reserved",
    SliceStatus.RESERVED: "slice_reserved",
    SliceStatus.WITHDRAWN: "slice_withdrawn",
}


def _check_slice(one: Slice, ref: SliceRef, *, owner: Address, tag: str, reference: bytes) -> SliceStatus:
    """The status that follows. Raises ``RuleViolated``."""
    if one.status is SliceStatus.CLAIMED:
        raise RuleViolated("slice_already_claimed", ref)
    if one.status is SliceStatus.CHARGED:
        raise RuleViolated("slice_already_charged", ref)
    if one.holder != owner:
        raise RuleViolated("slice_not_held", f"{ref} is not held by {format_address(owner)}")
    status = SLICE_TRANSITIONS.get((one.status, tag))
    if status is None:
        raise RuleViolated(_REFUSALS[one.status], ref)
    if one.reference != reference:
        raise RuleViolated("slice_reserved_for_another", ref)
    return status


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
