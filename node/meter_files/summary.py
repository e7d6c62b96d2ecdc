"""What a file would bring: one line a channel, for a dry run.

Owns the sums. It takes values as they are read, so a file of any length is summed up in the memory of a small one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from contracts_native.readings import Flag
from ledger.fields import Json
from node.meter_files.instants import format_utc
from node.meter_files.model import ChannelData, ChannelId, Event, IntervalValue, RegisterValue, Skipped


@dataclass(slots=True)
class ChannelSummary:
    """The sums of a channel. ``by_flag`` counts its intervals, ``missing`` those that the file has no value for
    although it names them; a gap that it does not name is in neither."""

    channel: ChannelId
    total_wh: int = 0
    missing: int = 0
    by_flag: dict[Flag, int] = field(default_factory=dict)
    first_start_ms: int | None = None
    last_end_ms: int | None = None
    first_register: RegisterValue | None = None
    last_register: RegisterValue | None = None

    @property
    def intervals(self) -> int:
        """How many intervals have a value."""
        return sum(self.by_flag.values())

    def add(self, value: IntervalValue | RegisterValue) -> None:
        """Take a value in."""
        if isinstance(value, RegisterValue):
            self.first_register = self.first_register or value
            self.last_register = value
        elif value.wh is None:
            self.missing += 1
        else:
            self.total_wh += value.wh
            self.by_flag[value.flag] = self.by_flag.get(value.flag, 0) + 1
            start_ms, end_ms = value.start_ms, value.end_ms
            self.first_start_ms = start_ms if self.first_start_ms is None else min(start_ms, self.first_start_ms)
            self.last_end_ms = end_ms if self.last_end_ms is None else max(end_ms, self.last_end_ms)

    def to_json(self) -> dict[str, Json]:
        """The nine names of a dry run; times are ISO 8601 in UTC, null without an interval."""
        channel = self.channel
        return {
            "source": channel.source,
            "point": channel.point,
            "direction": None if channel.direction is None else channel.direction.value,
            "unit": channel.unit,
            "interval_s": channel.interval_s,
            "intervals": self.intervals,
            "first_start": None if self.first_start_ms is None else format_utc(self.first_start_ms),
            "last_end": None if self.last_end_ms is None else format_utc(self.last_end_ms),
            "total_wh": self.total_wh,
        }


def summarise_events(events: Iterable[Event]) -> list[ChannelSummary]:
    """The sums of each channel, in the order in which the channels first occur. Raises as the reader does."""
    found: dict[ChannelId, ChannelSummary] = {}
    for event in events:
        if isinstance(event, Skipped):
            continue
        channel, value = event
        summary = found.get(channel)
        if summary is None:
            summary = found[channel] = ChannelSummary(channel)
        summary.add(value)
    return list(found.values())


def summarise(channels: Iterable[ChannelData]) -> list[dict[str, Json]]:
    """What a dry run prints of channels in memory."""
    return [summarise_channel(channel).to_json() for channel in channels]


def summarise_channel(channel: ChannelData) -> ChannelSummary:
    """The sums of one channel in memory."""
    summary = ChannelSummary(channel.channel_id)
    for register in channel.registers:
        summary.add(register)
    for value in channel.values:
        summary.add(value)
    return summary
