"""A meter that plays a file: which of its intervals are over by now, as signed reports that go on from the ledger.

Owns the mapping from the file's time to that of the clock, and what to do about what the ledger says. The file is the
memory: after any fault it is enough to ask where the meter stands. Time arrives as an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from contracts_native.lots import INTERVALS_PER_REPORT_MAX
from contracts_native.meters import Channel
from contracts_native.readings import Report
from node.meter_files.model import ChannelData, IntervalValue
from node.meter_files.stretches import regroup, split_into_reports
from node.meters.reports import NEVER, MeterError, SigningMeter, Stand

INTERVALS_PER_TURN_MAX: Final = 20_000  # at nine bytes each: well below the largest transaction
REPORTS_PER_TURN_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Pace:
    """``speed``: seconds of the file in a second of the clock; None: as fast as the ledger takes it."""

    speed: int | None = 1


class Player:
    """The intervals of a file against a clock that starts with the first one that the ledger has not."""

    def __init__(self, meter: SigningMeter, channels: Sequence[ChannelData], pace: Pace) -> None:
        """Raises ``MeterError`` (``channel_unknown``), ``MeterFileError`` for intervals that do not fit the meter's."""
        self.meter = meter
        self.pace = pace
        self._values: dict[Channel, list[IntervalValue]] = {}
        self._data: dict[Channel, ChannelData] = {}
        for one in channels:
            direction = one.direction
            assert direction is not None, "the caller has said which"
            if direction not in meter.lengths_s or direction in self._data:
                raise MeterError("channel_unknown", f"{one.point}: the meter has no such channel, or it comes twice")
            fitted = regroup(one, meter.lengths_s[direction])
            self._data[direction] = fitted
            self._values[direction] = [value for value in fitted.values if value.wh is not None]
        self._began_ms: int | None = None  # the clock's time …
        self._first_ms = 0  # … at which the file's was this

    @property
    def left(self) -> int:
        """How many intervals are still to be played."""
        return sum(map(len, self._values.values()))

    def skip(self, stands: Mapping[Channel, Stand]) -> int:
        """Leave out what lies before where the ledger stands; how many intervals that were."""
        before = self.left
        for channel, values in self._values.items():
            end_ms = stands.get(channel, NEVER).end_ms
            self._values[channel] = [one for one in values if one.start_ms >= end_ms]
        return before - self.left

    def start(self, now_ms: int) -> None:
        """Let the clock run, from the first interval that is left."""
        starts = [values[0].start_ms for values in self._values.values() if values]
        self._began_ms, self._first_ms = now_ms, min(starts, default=0)

    def compute_next_ms(self) -> int | None:
        """When the next interval is over by the clock; None when there is none."""
        return min((self._compute_due_ms(values[0]) for values in self._values.values() if values), default=None)

    def list_due(self, now_ms: int, stands: Mapping[Channel, Stand]) -> list[Report]:
        """Reports of all that is over by now, signed, going on from where the channels stand; at most one
        transaction's. They are taken out when the ledger stands behind them (``skip``), not before."""
        reports: list[Report] = []
        intervals = 0
        for channel, values in self._values.items():
            due = [one for one in values[:INTERVALS_PER_TURN_MAX] if self._compute_due_ms(one) <= now_ms]
            stand = stands.get(channel, NEVER)
            data = replace(self._data[channel], values=tuple(due))
            sequence = stand.sequence
            for stretch in split_into_reports(
                data, intervals_max=INTERVALS_PER_REPORT_MAX, register_start_wh=stand.register_wh
            ):
                intervals += len(stretch.values_wh)
                if reports and (intervals > INTERVALS_PER_TURN_MAX or len(reports) == REPORTS_PER_TURN_MAX):
                    return reports
                sequence += 1
                reports.append(self.meter.sign(channel, stretch, sequence=sequence))
        return reports

    def _compute_due_ms(self, one: IntervalValue) -> int:
        assert self._began_ms is not None, "start first"
        if self.pace.speed is None:
            return one.end_ms  # the ledger takes nothing from the future
        return max(one.end_ms, self._began_ms + (one.end_ms - self._first_ms) // self.pace.speed)
