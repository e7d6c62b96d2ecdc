"""``wattprint trace``: who bought the output of a source, and where a buyer's energy came from.

Owns the tables of the two questions that the ledger is for; ``trace lot`` derives from the node's method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import click

from ledger.fields import Json, get_codec
from ledger.primitives import Address
from node.cli.options import Connected, with_node
from node.cli.output import Row, format_csv, format_table, format_time, show
from node.cli.values import FieldType
from node.client import Answer, Client, UnknownItem

_MOMENT: Final = FieldType("from_ms", {"type": "integer"}, None)
_ADDRESS: Final = FieldType("participant", get_codec(Address).schema, get_codec(Address))
_from = click.option("--from", "from_ms", type=_MOMENT, metavar="TIME", help="Start of the period: 2016-06-06.")
_until = click.option("--until", "until_ms", type=_MOMENT, metavar="TIME", help="End of the period, exclusive.")
_csv = click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
PER_MILLE: Final = 1_000


@click.group()
def command() -> None:
    """Who bought this energy, and where did it come from?

    \b
    Example:
      wattprint trace source 5f0c…
      wattprint trace source 5f0c… --from 2016-06-06 --until 2016-06-13 --csv
      wattprint trace holder wp1… --hours
      wattprint trace lot 5f0c…:1465192800000:1
    """


@command.command()
@click.argument("source", metavar="SITE_OR_METER")
@_from
@_until
@_csv
@with_node
def source(connected: Connected, *, source: str, from_ms: int | None, until_ms: int | None, as_csv: bool) -> None:
    """Who has the output of a site or a meter: every holder and beneficiary, and that the sum is what was metered."""
    period = {"from_ms": from_ms, "until_ms": until_ms}

    async def ask(client: Client) -> Answer:
        try:
            return await client.call("trace_source", site=source, **period)
        except UnknownItem:
            return await client.call("trace_source", meter=source, **period)

    answer = connected.run(ask)
    rows = cast("list[Row]", answer["rows"])
    if as_csv and not connected.as_json:
        click.echo(format_csv(rows), nl=False)
        return
    show(connected, cast(Json, answer), f"{format_table(rows)}\n\n{_format_sums(answer)}")


@command.command()
@click.argument("participant", type=_ADDRESS)
@_from
@_until
@click.option("--hours", is_flag=True, help="A row for each hour of each source.")
@_csv
@with_node
def holder(
    connected: Connected,
    *,
    participant: str,
    from_ms: int | None,
    until_ms: int | None,
    hours: bool,
    as_csv: bool,
) -> None:
    """Where a participant's energy came from, and how well its claims match its consumption hour by hour."""
    answer = connected.run(
        lambda client: client.call("trace_holder", participant=participant, from_ms=from_ms, until_ms=until_ms)
    )
    rows = list_hours(answer) if hours or as_csv else list_sources(answer)
    if as_csv and not connected.as_json:
        click.echo(format_csv(rows), nl=False)
        return
    show(connected, cast(Json, answer), f"{format_table(rows)}\n\n{_format_matching(answer)}")


def list_sources(answer: Mapping[str, Any]) -> list[Row]:
    """One row for each source of a holder."""
    return [{name: value for name, value in one.items() if name != "hours"} for one in answer["sources"]]


def list_hours(answer: Mapping[str, Any]) -> list[Row]:
    """One row for each hour of each source of a holder, in order of time."""
    rows: list[Row] = []
    for one in answer["sources"]:
        about = {name: one[name] for name in ("label", "technology", "zone", "meter")}
        rows += [{"start_ms": hour["start_ms"], **about, **hour} for hour in one["hours"]]
    return sorted(rows, key=lambda row: (cast(int, row["start_ms"]), str(row["label"])))


def _format_sums(answer: Mapping[str, Any]) -> str:
    mark = "=" if answer["holds"] else "≠"
    held_wh, claimed_wh = answer["held_wh"], answer["claimed_wh"]
    parts = [f"held {held_wh} + claimed {claimed_wh}"]
    parts += [f"{name.replace('_', ' ')} {answer[name + '_wh']}" for name in ("quarantined", "not_minted")]
    return f"metered {answer['metered_wh']} Wh {mark} {' + '.join(parts)} Wh"


def _format_matching(answer: Mapping[str, Any]) -> str:
    lines = [f"{answer['wh']} Wh: held {answer['held_wh']}, claimed {answer['claimed_wh']}"]
    consumption = answer["consumption"]
    score = consumption["matching_score_per_mille"]
    if score is not None:
        covered = f"{consumption['claimed_hourly_wh']} of {consumption['consumed_wh']} Wh consumed"
        lines.append(f"matched hour by hour: {score * 100 // PER_MILLE}.{score % 10} % ({covered})")
    if answer.get("from_ms"):
        lines.append(f"period: {format_time(answer['from_ms'])} to {format_time(answer['until_ms'])}")
    return "\n".join(lines)
