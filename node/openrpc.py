"""The OpenRPC document: what a program can know of this interface without reading ours.

Owns its form (OpenRPC 1.3, JSON Schema draft 7). Everything in it derives from the table of methods and the table
of transactions, so it cannot be out of date.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

from ledger.fields import Json, get_codec
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
)
from node.methods import Method, Parameter
from node.prose import make_prose

OPENRPC_VERSION: Final = "1.3.2"
TITLE: Final = "Wattprint"
DESCRIPTION: Final = (
    "A chain that proves where green energy came from and who bought it. Ids and roots are lower-case hex, addresses "
    "are bech32m (wp1…), times are milliseconds since the epoch, energy is in watt-hours, money in cents."
)
_OUR_ERRORS: Final = (REJECTED, NOT_FOUND, TIMED_OUT, OVERLOADED, SYNCING, TOO_LARGE, NOT_PERMITTED)
_ERROR_DATA: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "item": {"type": "string"}, "tx_id": {"type": "string"}},
    "required": ["reason", "item"],
}


def make_document(methods: Iterable[Method], table: TransactionTable, *, version: str) -> dict[str, Json]:
    """The document of these methods; its schemas hold every transaction's payload and every event under its name."""
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": TITLE, "version": version, "description": DESCRIPTION},
        "methods": [_show_method(method) for method in methods],
        "components": {
            "schemas": {
                "ErrorData": _ERROR_DATA,
                "Event": _make_choice("event.", table.events),
                "Payload": _make_choice("", table.payloads),
                **{tag: _show_payload(tag, table) for tag in sorted(table.payloads)},
                **{f"event.{name}": _show_event(name, table) for name in sorted(table.events)},
            },
            "errors": {MESSAGES[code]: {"code": code, "message": MESSAGES[code]} for code in _OUR_ERRORS},
        },
    }


def to_draft7(schema: Json) -> Json:
    """A codec's schema in the words of JSON Schema draft 7, which has no ``nullable``."""
    if isinstance(schema, list):
        return [to_draft7(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner: dict[str, Json] = {name: to_draft7(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner


def _show_method(method: Method) -> Json:
    return {
        "name": method.name,
        "summary": method.summary,
        "description": method.description,
        "paramStructure": "either",
        "params": [_show_parameter(one) for one in method.parameters],
        "result": {"name": f"{method.name}_result", "summary": method.summary, "schema": method.result_schema},
        "errors": [{"$ref": f"#/components/errors/{MESSAGES[code]}"} for code in _OUR_ERRORS],
    }


def _show_parameter(parameter: Parameter) -> Json:
    schema = cast("dict[str, Json]", to_draft7(parameter.schema))
    if parameter.default is not None:
        schema = {**schema, "default": parameter.default}
    return {
        "name": parameter.name,
        "summary": parameter.summary,
        "required": parameter.is_required,
        "schema": schema,
    }


def _make_choice(prefix: str, names: Iterable[str]) -> Json:
    return {"anyOf": [{"$ref": f"#/components/schemas/{prefix}{name}"} for name in sorted(names)]}


def _show_payload(tag: str, table: TransactionTable) -> Json:
    kind = table.payloads[tag]
    schema = cast("dict[str, Json]", to_draft7(table.codecs[tag].schema))
    roles: list[Json] = [*sorted(kind.declaration.roles)]
    return {"title": tag, "description": make_prose(kind.__doc__), "x-roles": roles, **schema}


def _show_event(name: str, table: TransactionTable) -> Json:
    kind = table.events[name]
    schema = cast("dict[str, Json]", to_draft7(get_codec(kind).schema))
    properties = cast("dict[str, Json]", schema["properties"])
    return {
        "title": name,
        "description": make_prose(kind.__doc__),
        "type": "object",
        "properties": {"event": {"const": name}, **properties},
        "required": ["event", *cast("list[Json]", schema["required"])],
    }
