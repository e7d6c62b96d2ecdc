"""The meter data of the demo: one community's producers and consumers, read from two CSV files.

Owns their form: rows in order of time, one column a site, whole watt-hours; anything else is refused with its line.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from node.errors import LocalError

DATA_DIRECTORY: Final = Path(__file__).resolve().parents[2] / "examples" / "data"
SITES_NAME: Final = "sites_rural2.csv"
SERIES_NAME: Final = "community_rural2_2016jun_15min.csv"
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
INTERVAL_S: Final = 900
QUARTER_MS: Final = INTERVAL_S * 1_000
QUARTERS_PER_HOUR: Final = 4
QUARTERS_PER_DAY: Final = 96
DAYS_MAX: Final = 28


class DemoError(LocalError):
    """The demo cannot be played here.

    Reasons: ``demo_data_missing``, ``demo_data_damaged``, ``demo_days_out_of_range``, ``demo_node_left_behind``.
    """


@dataclass(frozen=True, slots=True)
class Place:
    """A site of the data: what it is, its rated power, and the Wh of each quarter-hour."""

    name: str
    kind: str
    rated_w: int
    values_wh: tuple[int, ...]

    @property
    def label(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")

    def get_day_wh(self, day: int) -> tuple[int, ...]:
        """The quarter-hours of a day."""
        return self.values_wh[day * QUARTERS_PER_DAY : (day + 1) * QUARTERS_PER_DAY]


@dataclass(frozen=True, slots=True)
class Community:
    """Producers and consumers over the same whole days, from ``start_ms`` (a midnight, UTC) on."""

    start_ms: int
    days: int
    producers: tuple[Place, ...]
    consumers: tuple[Place, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """Everyone with a meter."""
        return (*self.producers, *self.consumers)

    @property
    def intervals(self) -> int:
        """Quarter-hours of all meters."""
        return len(self.places) * self.days * QUARTERS_PER_DAY

    def get_start_ms(self, quarter: int) -> int:
        """When a quarter-hour begins, counted from the first."""
        return self.start_ms + quarter * QUARTER_MS


def format_day(start_ms: int) -> str:
    """The day of an instant, UTC, for people: ``Mon  6 Jun``."""
    return datetime.fromtimestamp(start_ms // 1_000, UTC).strftime("%a %e %b")


def load_community(directory: Path, *, days: int) -> Community:
    """The first ``days`` days of the files in ``directory``. Raises ``DemoError``."""
    return parse_community(_read(directory / SITES_NAME), _read(directory / SERIES_NAME), days=days)


def parse_community(sites: str, series: str, *, days: int) -> Community:
    """As ``load_community``, from the texts of the two files."""
    if not 1 <= days <= DAYS_MAX:
        raise DemoError("demo_days_out_of_range", f"{days}: 1 to {DAYS_MAX} are possible")
    names, rows = _parse_series(series, quarters=days * QUARTERS_PER_DAY)
    columns = {name: tuple(row[index] for _, row in rows) for index, name in enumerate(names)}
    by_direction: dict[str, list[Place]] = {"production": [], "consumption": []}
    for line in csv.DictReader(sites.splitlines()):
        try:
            place = Place(line["site"], line["kind"], int(line["rated_w"]), columns[line["site"]])
            by_direction[line["direction"]].append(place)
        except (KeyError, ValueError) as error:
            raise DemoError("demo_data_damaged", f"{SITES_NAME}: {error}") from None
    return Community(rows[0][0], days, tuple(by_direction["production"]), tuple(by_direction["consumption"]))


def _parse_series(text: str, *, quarters: int) -> tuple[list[str], list[tuple[int, list[int]]]]:
    """The names of the columns and, for each of the first quarter-hours, its start and values."""
    reader = csv.reader(text.splitlines())
    header = next(reader, [])
    rows: list[tuple[int, list[int]]] = []
    for number, fields in enumerate(reader, start=2):
        if len(rows) == quarters:
            break
        try:
            start_ms = int(datetime.fromisoformat(fields[0]).timestamp()) * 1_000
            values_wh = [int(field) for field in fields[1:]]
        except (IndexError, ValueError):
            raise DemoError("demo_data_damaged", f"{SERIES_NAME}, line {number}: not a time and numbers") from None
        if len(fields) != len(header) or min(values_wh, default=0) < 0:
            raise DemoError("demo_data_damaged", f"{SERIES_NAME}, line {number}: a value is missing or negative")
        if rows and start_ms != rows[-1][0] + QUARTER_MS:
            raise DemoError("demo_data_damaged", f"{SERIES_NAME}, line {number}: not the next quarter-hour")
        rows.append((start_ms, values_wh))
    if len(rows) < quarters:
        raise DemoError("demo_data_damaged", f"{SERIES_NAME}: {quarters} rows wanted, {len(rows)} found")
    return header[1:], rows


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise DemoError("demo_data_damaged", f"{path}: at most {FILE_BYTES_MAX} bytes")
        return data.decode()
    except FileNotFoundError:
        raise DemoError("demo_data_missing", f"{path}: it is in the project's examples/data") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DemoError("demo_data_damaged", f"{path}: {error}") from None
