"""How a lot is named to people: ``meter:start_ms:version`` as text, and its three parts as an object.

Owns both forms and the finding of lots: one by its id, or all of a meter in a period.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, cast

from contracts_native.lots import MINTS, REISSUES, Lot, LotId, Mint, find_lot, get_lot
from ledger.errors import Malformed
from ledger.fields import Shown, to_json
from ledger.state import State
from ledger.tables import Table
from node.queries.errors import NotFound
from node.queries.view import TIME_MS_MAX, View, read_id

VERSION_MAX = 2**31
DIGITS_MAX = 16  # of a number in a lot's id


class LotKey(TypedDict):
    """Which lot it is: as text, ``meter:start_ms:version``, and as its parts."""

    lot: str
    lot_id: Shown[LotId]


class LotRange(LotKey):
    """A part of a lot."""

    first_wh: int
    end_wh: int


def format_lot_id(lot: LotId) -> str:
    """The text form of a lot's id."""
    return f"{lot.meter.hex()}:{lot.start_ms}:{lot.version}"


def parse_lot_id(text: str) -> LotId:
    """The lot that a text names. Raises ``Malformed`` (``lot_id_invalid``)."""
    meter, *numbers = text.split(":")
    if len(numbers) != 2 or not all(_is_number(number) for number in numbers):
        raise Malformed("lot_id_invalid", f"{text[:80]!a}, expected meter:start_ms:version")
    start_ms, version = map(int, numbers)
    if start_ms > TIME_MS_MAX or not 1 <= version <= VERSION_MAX:
        raise Malformed("lot_id_invalid", text[:80])
    return LotId(read_id(meter, name="lot"), start_ms, version)


def show_lot_id(lot: LotId) -> LotKey:
    """Both forms, as the first fields of what is said of a lot."""
    return {"lot": format_lot_id(lot), "lot_id": to_json(lot)}


def get_known_lot(view: View, lot: LotId) -> Lot:
    """A lot. Raises ``NotFound`` (``lot_not_found``)."""
    found = find_lot(view.state, lot)
    if found is None:
        raise NotFound("lot_not_found", format_lot_id(lot))
    return found


def iterate_lots(state: State, meter: bytes, *, from_ms: int, until_ms: int) -> Iterator[Lot]:
    """The lots of a meter that start in [``from_ms``, ``until_ms``): those of reports, then of corrections."""
    found = MINTS.find_floor(state, meter, from_ms) or MINTS.find_above(state, meter, from_ms)
    while found is not None and found[1].start_ms < until_ms:
        yield from _iterate_mint(meter, found[1], from_ms, until_ms)
        found = MINTS.find_above(state, meter, found[1].start_ms)
    start, stop = REISSUES.key(meter, from_ms), REISSUES.key(meter, until_ms)
    for key, _ in state.scan(cast("Table[object]", REISSUES), start, stop):
        start_ms, version = int.from_bytes(key[-16:-8], "big"), int.from_bytes(key[-8:], "big")
        yield get_lot(state, LotId(meter, start_ms, version))


def _iterate_mint(meter: bytes, mint: Mint, from_ms: int, until_ms: int) -> Iterator[Lot]:
    length_ms = mint.interval_s * 1_000
    first = max(0, -((mint.start_ms - from_ms) // length_ms))
    stop = min(len(mint.wh), -((mint.start_ms - until_ms) // length_ms))
    for index in range(first, stop):
        if mint.wh[index]:
            start_ms = mint.start_ms + index * length_ms
            lot_id = LotId(meter, start_ms, mint.version)
            yield Lot(
                lot_id, mint.site, mint.technology, mint.zone, start_ms, mint.interval_s, mint.wh[index], mint.shares
            )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and str(int(text)) == text
