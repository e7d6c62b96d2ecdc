"""``wattprint export``: the ledger's books as CSV or Parquet.

Owns the commands and the writing of files; the columns are node/exports.py's. A file appears whole or not at all.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast

import click

from ledger.fields import Json, get_codec
from ledger.primitives import Address
from node.cli.asking import run_asking, with_offline
from node.cli.options import Connected, with_node
from node.cli.output import show
from node.cli.values import FieldType
from node.exports import TABLES, Ask, Cell, ExportTable, Wanted
from node.parquet import ParquetWriter

FORMATS: Final = ("csv", "parquet")
FILTERS: Final[dict[str, Any]] = {
    "meter": click.option("--meter", metavar="HEX", help="Only of this meter."),
    "participant": click.option(
        "--participant",
        type=FieldType("participant", get_codec(Address).schema, get_codec(Address)),
        help="Only of this beneficiary or consumer: an address, or a key file.",
    ),
    "from_ms": click.option("--from", "from_ms", type=FieldType("from_ms", {"type": "integer"}, None), metavar="TIME"),
    "until_ms": click.option(
        "--until", "until_ms", type=FieldType("until_ms", {"type": "integer"}, None), metavar="TIME"
    ),
}


class Writer(Protocol):
    """What takes the rows of a file."""

    def write(self, row: list[Cell]) -> None: ...

    def finish(self) -> None: ...


class CsvWriter:
    """Rows as CSV with a header; an empty cell is nothing, a boolean is true or false."""

    def __init__(self, stream: BinaryIO, table: ExportTable) -> None:
        self._stream = stream
        self._rows = csv.writer(_Lines(stream), lineterminator="\n")
        self._rows.writerow([column.name for column in table.columns])

    def write(self, row: list[Cell]) -> None:
        """One row."""
        self._rows.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in row])

    def finish(self) -> None:
        """Nothing is left to write."""


class _Lines:
    """Text into a stream of bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text.encode())


@click.group()
def command() -> None:
    """Take the ledger's books elsewhere: CSV, or Parquet for pandas, DuckDB, Spark.

    \b
    Example:
      wattprint export readings -o readings.parquet
      wattprint export movements --from 2016-06-06 -o - | head
      wattprint export bills --offline testnet/node0 -o bills.csv
    """


def _make_command(table: ExportTable) -> click.Command:
    def run(connected: Connected, *, output: Path, form: str | None, home: Path | None, **filters: Any) -> None:
        is_stdout = str(output) == "-"
        chosen = form or ("csv" if is_stdout else output.suffix.removeprefix("."))
        if chosen not in FORMATS:
            raise click.UsageError(f"{output}: the name ends in .csv or .parquet, or say --format.")
        if is_stdout and connected.as_json:
            raise click.UsageError("--json and -o - exclude each other.")

        async def work(ask: Ask) -> int:
            return await _write(ask, table, Wanted(**filters), output, chosen)

        rows = run_asking(connected, home, work)
        if not is_stdout:
            document: dict[str, Json] = {"table": table.name, "file": str(output), "format": chosen, "rows": rows}
            show(connected, document, f"{rows} rows in {output}")

    run.__doc__ = f"""Export {table.name}: {", ".join(column.name for column in table.columns)}.

    Energy is in Wh, money in cents, times in milliseconds since the epoch (in Parquet: timestamps).
    """
    function: Callable[..., None] = with_node(run)
    function = with_offline(function)
    for name in ("until_ms", "from_ms", "participant", "meter"):
        if name in table.filters:
            function = FILTERS[name](function)
    function = click.option("--format", "form", type=click.Choice(FORMATS), help="  [default: as the file is named]")(
        function
    )
    function = click.option(
        "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE|-"
    )(function)
    return click.command(table.name, short_help=f"Export {table.name}.")(function)


async def _write(ask: Ask, table: ExportTable, wanted: Wanted, output: Path, form: str) -> int:
    """Write a file beside its place and name it when it is whole; how many rows it has."""
    if str(output) == "-":
        return await _fill(ask, table, wanted, form, sys.stdout.buffer)
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            rows = await _fill(ask, table, wanted, form, stream)
        beside.replace(output)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    return rows


async def _fill(ask: Ask, table: ExportTable, wanted: Wanted, form: str, stream: BinaryIO) -> int:
    writer: Writer = CsvWriter(stream, table) if form == "csv" else cast(Writer, ParquetWriter(stream, table.columns))
    rows = 0
    async for row in table.iterate_rows(ask, wanted):
        writer.write(row)
        rows += 1
    writer.finish()
    stream.flush()
    return rows


for _table in TABLES.values():
    command.add_command(_make_command(_table))
