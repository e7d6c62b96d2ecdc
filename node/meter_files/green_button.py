"""Green Button: the interval readings of an ESPI feed (NAESB REQ.21).

Owns what the numbers in a feed mean, and how a block finds its reading type: by the entries' links. The feed is read
twice, because an Atom feed has no order: first for what there is, then for the values, one at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.espi_feed import Entry, iterate_feed
from node.meter_files.model import Book, ChannelId, Event, MeterFile, Skipped, Spot

ELECTRICITY_KIND: Final = "0"
COMMODITIES: Final = frozenset({"", "0", "1", "2"})  # electricity, at the customer's or the network's side
WH_UNIT: Final = "72"
# Volt, ampere, joule, hertz, watt, cubic metres and feet, VA, VAr, VAh, VArh, gallons, BTU, litres, therms: no Wh.
OTHER_UNITS: Final = frozenset({*("0", "5", "29", "31", "33", "38", "42", "61", "63", "65", "67", "69", "71", "73")} | {
    str(unit) for unit in (111, 114, 119, *range(122, 138), 139, 140, 169)
})
ENERGY_KINDS: Final = frozenset({"", "0", "12"})
DELTA_BEHAVIOURS: Final = frozenset({"", "0", "4"})
DIRECTIONS: Final = {"1": Channel.CONSUMPTION, "19": Channel.PRODUCTION}  # 1: delivered to, 19: received from
PREFIXES: Final = {-3: "mWh", 0: "Wh", 3: "kWh", 6: "MWh"}
EXPONENT_MOST: Final = 12
# Valid, raw, validated, verified and of revenue quality are as measured. What was edited was substituted. All else
# (estimates, questionable, derived, projected, mixed, normalised) is at best an estimate.
QUALITIES: Final = {
    **dict.fromkeys(("0", "14", "17", "18", "19"), Flag.MEASURED),
    **dict.fromkeys(("8", "9", "10", "11", "12", "13", "15", "16"), Flag.ESTIMATED),
    "7": Flag.SUBSTITUTED,
}
_WORST_FIRST: Final = (Flag.SUBSTITUTED, Flag.ESTIMATED, Flag.MEASURED)
_WHOLE: Final = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class _Series:
    """What the values of a meter reading are."""

    channel: ChannelId
    exponent: int
    flag: Flag


def read_green_button(file: MeterFile) -> Iterator[Event]:
    """The values of a feed; a point is the path of its meter reading. Raises ``MeterFileError``."""
    entries = _read_entries(file)
    series: dict[int, _Series] = {}
    seen: dict[int, _Series | Skipped] = {}
    for place, entry in enumerate(entries):
        if entry.kind != "IntervalBlock" or not entry.first_duration:
            continue
        reading = _find_meter_reading(file.name, entry, entries)
        found = seen.get(id(reading))
        if found is None:
            found = seen[id(reading)] = _make_series(file.name, reading, entries, entry.first_duration)
            if isinstance(found, Skipped):
                yield found
        if isinstance(found, _Series):
            series[place] = found
    book = Book()
    for parser in iterate_feed(file):
        for raw in parser.readings:
            mine = series.get(raw.entry)
            if mine is not None:
                yield _enter(book, file.name, raw, mine)
        parser.readings.clear()
        parser.entries.clear()


def _read_entries(file: MeterFile) -> list[Entry]:
    """Every entry of the feed, in order. Blocks of one reading share the texts of their links."""
    entries: list[Entry] = []
    texts: dict[str, str] = {}
    for parser in iterate_feed(file):
        for entry in parser.entries:
            if entry.kind == "IntervalBlock":
                entry.related, entry.self_href = [], ""
            entry.up_href = texts.setdefault(entry.up_href, entry.up_href)
            entries.append(entry)
        parser.entries.clear()
        parser.readings.clear()
    return entries


class _Index:
    """Entries by what they are called."""


def _find_meter_reading(source: str, block: Entry, entries: list[Entry]) -> Entry:
    readings = [entry for entry in entries if entry.kind == "MeterReading"]
    for reading in readings:
        if block.up_href and (block.up_href in reading.related or block.up_href == f"{reading.self_href}/IntervalBlock"):
            return reading
    if len(readings) == 1:
        return readings[0]
    raise Spot(source, block.line).error("meter_reading_missing", "an interval block of no known meter reading")
