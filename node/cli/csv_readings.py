"""Meter values from a CSV file: the channels in it, checked row by row.

Owns the format: a header, ``start_utc`` (ISO 8601 with Z) and one column of whole watt-hours per channel. Every
refusal names the file, the line and the reason; nothing is guessed, clipped or filled in.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from contracts_native.meters import INTERVALS_S, Channel
from contracts_native.readings import INTERVAL_WH_MAX
from ledger.errors import Malformed
from ledger.fields import Json
from node.cli.output import format_time
from node.cli.values import read_moment
from node.errors import LocalError, get_disk_reason

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
ROWS_MAX: Final = 500_000
COLUMNS_MAX: Final = 1_000
START_COLUMN: Final = "start_utc"
DIRECTIONS: Final = {"production_wh": Channel.PRODUCTION, "consumption_wh": Channel.CONSUMPTION}
UNIT: Final = "Wh"


class ReadingFileError(LocalError):
    """A file of readings cannot be used; the item is ``file:line: what``.

    Reasons: ``file_not_readable``, ``file_too_large``, ``file_not_utf8``, ``header_wrong``, ``column_missing``,
    ``column_named_twice``, ``row_wrong``, ``time_invalid``, ``time_not_rising``, ``value_not_whole_wh``,
    ``interval_length_unknown``, ``interval_length_not_allowed``, ``interval_not_aligned``, ``file_has_no_values``.
    """


@dataclass(frozen=True, slots=True)
class ChannelData:
    """One column: ``values_wh[i]`` was measured in the interval that starts at ``starts_ms[i]``, in order of time."""

    source: str
    point: str | None  # the column's name, if it is not one of the two standard ones
    direction: Channel | None
    interval_s: int
    starts_ms: tuple[int, ...]
    values_wh: tuple[int, ...]

    @property
    def last_end_ms(self) -> int:
        """The end of the last interval."""
        return self.starts_ms[-1] + self.interval_s * 1_000

    def describe(self) -> dict[str, Json]:
        """What a dry run shows."""
        return {
            "source": self.source,
            "point": self.point,
            "direction": None if self.direction is None else self.direction.value,
            "unit": UNIT,
            "interval_s": self.interval_s,
            "intervals": len(self.values_wh),
            "first_start": format_time(self.starts_ms[0]),
            "last_end": format_time(self.last_end_ms),
            "total_wh": sum(self.values_wh),
        }

    def split(self, intervals_max: int) -> list[tuple[int, tuple[int, ...]]]:
        """(Start, values) of unbroken stretches, each at most ``intervals_max`` long."""
        stretches: list[tuple[int, list[int]]] = []
        next_ms = -1
        for start_ms, value_wh in zip(self.starts_ms, self.values_wh, strict=True):
            if start_ms != next_ms or len(stretches[-1][1]) == intervals_max:
                stretches.append((start_ms, []))
            stretches[-1][1].append(value_wh)
            next_ms = start_ms + self.interval_s * 1_000
        return [(start_ms, tuple(values)) for start_ms, values in stretches]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a file, behind its header: their starts, lines and cells."""

    source: str
    starts_ms: list[int]
    lines: list[int]
    cells: list[list[str]]


def read_csv(path: Path, *, columns: Sequence[str] = (), interval_s: int | None = None) -> list[ChannelData]:
    """The channels of a file: of the named columns, or of all. Raises ``ReadingFileError``."""
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ReadingFileError(
            get_disk_reason(error, otherwise="file_not_readable"), f"{path}: {error.strerror}"
        ) from error
    if len(data) > FILE_BYTES_MAX:
        raise ReadingFileError("file_too_large", f"{path}: at most {FILE_BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ReadingFileError("file_not_utf8", f"{path}:{line}") from None
    return parse_csv(text, source=str(path), columns=columns, interval_s=interval_s)


def parse_csv(
    text: str, *, source: str, columns: Sequence[str] = (), interval_s: int | None = None
) -> list[ChannelData]:
    """As ``read_csv``, of a text that came from ``source``."""
    rows = _iterate_rows(text, source)
    header = next(rows, (1, []))[1]
    places = _find_columns(header, source, columns)
    start_place = header.index(START_COLUMN)
    table = _Rows(source, [], [], [])
    starts = table.starts_ms
    for line, row in rows:
        if len(row) != len(header):
            raise ReadingFileError("row_wrong", f"{source}:{line}: {len(row)} columns, the header has {len(header)}")
        if len(starts) == ROWS_MAX:
            raise ReadingFileError("file_too_large", f"{source}:{line}: at most {ROWS_MAX} rows")
        start_ms = _read_start(row[start_place], source, line)
        if starts and start_ms <= starts[-1]:
            raise ReadingFileError("time_not_rising", f"{source}:{line}: {row[start_place]}")
        starts.append(start_ms)
        table.lines.append(line)
        table.cells.append(row)
    if not starts:
        raise ReadingFileError("file_has_no_values", source)
    length_s = interval_s or _find_interval_s(starts, source)
    _check_alignment(table, length_s)
    found = [_read_column(table, name, place, length_s) for name, place in places.items()]
    if not all(one.values_wh for one in found):
        empty = next(name for name, one in zip(places, found, strict=True) if not one.values_wh)
        raise ReadingFileError("file_has_no_values", f"{source}: column {empty}")
    return found


def _iterate_rows(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ReadingFileError("row_wrong", f"{source}:{reader.line_num}: {error}") from None


def _find_columns(header: list[str], source: str, wanted: Sequence[str]) -> dict[str, int]:
    if START_COLUMN not in header or len(header) < 2:
        raise ReadingFileError("header_wrong", f"{source}:1: expected {START_COLUMN} and a column of values")
    if len(header) > COLUMNS_MAX:
        raise ReadingFileError("header_wrong", f"{source}:1: at most {COLUMNS_MAX} columns")
    for name in header:
        if header.count(name) > 1:
            raise ReadingFileError("column_named_twice", f"{source}:1: {name}")
    for name in wanted:
        if name not in header or name == START_COLUMN:
            raise ReadingFileError("column_missing", f"{source}:1: {name}")
    return {name: place for place, name in enumerate(header) if name != START_COLUMN and (not wanted or name in wanted)}


def _read_start(text: str, source: str, line: int) -> int:
    if not text.endswith("Z"):
        raise ReadingFileError("time_invalid", f"{source}:{line}: {text!a} does not end in Z")
    try:
        return read_moment(text)
    except Malformed:
        raise ReadingFileError("time_invalid", f"{source}:{line}: {text!a}") from None


def _find_interval_s(starts: list[int], source: str) -> int:
    """The shortest step between two rows; gaps are longer steps."""
    if len(starts) == 1:
        raise ReadingFileError("interval_length_unknown", f"{source}: one row only; say --interval-s")
    return min(later - earlier for earlier, later in pairwise(starts)) // 1_000


def _check_alignment(table: _Rows, interval_s: int) -> None:
    if interval_s not in INTERVALS_S:
        allowed = ", ".join(map(str, sorted(INTERVALS_S)))
        raise ReadingFileError("interval_length_not_allowed", f"{table.source}: {interval_s} s; allowed: {allowed} s")
    for start_ms, line in zip(table.starts_ms, table.lines, strict=True):
        if start_ms % (interval_s * 1_000):
            what = f"{table.source}:{line}: {format_time(start_ms)} is no multiple of {interval_s} s"
            raise ReadingFileError("interval_not_aligned", what)
    for (earlier_ms, later_ms), line in zip(pairwise(table.starts_ms), table.lines[1:], strict=True):
        if later_ms - earlier_ms < interval_s * 1_000:
            what = f"{table.source}:{line}: {later_ms - earlier_ms} ms after the row before, of {interval_s} s"
            raise ReadingFileError("time_not_rising", what)


def _read_column(table: _Rows, name: str, place: int, interval_s: int) -> ChannelData:
    taken: list[tuple[int, int]] = []
    for start_ms, line, row in zip(table.starts_ms, table.lines, table.cells, strict=True):
        text = row[place]
        if not text:  # no reading for this interval
            continue
        if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > INTERVAL_WH_MAX:
            what = f"{table.source}:{line}: column {name}: {text[:40]!a}"
            raise ReadingFileError("value_not_whole_wh", what)
        taken.append((start_ms, int(text)))
    return ChannelData(
        source=table.source,
        point=None if name in DIRECTIONS else name,
        direction=DIRECTIONS.get(name),
        interval_s=interval_s,
        starts_ms=tuple(start_ms for start_ms, _ in taken),
        values_wh=tuple(value_wh for _, value_wh in taken),
    )
