"""Whole lists for whoever keeps books elsewhere: every lot, and every movement in the order of the chain.

Owns the answers of ``lot_list`` and ``movement_list``, from which exports are made. A page reads a bounded part of
the chain; it may be short, or empty, and still have a next one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Final, TypedDict, cast

from contracts_native.lots import Lot, get_slices_at
from contracts_native.meters import METERS, Channel, find_channel
from contracts_native.slices import SliceStatus
from ledger.fields import HashText
from ledger.receipt import Event, Tagged
from ledger.receipt import to_json as event_to_json
from node import chain_store, index
from node.answers import Merged, Named, merge
from node.index import DAY_MS
from node.queries.energy import LotRow, get_head_time_ms, show_lot
from node.queries.lot_ids import format_lot_id, iterate_lots
from node.queries.sites import get_known_meter
from node.queries.trace_lot import MOVEMENTS, Moving
from node.queries.view import (
    LIMIT_DEFAULT,
    Limit,
    Paged,
    Period,
    TimeMs,
    View,
    make_page,
    read_cursor,
    read_id,
    read_period,
    scan_table,
)

_METER, _NUMBER, _POSITION = 16, 8, 4
_LOT_CURSOR: Final = _METER + 2 * _NUMBER  # meter, start, version
_MOVEMENT_CURSOR: Final = _NUMBER + 2 * _POSITION  # height, transaction, event


class LotStanding(LotRow):
    """A lot with the Wh of each status, and the version that it replaced."""

    predecessor: int | None
    active_wh: int
    reserved_wh: int
    claimed_wh: int
    charged_wh: int
    expired_wh: int
    withdrawn_wh: int


class LotList(Paged):
    """Lots by meter, start and version."""

    lots: list[LotStanding]


class MovementPlace(TypedDict):
    """Where in the chain something moved."""

    height: int
    time_ms: TimeMs
    index: int
    tx_id: HashText


class MovedLot(TypedDict):
    """The lot that moved, as text."""

    lot: str


MovementRow = Annotated[Merged[MovementPlace, Merged[Tagged[Moving], MovedLot]], Named("MovementRow")]


class MovementList(Paged):
    """Movements in the order of the chain, and from which height on this node has them."""

    movements: list[MovementRow]
    oldest_height: int


def lot_list(
    view: View,
    *,
    meter: str | None = None,
    from_ms: TimeMs | None = None,
    until_ms: TimeMs | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> LotList:
    """Lots that start in a period, of a meter or of all, with the Wh of each status that their slices have now.

    By meter, start and version. Raises ``NotFound`` (``meter_not_found``).
    """
    meter_id = None if meter is None else read_id(meter, name="meter")
    if meter_id is not None:
        get_known_meter(view, meter_id)
    time_ms = get_head_time_ms(view)
    rows = _iterate_lots(view, meter_id, read_period(from_ms, until_ms), cursor)
    page = make_page(
        rows, limit, lambda lot: _show_lot(view, cast(Lot, lot), time_ms), keep=lambda lot: lot is not None
    )
    return {"lots": page.items, "next_cursor": page.next_cursor}


def movement_list(
    view: View,
    *,
    meter: str | None = None,
    from_ms: TimeMs | None = None,
    until_ms: TimeMs | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> MovementList:
    """What moved, used, reserved or withdrew energy, of a meter's lots or of all, in blocks of a period (block time).

    In the order of the chain; each with its transaction. ``oldest_height``: a node that pruned has none before it.
    Raises ``NotFound`` (``meter_not_found``).
    """
    meter_id = None if meter is None else read_id(meter, name="meter")
    if meter_id is not None:
        get_known_meter(view, meter_id)
    rows = _iterate_movements(view, meter_id, read_period(from_ms, until_ms), cursor)
    page = make_page(rows, limit, lambda row: cast(MovementRow, row), keep=lambda row: row is not None)
    return {
        "movements": page.items,
        "next_cursor": page.next_cursor,
        "oldest_height": chain_store.read_oldest_height(view.reader),
    }


def _iterate_lots(
    view: View, meter: bytes | None, period: Period, cursor: str | None
) -> Iterator[tuple[bytes, Lot | None]]:
    """Lots by meter, start and version, past the cursor; None for a day that has none, so that a page has an end."""
    past = read_cursor(cursor, length=_LOT_CURSOR)
    for meter_id in _list_producers(view, meter, past):
        start_ms = period.start_ms
        if past is not None and past[:_METER] == meter_id:
            start_ms = max(start_ms, int.from_bytes(past[_METER : _METER + _NUMBER], "big"))
        for day, _ in index.scan_source_days(view.reader, meter_id, index.get_days(start_ms, period.end_ms)):
            from_ms, until_ms = max(start_ms, day * DAY_MS), min(period.end_ms, (day + 1) * DAY_MS)
            lots = list(iterate_lots(view.state, meter_id, from_ms=from_ms, until_ms=until_ms))
            nothing = _make_lot_key(meter_id, from_ms, 0)
            if not lots and (past is None or nothing > past):
                yield nothing, None
            for lot in sorted(lots, key=lambda lot: (lot.start_ms, lot.lot.version)):
                key = _make_lot_key(meter_id, lot.start_ms, lot.lot.version)
                if past is None or key > past:
                    yield key, lot


def _list_producers(view: View, meter: bytes | None, past: bytes | None) -> Iterator[bytes]:
    """The meter that was asked for, or every meter that can produce, from that of the cursor on."""
    if meter is not None:
        yield meter
        return
    for meter_id, one in scan_table(view, METERS, None):
        if (past is None or meter_id >= past[:_METER]) and find_channel(one, Channel.PRODUCTION) is not None:
            yield meter_id


def _make_lot_key(meter: bytes, start_ms: int, version: int) -> bytes:
    return meter + start_ms.to_bytes(_NUMBER, "big") + version.to_bytes(_NUMBER, "big")


def _show_lot(view: View, lot: Lot, time_ms: int) -> LotStanding:
    by_status: Counter[SliceStatus] = Counter()
    for one in get_slices_at(view.state, lot.lot, time_ms=time_ms):
        by_status[one.status] += one.end_wh - one.first_wh
    return {
        **show_lot(lot),
        "predecessor": lot.predecessor or None,
        "active_wh": by_status[SliceStatus.ACTIVE],
        "reserved_wh": by_status[SliceStatus.RESERVED],
        "claimed_wh": by_status[SliceStatus.CLAIMED],
        "charged_wh": by_status[SliceStatus.CHARGED],
        "expired_wh": by_status[SliceStatus.EXPIRED],
        "withdrawn_wh": by_status[SliceStatus.WITHDRAWN],
    }


def _iterate_movements(
    view: View, meter: bytes | None, period: Period, cursor: str | None
) -> Iterator[tuple[bytes, MovementRow | None]]:
    """Movements past the cursor; None for a block that has none, so that a page has an end."""
    past = read_cursor(cursor, length=_MOVEMENT_CURSOR)
    head = chain_store.read_head_height(view.reader)
    first = max(_find_height(view, period.start_ms, head), chain_store.read_oldest_height(view.reader))
    stop = _find_height(view, period.end_ms, head)
    if past is not None:
        first = max(first, int.from_bytes(past[:_NUMBER], "big"))
    for height in range(first, stop):
        receipts = chain_store.get_receipts(view.reader, height, view.table)
        time_ms = chain_store.get_header(view.reader, height).time_ms
        is_empty = True
        for position, receipt in enumerate(receipts):
            for number, one in enumerate(receipt.events):
                key = _make_place(height, position, number)
                if _is_wanted(one, meter) and (past is None or key > past):
                    is_empty = False
                    tx_id = receipt.tx_id.hex()
                    place: MovementPlace = {"height": height, "time_ms": time_ms, "index": position, "tx_id": tx_id}
                    yield key, merge(place, _show_movement(one))
        if is_empty and (past is None or _make_place(height, 0, 0) > past):
            yield _make_place(height, 0, 0), None


def _is_wanted(one: Event, meter: bytes | None) -> bool:
    return isinstance(one, MOVEMENTS) and meter in (None, one.lot.meter)


def _show_movement(one: Event) -> Merged[Tagged[Moving], MovedLot]:
    assert isinstance(one, MOVEMENTS)
    moving: Moving = one
    return merge(event_to_json(moving), {"lot": format_lot_id(moving.lot)})


def _find_height(view: View, time_ms: int, head: int) -> int:
    """The first height whose block is not before a time; above the head if there is none."""
    if time_ms == 0:
        return 1
    heights = range(1, head + 1)
    return 1 + bisect_left(heights, time_ms, key=lambda height: chain_store.get_header(view.reader, height).time_ms)


def _make_place(height: int, position: int, number: int) -> bytes:
    parts = ((height, _NUMBER), (position, _POSITION), (number, _POSITION))
    return b"".join(value.to_bytes(length, "big") for value, length in parts)
