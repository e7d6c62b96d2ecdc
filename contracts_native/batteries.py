"""Batteries: what a storage has taken in and may still give back.

Owns the queue of charged energy and which of it each discharged lot stands for, first in, first out. A storage never
mints more than its efficiency leaves of what was charged; readings ask here before they mint (readings import this).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native.lots import LotId, WhTuple
from contracts_native.meters import MeterId
from contracts_native.sites import PER_MILLE, EfficiencyPerMille
from ledger.fields import Length
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table

LOT_SOURCES_MAX: Final = 64  # charges behind one lot; what needs more than that is not minted
METER_AND_END: Final = 24  # bytes of a key that stand before the charge's id

ChargeId = Annotated[bytes, Length(16, 16)]


@dataclass(frozen=True, slots=True)
class Stored:
    """What one charge took in during one interval, and what lots were given back of it.

    ``lost_wh`` of it turned out not to be green, or not to be there.
    """

    charged_wh: int
    lost_wh: int
    efficiency_per_mille: EfficiencyPerMille
    given_back_wh: int

    @property
    def left_wh(self) -> int:
        """What may still be given back: nothing where more was than the losses now leave."""
        deliverable_wh = (self.charged_wh - self.lost_wh) * self.efficiency_per_mille // PER_MILLE
        return max(0, deliverable_wh - self.given_back_wh)


@dataclass(frozen=True, slots=True)
class Waiting:
    """That something is left of what was stored."""

    left_wh: int


@dataclass(frozen=True, slots=True)
class Source:
    """The part of a lot that was charged in the interval that ends at ``end_ms``."""

    charge: ChargeId
    end_ms: int
    wh: int


@dataclass(frozen=True, slots=True)
class LotSources:
    """What a discharged lot was charged with; the parts sum to the lot."""

    sources: Annotated[tuple[Source, ...], Length(LOT_SOURCES_MAX, 1)]


STORED: Table[Stored] = Table("bs", Stored, missing="charge_unknown")  # meter, end of the interval, charge
WAITING: Table[Waiting] = Table("bw", Waiting, missing="charge_used_up")  # the same, while something is left
LOT_SOURCES: Table[LotSources] = Table("lc", LotSources, missing="lot_not_discharged")  # meter, start, version


@event("storage.discharged")
@dataclass(frozen=True, slots=True)
class EnergyDischarged(Event):
    """A lot of a storage stands for energy that was charged before; ``energy.minted`` follows."""

    lot: LotId
    sources: Annotated[tuple[Source, ...], Length(LOT_SOURCES_MAX, 1)]


@event("storage.uncovered")
@dataclass(frozen=True, slots=True)
class DischargeUncovered(Event):
    """What a storage gave back that no charge stands behind, by interval: it is not minted."""

    meter: MeterId
    start_ms: int
    interval_s: int
    wh: WhTuple


def store(
    state: State, meter: bytes, charge: bytes, *, end_ms: int, charged_wh: int, efficiency_per_mille: int
) -> None:
    """Take in what a charge put into the storage during one interval."""
    assert STORED.find(state, meter, end_ms, charge) is None, "a charge takes an interval in once"
    _put(state, meter, end_ms, charge, Stored(charged_wh, 0, efficiency_per_mille, 0))


def lose(state: State, meter: bytes, charge: bytes, *, end_ms: int, wh: int) -> None:
    """Take back what a charge should not have counted, as far as it has not been given back already."""
    before = STORED.get(state, meter, end_ms, charge)
    after = replace(before, lost_wh=before.lost_wh + wh)
    assert after.lost_wh <= after.charged_wh, after
    _put(state, meter, end_ms, charge, after)


def cover(
    state: State, meter: bytes, *, start_ms: int, interval_s: int, wh: tuple[int, ...], version: int
) -> tuple[int, ...]:
    """How much of each interval charges stand behind: that much may be minted, and is taken from them.

    A charge stands behind intervals that start when its own has ended, not earlier.
    """
    queue = _Queue(state, meter)
    covered: list[int] = []
    for index, interval_wh in enumerate(wh):
        at_ms = start_ms + index * interval_s * 1_000
        sources = queue.take(interval_wh, at_ms)
        covered.append(sum(source.wh for source in sources))
        if sources:
            LOT_SOURCES.put(state, meter, at_ms, version, value=LotSources(sources))
            state.emit(EnergyDischarged(LotId(meter, at_ms, version), sources))
    queue.write()
    return tuple(covered)


def give_back(state: State, lot: LotId) -> None:
    """The sources of a discharged lot that was withdrawn may stand behind another; nothing for any other lot."""
    found = LOT_SOURCES.find(state, lot.meter, lot.start_ms, lot.version)
    for source in () if found is None else found.sources:
        stored = STORED.get(state, lot.meter, source.end_ms, source.charge)
        after = replace(stored, given_back_wh=stored.given_back_wh - source.wh)
        _put(state, lot.meter, source.end_ms, source.charge, after)


def list_sources(state: State, lot: LotId) -> tuple[Source, ...]:
    """What a lot was charged with; nothing for a lot that no storage gave back."""
    found = LOT_SOURCES.find(state, lot.meter, lot.start_ms, lot.version)
    return () if found is None else found.sources


def _put(state: State, meter: bytes, end_ms: int, charge: bytes, stored: Stored) -> None:
    STORED.put(state, meter, end_ms, charge, value=stored)
    if stored.left_wh:
        WAITING.put(state, meter, end_ms, charge, value=Waiting(stored.left_wh))
    else:
        WAITING.delete(state, meter, end_ms, charge)


class _Queue:
    """What waits in a storage, oldest first; read as far as it is needed, written once."""

    def __init__(self, state: State, meter: bytes) -> None:
        self._state = state
        self._meter = meter
        self._waiting: Iterator[tuple[bytes, Waiting]] = WAITING.scan(state, meter)
        self._first: tuple[int, bytes, int] | None = None  # end, charge, Wh left
        self._taken: dict[tuple[int, bytes], int] = {}
        self._advance()

    def take(self, wh: int, at_ms: int) -> tuple[Source, ...]:
        """Up to ``wh`` of what was charged by ``at_ms``."""
        sources: list[Source] = []
        while wh and self._first is not None and len(sources) < LOT_SOURCES_MAX:
            end_ms, charge, left_wh = self._first
            if end_ms > at_ms:
                break
            part_wh = min(wh, left_wh)
            sources.append(Source(charge, end_ms, part_wh))
            self._taken[end_ms, charge] = self._taken.get((end_ms, charge), 0) + part_wh
            wh -= part_wh
            if part_wh == left_wh:
                self._advance()
            else:
                self._first = end_ms, charge, left_wh - part_wh
        return tuple(sources)

    def write(self) -> None:
        """Put down what was taken."""
        for (end_ms, charge), wh in self._taken.items():
            stored = STORED.get(self._state, self._meter, end_ms, charge)
            assert wh <= stored.left_wh, "no more comes out than is left"
            after = replace(stored, given_back_wh=stored.given_back_wh + wh)
            _put(self._state, self._meter, end_ms, charge, after)

    def _advance(self) -> None:
        found = next(self._waiting, None)
        if found is None:
            self._first = None
            return
        key, waiting = found
        charge, end_ms = key[-16:], int.from_bytes(key[-METER_AND_END:-16], "big")
        self._first = end_ms, charge, waiting.left_wh
