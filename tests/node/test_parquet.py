"""Parquet files read back: by a reader written here from the specification, and by pyarrow where it is there."""

from __future__ import annotations

import importlib.util
import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node import parquet
from node.exports import Cell, Column
from node.parquet import ParquetWriter

COLUMNS = (Column("name", "text"), Column("wh", "integer"), Column("start_ms", "time"), Column("is_hourly", "boolean"))


def make_rows(count: int, seed: int = 1) -> list[list[Cell]]:
    random_ = random.Random(seed)
    return [
        [
            random_.choice([None, "", "Zürich", "x" * 200]),
            random_.choice([None, 0, -1, 2**62, -(2**62), random_.randint(0, 10**6)]),
            1_717_632_000_000 + i * 900_000,
            random_.choice([None, True, False]),
        ]
        for i in range(count)
    ]


def write(rows: list[list[Cell]]) -> bytes:
    stream = io.BytesIO()
    writer = ParquetWriter(stream, COLUMNS)
    for row in rows:
        writer.write(row)
    writer.finish()
    return stream.getvalue()


class ThriftReader:
    """Structs of the compact protocol, as {field: value}."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def value(self, kind: int) -> Any:
        if kind in (5, 6):
            raw = self.varint()
            return (raw >> 1) ^ -(raw & 1)
        if kind == 8:
            length = self.varint()
            self.at += length
            return self.data[self.at - length : self.at].decode()
        if kind == 9:
            head = self.data[self.at]
            self.at += 1
            count = self.varint() if head >> 4 == 15 else head >> 4
            return [self.value(head & 15) for _ in range(count)]
        assert kind == 12
        return self.struct()

    def struct(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        number = 0
        while head := self.data[self.at]:
            self.at += 1
            number += head >> 4
            found[number] = self.value(head & 15)
        self.at += 1
        return found


def read(data: bytes) -> tuple[list[str], list[list[Cell]]]:
    """(Names, rows)."""
    assert data[:4] == data[-4:] == b"PAR1"
    (length,) = struct.unpack("<I", data[-8:-4])
    footer = ThriftReader(data[-8 - length : -8]).struct()
    schema = footer[2][1:]
    rows: list[list[Cell]] = []
    for group in footer[4]:
        columns = [list(read_chunk(data, chunk[3])) for chunk in group[1]]
        rows += [list(row) for row in zip(*columns, strict=True)]
    assert footer[3] == len(rows)
    return [one[4] for one in schema], rows


def read_chunk(data: bytes, meta: dict[int, Any]) -> Iterator[Cell]:
    reader = ThriftReader(data, meta[9])
    head = reader.struct()
    page = zlib.decompress(data[reader.at : reader.at + head[3]], 31)
    assert (len(page), head[5][1]) == (head[2], meta[5])
    (length,) = struct.unpack_from("<I", page)
    levels, at = [], 4
    runs = ThriftReader(page, 4)
    while runs.at < 4 + length:
        run = runs.varint()
        assert run & 1 == 0, "a run, not packed bits"
        levels += [page[runs.at]] * (run >> 1)
        runs.at += 1
    at = 4 + length
    for place, level in enumerate(levels):
        if not level:
            yield None
        elif meta[1] == 2:
            (number,) = struct.unpack_from("<q", page, at)
            at += 8
            yield number
        elif meta[1] == 6:
            (size,) = struct.unpack_from("<I", page, at)
            yield page[at + 4 : at + 4 + size].decode()
            at += 4 + size
        else:
            bit = sum(levels[:place])
            yield bool(page[at + bit // 8] >> bit % 8 & 1)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 300])
def test_what_was_written_is_read_back(count: int) -> None:
    rows = make_rows(count)
    assert read(write(rows)) == ([column.name for column in COLUMNS], rows)


def test_rows_go_on_over_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 64)
    rows = make_rows(64 * 3 + 5)
    assert read(write(rows))[1] == rows


# 170 MB for one test are no requirement (docs/decisions/0014): the reader in this file looks at every byte instead.
@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_pyarrow_reads_it_with_its_types(tmp_path: Path) -> None:
    table = importlib.import_module("pyarrow.parquet")
    rows = make_rows(200)
    (tmp_path / "rows.parquet").write_bytes(write(rows))
    found = table.read_table(tmp_path / "rows.parquet")
    assert [str(field.type) for field in found.schema] == ["string", "int64", "timestamp[ms, tz=UTC]", "bool"]
    columns = found.to_pydict()
    assert columns["wh"] == [row[1] for row in rows]
    assert columns["name"] == [row[0] for row in rows]
    assert [int(one.timestamp() * 1_000) for one in columns["start_ms"]] == [row[2] for row in rows]
