"""``wattprint trace``: who bought the output of a source, and where a buyer's energy came from.

Owns the tables and the pages of the questions that the ledger is for. Every page of an answer is fetched; the pictures
are node/trace_picture.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import click

from contracts_native.sites import Technology
from ledger.fields import Json, get_codec
from ledger.primitives import Address
from node.cli.asking import run_asking, with_offline
from node.cli.options import Connected, with_node
from node.cli.output import Row, format_csv, format_table, format_time, format_value, note, show
from node.cli.values import FieldType
from node.client import UnknownItem
from node.exports import Answer, Ask
from node.files import write_replacing
from node.queries.errors import NotFound
from node.trace_picture import draw_holder, draw_lot, draw_source

_MOMENT: Final = FieldType("from_ms", {"type": "integer"}, None)
_ADDRESS: Final = FieldType("participant", get_codec(Address).schema, get_codec(Address))
_from = click.option("--from", "from_ms", type=_MOMENT, metavar="TIME", help="Start of the period: 2016-06-06.")
_until = click.option("--until", "until_ms", type=_MOMENT, metavar="TIME", help="End of the period, exclusive.")
_zone = click.option("--zone", help="Only what was produced in this grid zone.")
_technology = click.option(
    "--technology", type=click.Choice([one.value for one in Technology]), help="Only of this kind."
)
_csv = click.option("--csv", "as_csv", is_flag=True, help="Print the table as CSV.")
STDOUT: Final = Path("-")
_html = click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    is_flag=False,
    flag_value=str(STDOUT),
    metavar="[FILE]",
    help="Write a picture that needs nothing else; without FILE to standard output.",
)
PER_MILLE: Final = 1_000
FILE_MODE: Final = 0o644


@click.group()
def command() -> None:
    """Who bought this energy, and where did it come from?

    \b
    Example:
      wattprint trace source 5f0c…
      wattprint trace source 5f0c… --from 2016-06-06 --until 2016-06-13 --csv
      wattprint trace source --zone DE-LU --technology wind --by hour
      wattprint trace holder wp1… --html bob.html
      wattprint trace lot 5f0c…:1465192800000:1
    """


@command.command()
@click.argument("source", metavar="[SITE_OR_METER]", required=False)
@_from
@_until
@_zone
@_technology
@click.option(
    "--by", type=click.Choice(["holder", "hour"]), default="holder", show_default=True, help="What the rows are."
)
@_csv
@_html
@with_offline
@with_node
def source(
    connected: Connected,
    *,
    source: str | None,
    by: str,
    as_csv: bool,
    html: Path | None,
    home: Path | None,
    **filters: Any,
) -> None:
    """Who has the output of a site, a meter, a grid zone or a technology, and that the sum is what was metered."""
    if source is None and not (filters["zone"] or filters["technology"]):
        raise click.UsageError("Name a site or a meter, or give --zone or --technology.")
    if html is not None and by != "holder":
        raise click.UsageError("--html is a picture of holders: --by hour does not apply.")

    async def work(ask: Ask) -> tuple[Answer, str]:
        answer = await ask_source(ask, source, {**filters, "by": by})
        return answer, await _find_label(ask, answer) if html is not None else ""

    answer, label = run_asking(connected, home, work)
    if html is not None:
        _write(connected, html, draw_source(answer, label=label))
        if html == STDOUT:
            return
    rows = cast("list[Row]", answer["rows"])
    if as_csv and not connected.as_json:
        click.echo(format_csv(rows), nl=False)
        return
    show(connected, cast(Json, answer), f"{format_table(rows)}\n\n{_format_sums(answer)}")


async def ask_source(ask: Ask, source: str | None, params: Mapping[str, Json]) -> Answer:
    """The whole answer of ``trace_source``; what ``source`` names may be a site or a meter."""
    if source is None:
        return await _fetch(ask, "trace_source", params)
    try:
        return await _fetch(ask, "trace_source", {**params, "site": source})
    except (UnknownItem, NotFound):
        return await _fetch(ask, "trace_source", {**params, "meter": source})


async def _find_label(ask: Ask, answer: Answer) -> str:
    """What people call a source."""
    site = answer["site"]
    if answer["meter"] is not None:
        site = (await ask("meter_get", {"meter": answer["meter"]}))["site"]
    named = [] if site is None else [str((await ask("site_get", {"site": site}))["label"])]
    return ", ".join([*named, *filter(None, (answer["technology"], answer["zone"]))])


@command.command()
@click.argument("participant", type=_ADDRESS)
@_from
@_until
@click.option("--site", metavar="HEX", help="Only from this site.")
@click.option("--meter", metavar="HEX", help="Only from this meter.")
@_zone
@_technology
@click.option("--hours", is_flag=True, help="A row for each hour of each source.")
@_csv
@_html
@with_offline
@with_node
def holder(
    connected: Connected,
    *,
    participant: str,
    hours: bool,
    as_csv: bool,
    html: Path | None,
    home: Path | None,
    **filters: Any,
) -> None:
    """Where a participant's energy came from, and how well its claims match its consumption hour by hour."""

    async def work(ask: Ask) -> Answer:
        return await ask_holder(ask, {"participant": participant, **filters})

    answer = run_asking(connected, home, work)
    if html is not None:
        _write(connected, html, draw_holder(answer))
        if html == STDOUT:
            return
    rows = list_hours(answer) if hours or as_csv else list_sources(answer)
    if as_csv and not connected.as_json:
        click.echo(format_csv(rows), nl=False)
        return
    show(connected, cast(Json, answer), f"{format_table(rows)}\n\n{_format_matching(answer)}")


async def ask_holder(ask: Ask, params: Mapping[str, Json]) -> Answer:
    """The whole answer of ``trace_holder``, the hours of all its pages together."""
    whole = page = await ask("trace_holder", dict(params))
    while page["next_cursor"] is not None:
        page = await ask("trace_holder", {**params, "cursor": page["next_cursor"]})
        by_meter = {one["meter"]: one["hours"] for one in page["sources"]}
        for one in whole["sources"]:
            one["hours"] += by_meter.get(one["meter"], [])
        whole["consumption"]["hours"] += page["consumption"]["hours"]
    return {**whole, "next_cursor": None}


@command.command()
@click.argument("lot", metavar="METER:START_MS:VERSION")
@_csv
@_html
@with_offline
@with_node
def lot(connected: Connected, *, lot: str, as_csv: bool, html: Path | None, home: Path | None) -> None:
    """What happened to a lot: its mint, each movement with its transaction, and the slices that it has now."""

    async def work(ask: Ask) -> tuple[Answer, dict[str, str]]:
        answer = await _fetch(ask, "trace_lot", {"lot": lot}, rows="movements")
        return answer, await _find_names(ask, answer)

    answer, names = run_asking(connected, home, work)
    if html is not None:
        _write(connected, html, draw_lot(answer, names))
        if html == STDOUT:
            return
    if as_csv and not connected.as_json:
        click.echo(format_csv(cast("list[Row]", answer["movements"])), nl=False)
        return
    show(connected, cast(Json, answer), format_lot(answer, names))


def format_lot(answer: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The story of a lot for a person. ``names``: address → label."""
    until = format_time(answer["end_ms"])
    facts = [
        f"lot {answer['lot']}",
        f"{answer['wh']} Wh, {answer['technology']} in {answer['zone']}, {format_time(answer['start_ms'])} to {until}",
        f"meter {answer['meter']}, site {answer['site']}",
        f"minted {format_time(answer['mint']['time_ms'])} in {answer['mint']['tx_id']}",
    ]
    facts += [f"{what}: {answer[what]}" for what in ("predecessor", "successor") if answer[what]]
    if answer["withdrawal"]:
        facts.append(f"withdrawn: {format_value('reason', answer['withdrawal']['reason'])}")
    tables = (
        ("minted to", [_show_range(one, names) for one in answer["mint"]["slices"]]),
        ("came out of a storage that was charged with", list(_list_charges(answer["sources"]))),
        ("moved", [_show_movement(one, names) for one in answer["movements"]]),
        ("now", [{**_show_range(one, names), "status": one["status"]} for one in answer["slices"]]),
    )
    return "\n\n".join(["\n".join(facts), *(f"{title}\n{format_table(rows)}" for title, rows in tables if rows)])


def _show_range(one: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    return {"first_wh": one["first_wh"], "end_wh": one["end_wh"], "holder": _name(one["holder"], names)}


def _list_charges(sources: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """A row for each lot behind a lot that left a storage; ``gave_wh``: what the charge as a whole gave it."""
    for source in sources:
        for one in source["charged_with"]:
            yield {
                "lot": one["lot"],
                "technology": one["technology"],
                "zone": one["zone"],
                "charged_wh": one["end_wh"] - one["first_wh"] - one["lost_wh"],
                "gave_wh": source["wh"],
                "charge": source["charge"],
            }


def _show_movement(one: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    origin = one.get("sender") or one.get("holder") or one.get("claimant") or one.get("operator")
    target = one.get("recipient") or one.get("beneficiary")
    return {
        "when": format_time(one["time_ms"]),
        "what": str(one["event"]).partition(".")[2].replace("_", " "),
        "first_wh": one.get("first_wh"),
        "end_wh": one.get("end_wh"),
        "wh": one["wh"] if "wh" in one else one["end_wh"] - one["first_wh"],
        "from": _name(origin, names),
        "to": _name(target, names),
        "transaction": one["tx_id"],
    }


def _name(address: str | None, names: Mapping[str, str]) -> str | None:
    """A label with enough of the address to tell two of one label apart."""
    label = names.get(str(address))
    return f"{label} {str(address)[:8]}…{str(address)[-4:]}" if label else address


async def _find_names(ask: Ask, answer: Answer) -> dict[str, str]:
    """The labels of everyone in the story of a lot."""
    keys = ("holder", "sender", "recipient", "claimant", "beneficiary", "operator")
    told = [*answer["mint"]["slices"], *answer["movements"], *answer["slices"]]
    found = {str(one[key]) for one in told for key in keys if key in one}
    return {one: str((await ask("participant_get", {"participant": one}))["label"]) for one in sorted(found)}


async def _fetch(ask: Ask, method: str, params: Mapping[str, Json], *, rows: str = "rows") -> Answer:
    """An answer with the rows of all its pages."""
    whole = page = await ask(method, dict(params))
    while page["next_cursor"] is not None:
        page = await ask(method, {**params, "cursor": page["next_cursor"]})
        whole[rows] += page[rows]
    return {**whole, "next_cursor": None}


def _write(connected: Connected, path: Path, page: str) -> None:
    if path == STDOUT:
        if connected.as_json:
            raise click.UsageError("--html without a file and --json are both for standard output.")
        click.echo(page, nl=False)
        return
    write_replacing(path, page.encode(), mode=FILE_MODE)
    note(connected, f"written: {path}")


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
    names = ("held", "claimed", "charged", "impaired", "withdrawn", "quarantined", "not_minted")
    parts = [f"{name.replace('_', ' ')} {answer[name + '_wh']}" for name in names if answer[name + "_wh"]]
    if answer["taken_back_wh"]:
        parts.append(f"taken back −{answer['taken_back_wh']}")
    return f"metered {answer['metered_wh']} Wh {mark} {' + '.join(parts) or '0'} Wh"


def _format_matching(answer: Mapping[str, Any]) -> str:
    lines = [f"{answer['wh']} Wh: held {answer['held_wh']}, claimed {answer['claimed_wh']}"]
    consumption = answer["consumption"]
    score = consumption["matching_score_per_mille"]
    if score is not None:
        covered = f"{consumption['claimed_hourly_wh']} of {consumption['consumed_wh']} Wh consumed"
        lines.append(f"matched hour by hour: {score * 100 // PER_MILLE}.{score % 10} % ({covered})")
    if answer.get("from_ms"):
        until = "now" if answer["until_ms"] is None else format_time(answer["until_ms"])
        lines.append(f"period: {format_time(answer['from_ms'])} to {until}")
    return "\n".join(lines)
