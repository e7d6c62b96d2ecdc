"""MSCONS: the load profiles that network operators in Germany and Switzerland send (EDIFACT D.04B).

Owns the segments that carry energy: LOC+172 names the point, PIA+5 the OBIS code, QTY a value, DTM its start and end
with their offset. A message is one line as often as not, so a refusal names the segment too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.instants import find_instant_s
from node.meter_files.lines import UTF8_MARK, iterate_chunks
from node.meter_files.model import (
    POINT_LETTERS_MAX,
    Book,
    ChannelEvent,
    ChannelId,
    Event,
    MeterFile,
    MeterFileError,
    Skipped,
    Spot,
)
from node.meter_files.quantities import NotExact, find_energy_exponent, is_other_unit, parse_pico_wh

SEGMENT_BYTES_MAX: Final = 16 * 1024
SERVICE_STRING: Final = "UNA"
SERVICE_STRING_LENGTH: Final = 9
UNIT_DEFAULT: Final = "kWh"  # the rule of the German and Swiss operators for a profile of energy
# OBIS group C: 1 is delivered to the customer, 2 received from the customer. Group D: energy of an interval.
DIRECTIONS: Final = {"1": Channel.CONSUMPTION, "2": Channel.PRODUCTION}
INTERVAL_TYPES: Final = frozenset({"9", "10", "29"})
QUALIFIERS: Final[dict[str, Flag | None]] = {
    "220": Flag.MEASURED,  # true value
    "67": Flag.SUBSTITUTED,
    "201": Flag.ESTIMATED,  # proposed
    "187": Flag.ESTIMATED,  # forecast
    "20": None,  # not usable
}
_OBIS: Final = re.compile(r"(?:[0-9]{1,3}-[0-9]{1,3}:)?([0-9]{1,3})\.([0-9]{1,3})\.[0-9]{1,3}(?:\*[0-9]{1,3})?")
_TIME: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([+-][0-9]{2})")


@dataclass(frozen=True, slots=True)
class _Marks:
    """The marks that a message is written with; UNA may say others."""

    component: str = ":"
    element: str = "+"
    decimal: str = "."
    release: str = "?"
    terminator: str = "'"


@dataclass(frozen=True, slots=True)
class _Place:
    """A segment of a file, to name in a refusal."""

    spot: Spot
    number: int

    def error(self, reason: str, what: object = "") -> MeterFileError:
        return self.spot.error(reason, f"segment {self.number}: {what}")


@dataclass(slots=True)
class _Quantity:
    """A QTY, waiting for its times."""

    place: _Place
    text: str
    unit: str
    flag: Flag | None
    start_s: int | None = None
    end_s: int | None = None


class _Reader:
    """The segments of one file, in their order."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._book = Book()
        self._has_message = False
        self._is_closed = False
        self._point = ""
        self._direction: Channel | None = None
        self._obis = ""
        self._quantity: _Quantity | None = None
        self._interval_s: dict[tuple[str, Channel], int] = {}

    def take(self, place: _Place, elements: list[list[str]], decimal: str) -> Iterator[Event]:
        tag = elements[0][0]
        if tag == "QTY":
            yield from self._close_quantity()
            self._open_quantity(place, elements, decimal)
        elif tag == "DTM":
            self._take_time(place, elements)
        elif tag in ("LIN", "LOC", "PIA", "UNS", "UNT", "UNH", "UNZ", "NAD"):
            yield from self._close_quantity()
            if tag == "LOC" and _get(elements, 1) == "172":
                self._point, self._obis, self._direction = _get(elements, 2)[:POINT_LETTERS_MAX], "", None
            elif tag == "PIA" and _get(elements, 1) == "5":
                yield from self._open_series(place, _get(elements, 2))
            elif tag == "UNH":
                self._open_message(place, elements)
            elif tag == "UNZ":
                self._is_closed = True

    def finish(self, place: _Place) -> None:
        if not self._is_closed:
            raise place.error("file_truncated", "no UNZ at the end")
        if not self._has_message:
            raise place.error("message_not_mscons", "no message")

    def _open_message(self, place: _Place, elements: list[list[str]]) -> None:
        if _get(elements, 2) != "MSCONS":
            raise place.error("message_not_mscons", _get(elements, 2))
        self._has_message = True
        self._point, self._obis, self._direction = "", "", None

    def _open_series(self, place: _Place, obis: str) -> Iterator[Skipped]:
        match = _OBIS.fullmatch(obis)
        if match is None:
            raise place.error("record_malformed", f"OBIS {obis}")
        if not self._point:
            raise place.error("record_out_of_place", "PIA before LOC+172")
        self._obis = obis
        self._direction = DIRECTIONS.get(match[1]) if match[2] in INTERVAL_TYPES else None
        if self._direction is None:
            yield Skipped(self._source, self._point, f"OBIS {obis}: no active energy by interval")

    def _open_quantity(self, place: _Place, elements: list[list[str]], decimal: str) -> None:
        if not self._obis:
            raise place.error("record_out_of_place", "QTY before PIA+5")
        qualifier = _get(elements, 1)
        if qualifier not in QUALIFIERS:
            raise place.error("quality_unknown", qualifier)
        text = _get(elements, 1, 1)
        if decimal != ".":
            text = text.replace(".", "?").replace(decimal, ".")  # a dot is then no decimal mark
        unit = _get(elements, 1, 2) or UNIT_DEFAULT
        self._quantity = _Quantity(place, text, unit, QUALIFIERS[qualifier])

    def _take_time(self, place: _Place, elements: list[list[str]]) -> None:
        which = _get(elements, 1)
        if self._quantity is None or which not in ("163", "164"):
            return
        text = _get(elements, 1, 1)
        match = _TIME.fullmatch(text)
        if match is None:
            raise place.error("time_without_offset" if text.isdigit() else "time_invalid", text)
        local_s = find_instant_s(*(int(part) for part in match.groups()[:5]))
        if local_s is None or abs(int(match[6])) > 14:
            raise place.error("time_invalid", text)
        instant_s = local_s - int(match[6]) * 3_600
        if which == "163":
            self._quantity.start_s = instant_s
        else:
            self._quantity.end_s = instant_s

    def _close_quantity(self) -> Iterator[ChannelEvent]:
        quantity, self._quantity = self._quantity, None
        if quantity is None or self._direction is None:
            return
        place = quantity.place
        if quantity.start_s is None or quantity.end_s is None:
            raise place.error("time_missing", "QTY without DTM+163 and DTM+164")
        length_s = quantity.end_s - quantity.start_s
        if length_s <= 0:
            raise place.error("time_not_rising", f"an interval of {length_s} s")
        exponent = find_energy_exponent(quantity.unit)
        if exponent is None:
            raise place.error("unit_unknown" if not is_other_unit(quantity.unit) else "record_malformed", quantity.unit)
        if length_s != self._interval_s.setdefault((self._point, self._direction), length_s):
            raise place.error("interval_length_wrong", f"{length_s} s")
        try:
            pico = None if quantity.flag is None else parse_pico_wh(quantity.text, exponent)
        except NotExact as error:
            raise place.error(str(error), quantity.text) from None
        channel = ChannelId(self._source, self._point, self._direction, quantity.unit, length_s)
        yield self._book.enter(
            channel,
            place.spot,
            start_ms=quantity.start_s * 1_000,
            length_s=length_s,
            pico=pico,
            flag=quantity.flag or Flag.ESTIMATED,
        )


def read_mscons(file: MeterFile) -> Iterator[Event]:
    """The values of MSCONS messages; a point is what LOC+172 names. Raises ``MeterFileError``."""
    reader = _Reader(file.name)
    place = _Place(Spot(file.name, 1), 0)
    for place, segment, marks in _iterate_segments(file):
        elements = [
            [_unescape(part, marks.release) for part in _split(element, marks.component, marks.release)]
            for element in _split(segment, marks.element, marks.release)
        ]
        yield from reader.take(place, elements, marks.decimal)
    reader.finish(place)


def _iterate_segments(file: MeterFile) -> Iterator[tuple[_Place, str, _Marks]]:
    marks: _Marks | None = None
    line = 1
    number = 0
    rest = b""
    for chunk in iterate_chunks(file):
        rest += chunk
        if marks is None:
            rest = rest.removeprefix(UTF8_MARK).lstrip(b"\r\n ")
            if len(rest) < SERVICE_STRING_LENGTH:
                continue
            marks, rest = _read_marks(rest, Spot(file.name, 1))
        segments = _split(rest.decode("latin-1"), marks.terminator, marks.release)
        rest = segments.pop().encode("latin-1")
        for segment in segments:
            number += 1
            place = _Place(Spot(file.name, line), number)
            if len(segment) > SEGMENT_BYTES_MAX:
                raise place.error("segment_too_long", f"at most {SEGMENT_BYTES_MAX} bytes")
            yield place, segment.strip("\r\n "), marks
            line += segment.count("\n")
        if len(rest) > SEGMENT_BYTES_MAX:
            raise Spot(file.name, line).error("segment_too_long", f"at most {SEGMENT_BYTES_MAX} bytes")
    if marks is None:
        raise Spot(file.name, 1).error("header_missing", "UNA or UNB first")
    if rest.strip():
        raise Spot(file.name, line).error("file_truncated", "the last segment has no end")


def _read_marks(data: bytes, spot: Spot) -> tuple[_Marks, bytes]:
    head = data[:SERVICE_STRING_LENGTH].decode("latin-1")
    if head.startswith("UNB"):
        return _Marks(), data
    if not head.startswith(SERVICE_STRING):
        raise spot.error("header_missing", "UNA or UNB first")
    marks = _Marks(head[3], head[4], head[5], head[6], head[8])
    used = (marks.component, marks.element, marks.decimal, marks.release, marks.terminator)
    if len(set(used)) != len(used) or any(mark.isalnum() for mark in used):
        raise spot.error("header_missing", f"marks {head[3:]}")
    return marks, data[SERVICE_STRING_LENGTH:]


def _split(text: str, mark: str, release: str) -> list[str]:
    """Split at a mark that no release character goes before."""
    if release not in text:
        return text.split(mark)
    part = re.compile(f"(?:{re.escape(release)}.?|[^{re.escape(release + mark)}])*", re.DOTALL)
    parts: list[str] = []
    place = 0
    while (match := part.match(text, place)) is not None:
        parts.append(match[0])
        if match.end() == len(text):
            break
        place = match.end() + 1
    return parts


def _unescape(text: str, release: str) -> str:
    if release not in text:
        return text
    return re.sub(re.escape(release) + "(.)", r"\1", text, flags=re.DOTALL)


def _get(elements: list[list[str]], element: int, component: int = 0) -> str:
    """A component of a segment, or the empty text."""
    if element >= len(elements) or component >= len(elements[element]):
        return ""
    return elements[element][component]
