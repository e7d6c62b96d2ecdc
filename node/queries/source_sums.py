"""What a meter's production became, and who has it, summed up over a period of whole hours.

Owns the arithmetic of the trace questions: whole months come from the sums of the index (node/index_sums.py), the days
and hours at both ends from its days, so that a year of a source with many holders is a few hundred entries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import add, attrgetter
from typing import Final, TypedDict

from ledger.errors import Rejected
from ledger.primitives import Address
from node import index, index_sums
from node.index import DAY_MS, HOUR_MS, HOURS, Holding, Hours, SourceDay
from node.queries.sources import ChosenMeter
from node.queries.view import Period, View

STRETCH_MS: Final = index_sums.STRETCH_DAYS * DAY_MS
_ALL_HOURS: Final = slice(0, HOURS)
_NO_HOURS: Final = (0,) * HOURS
_NO_STATUSES: Final = (0,) * len(Holding.__slots__)
_NO_FATES: Final = (0,) * len(SourceDay.__slots__)
_get_statuses: Final = attrgetter(*Holding.__slots__)
_get_fates: Final = attrgetter(*SourceDay.__slots__)
Sums = list[int]


class HolderWh(TypedDict):
    """Wh that somebody has or had, and what became of them."""

    wh: int
    held_wh: int
    claimed_wh: int
    impaired_wh: int
    charged_wh: int
    withdrawn_wh: int


class SourceWh(TypedDict):
    """Wh that a source metered, and what became of them."""

    metered_wh: int
    minted_wh: int
    quarantined_wh: int
    not_minted_wh: int
    taken_back_wh: int


@dataclass(frozen=True, slots=True)
class HolderSums:
    """Wh by what became of them: what is held is active, reserved, or past its lifetime."""

    held: int = 0
    claimed: int = 0
    impaired: int = 0
    charged: int = 0
    withdrawn: int = 0

    @property
    def wh(self) -> int:
        """All of it."""
        return self.held + self.claimed + self.impaired + self.charged + self.withdrawn

    def to_json(self) -> HolderWh:
        """As an answer shows it."""
        return {
            "wh": self.wh,
            "held_wh": self.held,
            "claimed_wh": self.claimed,
            "impaired_wh": self.impaired,
            "charged_wh": self.charged,
            "withdrawn_wh": self.withdrawn,
        }


@dataclass(frozen=True, slots=True)
class SourceSums:
    """What became of what a source metered, in Wh; ``taken_back``: of what was minted."""

    metered: int = 0
    minted: int = 0
    quarantined: int = 0
    not_minted: int = 0
    taken_back: int = 0

    def holds(self, rows_wh: int) -> bool:
        """Whether metered = minted − taken back + quarantined + not minted, and minted = Σ rows."""
        accounted_wh = self.minted - self.taken_back + self.quarantined + self.not_minted
        return self.metered == accounted_wh and self.minted == rows_wh

    def to_json(self) -> SourceWh:
        """As an answer shows it."""
        return {
            "metered_wh": self.metered,
            "minted_wh": self.minted,
            "quarantined_wh": self.quarantined,
            "not_minted_wh": self.not_minted,
            "taken_back_wh": self.taken_back,
        }


class Allowance:
    """How many more entries of the index one question may read."""

    def __init__(self, entries: int) -> None:
        self._entries = self._left = entries

    def take(self) -> None:
        """One entry more. Raises ``Rejected`` (``period_too_long``)."""
        if self._left == 0:
            raise Rejected("period_too_long", f"more than {self._entries} entries of the index")
        self._left -= 1


def sum_by_holder(
    view: View, chosen: Sequence[ChosenMeter], allowance: Allowance
) -> tuple[dict[Address, HolderSums], SourceSums]:
    """(What each holder has of the meters, what became of their production). Raises as ``Allowance.take`` does."""
    holders: defaultdict[Address, Sums] = defaultdict(lambda: [*_NO_STATUSES])
    fates = [*_NO_FATES]
    for one in chosen:
        for period in one.periods:
            for holder, statuses in _iterate_holders(view, one.meter, period):
                allowance.take()
                _add(holders[holder], statuses)
            for parts in _iterate_fates(view, one.meter, period):
                _add(fates, parts)
    sums = ((holder, make_holder_sums(statuses)) for holder, statuses in holders.items())
    return {holder: one for holder, one in sums if one.wh}, SourceSums(*fates)


def sum_of_holder(
    view: View, holder: Address, chosen: ChosenMeter, stretch: int, allowance: Allowance
) -> HolderSums | None:
    """What a holder has of a meter in one stretch of the index, or None. Raises as ``Allowance.take`` does."""
    sums = [*_NO_STATUSES]
    start_ms, end_ms = stretch * STRETCH_MS, (stretch + 1) * STRETCH_MS
    for period in chosen.periods:
        within = Period(max(start_ms, period.start_ms), min(end_ms, period.end_ms))
        if within.start_ms >= within.end_ms:
            continue
        if (within.start_ms, within.end_ms) == (start_ms, end_ms):
            allowance.take()
            _add(sums, index_sums.get_sums(view.reader, meter=chosen.meter, stretch=stretch, holder=holder))
            continue
        for day in get_days(within):
            holding = index.find_holding(view.reader, meter=chosen.meter, day=day, holder=holder)
            if holding is not None:
                allowance.take()
                _add(sums, _sum_hours(_get_statuses(holding), get_hours(day, within)))
    made = make_holder_sums(sums)
    return made if made.wh else None


def list_hours(
    view: View, chosen: Sequence[ChosenMeter], window: Period
) -> Iterator[tuple[int, SourceSums, HolderSums]]:
    """(Start in ms, what became of it, who has it in all) of each hour of a window that has something, in order."""
    fates: defaultdict[int, list[Hours]] = defaultdict(lambda: [_NO_HOURS] * len(_NO_FATES))
    statuses: defaultdict[int, list[Hours]] = defaultdict(lambda: [_NO_HOURS] * len(_NO_STATUSES))
    for one in chosen:
        for period in one.periods:
            within = Period(max(window.start_ms, period.start_ms), min(window.end_ms, period.end_ms))
            if within.start_ms >= within.end_ms:
                continue
            for day, source_day in index.scan_source_days(view.reader, one.meter, get_days(within)):
                _add_hours(fates[day], _get_fates(source_day), get_hours(day, within))
            for day, _, holding in index.scan_source(view.reader, one.meter, get_days(within)):
                _add_hours(statuses[day], _get_statuses(holding), get_hours(day, within))
    for day in sorted(fates):
        of_holders = zip(*statuses[day], strict=True) if day in statuses else iter([_NO_STATUSES] * HOURS)
        for hour, (of_source, of_hour) in enumerate(zip(zip(*fates[day], strict=True), of_holders, strict=True)):
            source = SourceSums(*of_source)
            if source.metered or source.minted:
                yield day * DAY_MS + hour * HOUR_MS, source, make_holder_sums(of_hour)


def make_holder_sums(statuses: Sequence[int]) -> HolderSums:
    """The sums of Wh in the order of the fields of ``Holding``; what was used for others counts there."""
    held, reserved, claimed, _, impaired, charged, withdrawn = statuses
    return HolderSums(held + reserved, claimed, impaired, charged, withdrawn)


def sum_all(parts: Iterable[HolderSums]) -> HolderSums:
    """The sum of some sums."""
    held = claimed = impaired = charged = withdrawn = 0
    for one in parts:
        held, claimed, impaired = held + one.held, claimed + one.claimed, impaired + one.impaired
        charged, withdrawn = charged + one.charged, withdrawn + one.withdrawn
    return HolderSums(held, claimed, impaired, charged, withdrawn)


def get_days(period: Period) -> range:
    """The days that a period touches."""
    return index.get_days(period.start_ms, period.end_ms)


def get_hours(day: int, period: Period) -> slice:
    """The hours of a day that lie within a period of whole hours, as places in ``Hours``; perhaps none."""
    start_ms = day * DAY_MS
    first = max(0, (period.start_ms - start_ms) // HOUR_MS)
    return slice(first, max(first, min(HOURS, (period.end_ms - start_ms) // HOUR_MS)))


def _iterate_holders(view: View, meter: bytes, period: Period) -> Iterator[tuple[Address, Iterable[int]]]:
    """(Holder, Wh of each status) of the stretches that lie within a period, then of the days of its ends."""
    stretches, ends = _split(period)
    yield from index_sums.scan_holders(view.reader, meter, stretches)
    for end in ends:
        for day, holder, holding in index.scan_source(view.reader, meter, get_days(end)):
            yield holder, _sum_hours(_get_statuses(holding), get_hours(day, end))


def _iterate_fates(view: View, meter: bytes, period: Period) -> Iterator[Iterable[int]]:
    stretches, ends = _split(period)
    yield from index_sums.scan_fates(view.reader, meter, stretches)
    for end in ends:
        for day, source_day in index.scan_source_days(view.reader, meter, get_days(end)):
            yield _sum_hours(_get_fates(source_day), get_hours(day, end))


def _split(period: Period) -> tuple[range, tuple[Period, ...]]:
    """(The stretches that lie within a period, what is left of it before and after them)."""
    whole_days = range(-(-period.start_ms // DAY_MS), period.end_ms // DAY_MS)
    stretches = index_sums.get_whole_stretches(whole_days)
    if not stretches:
        return stretches, (period,)
    before = Period(period.start_ms, stretches.start * STRETCH_MS)
    after = Period(stretches.stop * STRETCH_MS, period.end_ms)
    return stretches, tuple(one for one in (before, after) if one.start_ms < one.end_ms)


def _sum_hours(columns: Iterable[Hours], hours: slice) -> list[int]:
    return [sum(column[hours]) for column in columns]


def _add(sums: Sums, more: Iterable[int]) -> None:
    sums[:] = map(add, sums, more)


def _add_hours(sums: list[Hours], columns: Iterable[Hours], hours: slice) -> None:
    """Add the hours of a day that count; most columns of most days are empty."""
    for place, column in enumerate(columns):
        if any(column):
            counted = column
            if hours != _ALL_HOURS:
                counted = tuple([wh if hours.start <= at < hours.stop else 0 for at, wh in enumerate(column)])
            sums[place] = tuple(map(add, sums[place], counted))
