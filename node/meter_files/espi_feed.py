"""The XML of a Green Button feed, as the few facts in it that readings need.

Owns the safe way through the XML: expat, chunk by chunk, without a document type, so without entities of any kind,
and with limits on depth and on the length of a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from node.meter_files.lines import iterate_chunks
from node.meter_files.model import MeterFile, MeterFileError, Spot

ESPI: Final = "http://naesb.org/espi"
DEPTH_MAX: Final = 64
TOKEN_BYTES_MAX: Final = 1024 * 1024
FEED_BYTES_AT_ONCE: Final = 64 * 1024
TEXT_LETTERS_MAX: Final = 200
LINKS_MAX: Final = 100  # of one entry
ENTRIES_MAX: Final = 500_000

RESOURCES: Final = frozenset({"UsagePoint", "MeterReading", "ReadingType", "IntervalBlock"})


@dataclass(slots=True)
class Entry:
    """One Atom entry: the resource in it, its links, and the texts that matter, by name."""

    place: int  # in the feed
    line: int
    kind: str = ""
    self_href: str = ""
    up_href: str = ""
    related: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    has_readings: bool = False
    first_duration: str = ""


@dataclass(frozen=True, slots=True)
class RawReading:
    """One IntervalReading as it stands in the file; ``entry`` is the place of its entry in the feed."""

    entry: int
    line: int
    start: str
    duration: str
    value: str
    qualities: tuple[str, ...]


class FeedParser:
    """Feeds bytes to expat; whole entries and readings come out."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._take_text
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.EntityDeclHandler = self._refuse_entity
        self._parser.ExternalEntityRefHandler = self._refuse_external
        self._path: list[str] = []
        self._text: list[str] = []
        self._text_length = 0
        self._reading: dict[str, str] = {}
        self._qualities: list[str] = []
        self._entry: Entry | None = None
        self._fed_bytes = 0
        self.entries: list[Entry] = []
        self.readings: list[RawReading] = []
        self.entry_count = 0
        self.is_espi = False

    def feed(self, data: bytes, *, is_last: bool = False) -> None:
        """Take bytes in. Raises ``MeterFileError``."""
        self._fed_bytes += len(data)
        try:
            self._parser.Parse(data, is_last)
        except expat.ExpatError as error:
            raise Spot(self._source, error.lineno).error("xml_malformed", expat.ErrorString(error.code)) from None
        except (LookupError, ValueError) as error:  # an encoding that nobody has heard of
            raise self._spot().error("xml_malformed", error) from None
        if self._fed_bytes - self._parser.CurrentByteIndex > TOKEN_BYTES_MAX:
            raise self._spot().error("xml_token_too_long", f"at most {TOKEN_BYTES_MAX} bytes")

    def forget(self) -> None:
        """Let go of what has come out so far."""
        self.entries.clear()
        self.readings.clear()

    def _spot(self) -> Spot:
        return Spot(self._source, self._parser.CurrentLineNumber)

    def _refuse_doctype(self, name: str, system_id: str | None, public_id: str | None, has_subset: int) -> None:
        del system_id, public_id, has_subset
        raise self._spot().error("xml_entity_refused", f"DOCTYPE {name}")

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise self._spot().error("xml_entity_refused", f"ENTITY {name}")

    def _refuse_external(self, *_: object) -> int:
        raise self._spot().error("xml_entity_refused", "an external entity")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if len(self._path) == DEPTH_MAX:
            raise self._spot().error("xml_too_deep", f"at most {DEPTH_MAX} elements")
        self._path.append(local)
        self._text.clear()
        self._text_length = 0
        if local == "entry" and self._entry is None:
            if self.entry_count == ENTRIES_MAX:
                raise self._spot().error("channels_too_many", f"at most {ENTRIES_MAX} entries")
            self._entry = Entry(self.entry_count, self._parser.CurrentLineNumber)
        entry = self._entry
        if entry is not None and local == "link" and self._path[-2:-1] == ["entry"]:
            self._link(entry, attributes)
        if namespace == ESPI:
            self.is_espi = True
            if entry is not None and local in RESOURCES and not entry.kind:
                entry.kind = local
            if local == "IntervalReading":
                self._reading, self._qualities = {}, []

    def _link(self, entry: Entry, attributes: dict[str, str]) -> None:
        relation, href = attributes.get("rel", ""), attributes.get("href", "").rstrip("/")
        if relation == "self":
            entry.self_href = href
        elif relation == "up":
            entry.up_href = href
        elif relation == "related":
            if len(entry.related) == LINKS_MAX:
                raise self._spot().error("record_malformed", f"more than {LINKS_MAX} links")
            entry.related.append(href)

    def _end(self, name: str) -> None:
        local = name.rpartition(" ")[2]
        text = "".join(self._text).strip()
        self._text.clear()
        self._text_length = 0
        self._path.pop()
        entry = self._entry
        if entry is None:
            return
        parent = self._path[-1] if self._path else ""
        if parent == "ReadingType" or (parent == "ServiceCategory" and local == "kind"):
            entry.texts.setdefault(local, text)
        elif "IntervalReading" in self._path[-2:]:
            if parent == "ReadingQuality" and local == "quality":
                self._qualities.append(text)
            elif parent == "timePeriod" or local == "value":
                self._reading[local] = text
        elif local == "IntervalReading":
            self._finish_reading(entry)
        elif local == "entry" and "entry" not in self._path:
            self.entries.append(entry)
            self.entry_count += 1
            self._entry = None

    def _finish_reading(self, entry: Entry) -> None:
        reading = self._reading
        duration = reading.get("duration", "")
        entry.has_readings = True
        entry.first_duration = entry.first_duration or duration
        self.readings.append(
            RawReading(
                self.entry_count,
                self._parser.CurrentLineNumber,
                reading.get("start", ""),
                duration,
                reading.get("value", ""),
                tuple(self._qualities),
            )
        )

    def _take_text(self, text: str) -> None:
        if self._text_length < TEXT_LETTERS_MAX:  # longer texts are titles and notices, which nobody reads here
            self._text.append(text)
            self._text_length += len(text)


def iterate_feed(file: MeterFile) -> Iterator[FeedParser]:
    """The parser after each piece of the file, for the caller to take what has come out. Raises ``MeterFileError``."""
    parser = FeedParser(file.name)
    for chunk in iterate_chunks(file):
        for place in range(0, len(chunk), FEED_BYTES_AT_ONCE):
            parser.feed(chunk[place : place + FEED_BYTES_AT_ONCE])
            yield parser
    parser.feed(b"", is_last=True)
    yield parser
    if not parser.is_espi:
        raise MeterFileError("file_not_recognised", f"{file.name}:1: no element of {ESPI}")
