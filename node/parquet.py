"""Parquet files: text, integers, times and booleans, any of them empty; written on the standard library alone.

Owns the small part of the format that an export needs: flat optional columns, plain values, gzip, one data page for
each column of a row group. Sources: the Parquet format specification (parquet.thrift, Encodings.md) and Thrift's
compact protocol. Why this and no library: docs/decisions/0014.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from node.exports import Cell, Column, Kind

MAGIC: Final = b"PAR1"
VERSION: Final = 1
ROWS_PER_GROUP: Final = 50_000
CREATED_BY: Final = "wattprint"
GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
GZIP_LEVEL: Final = 6

# parquet.thrift: Type, ConvertedType, FieldRepetitionType, Encoding, CompressionCodec, PageType.
BOOLEAN, INT64, BYTE_ARRAY = 0, 2, 6
UTF8, TIMESTAMP_MILLIS = 0, 9
OPTIONAL: Final = 1
PLAIN, RLE = 0, 3
GZIP: Final = 2
DATA_PAGE: Final = 0
PHYSICAL: Final[dict[Kind, int]] = {"text": BYTE_ARRAY, "integer": INT64, "time": INT64, "boolean": BOOLEAN}
CONVERTED: Final[dict[Kind, int]] = {"text": UTF8, "time": TIMESTAMP_MILLIS}


class Compact:
    """A Thrift struct in the compact protocol; fields are written in rising order of their ids."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._last = 0

    def i32(self, number: int, value: int) -> Compact:
        """A field of type i32 (an enumeration, too)."""
        return self._field(number, 5, _zigzag(value))

    def i64(self, number: int, value: int) -> Compact:
        """A field of type i64."""
        return self._field(number, 6, _zigzag(value))

    def text(self, number: int, value: str) -> Compact:
        """A field of type string."""
        return self._field(number, 8, _binary(value))

    def struct(self, number: int, value: Compact) -> Compact:
        """A field that is a struct."""
        return self._field(number, 12, value.finish())

    def structs(self, number: int, values: Sequence[Compact]) -> Compact:
        """A field that is a list of structs."""
        return self._field(number, 9, _list(12, [value.finish() for value in values]))

    def i32s(self, number: int, values: Sequence[int]) -> Compact:
        """A field that is a list of i32."""
        return self._field(number, 9, _list(5, [_zigzag(value) for value in values]))

    def texts(self, number: int, values: Sequence[str]) -> Compact:
        """A field that is a list of strings."""
        return self._field(number, 9, _list(8, [_binary(value) for value in values]))

    def finish(self) -> bytes:
        """The bytes, with the mark of the end."""
        return b"".join(self._parts) + b"\0"

    def _field(self, number: int, kind: int, body: bytes) -> Compact:
        step = number - self._last
        assert 0 < step <= 15, "fields in order"
        self._parts.append(bytes([step << 4 | kind]) + body)
        self._last = number
        return self


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _zigzag(value: int) -> bytes:
    return _varint((value << 1) ^ (value >> 63))


def _binary(value: str) -> bytes:
    raw = value.encode()
    return _varint(len(raw)) + raw


def _list(kind: int, items: Sequence[bytes]) -> bytes:
    head = bytes([len(items) << 4 | kind]) if len(items) < 15 else bytes([0xF0 | kind]) + _varint(len(items))
    return head + b"".join(items)


@dataclass(slots=True)
class ParquetWriter:
    """Rows into a stream that was opened for writing bytes. ``finish`` writes what makes it a file."""

    stream: BinaryIO
    columns: Sequence[Column]
    rows: int = 0
    _at: int = 0
    _held: list[Sequence[Cell]] = field(default_factory=list)
    _groups: list[Compact] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._put(MAGIC)

    def write(self, row: Sequence[Cell]) -> None:
        """One row, in the order of the columns. Raises ``OSError``."""
        assert len(row) == len(self.columns)
        self._held.append(row)
        if len(self._held) == ROWS_PER_GROUP:
            self._write_group()

    def finish(self) -> None:
        """The rest of the rows, and the footer. Raises ``OSError``."""
        if self._held:
            self._write_group()
        root = Compact().text(4, "schema").i32(5, len(self.columns))
        footer = Compact().i32(1, VERSION).structs(2, [root, *map(_make_schema, self.columns)])
        raw = footer.i64(3, self.rows).structs(4, self._groups).text(6, CREATED_BY).finish()
        self._put(raw + struct.pack("<I", len(raw)) + MAGIC)

    def _write_group(self) -> None:
        count = len(self._held)
        began = self._at
        chunks: list[Compact] = []
        size = 0
        for place, column in enumerate(self.columns):
            chunk, chunk_bytes = self._write_column(column, [row[place] for row in self._held])
            chunks.append(chunk)
            size += chunk_bytes
        assert self._at > began
        self._groups.append(Compact().structs(1, chunks).i64(2, size).i64(3, count))
        self.rows += count
        self._held = []

    def _write_column(self, column: Column, cells: Sequence[Cell]) -> tuple[Compact, int]:
        """(The chunk's description, its bytes before compression)."""
        levels = _encode_levels([cell is not None for cell in cells])
        page = struct.pack("<I", len(levels)) + levels + _encode_plain(column.kind, cells)
        squeezer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW)
        squeezed = squeezer.compress(page) + squeezer.flush()
        about = Compact().i32(1, len(cells)).i32(2, PLAIN).i32(3, RLE).i32(4, RLE)
        head = Compact().i32(1, DATA_PAGE).i32(2, len(page)).i32(3, len(squeezed)).struct(5, about).finish()
        start = self._at
        self._put(head + squeezed)
        whole = len(head) + len(page)
        meta = Compact().i32(1, PHYSICAL[column.kind]).i32s(2, [PLAIN, RLE]).texts(3, [column.name]).i32(4, GZIP)
        meta.i64(5, len(cells)).i64(6, whole).i64(7, len(head) + len(squeezed)).i64(9, start)
        return Compact().i64(2, start).struct(3, meta), whole

    def _put(self, data: bytes) -> None:
        self.stream.write(data)
        self._at += len(data)


def _make_schema(column: Column) -> Compact:
    one = Compact().i32(1, PHYSICAL[column.kind]).i32(3, OPTIONAL).text(4, column.name)
    converted = CONVERTED.get(column.kind)
    return one if converted is None else one.i32(6, converted)


def _encode_levels(present: Sequence[bool]) -> bytes:
    """Definition levels of one bit: runs, each as (length × 2, level)."""
    parts: list[bytes] = []
    place = 0
    while place < len(present):
        level = present[place]
        end = place
        while end < len(present) and present[end] is level:
            end += 1
        parts.append(_varint((end - place) << 1) + bytes([level]))
        place = end
    return b"".join(parts)


def _encode_plain(kind: Kind, cells: Iterable[Cell]) -> bytes:
    values = [cell for cell in cells if cell is not None]
    if kind == "text":
        raws = [str(value).encode() for value in values]
        return b"".join(struct.pack("<I", len(raw)) + raw for raw in raws)
    if kind == "boolean":
        bits = "".join("1" if value else "0" for value in reversed(values))  # the first value is the lowest bit
        return int(bits or "0", 2).to_bytes(-(-len(values) // 8), "little")
    return struct.pack(f"<{len(values)}q", *[int(value) for value in values])
