"""``wattprint audit``: every conservation sum of the domain, recomputed from the whole state.

Owns the table; the sums are those of ``chain_audit``. Exit status 1 if one of them does not hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import click

from ledger.fields import Json
from node.cli.asking import run_asking, with_offline
from node.cli.options import Connected, with_node
from node.cli.output import Row, format_csv, format_table, show
from node.exports import Ask

FAILED: Final = 1
FAULTS_SHOWN: Final = 10


@click.command()
@with_offline
@click.option("--csv", "as_csv", is_flag=True, help="Print the sums as CSV.")
@with_node
def command(connected: Connected, *, home: Path | None, as_csv: bool) -> None:
    """Recompute every conservation sum. Exit status 0: all of them hold; 1: one does not.

    \b
    Example:
      wattprint audit
      wattprint audit --offline testnet/node0
    """
    answer: dict[str, Any] = run_asking(connected, home, ask_audit)
    rows = list_sums(answer)
    if as_csv and not connected.as_json:
        click.echo(format_csv(rows), nl=False)
    else:
        show(connected, cast(Json, answer), _format(answer, rows))
    if not answer["holds"]:
        click.get_current_context().exit(FAILED)


async def ask_audit(ask: Ask) -> dict[str, Any]:
    """The answer of ``chain_audit``."""
    answer: dict[str, Any] = await ask("chain_audit", {})
    return answer


def list_sums(answer: dict[str, Any]) -> list[Row]:
    """A row for each sum: its two sides with their parts."""
    return [
        {
            "sum": one["name"].replace("_", " "),
            "left": one["left"],
            "": one["relation"] if one["holds"] else f"not {one['relation']}",
            "right": one["right"],
            "unit": one["unit"],
            "parts": f"{_format_parts(one['left_parts'])} {one['relation']} {_format_parts(one['right_parts'])}",
            "holds": one["holds"],
        }
        for one in answer["sums"]
    ]


def _format_parts(parts: dict[str, int]) -> str:
    return " + ".join(f"{name.replace('_', ' ')} {value}" for name, value in parts.items() if value) or "0"


def _format(answer: dict[str, Any], rows: list[Row]) -> str:
    blocks = [format_table(rows)]
    for one in answer["sums"]:
        if one["faults_count"]:
            named = ", ".join(one["faults"][:FAULTS_SHOWN])
            blocks.append(f"{one['name'].replace('_', ' ')}: {one['faults_count']} at fault: {named}")
    held = sum(one["holds"] for one in answer["sums"])
    root = answer["state_root"]
    blocks.append(f"{held} of {len(rows)} sums hold at height {answer['height']}, state root {root}")
    return "\n\n".join(blocks)
