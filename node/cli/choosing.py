"""Which slices to move or to claim: the choice that a person would otherwise make lot by lot.

Owns the choice only, from what a node answered; the ledger checks whatever is chosen. Oldest energy goes first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from contracts_native.lots import LotId, SliceRef
from ledger.errors import Rejected
from ledger.fields import Json, from_json


class ChoiceError(Rejected):
    """What was asked for cannot be chosen from what there is: the ledger would refuse it as well.

    Reasons: ``energy_not_sufficient``, ``nothing_to_claim``, ``too_many_slices``.
    """


@dataclass(frozen=True, slots=True)
class Held:
    """An active slice of a holder, as ``energy_slices`` tells it."""

    lot: LotId
    start_ms: int
    end_ms: int
    first_wh: int
    end_wh: int

    @property
    def wh(self) -> int:
        """What it holds."""
        return self.end_wh - self.first_wh

    def take(self, wh: int) -> SliceRef:
        """The first ``wh`` of it."""
        return SliceRef(self.lot, self.first_wh, self.first_wh + wh)


@dataclass(frozen=True, slots=True)
class Consumed:
    """A consumption interval, and what of it no claim covers yet."""

    start_ms: int
    end_ms: int
    room_wh: int


def read_held(rows: Iterable[dict[str, Json]]) -> list[Held]:
    """The slices in answers of ``energy_slices``, oldest first."""
    held = [
        Held(
            from_json(LotId, row["lot_id"]),
            cast(int, row["start_ms"]),
            cast(int, row["end_ms"]),
            cast(int, row["first_wh"]),
            cast(int, row["end_wh"]),
        )
        for row in rows
    ]
    return sorted(held, key=lambda one: (one.start_ms, one.lot.meter, one.first_wh))


def read_consumed(rows: Iterable[dict[str, Json]]) -> list[Consumed]:
    """The intervals in answers of ``reading_list`` that a claim may be set against, in order of time."""
    consumed = []
    for row in rows:
        if row["channel"] == "consumption" and row["state"] == "recorded":
            start_ms, wh, claimed_wh = cast(int, row["start_ms"]), cast(int, row["wh"]), cast(int, row["claimed_wh"])
            consumed.append(Consumed(start_ms, start_ms + cast(int, row["interval_s"]) * 1_000, wh - claimed_wh))
    return sorted(consumed, key=lambda one: one.start_ms)


def choose_quantity(held: Sequence[Held], wh: int) -> list[SliceRef]:
    """Slices of exactly ``wh`` together. Raises ``ChoiceError`` (``energy_not_sufficient``)."""
    chosen: list[SliceRef] = []
    left_wh = wh
    for one in held:
        if not left_wh:
            break
        part_wh = min(left_wh, one.wh)
        chosen.append(one.take(part_wh))
        left_wh -= part_wh
    if left_wh:
        raise ChoiceError("energy_not_sufficient", f"{wh - left_wh} Wh are active and match, {wh} are needed")
    return chosen


def choose_matching(
    held: Sequence[Held], consumed: Sequence[Consumed], *, period_ms: int, wh_max: int | None = None
) -> list[SliceRef]:
    """As much as the consumption of the same time takes, at most ``wh_max``.

    A slice is set against the interval that encloses its lot, or, when lots are longer than intervals, against the
    intervals of its matching period of ``period_ms``: as the ledger does.
    """
    starts_ms = [one.start_ms for one in consumed]
    rooms = [one.room_wh for one in consumed]
    chosen: list[SliceRef] = []
    left_wh = sum(rooms) if wh_max is None else wh_max
    for one in held:
        part_wh = 0
        for index in _find_intervals(one, consumed, starts_ms, period_ms):
            more_wh = min(one.wh - part_wh, rooms[index], left_wh)
            rooms[index] -= more_wh
            left_wh -= more_wh
            part_wh += more_wh
        if part_wh:
            chosen.append(one.take(part_wh))
    return chosen


def _find_intervals(one: Held, consumed: Sequence[Consumed], starts_ms: list[int], period_ms: int) -> range:
    """Places of the intervals that a slice may be set against."""
    place = bisect_right(starts_ms, one.start_ms) - 1
    if place >= 0 and one.end_ms <= consumed[place].end_ms:
        return range(place, place + 1)
    period_start_ms = one.start_ms - one.start_ms % period_ms
    first = bisect_left(starts_ms, period_start_ms)
    stop = bisect_left(starts_ms, period_start_ms + period_ms)
    while stop > first and consumed[stop - 1].end_ms > period_start_ms + period_ms:
        stop -= 1
    return range(first, stop)
