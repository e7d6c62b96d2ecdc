"""CSV: a start in UTC and whole watt-hours in every other column.

Owns the form that this project's own data have: ``start_utc`` (ISO 8601 with Z), a column a channel, an optional
``flag`` column. A row that is not there, or an empty cell, is a gap.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.instants import parse_utc
from node.meter_files.lines import iterate_text
from node.meter_files.model import POINT_LETTERS_MAX, Book, ChannelEvent, ChannelId, MeterFile, Spot
from node.meter_files.quantities import PICO_PER_WH

START_COLUMN: Final = "start_utc"
FLAG_COLUMN: Final = "flag"
ENERGY_END: Final = "_wh"
COLUMNS_MAX: Final = 1_000
DIGITS_MAX: Final = 15
UNIT: Final = "Wh"
_FLAGS: Final = {flag.value: flag for flag in Flag}


@dataclass(frozen=True, slots=True)
class _Header:
    """Where the columns stand."""

    line: int
    width: int
    start: int
    flag: int | None
    values: tuple[tuple[int, str], ...]


def read_csv(file: MeterFile, *, columns: Sequence[str] = (), interval_s: int | None = None) -> Iterator[ChannelEvent]:
    """The values of a file: of the named columns, or of all. An interval is as long as the shortest step between two
    rows, unless ``interval_s`` says it. Raises ``MeterFileError``."""
    header = _read_header(file, columns)
    length_s = interval_s or _find_interval_s(file, header)
    channels = [(place, _make_channel(file.name, name, length_s)) for place, name in header.values]
    book = Book()
    for spot, row in _iterate_rows(file, header):
        start_ms = _read_start(row[header.start], spot)
        flag = Flag.MEASURED if header.flag is None else _read_flag(row[header.flag], spot)
        for place, channel in channels:
            text = row[place]
            if not text:
                continue
            if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
                raise spot.error("value_not_a_number", f"{channel.point}: {text}, not whole Wh")
            pico = int(text) * PICO_PER_WH
            yield book.enter(channel, spot, start_ms=start_ms, length_s=length_s, pico=pico, flag=flag)


def _iterate_cells(file: MeterFile) -> Iterator[tuple[Spot, list[str]]]:
    reader = csv.reader((line + "\n" for _, line in iterate_text(file)), strict=True)
    try:
        for row in reader:
            if row:
                yield Spot(file.name, reader.line_num), row
    except csv.Error as error:
        raise Spot(file.name, reader.line_num).error("row_malformed", error) from None


def _iterate_rows(file: MeterFile, header: _Header) -> Iterator[tuple[Spot, list[str]]]:
    """The rows behind the header."""
    for spot, row in _iterate_cells(file):
        if spot.line <= header.line:
            continue
        if len(row) != header.width:
            raise spot.error("row_malformed", f"{len(row)} columns, the header has {header.width}")
        yield spot, row


def _read_header(file: MeterFile, wanted: Sequence[str]) -> _Header:
    spot, names = next(_iterate_cells(file), (Spot(file.name, 1), []))
    if START_COLUMN not in names or len(names) < 2:
        raise spot.error("header_missing", f"expected {START_COLUMN} and a column of Wh")
    if len(names) > COLUMNS_MAX:
        raise spot.error("channels_too_many", f"{len(names)} columns, at most {COLUMNS_MAX}")
    if len(set(names)) != len(names):
        raise spot.error("column_named_twice", next(name for name in names if names.count(name) > 1))
    energy = [name for name in names if name not in (START_COLUMN, FLAG_COLUMN)]
    for name in wanted:
        if name not in energy:
            raise spot.error("column_unknown", name)
    taken = tuple((names.index(name), name) for name in energy if not wanted or name in wanted)
    flag = names.index(FLAG_COLUMN) if FLAG_COLUMN in names else None
    return _Header(spot.line, len(names), names.index(START_COLUMN), flag, taken)


def _make_channel(source: str, column: str, interval_s: int) -> ChannelId:
    """``production_wh`` is of the file's one point, ``barn_production_wh`` of ``barn``; ``barn`` has no direction."""
    name = column.removesuffix(ENERGY_END)
    for direction in Channel:
        if name == direction.value:
            return ChannelId(source, _get_stem(source), direction, UNIT, interval_s)
        if name.endswith("_" + direction.value):
            point = name.removesuffix("_" + direction.value)
            return ChannelId(source, point[:POINT_LETTERS_MAX], direction, UNIT, interval_s)
    return ChannelId(source, column[:POINT_LETTERS_MAX], None, UNIT, interval_s)


def _get_stem(source: str) -> str:
    return source.replace("\\", "/").rpartition("/")[2].removesuffix(".csv")[:POINT_LETTERS_MAX]


def _find_interval_s(file: MeterFile, header: _Header) -> int:
    """The shortest step between two rows; gaps are longer steps."""
    before_ms = shortest_ms = None
    spot = Spot(file.name, header.line)
    for spot, row in _iterate_rows(file, header):
        start_ms = _read_start(row[header.start], spot)
        if before_ms is not None:
            step_ms = start_ms - before_ms
            if step_ms <= 0:
                raise spot.error("interval_overlaps" if step_ms == 0 else "time_not_rising", row[header.start])
            shortest_ms = step_ms if shortest_ms is None else min(step_ms, shortest_ms)
        before_ms = start_ms
    if shortest_ms is None:
        raise spot.error(
            "values_missing" if before_ms is None else "interval_length_unknown",
            "a step needs two rows: say --interval-s",
        )
    return shortest_ms // 1_000


def _read_start(text: str, spot: Spot) -> int:
    start_ms = parse_utc(text)
    if start_ms is None:
        raise spot.error(
            "time_invalid" if text.endswith("Z") else "time_without_offset", f"{text}, not ISO 8601 with Z"
        )
    return start_ms


def _read_flag(text: str, spot: Spot) -> Flag:
    flag = _FLAGS.get(text)
    if flag is None:
        raise spot.error("quality_unknown", text)
    return flag
