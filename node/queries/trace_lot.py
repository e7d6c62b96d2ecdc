"""What happened to one lot: the mint, every movement and use with its transaction, the slices of today.

Owns the answer of ``trace_lot``. The index tells which transactions touched the meter's day; their receipts tell the
rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Annotated, Final, Literal, TypedDict

from contracts_native.batteries import Source, list_sources
from contracts_native.claims import ClaimImpaired, ClaimStatus, EnergyClaimed, get_claim, get_lost_wh
from contracts_native.lots import (
    FIRST_VERSION,
    WITHDRAWALS,
    EnergyMoved,
    EnergyReleased,
    EnergyReserved,
    EnergyWithdrawn,
    Lot,
    LotId,
    LotWithdrawn,
    Withdrawal,
    find_latest_lot,
    find_lot,
    get_lot,
)
from contracts_native.meters import Channel
from contracts_native.readings import CORRECTIONS, find_report_at
from contracts_native.slices import make_first_slices
from contracts_native.storage import EnergyCharged
from ledger.fields import AddressText, HashText, JsonOf, Shown, to_json
from ledger.primitives import Hash, format_address
from ledger.receipt import Tagged
from ledger.receipt import to_json as event_to_json
from node import index
from node.answers import Merged, Named, Without, leave_out, merge
from node.chain_store import TransactionPlace, find_transaction_place, get_header
from node.index import DAY_MS, HOUR_MS, Movement
from node.queries.chain import read_receipt
from node.queries.energy import LotRow, SliceRow, show_lot, show_slices
from node.queries.lot_ids import format_lot_id, get_known_lot, parse_lot_id
from node.queries.view import Limit, ObjectId, Paged, TimeMs, View, make_page, read_cursor

MOVEMENTS_LIMIT: Final = 100  # each reads the receipts of a block
_PLACE: Final = 8  # bytes of a height in a cursor; 4 more for the position
MOVEMENTS: Final = (
    EnergyMoved,
    EnergyClaimed,
    EnergyReserved,
    EnergyReleased,
    EnergyCharged,
    EnergyWithdrawn,
    LotWithdrawn,
    ClaimImpaired,
)
Moving = (  # what ``MOVEMENTS`` has, as a type
    EnergyMoved
    | EnergyClaimed
    | EnergyReserved
    | EnergyReleased
    | EnergyCharged
    | EnergyWithdrawn
    | LotWithdrawn
    | ClaimImpaired
)


class TransactionPlaceShown(TypedDict):
    """A committed transaction and where it stands."""

    tx_id: HashText
    height: int
    index: int
    time_ms: TimeMs


class FirstSlice(TypedDict):
    """A slice as it was minted."""

    holder: AddressText
    first_wh: int
    end_wh: int


class MintShown(TransactionPlaceShown):
    """What minted a lot, and for whom."""

    slices: list[FirstSlice]


class LotHistory(TypedDict):
    """Where a lot stands among the versions of its interval, and why it was withdrawn."""

    predecessor: str | None
    successor: str | None
    withdrawal: Shown[Withdrawal] | None


class ChargedSlice(LotRow):
    """A slice that went into a storage, with its lot."""

    first_wh: int
    end_wh: int
    lost_wh: int


class LotSource(TypedDict):
    """A charge behind a lot, and how much of the lot it is behind."""

    charge: ObjectId
    status: Annotated[str, JsonOf(ClaimStatus)]
    charged_until_ms: TimeMs
    wh: int
    charged_with: list[ChargedSlice]


class MovementKey(TransactionPlaceShown):
    """Which event it is, of which transaction."""

    event: str


MovementOfLot = Annotated[Merged[MovementKey, Without[Tagged[Moving], Literal["lot"]]], Named("MovementOfLot")]


class LotTrace(LotRow, LotHistory, Paged):
    """What happened to a lot, in the order of the chain."""

    mint: MintShown
    sources: list[LotSource]
    movements: list[MovementOfLot]
    slices: list[SliceRow]


def trace_lot(view: View, *, lot: str, limit: Limit = MOVEMENTS_LIMIT, cursor: str | None = None) -> LotTrace:
    """What happened to a lot: its mint, each movement and use with its transaction, and the slices that it has now.

    ``sources``: for a lot that left a storage, the charges behind it with the lots that went in. ``predecessor`` and
    ``successor``: the lots of other versions, where the interval was corrected.
    A page reads ``limit`` transactions (at most 100) that touched the meter's day; not each of them touched this lot.
    """
    lot_id = parse_lot_id(lot)
    found = get_known_lot(view, lot_id)
    tx_id = _get_minting_transaction(view, lot_id)
    first: list[FirstSlice] = [
        {"holder": format_address(one.holder), "first_wh": one.first_wh, "end_wh": one.end_wh}
        for one in make_first_slices(found.wh, found.shares)
    ]
    movements, next_cursor = _list_movements(view, lot_id, min(limit, MOVEMENTS_LIMIT), cursor)
    return {
        **show_lot(found),
        **_show_history(view, found),
        "mint": {**_show_transaction(view, tx_id), "slices": first},
        "sources": [_show_lot_source(view, source) for source in list_sources(view.state, lot_id)],
        "movements": movements,
        "slices": show_slices(view, found),
        "next_cursor": next_cursor,
    }


def _get_minting_transaction(view: View, lot: LotId) -> Hash:
    if lot.version > FIRST_VERSION:
        return CORRECTIONS.get(view.state, lot.meter, Channel.PRODUCTION, lot.start_ms, lot.version).tx_id
    report = find_report_at(view.state, lot.meter, Channel.PRODUCTION, lot.start_ms)
    assert report is not None, "what was minted was reported"
    return report.tx_id


def _show_history(view: View, lot: Lot) -> LotHistory:
    lot_id = lot.lot
    withdrawal = WITHDRAWALS.find(view.state, lot_id.meter, lot_id.start_ms, lot_id.version)
    latest = find_latest_lot(view.state, lot_id.meter, lot_id.start_ms)
    successor = None
    while latest is not None and latest.lot.version > lot_id.version:
        successor = latest.lot
        latest = find_lot(view.state, replace(lot_id, version=latest.predecessor)) if latest.predecessor else None
    return {
        "predecessor": format_lot_id(replace(lot_id, version=lot.predecessor)) if lot.predecessor else None,
        "successor": None if successor is None else format_lot_id(successor),
        "withdrawal": None if withdrawal is None else to_json(withdrawal),
    }


def _show_lot_source(view: View, source: Source) -> LotSource:
    """A charge behind a lot, with the slices that went into the storage then."""
    claim = get_claim(view.state, source.charge)
    lost_wh = get_lost_wh(view.state, source.charge, claim)
    slices: list[ChargedSlice] = []
    for ref, lost in zip(claim.slices, lost_wh, strict=True):
        lot = get_lot(view.state, ref.lot)
        if lot.end_ms <= source.end_ms < lot.end_ms + HOUR_MS:
            slices.append({**show_lot(lot), "first_wh": ref.first_wh, "end_wh": ref.end_wh, "lost_wh": lost})
    return {
        "charge": source.charge.hex(),
        "status": claim.status.value,
        "charged_until_ms": source.end_ms,
        "wh": source.wh,
        "charged_with": slices,
    }


def _list_movements(view: View, lot: LotId, limit: int, cursor: str | None) -> tuple[list[MovementOfLot], str | None]:
    past = read_cursor(cursor, length=_PLACE + 4)
    after = None
    if past is not None:
        after = Movement(int.from_bytes(past[:_PLACE], "big"), int.from_bytes(past[_PLACE:], "big"))
    places = index.scan_movements(view.reader, lot.meter, lot.start_ms // DAY_MS, after=after)
    rows = (
        (place.height.to_bytes(_PLACE, "big") + place.index.to_bytes(4, "big"), place)
        for place in islice(places, limit + 1)
    )
    page = make_page(rows, limit, lambda place: list(_show_movements(view, lot, place)))
    return [movement for shown in page.items for movement in shown], page.next_cursor


def _show_movements(view: View, lot: LotId, place: Movement) -> Iterator[MovementOfLot]:
    receipt = read_receipt(view, TransactionPlace(place.height, place.index))
    for one in receipt.events:
        if isinstance(one, MOVEMENTS) and one.lot == lot:
            moving: Moving = one
            key: MovementKey = {"event": moving.name, **_show_transaction(view, receipt.tx_id)}
            yield merge(key, leave_out(event_to_json(moving), "lot"))


def _show_transaction(view: View, tx_id: Hash) -> TransactionPlaceShown:
    place = find_transaction_place(view.reader, tx_id)
    assert place is not None, "what happened is committed"
    time_ms = get_header(view.reader, place.height).time_ms
    return {"tx_id": tx_id.hex(), "height": place.height, "index": place.index, "time_ms": time_ms}
