"""``wattprint claim``: what was used, by whom, and the statement of it.

Owns ``statement``; what is in it is node/statements.py's. ``show`` and ``list`` derive from the node's methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import click

from ledger.fields import Json, get_codec
from ledger.primitives import Address
from node.cli.asking import run_asking, with_offline
from node.cli.options import Connected, with_node
from node.cli.output import Row, format_csv, format_table, note, show
from node.cli.values import FieldType
from node.exports import Ask
from node.files import write_replacing
from node.statements import format_count, format_mwh, make_page, make_statement

_MOMENT: Final = FieldType("from_ms", {"type": "integer"}, None)
_ADDRESS: Final = FieldType("participant", get_codec(Address).schema, get_codec(Address))
_TEXT_COLUMNS: Final = (
    "statement",
    "status",
    "matching",
    "source",
    "technology",
    "zone",
    "first_start_ms",
    "lots",
    "wh",
    "lost_wh",
)
FILE_MODE: Final = 0o644


@click.group()
def command() -> None:
    """Claims: what was used, by whom, and for what.

    \b
    Example:
      wattprint claim list --beneficiary bob.key.json
      wattprint claim statement bob.key.json --from 2016-06-01 --until 2016-07-01 --html june.html
    """


@command.command()
@click.argument("participant", type=_ADDRESS)
@click.option("--from", "from_ms", type=_MOMENT, required=True, metavar="TIME", help="Start of the period: 2016-06-01.")
@click.option("--until", "until_ms", type=_MOMENT, required=True, metavar="TIME", help="End of the period, exclusive.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the lines as CSV.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a printable page.")
@with_offline
@with_node
def statement(
    connected: Connected,
    *,
    participant: str,
    from_ms: int,
    until_ms: int,
    as_csv: bool,
    html: Path | None,
    home: Path | None,
) -> None:
    """What a beneficiary claimed in a period, claim by claim and source by source, as it is filed.

    A claim belongs to the period that its own period begins in. What it lost later is listed and not counted.
    """

    async def work(ask: Ask) -> dict[str, Any]:
        return await make_statement(ask, participant=participant, from_ms=from_ms, until_ms=until_ms)

    made = run_asking(connected, home, work)
    if html is not None:
        write_replacing(html, make_page(made).encode(), mode=FILE_MODE)
        note(connected, f"written: {html}")
    rows = cast("list[Row]", made["lines"])
    if as_csv and not connected.as_json:
        click.echo(format_csv(rows), nl=False)
        return
    show(connected, cast(Json, made), f"{format_table([_shorten(row) for row in rows])}\n\n{_format_sums(made)}")


def _shorten(row: Row) -> Row:
    return {name: row[name] for name in _TEXT_COLUMNS}


def _format_sums(made: dict[str, Any]) -> str:
    kinds = ", ".join(f"{name} {format_mwh(wh)}" for name, wh in sorted(made["by_technology"].items()))
    claims = format_count(made["claims"], "claim")
    lines = [
        f"{made['label']}: {format_mwh(made['claimed_wh'])} MWh in {claims} ({kinds or 'nothing'})",
        f"hour by hour {format_mwh(made['hourly_wh'])}, by volume {format_mwh(made['volumetric_wh'])} MWh",
    ]
    if made["lost_wh"]:
        lines.append(f"no longer counted, since corrected or void: {format_mwh(made['lost_wh'])} MWh")
    return "\n".join(lines)
