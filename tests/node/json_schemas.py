"""Answers against the schemas of the OpenRPC document: whether they are as described, and what of it was never seen.

Schemas are closed here, since a later version may add fields but this one has none that are not described.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import fastjsonschema

from ledger.fields import Json

Schema = dict[str, Json]
DRAFT_7: Final = "http://json-schema.org/draft-07/schema#"
FORMATS: Final = {"hex": "^([0-9a-f]{2})*$", "address": "^wp1[02-9ac-hj-np-z]+$"}
TYPES: Final = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
NOT_LOOKED_INTO: Final = ("Event", "Payload")  # of either there are dozens, each with tests of its own
_COMPONENTS: Final = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Part:
    """A schema in another: at which place, and which parts of a value it is about."""

    schema: Schema
    place: str
    pick: Callable[[Json], Iterable[Json]]


class Description:
    """The document, closed."""

    def __init__(self, document: object) -> None:
        self._document = cast(Schema, close(cast(Json, json.loads(json.dumps(document)))))
        self.components = cast("dict[str, Schema]", cast(Schema, self._document["components"])["schemas"])
        methods = cast("list[Schema]", self._document["methods"])
        self.results = {str(one["name"]): cast(Schema, cast(Schema, one["result"])["schema"]) for one in methods}
        self._checks: dict[str, Callable[[object], object]] = {}

    def check(self, schema: Schema, value: Json) -> None:
        """Raises ``fastjsonschema.JsonSchemaException`` for a value that is not as a schema says."""
        name = json.dumps(schema)
        if name not in self._checks:
            whole = {"$schema": DRAFT_7, **schema, "components": self._document["components"]}
            self._checks[name] = fastjsonschema.compile(whole, formats=FORMATS, use_default=False)
        self._checks[name](value)

    def list_schemas(self, schema: Schema, at: str) -> list[tuple[str, Schema]]:
        """Every schema in a schema with its place; what has a name has its places under this name."""
        found: dict[str, Schema] = {}
        todo = [(schema, at)]
        while todo:
            one, at = todo.pop()
            if at not in found:
                found[at] = one
                todo += [(part.schema, part.place) for part in self._list_parts(one, at)]
        return list(found.items())

    def list_seen(self, schema: Schema, value: Json, at: str) -> Iterator[str]:
        """The places in a schema that a value fills."""
        yield at
        for part in self._list_parts(schema, at):
            for one in part.pick(value):
                yield from self.list_seen(part.schema, one, part.place)

    def _list_parts(self, schema: Schema, at: str) -> Iterator[Part]:
        """The schemas in a schema."""
        if "$ref" in schema:
            name = str(schema["$ref"]).removeprefix(_COMPONENTS)
            if name not in NOT_LOOKED_INTO:
                yield Part(self.components[name], name, lambda value: (value,))
        choices = cast("list[Schema]", schema.get("anyOf", []))
        for number, one in enumerate(choices):
            yield Part(one, f"{at}|{number}", partial(self._pick_fitting, one, choices))
        for name, one in cast("dict[str, Schema]", schema.get("properties", {})).items():
            yield Part(one, f"{at}.{name}", partial(_pick_field, name))
        if isinstance(schema.get("items"), dict) and schema.get("maxItems") != 0:
            yield Part(cast(Schema, schema["items"]), f"{at}[]", lambda value: cast("list[Json]", value))
        if isinstance(schema.get("additionalProperties"), dict):
            others = cast(Schema, schema["additionalProperties"])
            yield Part(others, f"{at}.*", lambda value: cast(Schema, value).values())

    def _pick_fitting(self, schema: Schema, choices: list[Schema], value: Json) -> Iterable[Json]:
        """A value for that of the choices which it is like. Most often, what it is made of tells them apart."""
        if not self._may_fit(schema, value):
            return ()
        if sum(self._may_fit(one, value) for one in choices) > 1:
            try:
                self.check(schema, value)
            except fastjsonschema.JsonSchemaException:
                return ()
        return (value,)

    def _may_fit(self, schema: Schema, value: Json) -> bool:
        """Whether a value is of the type, and has the name of the event, that a schema says."""
        if "$ref" in schema:
            schema = self.components[str(schema["$ref"]).removeprefix(_COMPONENTS)]
        if "type" in schema and type(value) is not TYPES[str(schema["type"])]:
            return False
        event = cast("dict[str, Schema]", schema.get("properties", {})).get("event", {})
        return "const" not in event or (isinstance(value, dict) and value.get("event") == event["const"])


def _pick_field(name: str, value: Json) -> Iterable[Json]:
    assert isinstance(value, dict)
    return (value[name],) if name in value else ()


def close(schema: Json) -> Json:
    """A schema in which an object has no field but those that are described."""
    if isinstance(schema, list):
        return [close(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: close(part) for name, part in schema.items()}
    is_object = schema.get("type") == "object" and isinstance(schema.get("properties"), dict)
    return {"additionalProperties": False, **closed} if is_object else closed
