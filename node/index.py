"""What the trace queries read: who holds and who used the output of each meter, by hour; derived from events alone.

Owns the keys behind `x`. A day of a meter is one entry per holder, so a report of a day costs a few entries, however
many intervals it has. Replaying the receipts of all blocks in order gives the same entries again.

| prefix | key                             | value                      | meaning                             |
|--------|---------------------------------|----------------------------|-------------------------------------|
| `xh`   | meter ‖ day ‖ holder            | Wh by hour, of each status | who has what of a meter's day       |
| `xp`   | holder ‖ day ‖ meter            | nothing                    | which meters' days a holder has     |
| `xb`   | holder                          | Wh of each status          | the sum of all that a holder has    |
| `xs`   | meter ‖ day                     | Wh by hour, of each fate   | what became of a meter's production |
| `xt`   | meter ‖ day ‖ height ‖ position | nothing                    | which transactions moved or used it |
| `xl`   | list ‖ parent ‖ height ‖ pos.   | id                         | objects of a participant or a site  |

A day is 4 bytes (days since the epoch, UTC), a height 8, a transaction's position in its block 4. Sums over months of
the first and the fourth stand in node/index_sums.py.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Final, cast

import msgpack

from contracts_native.batteries import DischargeUncovered
from contracts_native.bills import BillIssued
from contracts_native.claims import ClaimImpaired, ClaimKind, EnergyClaimed
from contracts_native.corrections import ReadingCorrected
from contracts_native.credits import RedemptionRequested
from contracts_native.escrow import EscrowLocked
from contracts_native.lots import (
    FIRST_VERSION,
    EnergyMinted,
    EnergyMoved,
    EnergyReleased,
    EnergyReserved,
    EnergyWithdrawn,
    LotId,
    LotWithdrawn,
)
from contracts_native.meters import Channel, MeterRegistered
from contracts_native.offers import OfferOpened
from contracts_native.readings import Flag, ReadingAccepted
from contracts_native.sites import SiteRegistered
from contracts_native.slices import split_by_shares
from contracts_native.storage import EnergyCharged
from ledger.block import Header
from ledger.encoding import decode, encode
from ledger.primitives import ADDRESS_BYTES, Address
from ledger.receipt import Event, Receipt
from ledger.storage import INDEXES, Reader, compute_prefix_end, format_height
from node.index_sums import METER_BYTES, SumsDraft

HOUR_MS: Final = 3_600_000
HOURS: Final = 24
DAY_MS: Final = HOURS * HOUR_MS

_HOLDINGS: Final = INDEXES + b"h"
_HOLDER_DAYS: Final = INDEXES + b"p"
_BALANCES: Final = INDEXES + b"b"
_SOURCES: Final = INDEXES + b"s"
_MOVEMENTS: Final = INDEXES + b"t"
_LISTS: Final = INDEXES + b"l"
_DAY_BYTES: Final = 4
_PREFIX_BYTES: Final = len(_HOLDINGS)
_METER_END: Final = _PREFIX_BYTES + METER_BYTES  # where the day begins in the keys of holdings and sources
_NOTHING: Final = encode(None)
_NO_HOURS: Final = (0,) * HOURS
# Places in ``Holding`` and ``Balance``, and in ``SourceDay``.
_HELD, _RESERVED, _CLAIMED, _USED_FOR_OTHERS, _IMPAIRED, _CHARGED, _WITHDRAWN = range(7)
_METERED, _MINTED, _QUARANTINED, _NOT_MINTED, _TAKEN_BACK = range(5)

_STATUSES: Final = 7
_FATES: Final = 5

_Range = EnergyMoved | EnergyClaimed | EnergyReserved | EnergyReleased | EnergyCharged | EnergyWithdrawn
Hours = tuple[int, ...]  # Wh of each hour of a day


class List(enum.Enum):
    """The lists of objects that belong to a participant or, for meters, to a site."""

    SITES_OF_OWNER = b"s"
    METERS_OF_SITE = b"m"
    CLAIMS_OF_BENEFICIARY = b"c"
    CLAIMS_OF_CLAIMANT = b"C"
    REDEMPTIONS_OF_HOLDER = b"r"
    ESCROWS_OF_CONSUMER = b"e"
    ESCROWS_OF_UTILITY = b"E"
    BILLS_OF_CONSUMER = b"b"
    BILLS_OF_UTILITY = b"B"
    OFFERS_OF_SELLER = b"o"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one participant has of a meter's day, by hour, in Wh.

    ``held``: active, or past its lifetime. ``reserved``: set aside for an offer. ``claimed``: used for this
    participant. ``used_for_others``: what it held and used for another beneficiary, where it counts. ``impaired``:
    was used for this participant and no longer counts. ``charged``: it went into a storage of this participant.
    ``withdrawn``: this participant held it when it turned out not to be.
    """

    held: Hours
    reserved: Hours
    claimed: Hours
    used_for_others: Hours
    impaired: Hours
    charged: Hours
    withdrawn: Hours

    def sum_by_hour(self) -> Hours:
        """All that was minted to this holder or came to it, in any status; what it used for others counts there."""
        columns = (self.held, self.reserved, self.claimed, self.impaired, self.charged, self.withdrawn)
        return tuple(map(sum, zip(*columns, strict=True)))


@dataclass(frozen=True, slots=True)
class Balance:
    """The sums of all holdings of a participant, in Wh; the same words as in ``Holding``."""

    held: int
    reserved: int
    claimed: int
    used_for_others: int
    impaired: int
    charged: int
    withdrawn: int


NO_BALANCE: Final = Balance(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class SourceDay:
    """What became of a meter's production on a day, by hour, in Wh, as corrected.

    metered = minted − withdrawn + quarantined + not minted. ``withdrawn``: lots that were taken back, used or not.
    """

    metered: Hours
    minted: Hours
    quarantined: Hours
    not_minted: Hours
    withdrawn: Hours


@dataclass(frozen=True, slots=True)
class Movement:
    """A transaction that moved or used energy of a meter's day."""

    height: int
    index: int


def compute_index_changes(reader: Reader, receipts: Sequence[Receipt], header: Header) -> dict[bytes, bytes | None]:
    """The changes to the index that follow from a block, to be written with it. ``reader``: as before the block."""
    draft = _Draft(reader, header.height)
    for position, receipt in enumerate(receipts):
        for one in receipt.events:
            draft.follow(one, position)
    return draft.compute_changes()


def scan_source(reader: Reader, meter: bytes, days: range) -> Iterator[tuple[int, Address, Holding]]:
    """(Day, holder, holding) of a meter, in the order of days."""
    start = _HOLDINGS + meter
    for key, raw in reader.scan(start + _format_day(days.start), start + _format_day(days.stop)):
        yield _read_day(key, len(start)), Address(key[-ADDRESS_BYTES:]), Holding(*_decode_hours(raw))


def scan_holder(
    reader: Reader, holder: bytes, days: range, *, first_meter: bytes = b""
) -> Iterator[tuple[int, bytes, Holding]]:
    """(Day, meter, holding) of a holder, in the order of days; of the first day only from ``first_meter`` on."""
    start = _HOLDER_DAYS + holder
    first = start + _format_day(days.start) + first_meter
    for key, _ in reader.scan(first, start + _format_day(days.stop)):
        meter, day = key[-METER_BYTES:], _read_day(key, len(start))
        holding = find_holding(reader, meter=meter, day=day, holder=holder)
        assert holding is not None, "both entries are written together"
        yield day, meter, holding


def find_holding(reader: Reader, *, meter: bytes, day: int, holder: bytes) -> Holding | None:
    """What a holder has of a meter's day, or None."""
    raw = reader.get(_HOLDINGS + meter + _format_day(day) + holder)
    return None if raw is None else Holding(*_decode_hours(raw))


def get_balance(reader: Reader, holder: bytes) -> Balance:
    """The sums of all that a holder has; zeros for one who never had any."""
    raw = reader.get(_BALANCES + holder)
    return NO_BALANCE if raw is None else Balance(*cast("tuple[int, int, int, int, int, int, int]", decode(raw)))


def scan_source_days(reader: Reader, meter: bytes, days: range) -> Iterator[tuple[int, SourceDay]]:
    """(Day, what became of the production) of a meter, in the order of days."""
    start = _SOURCES + meter
    for key, raw in reader.scan(start + _format_day(days.start), start + _format_day(days.stop)):
        yield _read_day(key, len(start)), SourceDay(*_decode_hours(raw))


def scan_movements(reader: Reader, meter: bytes, day: int, *, after: Movement | None = None) -> Iterator[Movement]:
    """The transactions that moved or used energy of a meter's day, oldest first."""
    prefix = _MOVEMENTS + meter + _format_day(day)
    start = prefix if after is None else prefix + _format_place(after.height, after.index) + b"\0"
    for key, _ in reader.scan(start, compute_prefix_end(prefix)):
        yield Movement(int.from_bytes(key[-12:-4], "big"), int.from_bytes(key[-4:], "big"))


def scan_list(
    reader: Reader, kind: List, parent: bytes, *, after: bytes | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """(Place, id) of the objects of a parent, oldest first; ``after`` is the place of the last one already seen."""
    prefix = _LISTS + kind.value + parent
    start = prefix if after is None else prefix + after + b"\0"
    cut = len(prefix)
    return ((key[cut:], raw) for key, raw in reader.scan(start, compute_prefix_end(prefix)))


def get_days(from_ms: int, until_ms: int) -> range:
    """The days that a half-open period touches."""
    return range(from_ms // DAY_MS, -(-until_ms // DAY_MS))


@dataclass(frozen=True, slots=True)
class _DayPart:
    """Wh of consecutive hours of one day."""

    day: int
    first_hour: int
    wh: list[int]


class _Draft:
    """The entries that a block changes, decoded while its events are followed."""

    def __init__(self, reader: Reader, height: int) -> None:
        self._reader = reader
        self._height = height
        self._hours: dict[bytes, list[list[int]]] = {}  # key → Wh by hour, of each status or fate
        self._sums_before: dict[bytes, list[int]] = {}  # of the same keys, of each status or fate
        self._balances: dict[bytes, list[int]] = {}
        self._others: dict[bytes, bytes] = {}

    def follow(self, event: Event, position: int) -> None:
        """Take one event in; ``position`` is its transaction's index in the block."""
        match event:
            case ReadingAccepted():
                self._follow_reading(event)
            case EnergyMinted():
                self._follow_mint(event)
            case EnergyMoved():
                self._shift(event, event.sender, _HELD, event.recipient, _HELD)
                self._note_movement(event.lot, position)
            case EnergyClaimed():
                self._follow_claim(event, position)
                self._note_movement(event.lot, position)
            case EnergyReserved():
                self._shift(event, event.holder, _HELD, event.holder, _RESERVED)
                self._note_movement(event.lot, position)
            case EnergyReleased():
                self._shift(event, event.holder, _RESERVED, event.holder, _HELD)
                self._note_movement(event.lot, position)
            case EnergyCharged():
                self._shift(event, event.operator, _HELD, event.operator, _CHARGED)
                self._note(List.CLAIMS_OF_BENEFICIARY, event.operator, position, event.charge)
                self._note(List.CLAIMS_OF_CLAIMANT, event.operator, position, event.charge)
                self._note_movement(event.lot, position)
            case EnergyWithdrawn():
                was = _RESERVED if event.was_reserved else _HELD
                self._shift(event, event.holder, was, event.holder, _WITHDRAWN)
            case LotWithdrawn():
                self._follow_withdrawal(event)
                self._note_movement(event.lot, position)
            case ClaimImpaired():
                self._follow_impairment(event)
                self._note_movement(event.lot, position)
            case ReadingCorrected():
                self._follow_correction(event)
            case DischargeUncovered():
                for part in _sum_by_hour(event.start_ms, event.interval_s, event.wh):
                    self._add_fate(event.meter, part, _NOT_MINTED)
            case _:
                for kind, parent, object_id in _list_places(event):
                    self._note(kind, parent, position, object_id)

    def compute_changes(self) -> dict[bytes, bytes | None]:
        """Full key → value, or None where nothing is left."""
        changes: dict[bytes, bytes | None] = dict(self._others)
        draft = SumsDraft(self._reader)
        for key, groups in self._hours.items():
            is_empty = not any(map(any, groups))
            changes[key] = None if is_empty else encode([tuple(group) if any(group) else () for group in groups])
            added = [sum(group) - before for group, before in zip(groups, self._sums_before[key], strict=True)]
            meter, day = key[_PREFIX_BYTES:_METER_END], _read_day(key, _METER_END)
            if key.startswith(_HOLDINGS):
                changes[_flip(key)] = None if is_empty else _NOTHING
                draft.add_holding(meter=meter, day=day, holder=key[-ADDRESS_BYTES:], wh=added)
            else:
                draft.add_fates(meter=meter, day=day, wh=added)
        changes.update(draft.compute_changes())
        for holder, sums in self._balances.items():
            changes[_BALANCES + holder] = encode(tuple(sums)) if any(sums) else None
        return changes

    def _follow_reading(self, event: ReadingAccepted) -> None:
        if event.channel is not Channel.PRODUCTION:
            return
        meter, is_measured = event.meter, event.flag is Flag.MEASURED
        for part in _sum_by_hour(event.start_ms, event.interval_s, event.values_wh):
            self._add_fate(meter, part, _METERED)
            if not is_measured:
                self._add_fate(meter, part, _NOT_MINTED)
        for place in event.quarantined:  # few: what a meter cannot have measured
            hour = (event.start_ms + place * event.interval_s * 1_000) // HOUR_MS
            wh = event.values_wh[place]
            self._add_fate(meter, _DayPart(*divmod(hour, HOURS), [wh]), _QUARANTINED)
            if not is_measured:
                self._add_fate(meter, _DayPart(*divmod(hour, HOURS), [-wh]), _NOT_MINTED)

    def _follow_mint(self, event: EnergyMinted) -> None:
        minted = _sum_by_hour(event.start_ms, event.interval_s, event.wh)
        for part in minted:
            self._add_fate(event.meter, part, _MINTED)
            if event.version > FIRST_VERSION:  # the correction before it counted this as not minted
                self._add_fate(event.meter, _DayPart(part.day, part.first_hour, [-wh for wh in part.wh]), _NOT_MINTED)
        for holder, wh in _split_mint(event):
            parts = minted if wh is event.wh else _sum_by_hour(event.start_ms, event.interval_s, wh)
            for part in parts:
                if any(part.wh):
                    self._add(event.meter, part, holder, _HELD)

    def _follow_withdrawal(self, event: LotWithdrawn) -> None:
        part = _make_part(event.lot, event.wh)
        self._add_fate(event.lot.meter, part, _TAKEN_BACK)
        self._add_fate(event.lot.meter, part, _NOT_MINTED)

    def _follow_correction(self, event: ReadingCorrected) -> None:
        if event.channel is not Channel.PRODUCTION:
            return
        day, hour = divmod(event.start_ms // HOUR_MS, HOURS)
        before, after = _DayPart(day, hour, [-event.before_wh]), _DayPart(day, hour, [event.wh])
        for part, is_quarantined in ((before, event.was_quarantined), (after, event.is_quarantined)):
            self._add_fate(event.meter, part, _METERED)
            self._add_fate(event.meter, part, _QUARANTINED if is_quarantined else _NOT_MINTED)

    def _follow_impairment(self, event: ClaimImpaired) -> None:
        was = _CLAIMED if event.kind is ClaimKind.USE else _CHARGED
        self._add(event.lot.meter, _make_part(event.lot, -event.wh), event.beneficiary, was)
        self._add(event.lot.meter, _make_part(event.lot, event.wh), event.beneficiary, _IMPAIRED)

    def _shift(self, event: _Range, sender: Address, before: int, recipient: Address, after: int) -> None:
        """A range of a lot leaves a status of one holder for that of another, or of the same."""
        wh, meter = event.end_wh - event.first_wh, event.lot.meter
        self._add(meter, _make_part(event.lot, -wh), sender, before)
        self._add(meter, _make_part(event.lot, wh), recipient, after)

    def _follow_claim(self, event: EnergyClaimed, position: int) -> None:
        self._shift(event, event.claimant, _HELD, event.beneficiary, _CLAIMED)
        if event.claimant != event.beneficiary:
            part = _make_part(event.lot, event.end_wh - event.first_wh)
            self._add(event.lot.meter, part, event.claimant, _USED_FOR_OTHERS)
        self._note(List.CLAIMS_OF_BENEFICIARY, event.beneficiary, position, event.claim)
        self._note(List.CLAIMS_OF_CLAIMANT, event.claimant, position, event.claim)

    def _add(self, meter: bytes, part: _DayPart, holder: bytes, status: int) -> None:
        """Add Wh to a holding and to its holder's balance; ``status`` is a place in ``Holding`` and ``Balance``."""
        hours = self._get_hours(_HOLDINGS + meter + _format_day(part.day) + holder, count=_STATUSES)[status]
        sums = self._balances.get(holder)
        if sums is None:
            sums = self._balances[holder] = list(astuple(get_balance(self._reader, holder)))
        for hour, wh in enumerate(part.wh, part.first_hour):
            hours[hour] += wh
            sums[status] += wh
            assert hours[hour] >= 0, "nobody gives what they have not"

    def _add_fate(self, meter: bytes, part: _DayPart, fate: int) -> None:
        """Add Wh to what became of production; ``fate`` is a place in ``SourceDay``."""
        hours = self._get_hours(_SOURCES + meter + _format_day(part.day), count=_FATES)[fate]
        for hour, wh in enumerate(part.wh, part.first_hour):
            hours[hour] += wh

    def _get_hours(self, key: bytes, *, count: int) -> list[list[int]]:
        known = self._hours.get(key)
        if known is None:
            raw = self._reader.get(key)
            stored: Iterable[Hours] = [_NO_HOURS] * count if raw is None else _decode_hours(raw)
            known = self._hours[key] = [list(group) for group in stored]
            self._sums_before[key] = list(map(sum, known))
        return known

    def _note_movement(self, lot: LotId, position: int) -> None:
        day = _format_day(lot.start_ms // DAY_MS)
        self._others[_MOVEMENTS + lot.meter + day + _format_place(self._height, position)] = _NOTHING

    def _note(self, kind: List, parent: bytes, position: int, object_id: bytes) -> None:
        self._others[_LISTS + kind.value + parent + _format_place(self._height, position)] = object_id


def _list_places(event: Event) -> tuple[tuple[List, bytes, bytes], ...]:
    """(List, parent, id) for what an event created. No transaction creates two objects of one list and parent."""
    match event:
        case SiteRegistered(site, owner):
            return ((List.SITES_OF_OWNER, owner, site),)
        case MeterRegistered(meter, site):
            return ((List.METERS_OF_SITE, site, meter),)
        case RedemptionRequested(redemption, holder):
            return ((List.REDEMPTIONS_OF_HOLDER, holder, redemption),)
        case EscrowLocked(escrow, consumer, utility):
            return ((List.ESCROWS_OF_CONSUMER, consumer, escrow), (List.ESCROWS_OF_UTILITY, utility, escrow))
        case OfferOpened(offer, seller):
            return ((List.OFFERS_OF_SELLER, seller, offer),)
        case BillIssued(bill, consumer, utility):
            return ((List.BILLS_OF_CONSUMER, consumer, bill), (List.BILLS_OF_UTILITY, utility, bill))
        case _:
            return ()


def _make_part(lot: LotId, wh: int) -> _DayPart:
    """Wh of the hour that a lot lies in."""
    day, hour = divmod(lot.start_ms // HOUR_MS, HOURS)
    return _DayPart(day, hour, [wh])


def _split_mint(event: EnergyMinted) -> list[tuple[Address, Sequence[int]]]:
    """(Holder, Wh of each interval), as the lots split them; for a sole holder the very ``event.wh``."""
    if len(event.shares) == 1:
        return [(event.shares[0][0], event.wh)]
    columns = zip(*(split_by_shares(wh, event.shares) for wh in event.wh), strict=True)
    return [(holder, parts) for (holder, _), parts in zip(event.shares, columns, strict=True)]


def _sum_by_hour(start_ms: int, interval_s: int, wh: Sequence[int]) -> list[_DayPart]:
    """The sums of consecutive intervals, each of which lies within one hour, by hour and cut into days."""
    interval_ms = interval_s * 1_000
    per_hour = HOUR_MS // interval_ms
    hour, into_ms = divmod(start_ms, HOUR_MS)
    first_stop = (HOUR_MS - into_ms) // interval_ms
    sums = [sum(wh[:first_stop]), *(sum(wh[at : at + per_hour]) for at in range(first_stop, len(wh), per_hour))]
    parts = []
    while sums:
        day, first_hour = divmod(hour, HOURS)
        room = HOURS - first_hour
        parts.append(_DayPart(day, first_hour, sums[:room]))
        sums, hour = sums[room:], hour + room
    return parts


def _decode_hours(raw: bytes) -> list[Hours]:
    # Not by ledger.encoding: a year of a source is thousands of these, and what this node wrote needs no judging. The
    # store has checked its checksum.
    groups: tuple[Hours, ...] = msgpack.unpackb(raw, use_list=False)
    return [group or _NO_HOURS for group in groups]


def _flip(key: bytes) -> bytes:
    """The key of the entry by holder for the key of the entry by meter."""
    at = len(_HOLDINGS)
    meter, day, holder = key[at : at + METER_BYTES], key[at + METER_BYTES : -ADDRESS_BYTES], key[-ADDRESS_BYTES:]
    return _HOLDER_DAYS + holder + day + meter


def _format_day(day: int) -> bytes:
    return day.to_bytes(_DAY_BYTES, "big")


def _read_day(key: bytes, at: int) -> int:
    return int.from_bytes(key[at : at + _DAY_BYTES], "big")


def _format_place(height: int, position: int) -> bytes:
    return format_height(height) + position.to_bytes(4, "big")
