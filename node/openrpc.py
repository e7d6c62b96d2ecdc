"""The OpenRPC document: what a program can know of this interface without reading ours.

Owns its form (OpenRPC 1.3, JSON Schema draft 7). Everything in it derives from the table of methods, the types of
their answers and the table of transactions, so it cannot be out of date.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypedDict, cast

from ledger.fields import Json
from ledger.transaction import TransactionTable
from node.jsonrpc import (
    MESSAGES,
    NOT_FOUND,
    NOT_PERMITTED,
    OVERLOADED,
    REJECTED,
    SYNCING,
    TIMED_OUT,
    TOO_LARGE,
    ErrorData,
)
from node.methods import Method, Parameter
from node.prose import make_prose
from node.result_schemas import Schema, SchemaBook, make_reference, to_draft7
from node.subscriptions import News

OPENRPC_VERSION: Final = "1.3.2"
TITLE: Final = "Wattprint"
DESCRIPTION: Final = (
    "A chain that proves where green energy came from and who bought it. Ids and roots are lower-case hex, addresses "
    "are bech32m (wp1…), times are milliseconds since the epoch, energy is in watt-hours, money in cents."
)
_OUR_ERRORS: Final = (REJECTED, NOT_FOUND, TIMED_OUT, OVERLOADED, SYNCING, TOO_LARGE, NOT_PERMITTED)
_EVENT: Final = "event."


class Info(TypedDict):
    """What the interface is called."""

    title: str
    version: str
    description: str


class ParameterShown(TypedDict):
    """A parameter of a method."""

    name: str
    summary: str
    required: bool
    schema: Schema


class ResultShown(TypedDict):
    """What a method answers."""

    name: str
    summary: str
    schema: Schema


class MethodShown(TypedDict):
    """A method."""

    name: str
    summary: str
    description: str
    paramStructure: str
    params: list[ParameterShown]
    result: ResultShown
    errors: list[dict[str, str]]


class ErrorShown(TypedDict):
    """An error that methods answer with."""

    code: int
    message: str


class Components(TypedDict):
    """What others refer to."""

    schemas: dict[str, Schema]
    errors: dict[str, ErrorShown]


class OpenRpc(TypedDict):
    """A document of the OpenRPC specification."""

    openrpc: str
    info: Info
    methods: list[MethodShown]
    components: Components


def make_document(methods: Iterable[Method], table: TransactionTable, *, version: str) -> OpenRpc:
    """The document of these methods; its schemas hold every transaction's payload and every event under its name.

    ``Notification`` has the parameters of the notification ``subscription``.
    """
    shown, components = _describe(tuple(methods), table)
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": TITLE, "version": version, "description": DESCRIPTION},
        "methods": shown,
        "components": components,
    }


@lru_cache(maxsize=1)  # tens of milliseconds, always with the same end
def _describe(methods: tuple[Method, ...], table: TransactionTable) -> tuple[list[MethodShown], Components]:
    book = SchemaBook(table.events.values())
    book.describe(ErrorData)
    shown = [_show_method(method, book) for method in methods]
    own: dict[str, Schema] = {
        "Event": _make_choice(_EVENT, table.events),
        "Payload": _make_choice("", table.payloads),
        **{tag: _show_payload(tag, table) for tag in sorted(table.payloads)},
        **{f"{_EVENT}{name}": book.describe_event(kind) for name, kind in sorted(table.events.items())},
        "Notification": book.describe(News),
    }
    assert not own.keys() & book.components.keys(), "a type has the name of a list"
    components: Components = {
        "schemas": {**dict(sorted(book.components.items())), **own},
        "errors": {MESSAGES[code]: {"code": code, "message": MESSAGES[code]} for code in _OUR_ERRORS},
    }
    return shown, components


def _show_method(method: Method, book: SchemaBook) -> MethodShown:
    return {
        "name": method.name,
        "summary": method.summary,
        "description": method.description,
        "paramStructure": "either",
        "params": [_show_parameter(one) for one in method.parameters],
        "result": {
            "name": f"{method.name}_result",
            "summary": method.summary,
            "schema": book.describe(method.result),
        },
        "errors": [{"$ref": f"#/components/errors/{MESSAGES[code]}"} for code in _OUR_ERRORS],
    }


def _show_parameter(parameter: Parameter) -> ParameterShown:
    schema = cast(Schema, to_draft7(parameter.schema))
    if parameter.default is not None:
        schema = {**schema, "default": parameter.default}
    return {
        "name": parameter.name,
        "summary": parameter.summary,
        "required": parameter.is_required,
        "schema": schema,
    }


def _make_choice(prefix: str, names: Iterable[str]) -> Schema:
    return {"anyOf": [make_reference(f"{prefix}{name}") for name in sorted(names)]}


def _show_payload(tag: str, table: TransactionTable) -> Schema:
    kind = table.payloads[tag]
    schema = cast(Schema, to_draft7(table.codecs[tag].schema))
    roles: list[Json] = [*sorted(kind.declaration.roles)]
    return {"title": tag, "description": make_prose(kind.__doc__), "x-roles": roles, **schema}
