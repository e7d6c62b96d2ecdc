"""What a command prints: one JSON document, CSV, or text for a person.

Owns the three forms of an answer. Text shows times as UTC and cuts nothing when it goes into a pipe; only JSON is
meant to be read by a program.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast

import click
from rich import box
from rich.console import Console
from rich.table import Table

from ledger.fields import Json
from node.cli.options import Common

WIDTH_IN_PIPE: Final = 10_000  # no column is cut for want of a screen
TIME_MS_LEAST: Final = 10**11  # 1973: a smaller number under a name in _ms is a duration

HIDDEN_COLUMNS: Final = frozenset({"lot_id", "received", "sent"})  # the parts of ``lot``; peers' traffic, see /metrics

Row = Mapping[str, Json]


def show(common: Common, document: Json, text: str | None = None) -> None:
    """Print an answer: as JSON if that was asked for, else ``text``, or what can be made of the document."""
    if common.as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        whole = format_document(document) if text is None else text
        click.echo("\n".join(map(_plain, whole.split("\n"))))


def show_rows(common: Common, document: Json, rows: Sequence[Row], *, as_csv: bool = False, title: str = "") -> None:
    """Print an answer whose heart is a list: as JSON the whole document, as CSV or text the rows."""
    if common.as_json:
        show(common, document)
    elif as_csv:
        click.echo(format_csv(rows), nl=False)
    else:
        click.echo("\n".join(filter(None, [title, format_table(rows)])))


def note(common: Common, text: str) -> None:
    """A remark beside the answer, on stderr; not when a program reads us."""
    if not common.as_json:
        click.echo(text, err=True)


def format_document(document: Json) -> str:
    """Any JSON document as text: scalars a line each, lists of objects as tables under their name."""
    if isinstance(document, list):
        return format_list(document)
    if not isinstance(document, dict):
        return format_value("", document)
    blocks: list[str] = []
    width = max((len(name) for name in document), default=0)
    lines = [
        f"{name:<{width}}  {format_value(name, value)}"
        for name, value in document.items()
        if not _is_table(value) and not (name == "next_cursor" and value is None) and name not in HIDDEN_COLUMNS
    ]
    if lines:
        blocks.append("\n".join(lines))
    for name, value in document.items():
        if _is_table(value):
            blocks.append(f"{name}\n{format_list(cast('list[Json]', value))}")
    return "\n\n".join(blocks) or "nothing"


def format_list(items: Sequence[Json]) -> str:
    """A list as text: a table if it is of objects, else a line each."""
    if not items:
        return "nothing"
    if all(isinstance(item, dict) for item in items):
        return format_table(cast("Sequence[Row]", items))
    return "\n".join(format_value("", item) for item in items)


def format_table(rows: Sequence[Row]) -> str:
    """Rows under their names, numbers to the right; "nothing" for none."""
    if not rows:
        return "nothing"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    names = list_columns(rows)
    for name in names:
        is_number = all(type(row.get(name)) is int for row in rows) and not _is_time(name, rows[0].get(name))
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(format_value(name, row.get(name)) for name in names))
    is_screen = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(), width=None if is_screen else WIDTH_IN_PIPE, color_system=None, emoji=False, markup=False
    )
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


def format_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV with a header; nested values as JSON; numbers and times as they came."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = list_columns(rows)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_csv_cell(row.get(name)) for name in names])
    return stream.getvalue()


def list_columns(rows: Iterable[Row]) -> list[str]:
    """Every name that a row has, in the order in which they first occur; less what another column says."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in HIDDEN_COLUMNS))


def format_value(name: str, value: Json) -> str:
    """One value on one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format_time(value) if _is_time(name, value) else str(value)
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, list):
        return ", ".join(format_value(name, item) for item in value) or "–"
    return " ".join(f"{key}={format_value(key, item)}" for key, item in value.items())


def format_time(time_ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC."""
    try:
        moment = datetime.fromtimestamp(time_ms // 1_000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
    rest = f".{time_ms % 1_000:03}" if time_ms % 1_000 else ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + rest + "Z"


def _is_time(name: str, value: Json) -> bool:
    return name.endswith("_ms") and type(value) is int and value >= TIME_MS_LEAST


def _is_table(value: Json) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _plain(text: str) -> str:
    # What a stranger put on the ledger must not steer the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _csv_cell(value: Json) -> str | int:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return value
    return json.dumps(value, ensure_ascii=False)
