"""Channels as reports can carry them: intervals of the meter's length, in unbroken stretches of one quality.

Owns the two steps from what a file has to what a meter signs: joining short intervals to longer ones, and cutting at
gaps, changes of flag, whole days in UTC, and the longest report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from contracts_native.meters import INTERVALS_S
from contracts_native.readings import Flag
from node.meter_files.instants import DAY_S, format_utc
from node.meter_files.model import ChannelData, IntervalValue, MeterFileError, RegisterValue

DAY_MS: Final = DAY_S * 1_000
LATE_MS_MAX: Final = 10_000  # DSMR 4 sends every ten seconds: the first telegram of an interval is at most so late
WORST_FIRST: Final = (Flag.SUBSTITUTED, Flag.ESTIMATED, Flag.MEASURED)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The values of one report, without its signature. The registers are at its start and at its end."""

    start_ms: int
    interval_s: int
    values_wh: tuple[int, ...]
    register_start_wh: int
    register_end_wh: int
    flag: Flag

    @property
    def end_ms(self) -> int:
        """The end of the last interval."""
        return self.start_ms + len(self.values_wh) * self.interval_s * 1_000


def regroup(channel: ChannelData, interval_s: int) -> ChannelData:
    """The channel in aligned intervals of ``interval_s``.

    A meter's counter gives each interval as the difference of what it showed at its ends, so telegrams that were lost
    in between lose no energy; of the registers those at an edge are left, with the edge's time. Other values are added
    up; an interval that they do not fill stays a gap. Raises ``MeterFileError`` (``interval_length_not_accepted``) for
    values that are longer than ``interval_s``, or no part.
    """
    if channel.registers:
        registers = tuple(_read_edges(channel.registers, interval_s * 1_000))
        values = tuple(_difference(registers, interval_s))
        return replace(channel, interval_s=interval_s, values=values, registers=registers)
    if channel.interval_s == interval_s:
        return channel
    if channel.interval_s <= 0 or interval_s % channel.interval_s:
        raise _refuse(
            "interval_length_not_accepted", channel, f"{channel.interval_s} s, the meter's are {interval_s} s"
        )
    return replace(channel, interval_s=interval_s, values=tuple(_add_up(channel.values, interval_s * 1_000)))


def _read_edges(registers: Iterable[RegisterValue], length_ms: int) -> Iterator[RegisterValue]:
    """What the counter showed at the edges of intervals, or just after."""
    before_ms = None
    for time_ms, wh in registers:
        if time_ms is None:
            continue
        edge_ms = time_ms - time_ms % length_ms
        if time_ms - edge_ms <= LATE_MS_MAX and edge_ms != before_ms:
            yield RegisterValue(edge_ms, wh)
            before_ms = edge_ms


def _difference(edges: Sequence[RegisterValue], length_s: int) -> Iterator[IntervalValue]:
    for (start_ms, start_wh), (end_ms, end_wh) in pairwise(edges):
        if start_ms is not None and end_ms == start_ms + length_s * 1_000:
            yield IntervalValue(start_ms, length_s, end_wh - start_wh, Flag.MEASURED)


def _add_up(values: Iterable[IntervalValue], length_ms: int) -> Iterator[IntervalValue]:
    parts: list[IntervalValue] = []
    for value in values:
        edge_ms = value.start_ms - value.start_ms % length_ms
        if value.wh is None or (parts and value.start_ms != parts[-1].end_ms):
            parts = []
        if value.wh is None or (not parts and value.start_ms != edge_ms):
            continue
        parts.append(value)
        if value.end_ms == parts[0].start_ms + length_ms:
            flags = {part.flag for part in parts}
            total_wh = sum(part.wh or 0 for part in parts)
            flag = next(flag for flag in WORST_FIRST if flag in flags)
            yield IntervalValue(parts[0].start_ms, length_ms // 1_000, total_wh, flag)
            parts = []


def split_into_reports(channel: ChannelData, *, intervals_max: int, register_start_wh: int = 0) -> Iterator[Stretch]:
    """The channel as stretches of at most ``intervals_max`` intervals, in order of time.

    A stretch has no gap and one flag. It ends at midnight UTC where the next whole day would not fit into it. Registers
    go on from ``register_start_wh``, and stand still over a gap. Raises ``MeterFileError``:
    ``interval_length_not_accepted``, ``interval_length_wrong``, ``interval_not_aligned``.
    """
    assert intervals_max > 0
    interval_s = channel.interval_s
    if interval_s not in INTERVALS_S:
        allowed = ", ".join(map(str, sorted(INTERVALS_S)))
        raise _refuse("interval_length_not_accepted", channel, f"{interval_s} s; a meter has one of {allowed} s")
    per_day = DAY_S // interval_s
    register_wh = register_start_wh
    held: list[IntervalValue] = []
    for value in channel.values:
        _check(channel, value)
        if held and _has_to_end(held, value, intervals_max, per_day):
            yield _make_stretch(held, interval_s, register_wh)
            register_wh += sum(one.wh or 0 for one in held)
            held = []
        if value.wh is not None:
            held.append(value)
    if held:
        yield _make_stretch(held, interval_s, register_wh)


def _check(channel: ChannelData, value: IntervalValue) -> None:
    if value.length_s != channel.interval_s:
        raise _refuse("interval_length_wrong", channel, f"{value.length_s} s at {format_utc(value.start_ms)}")
    if value.start_ms % (channel.interval_s * 1_000):
        raise _refuse("interval_not_aligned", channel, f"{format_utc(value.start_ms)}, of {channel.interval_s} s")


def _has_to_end(held: list[IntervalValue], value: IntervalValue, intervals_max: int, per_day: int) -> bool:
    """Whether a stretch ends before this value."""
    last = held[-1]
    if value.wh is None or value.start_ms != last.end_ms or value.flag != last.flag or len(held) == intervals_max:
        return True
    return value.start_ms % DAY_MS == 0 and len(held) + per_day > intervals_max


def _make_stretch(held: list[IntervalValue], interval_s: int, register_wh: int) -> Stretch:
    values_wh = tuple(value.wh or 0 for value in held)
    end_wh = register_wh + sum(values_wh)
    return Stretch(held[0].start_ms, interval_s, values_wh, register_wh, end_wh, held[0].flag)


def _refuse(reason: str, channel: ChannelData, what: str) -> MeterFileError:
    return MeterFileError(reason, f"{channel.source}: {channel.point}: {what}")
