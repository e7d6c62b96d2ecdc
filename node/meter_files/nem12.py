"""NEM12: the interval data of Australia's electricity market (AEMO MDFF).

Owns its records: 100 opens a file, 200 a channel, 300 has the values of a day, 400 the quality of parts of it, 900
closes. Time is UTC+10 the whole year: the market knows no summer time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.instants import DAY_S, find_instant_s
from node.meter_files.lines import iterate_text
from node.meter_files.model import Book, ChannelEvent, ChannelId, Event, MeterFile, Skipped, Spot
from node.meter_files.quantities import NotExact, find_energy_exponent, is_other_unit, parse_pico_wh

MARKET_OFFSET_S: Final = 10 * 3_600
MINUTES_PER_DAY: Final = 1_440
INTERVAL_MINUTES: Final = frozenset({"1", "5", "10", "15", "30", "60"})
NMI_LETTERS_MAX: Final = 20
# From the market's point of view E leaves it towards the customer. The other letters are averages and checks of the
# same energy (A, C, D, F), net values, and reactive energy: none may be counted beside these.
DIRECTIONS: Final = {"E": Channel.CONSUMPTION, "B": Channel.PRODUCTION}
QUALITIES: Final[dict[str, Flag | None]] = {
    "A": Flag.MEASURED,
    "E": Flag.ESTIMATED,
    "F": Flag.SUBSTITUTED,
    "S": Flag.SUBSTITUTED,
    "N": None,  # no data: the values are place holders
}
VARIED: Final = "V"
_IGNORED: Final = frozenset({"500", "550"})  # service orders


@dataclass(frozen=True, slots=True)
class _Series:
    """What a record 200 opens; ``channel`` is None for what is no active energy."""

    channel: ChannelId | None
    interval_s: int
    exponent: int


@dataclass(slots=True)
class _Day:
    """A record 300, and what the records 400 behind it say of each value."""

    spot: Spot
    series: _Series
    start_ms: int
    texts: list[str]
    quality: str
    by_value: list[str] = field(default_factory=list)


class _Reader:
    """The records of one file, in their order."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._book = Book()
        self._is_open = False
        self._series: _Series | None = None
        self._day: _Day | None = None

    def take(self, spot: Spot, record: list[str]) -> Iterator[Event]:
        kind = record[0].strip()
        if kind == "100":
            self._open(spot, record)
        elif not self._is_open:
            raise spot.error("header_missing", f"record 100 first, not {kind}")
        elif kind == "400":
            self._qualify(spot, record)
        elif kind in _IGNORED:
            return
        else:
            yield from self._close_day()
            if kind == "200":
                self._series, skipped = _read_series(self._source, spot, record)
                if skipped:
                    yield skipped
            elif kind == "300":
                self._open_day(spot, record)
            elif kind == "900":
                self._is_open, self._series = False, None
            else:
                raise spot.error("record_malformed", f"record {kind}")

    def finish(self, spot: Spot) -> None:
        if self._is_open:
            raise spot.error("file_truncated", "no record 900")

    def _open(self, spot: Spot, record: list[str]) -> None:
        version = record[1].strip() if len(record) > 1 else ""
        if self._is_open:
            raise spot.error("record_out_of_place", "record 100")
        if version == "NEM13":
            raise spot.error("format_has_no_intervals", "NEM13 is of accumulation meters")
        if version != "NEM12":
            raise spot.error("header_missing", f"expected 100,NEM12, not {version}")
        self._is_open = True

    def _open_day(self, spot: Spot, record: list[str]) -> None:
        series = self._series
        if series is None:
            raise spot.error("record_out_of_place", "record 300 before any record 200")
        if series.channel is None:
            return
        count = DAY_S // series.interval_s
        date = record[1].strip() if len(record) > 1 else ""
        start_s = _find_day_s(date)
        if start_s is None:
            raise spot.error("time_invalid", date)
        if len(record) < count + 3 or not record[count + 2].strip():
            raise spot.error("values_missing", f"{date} needs {count} values and their quality")
        quality = record[count + 2].strip()
        day = _Day(spot, series, start_s * 1_000, record[2 : count + 2], quality)
        if quality != VARIED:
            _get_flag(quality, spot)
            day.by_value = [quality] * count
        else:
            day.by_value = [""] * count
        self._day = day

    def _qualify(self, spot: Spot, record: list[str]) -> None:
        day = self._day
        if day is None:
            if self._series is not None and self._series.channel is None:
                return
            raise spot.error("record_out_of_place", "record 400 before any record 300")
        bounds = [text.strip() for text in record[1:3]]
        if len(record) < 4 or not all(text.isascii() and text.isdigit() and len(text) <= 4 for text in bounds):
            raise spot.error("record_malformed", "record 400")
        first, last = int(bounds[0]), int(bounds[1])
        if not 1 <= first <= last <= len(day.by_value):
            raise spot.error("record_malformed", f"values {first} to {last} of {len(day.by_value)}")
        quality = record[3].strip()
        _get_flag(quality, spot)
        day.by_value[first - 1 : last] = [quality] * (last - first + 1)

    def _close_day(self) -> Iterator[ChannelEvent]:
        day, self._day = self._day, None
        if day is None:
            return
        series, spot = day.series, day.spot
        assert series.channel is not None
        for index, (text, quality) in enumerate(zip(day.texts, day.by_value, strict=True)):
            if not quality:
                raise spot.error("quality_missing", f"value {index + 1} of a day of quality V")
            flag = _get_flag(quality, spot)
            try:
                pico = None if flag is None else parse_pico_wh(text, series.exponent)
            except NotExact as error:
                raise spot.error(str(error), f"value {index + 1}: {text}") from None
            yield self._book.enter(
                series.channel,
                spot,
                start_ms=day.start_ms + index * series.interval_s * 1_000,
                length_s=series.interval_s,
                pico=pico,
                flag=flag or Flag.ESTIMATED,
            )


def read_nem12(file: MeterFile) -> Iterator[Event]:
    """The values of a NEM12 file; a point is ``NMI/suffix``. Raises ``MeterFileError``."""
    reader = _Reader(file.name)
    spot = Spot(file.name, 1)
    has_records = False
    for number, line in iterate_text(file, "latin-1"):
        spot = Spot(file.name, number)
        record = _split(line, spot)
        if record and record != [""]:
            has_records = True
            yield from reader.take(spot, record)
    if not has_records:
        raise spot.error("header_missing", "no record 100")
    reader.finish(spot)


def _split(line: str, spot: Spot) -> list[str]:
    if '"' not in line:
        return line.strip().split(",")
    try:
        return next(csv.reader([line.strip()], strict=True), [])
    except csv.Error as error:
        raise spot.error("record_malformed", error) from None


def _read_series(source: str, spot: Spot, record: list[str]) -> tuple[_Series, Skipped | None]:
    if len(record) < 9:
        raise spot.error("record_malformed", "record 200 has nine fields or more")
    nmi, suffix, unit, minutes = (record[place].strip() for place in (1, 4, 7, 8))
    if not nmi or not suffix or len(nmi) > NMI_LETTERS_MAX or len(suffix) > NMI_LETTERS_MAX:
        raise spot.error("record_malformed", "record 200 names no NMI and suffix")
    if minutes not in INTERVAL_MINUTES:
        raise spot.error("interval_length_wrong", f"{minutes} minutes")
    interval_s = int(minutes) * 60
    exponent = find_energy_exponent(unit)
    if exponent is None and not is_other_unit(unit):
        raise spot.error("unit_unknown", unit)
    direction = DIRECTIONS.get(suffix[0].upper())
    point = f"{nmi}/{suffix}"
    if exponent is None or direction is None:
        return _Series(None, interval_s, 0), Skipped(source, point, f"{unit} of suffix {suffix}: not E or B in kWh")
    return _Series(ChannelId(source, point, direction, unit, interval_s), interval_s, exponent), None


def _find_day_s(date: str) -> int | None:
    if len(date) != 8 or not (date.isascii() and date.isdigit()):
        return None
    midnight_s = find_instant_s(int(date[:4]), int(date[4:6]), int(date[6:]))
    return None if midnight_s is None else midnight_s - MARKET_OFFSET_S


def _get_flag(quality: str, spot: Spot) -> Flag | None:
    """The flag of a quality such as ``A`` or ``F14`` (the digits say the method); None for a null value."""
    letter, method = quality[:1], quality[1:]
    if letter not in QUALITIES or (method and not (method.isascii() and method.isdigit())):
        raise spot.error("quality_unknown", quality)
    return QUALITIES[letter]
