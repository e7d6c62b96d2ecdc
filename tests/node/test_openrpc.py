"""The OpenRPC document says what the tables say."""

from __future__ import annotations

import re
from typing import cast

import orjson
import pytest

from contracts_native.table import load_table
from ledger.fields import Json
from node.openrpc import make_document
from node.result_schemas import to_draft7
from node.rpc_methods import METHODS

Document = dict[str, Json]


@pytest.fixture(scope="module")
def document() -> Document:
    made = make_document(METHODS.values(), load_table(), version="1.2.3")
    return cast(Document, orjson.loads(orjson.dumps(made)))


def get(value: Json, *path: str | int) -> Json:
    for step in path:
        value = value[step] if isinstance(value, list) and isinstance(step, int) else cast(Document, value)[str(step)]
    return value


def find_all(value: Json, name: str) -> list[Json]:
    if isinstance(value, dict):
        own = [value[name]] if name in value else []
        return own + [found for part in value.values() for found in find_all(part, name)]
    return [found for part in value for found in find_all(part, name)] if isinstance(value, list) else []


def test_it_lists_every_method_with_every_parameter(document: Document) -> None:
    listed = {str(get(one, "name")): one for one in cast("list[Json]", document["methods"])}
    assert listed.keys() == METHODS.keys()
    for name, method in METHODS.items():
        params = cast("list[Document]", get(listed[name], "params"))
        assert [param["name"] for param in params] == [one.name for one in method.parameters]
        assert [param["required"] for param in params] == [one.is_required for one in method.parameters]


def test_required_parameters_come_first_so_that_positions_work(document: Document) -> None:
    for method in cast("list[Json]", document["methods"]):
        required = [one is True for one in find_all(get(method, "params"), "required")]
        assert required == sorted(required, reverse=True)


def test_defaults_and_choices_are_in_the_schema(document: Document) -> None:
    submit = next(one for one in cast("list[Document]", document["methods"]) if one["name"] == "tx_submit")
    wait = get(submit, "params", 1)
    assert get(wait, "schema", "enum") == ["admitted", "committed"]
    assert get(wait, "schema", "default") == "admitted"


def test_it_has_the_schema_of_every_transaction_and_event(document: Document) -> None:
    schemas = cast(Document, get(document, "components", "schemas"))
    table = load_table()
    assert set(table.payloads) <= schemas.keys()
    assert {f"event.{name}" for name in table.events} <= schemas.keys()
    transfer = get(schemas, "credit.transfer")
    assert get(transfer, "required") == ["recipient", "amount_cents", "reference"]
    assert get(transfer, "properties", "amount_cents", "minimum") == 1
    assert get(schemas, "credit.issue", "x-roles") == ["admin", "utility"]


def test_every_reference_leads_somewhere(document: Document) -> None:
    references = find_all(document, "$ref")
    assert references
    for reference in references:
        get(document, *str(reference).removeprefix("#/").split("/"))


def test_component_names_are_those_that_openrpc_allows(document: Document) -> None:
    for names in cast("dict[str, Document]", document["components"]).values():
        assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in names)


def test_optional_fields_are_written_as_draft_7_has_them(document: Document) -> None:
    assert to_draft7({"type": "integer", "nullable": True}) == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert find_all(document, "nullable") == []
