"""The words of meter files: a channel, a value of an interval, a reading of a register, and a refusal.

Owns the book in which every reader enters its values: it keeps a channel's intervals apart, and turns what a file
says into whole watt-hours without losing one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from contracts_native.meters import Channel
from contracts_native.readings import INTERVAL_WH_MAX, Flag
from contracts_native.sites import INSTANT_MS_MAX
from node.errors import LocalError
from node.meter_files.quantities import PICO_PER_WH

FILE_BYTES_MAX: Final = 512 * 1024 * 1024  # about a week of telegrams, one a second
CHANNELS_MAX: Final = 10_000
STRETCHES_MAX: Final = 200_000  # unbroken stretches of a channel: about 25 MB
VALUES_MAX: Final = 4_000_000  # what is held at once for submission: about 800 MB
POINT_LETTERS_MAX: Final = 120
SAID_LETTERS_MAX: Final = 60


class MeterFileError(LocalError):
    """A meter file cannot be used. The item is ``file:line: what``.

    Of the file: ``file_not_readable``, ``file_not_regular``, ``permission_missing``, ``file_too_large``,
    ``file_not_recognised``, ``file_truncated``, ``text_not_utf8``, ``line_too_long``, ``header_missing``,
    ``row_malformed``, ``record_malformed``, ``record_out_of_place``, ``channels_too_many``, ``gaps_too_many``,
    ``format_has_no_intervals``, ``telegram_incomplete``, ``telegram_too_long``, ``checksum_wrong``,
    ``segment_too_long``, ``message_not_mscons``, ``xml_malformed``, ``xml_entity_refused``, ``xml_too_deep``,
    ``xml_token_too_long``, ``service_not_electricity``, ``usage_point_missing``, ``meter_reading_missing``,
    ``reading_type_missing``, ``column_unknown``, ``column_named_twice``.

    Of a value: ``value_not_a_number``, ``value_negative``, ``value_too_large``, ``value_too_precise``,
    ``values_missing``, ``unit_unknown``, ``direction_unknown``, ``quality_unknown``, ``quality_missing``,
    ``accumulation_not_delta``, ``register_named_twice``, ``register_runs_backwards``.

    Of time: ``time_invalid``, ``time_missing``, ``time_without_offset``, ``time_not_rising``,
    ``interval_length_unknown``, ``interval_length_wrong``, ``interval_length_not_accepted``, ``interval_overlaps``,
    ``interval_not_aligned``, ``values_too_many``.
    """


@dataclass(frozen=True, slots=True)
class Spot:
    """A line of a file, to name in a refusal."""

    source: str
    line: int

    def error(self, reason: str, what: object = "") -> MeterFileError:
        """A refusal that names this line. What the file said is cut short and shown in ASCII."""
        said = ascii(what) if not str(what).isascii() or not str(what).isprintable() else str(what)
        tail = f": {said[:SAID_LETTERS_MAX]}" if said else ""
        return MeterFileError(reason, f"{self.source}:{self.line}{tail}")


@dataclass(frozen=True, slots=True)
class MeterFile:
    """The bytes of a file, which may be read more than once. ``chunks`` raises ``MeterFileError``."""

    name: str
    chunks: Callable[[], Iterator[bytes]]


def make_meter_file(name: str, data: bytes) -> MeterFile:
    """A meter file that is in memory."""
    return MeterFile(name, lambda: iter((data,)))


@dataclass(frozen=True, slots=True)
class ChannelId:
    """One direction of one metering point in one file.

    ``unit`` is the file's; ``direction`` is None where a CSV column does not say it. ``interval_s`` is the length of
    an interval, 0 where there is none; days and months may be an hour or some days off it.
    """

    source: str
    point: str
    direction: Channel | None
    unit: str
    interval_s: int


class IntervalValue(NamedTuple):
    """What an interval measured; ``wh`` is None where the file says that it does not know."""

    start_ms: int
    length_s: int
    wh: int | None
    flag: Flag

    @property
    def end_ms(self) -> int:
        """The end of the interval."""
        return self.start_ms + self.length_s * 1_000


class RegisterValue(NamedTuple):
    """What a meter's counter showed; ``time_ms`` is None where the meter has no clock."""

    time_ms: int | None
    wh: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of a file that is well-formed and no active energy: reactive energy, demand, gas."""

    source: str
    point: str
    what: str


ChannelEvent: TypeAlias = tuple[ChannelId, IntervalValue | RegisterValue]
Event: TypeAlias = ChannelEvent | Skipped


@dataclass(frozen=True, slots=True)
class ChannelData:
    """A channel with all its values, in order of time; ``registers`` where the file has a meter's counter."""

    source: str
    point: str
    direction: Channel | None
    unit: str
    interval_s: int
    values: Sequence[IntervalValue]
    registers: Sequence[RegisterValue] = ()

    @property
    def channel_id(self) -> ChannelId:
        """The channel without its values."""
        return ChannelId(self.source, self.point, self.direction, self.unit, self.interval_s)


def collect_channels(events: Iterable[Event]) -> list[ChannelData]:
    """The channels of a file with their values in memory, each in order of time. Raises as the readers do, and
    ``MeterFileError`` (``values_too_many``)."""
    values: dict[ChannelId, list[IntervalValue]] = {}
    registers: dict[ChannelId, list[RegisterValue]] = {}
    count = 0
    for event in events:
        if isinstance(event, Skipped):
            continue
        channel, value = event
        count += 1
        if count > VALUES_MAX:
            raise MeterFileError("values_too_many", f"{channel.source}: at most {VALUES_MAX} at once")
        mine = values.setdefault(channel, [])
        if isinstance(value, IntervalValue):
            mine.append(value)
        else:
            registers.setdefault(channel, []).append(value)
    return [
        ChannelData(
            channel.source,
            channel.point,
            channel.direction,
            channel.unit,
            channel.interval_s,
            tuple(sorted(found, key=lambda value: value.start_ms)),
            tuple(registers.get(channel, ())),
        )
        for channel, found in values.items()
    ]


@dataclass(slots=True)
class _Account:
    """What the book knows of a channel: the stretches of time that it has values for, and a part of a Wh not given."""

    starts_ms: list[int] = field(default_factory=list)
    ends_ms: list[int] = field(default_factory=list)
    rest_pico: int = 0

    def cover(self, start_ms: int, end_ms: int) -> str:
        """Take an interval in; the reason if that cannot be, else the empty text."""
        place = bisect_right(self.starts_ms, start_ms)
        if (place and self.ends_ms[place - 1] > start_ms) or (
            place < len(self.starts_ms) and self.starts_ms[place] < end_ms
        ):
            return "interval_overlaps"
        if place and self.ends_ms[place - 1] == start_ms:
            self.ends_ms[place - 1] = end_ms
        elif len(self.starts_ms) == STRETCHES_MAX:
            return "gaps_too_many"
        else:
            self.starts_ms.insert(place, start_ms)
            self.ends_ms.insert(place, end_ms)
        return ""


class Book:
    """The values of one file as they are read; it needs memory for gaps and channels, not for values."""

    def __init__(self) -> None:
        self._accounts: dict[ChannelId, _Account] = {}

    def enter(
        self, channel: ChannelId, spot: Spot, *, start_ms: int, length_s: int, pico: int | None, flag: Flag
    ) -> ChannelEvent:
        """One interval of a channel; ``pico`` is its energy in 10⁻¹² Wh.

        A part of a Wh goes on to the channel's next interval, as in a register that counts whole Wh: the sum is exact.
        Raises ``MeterFileError``: ``interval_overlaps``, ``time_invalid``, ``value_negative``, ``value_too_large``,
        ``channels_too_many``, ``gaps_too_many``.
        """
        account = self._accounts.get(channel)
        if account is None:
            if len(self._accounts) == CHANNELS_MAX:
                raise spot.error("channels_too_many", f"at most {CHANNELS_MAX}")
            account = self._accounts[channel] = _Account()
        end_ms = start_ms + length_s * 1_000
        if not 0 <= start_ms < end_ms <= INSTANT_MS_MAX:
            raise spot.error("time_invalid", f"{start_ms // 1_000} s since 1970, for {length_s} s")
        reason = account.cover(start_ms, end_ms)
        if reason:
            raise spot.error(reason, f"{channel.point} at {start_ms // 1_000} s since 1970")
        if pico is None:
            return channel, IntervalValue(start_ms, length_s, None, flag)
        if pico < 0:
            raise spot.error("value_negative", f"{channel.point} at {start_ms // 1_000} s since 1970")
        wh, account.rest_pico = divmod(pico + account.rest_pico, PICO_PER_WH)
        if wh > INTERVAL_WH_MAX:
            raise spot.error("value_too_large", f"{channel.point}: {wh} Wh")
        return channel, IntervalValue(start_ms, length_s, wh, flag)
