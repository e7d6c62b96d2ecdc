"""Sums of the index over stretches of 32 days, so that a question about years reads months of entries instead of days.

Owns three key ranges behind `x` and how they follow from what a block changes in the days of a meter (node/index.py).

| prefix | key                         | value             | meaning                                         |
|--------|-----------------------------|-------------------|-------------------------------------------------|
| `xm`   | meter ‖ stretch ‖ holder    | Wh of each status | who has what of 32 days of a meter              |
| `xn`   | holder ‖ stretch ‖ meter    | nothing           | which meters' stretches a holder has            |
| `xf`   | meter ‖ stretch             | Wh of each fate   | what became of a meter's production of 32 days  |

A stretch is 4 bytes: days since the epoch, divided by 32 and rounded down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, cast

import msgpack

from ledger.encoding import encode
from ledger.primitives import ADDRESS_BYTES, Address
from ledger.storage import INDEXES, Reader

STRETCH_DAYS: Final = 32
METER_BYTES: Final = 16
_HOLDERS: Final = INDEXES + b"m"
_METERS: Final = INDEXES + b"n"
_FATES: Final = INDEXES + b"f"
_STRETCH_BYTES: Final = 4
_NOTHING: Final = encode(None)

Sums = tuple[int, ...]  # Wh of each status, or of each fate


class SumsDraft:
    """The sums that a block changes. ``reader``: as before the block."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._changes: dict[bytes, list[int]] = {}

    def add_holding(self, *, meter: bytes, day: int, holder: bytes, wh: Iterable[int]) -> None:
        """Add what a day of a holder changed by, of each status."""
        self._add(_HOLDERS + meter + _format_stretch(day // STRETCH_DAYS) + holder, wh)

    def add_fates(self, *, meter: bytes, day: int, wh: Iterable[int]) -> None:
        """Add what a day of a meter changed by, of each fate."""
        self._add(_FATES + meter + _format_stretch(day // STRETCH_DAYS), wh)

    def compute_changes(self) -> dict[bytes, bytes | None]:
        """Full key → value, or None where nothing is left."""
        changes: dict[bytes, bytes | None] = {}
        for key, added in self._changes.items():
            raw = self._reader.get(key)
            sums = added if raw is None else [a + b for a, b in zip(_decode(raw), added, strict=True)]
            assert min(sums) >= 0, "a stretch is the sum of its days"
            changes[key] = encode(tuple(sums)) if any(sums) else None
            if key.startswith(_HOLDERS):
                changes[_flip(key)] = None if changes[key] is None else _NOTHING
        return changes

    def _add(self, key: bytes, wh: Iterable[int]) -> None:
        known = self._changes.get(key)
        self._changes[key] = list(wh) if known is None else [a + b for a, b in zip(known, wh, strict=True)]


def scan_holders(reader: Reader, meter: bytes, stretches: range) -> Iterator[tuple[Address, Sums]]:
    """(Holder, Wh of each status) of each stretch of a meter."""
    start = _HOLDERS + meter
    first, stop = start + _format_stretch(stretches.start), start + _format_stretch(stretches.stop)
    return ((Address(key[-ADDRESS_BYTES:]), _decode(raw)) for key, raw in reader.scan(first, stop))


def scan_fates(reader: Reader, meter: bytes, stretches: range) -> Iterator[Sums]:
    """Wh of each fate, of each stretch of a meter."""
    start = _FATES + meter
    first, stop = start + _format_stretch(stretches.start), start + _format_stretch(stretches.stop)
    return (_decode(raw) for _, raw in reader.scan(first, stop))


def scan_meters(reader: Reader, holder: bytes, stretches: range) -> Iterator[tuple[int, bytes]]:
    """(Stretch, meter) of a holder, in the order of stretches."""
    start = _METERS + holder
    cut = len(start)
    for key, _ in reader.scan(start + _format_stretch(stretches.start), start + _format_stretch(stretches.stop)):
        yield int.from_bytes(key[cut : cut + _STRETCH_BYTES], "big"), key[-METER_BYTES:]


def get_sums(reader: Reader, *, meter: bytes, stretch: int, holder: bytes) -> Sums:
    """What a holder that ``scan_meters`` named has of a stretch."""
    raw = reader.get(_HOLDERS + meter + _format_stretch(stretch) + holder)
    assert raw is not None, "both entries are written together"
    return _decode(raw)


def get_stretches(days: range) -> range:
    """The stretches that days touch."""
    return range(days.start // STRETCH_DAYS, -(-days.stop // STRETCH_DAYS))


def get_whole_stretches(days: range) -> range:
    """The stretches all of whose days are among these; perhaps none."""
    first = -(-days.start // STRETCH_DAYS)
    return range(first, max(first, days.stop // STRETCH_DAYS))


def _decode(raw: bytes) -> Sums:
    return cast(Sums, msgpack.unpackb(raw, use_list=False))


def _flip(key: bytes) -> bytes:
    at = len(_HOLDERS)
    meter, stretch, holder = key[at : at + METER_BYTES], key[at + METER_BYTES : -ADDRESS_BYTES], key[-ADDRESS_BYTES:]
    return _METERS + holder + stretch + meter


def _format_stretch(stretch: int) -> bytes:
    return stretch.to_bytes(_STRETCH_BYTES, "big")
