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
from node.meter_files.espi_feed import Entry, RawReading, iterate_feed
from node.meter_files.instants import DAY_S
from node.meter_files.model import POINT_LETTERS_MAX, Book, ChannelEvent, ChannelId, Event, MeterFile, Skipped, Spot
from node.meter_files.quantities import NotExact, parse_pico_wh

ELECTRICITY_KIND: Final = "0"
COMMODITIES: Final = frozenset({"", "0", "1", "2"})  # electricity, at the customer's or the network's side
WH_UNIT: Final = "72"
# Volt, ampere, joule, hertz, watt, cubic metres and feet, VA, VAr, VAh, VArh, gallons, BTU, litres, therms: no Wh.
OTHER_UNITS: Final = frozenset(
    str(unit)
    for unit in (0, 5, 29, 31, 33, 38, 42, 61, 63, 65, 67, 69, 71, 73, 111, 114, 119, *range(122, 138), 139, 140, 169)
)
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


class _Feed:
    """The entries of a feed, found by their links."""

    def __init__(self, source: str, entries: list[Entry]) -> None:
        self._source = source
        self._points = [entry for entry in entries if entry.kind == "UsagePoint"]
        self._readings = [entry for entry in entries if entry.kind == "MeterReading"]
        self._types = [entry for entry in entries if entry.kind == "ReadingType"]
        self._type_by_self = {entry.self_href: entry for entry in self._types}
        self._point_by_readings = {
            href: point for point in self._points for href in (f"{point.self_href}/MeterReading", *point.related)
        }
        self._reading_by_blocks = {
            href: reading
            for reading in self._readings
            for href in (f"{reading.self_href}/IntervalBlock", *reading.related)
        }

    def get_meter_reading(self, block: Entry) -> Entry:
        """The meter reading that a block is of. Raises ``MeterFileError`` (``meter_reading_missing``)."""
        found = self._reading_by_blocks.get(block.up_href)
        if found is None and len(self._readings) == 1:
            found = self._readings[0]
        if found is None:
            raise Spot(self._source, block.line).error("meter_reading_missing", "a block of no known meter reading")
        return found

    def get_reading_type(self, reading: Entry) -> Entry:
        """What a meter reading's values are. Raises ``MeterFileError`` (``reading_type_missing``)."""
        for href in reading.related:
            if href in self._type_by_self:
                return self._type_by_self[href]
        if len(self._types) != 1:
            raise Spot(self._source, reading.line).error("reading_type_missing", reading.self_href)
        return self._types[0]

    def get_usage_point(self, reading: Entry) -> Entry:
        """Where a meter reading was measured. Raises ``MeterFileError`` (``usage_point_missing``)."""
        found = self._point_by_readings.get(reading.up_href) or self._point_by_readings.get(reading.self_href)
        if found is None and len(self._points) == 1:
            found = self._points[0]
        if found is None:
            raise Spot(self._source, reading.line).error("usage_point_missing", reading.self_href)
        return found


def read_green_button(file: MeterFile) -> Iterator[Event]:
    """The values of a feed; a point is the path of its meter reading. Raises ``MeterFileError``."""
    entries = _read_entries(file)
    feed = _Feed(file.name, entries)
    series: dict[int, _Series] = {}  # by the place of the block in the feed
    known: dict[int, _Series | Skipped] = {}  # by the place of the meter reading
    for entry in entries:
        if entry.kind != "IntervalBlock" or not entry.has_readings:
            continue
        reading = feed.get_meter_reading(entry)
        if reading.place not in known:
            found = known[reading.place] = _make_series(file.name, feed, reading, entry)
            if isinstance(found, Skipped):
                yield found
        mine = known[reading.place]
        if isinstance(mine, _Series):
            series[entry.place] = mine
    book = Book()
    for parser in iterate_feed(file):
        for raw in parser.readings:
            if raw.entry in series:
                yield _enter(book, Spot(file.name, raw.line), raw, series[raw.entry])
        parser.forget()


def _read_entries(file: MeterFile) -> list[Entry]:
    """Every entry of the feed, in order. Blocks of one reading share the text of their link."""
    entries: list[Entry] = []
    texts: dict[str, str] = {}
    for parser in iterate_feed(file):
        for entry in parser.entries:
            if entry.kind == "IntervalBlock":
                entry.related, entry.self_href = [], ""
            entry.up_href = texts.setdefault(entry.up_href, entry.up_href)
            entries.append(entry)
        parser.forget()
    return entries


def _make_series(source: str, feed: _Feed, reading: Entry, block: Entry) -> _Series | Skipped:
    point = feed.get_usage_point(reading)
    name = _name_point(reading.self_href)
    kind = point.texts.get("kind", "")
    if kind != ELECTRICITY_KIND:
        if kind.isascii() and kind.isdigit():
            return Skipped(source, name, f"service kind {kind}: no electricity")
        raise Spot(source, point.line).error("service_not_electricity", f"{name}: kind {kind or 'missing'}")
    what = feed.get_reading_type(reading)
    spot, texts = Spot(source, what.line), what.texts
    unit = texts.get("uom", "")
    if unit != WH_UNIT and unit not in OTHER_UNITS:
        raise spot.error("unit_unknown", f"uom {unit or 'missing'}")
    if unit != WH_UNIT or texts.get("commodity", "") not in COMMODITIES or texts.get("kind", "") not in ENERGY_KINDS:
        return Skipped(source, name, f"uom {unit}, commodity {texts.get('commodity')}: no active energy")
    if texts.get("accumulationBehaviour", "") not in DELTA_BEHAVIOURS:
        raise spot.error("accumulation_not_delta", texts["accumulationBehaviour"])
    direction = DIRECTIONS.get(texts.get("flowDirection", ""))
    if direction is None:
        raise spot.error("direction_unknown", f"flowDirection {texts.get('flowDirection') or 'missing'}")
    exponent = _read_exponent(texts.get("powerOfTenMultiplier", ""), spot)
    length = texts.get("intervalLength", "")
    interval_s = _read_length(length if length not in ("", "0") else block.first_duration, spot)
    unit_text = PREFIXES.get(exponent, f"10^{exponent} Wh")
    flag = _read_flag((texts.get("defaultQuality") or "0",), spot)
    return _Series(ChannelId(source, name, direction, unit_text, interval_s), exponent, flag)


def _enter(book: Book, spot: Spot, raw: RawReading, series: _Series) -> ChannelEvent:
    if not raw.start:
        raise spot.error("time_missing", "no start")
    if _WHOLE.fullmatch(raw.start) is None:
        raise spot.error("time_invalid", raw.start)
    length_s = _read_length(raw.duration, spot)
    declared_s = series.channel.interval_s
    if length_s != declared_s and declared_s < DAY_S:  # days and months are not all of one length
        raise spot.error("interval_length_wrong", f"{length_s} s, the reading type says {declared_s} s")
    if not raw.value:
        raise spot.error("values_missing", f"no value at {raw.start}")
    try:
        pico = parse_pico_wh(raw.value, series.exponent)
    except NotExact as error:
        raise spot.error(str(error), raw.value) from None
    flag = _read_flag(raw.qualities, spot) if raw.qualities else series.flag
    return book.enter(series.channel, spot, start_ms=int(raw.start) * 1_000, length_s=length_s, pico=pico, flag=flag)


def _name_point(href: str) -> str:
    """``UsagePoint/1/MeterReading/01``, whatever the host and the customer before it."""
    place = href.rfind("UsagePoint/")
    return href[max(place, 0) :][-POINT_LETTERS_MAX:] or "MeterReading"


def _read_exponent(text: str, spot: Spot) -> int:
    match = re.fullmatch("(-?[0-9]{1,2})?", text)
    if match is None or abs(int(text or 0)) > EXPONENT_MOST:
        raise spot.error("value_not_a_number", f"powerOfTenMultiplier {text}")
    return int(text or 0)


def _read_length(text: str, spot: Spot) -> int:
    if not text:
        raise spot.error("interval_length_unknown", "no duration")
    if _WHOLE.fullmatch(text) is None or int(text) == 0:
        raise spot.error("interval_length_wrong", text)
    return int(text)


def _read_flag(qualities: tuple[str, ...], spot: Spot) -> Flag:
    """The worst of several qualities."""
    for quality in qualities:
        if quality not in QUALITIES:
            raise spot.error("quality_unknown", quality)
    flags = {QUALITIES[quality] for quality in qualities}
    return next(flag for flag in _WORST_FIRST if flag in flags)
