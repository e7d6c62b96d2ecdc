"""A command from a JSON-RPC method: its parameters are arguments and options, its summary the help.

Owns the derivation of every question that has no written command: ``site_get`` is ``site show``, ``site_list`` is
``site list``, ``energy_balance`` is ``energy balance``. A new method is a new command.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

import click

from ledger.fields import Json
from node.cli.options import JSON_OPTION, NODE_OPTION, Connected, make_options, take_connected
from node.cli.output import Row, format_csv, note, show
from node.cli.values import HEX, TEXT, TIME, TIME_FORMS, FieldType
from node.client import Answer, Client
from node.methods import Method, Parameter
from node.rpc_methods import METHODS

VERBS: Final = {"get": "show"}
# Credits are no objects: what there is to show of a holder is the balance, and what there is to list is on its way out.
ALSO: Final = {"credit": {"show": "credit_balance", "list": "redemption_list"}}
NOT_COMMANDS: Final = frozenset({"tx_submit", "tx_submit_many", "tx_simulate", "subscribe", "unsubscribe"})
ADDRESS_MARK: Final = "wp1"
PAGES_MAX: Final = 10_000  # that are followed
PAGE_ITEMS: Final = 1_000


def list_read_groups() -> set[str]:
    """The groups that have at least one question."""
    return {name.partition("_")[0] for name in _list_names()}


def list_reads(group: str) -> dict[str, Method]:
    """The questions of a group by their verb."""
    found = {}
    for name in _list_names():
        family, _, verb = name.partition("_")
        if family == group:
            found[VERBS.get(verb, verb.replace("_", "-"))] = METHODS[name]
    return found | {verb: METHODS[name] for verb, name in ALSO.get(group, {}).items()}


def _list_names() -> list[str]:
    return [name for name in METHODS if name not in NOT_COMMANDS and "." not in name]


def make_read_command(method: Method) -> click.Command:
    """The command that asks one question."""
    is_paged = any(parameter.name == "cursor" for parameter in method.parameters)

    def run(as_csv: bool, everything: bool = False, **options: Any) -> None:
        connected = take_connected(click.get_current_context().obj, options)
        ask(connected, method.name, options, as_csv=as_csv, everything=everything)

    own = [
        click.Option(["--csv", "as_csv"], is_flag=True, help="Print the list of the answer as CSV."),
        *(
            [click.Option(["--all", "everything"], is_flag=True, help="Follow the cursor to the end.")]
            if is_paged
            else []
        ),
    ]
    return click.Command(
        method.name,
        callback=run,
        params=[*map(_make_parameter, method.parameters), *own, *make_options(JSON_OPTION, NODE_OPTION)],
        help=method.description,
        short_help=method.summary,
    )


def ask(
    connected: Connected, method: str, params: dict[str, Json], *, as_csv: bool = False, everything: bool = False
) -> None:
    """Put a question to the node and print the answer, or all its pages."""
    answer = cast(Json, connected.run(_make_call(method, params)))
    if everything and isinstance(answer, dict) and answer.get("next_cursor") is not None:
        name, _ = find_rows(answer)
        assert name, "what has a cursor has a list"
        answer = {**answer, name: cast("list[Json]", fetch_all(connected, method, params, name)), "next_cursor": None}
    if as_csv:
        name, rows = find_rows(answer)
        if name is None:
            raise click.UsageError("This answer has no list; --csv does not apply.")
        click.echo(format_csv(rows), nl=False)
        return
    show(connected, answer)
    if isinstance(answer, dict) and answer.get("next_cursor"):
        note(connected, "there is more: --all, or --cursor with next_cursor")


def find_rows(document: Json) -> tuple[str | None, list[Row]]:
    """The list of objects in an answer, and its name ("" for the answer itself)."""
    if isinstance(document, list):
        return "", cast("list[Row]", document)
    for name, value in document.items() if isinstance(document, dict) else ():
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return name, cast("list[Row]", value)
    return None, []


def fetch_all(connected: Connected, method: str, params: dict[str, Json], name: str) -> list[dict[str, Json]]:
    """Every item of a list, page by page; parameters that are None are left out."""

    async def collect(client: Client) -> list[dict[str, Json]]:
        items: list[dict[str, Json]] = []
        cursor: Json = None
        for _ in range(PAGES_MAX):
            page = await client.call(method, **{**params, "limit": PAGE_ITEMS, "cursor": cursor})
            items += page[name]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return items

    return connected.run(collect)


def _make_call(method: str, params: dict[str, Json]) -> Callable[[Client], Coroutine[Any, Any, Answer]]:
    return lambda client: client.call(method, **params)


def _make_parameter(parameter: Parameter) -> click.Parameter:
    # Questions take addresses as text; that a key file may stand for one can only be read from the summary.
    schema = {**parameter.schema, "format": "address"} if ADDRESS_MARK in parameter.summary else parameter.schema
    kind = FieldType(parameter.name, schema, parameter.codec)
    if parameter.is_required:
        is_plain = kind.name in (TEXT, HEX)
        return click.Argument([parameter.name], type=kind, metavar=parameter.name.upper() if is_plain else None)
    shown = f"  [{TIME_FORMS}]" if kind.name == TIME else ""
    shown += "" if parameter.default is None else f"  [default: {parameter.default}]"
    return click.Option(
        ["--" + parameter.name.replace("_", "-"), parameter.name], type=kind, help=parameter.summary + shown
    )
