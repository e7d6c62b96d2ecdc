"""How the type of an answer becomes a JSON schema (draft 7).

Owns the derivation. An answer's type is what mypy checks the code against that builds it: a ``TypedDict``, the JSON
form of a record or an event, or one of those that node/answers.py makes of others. Whatever has a name is described
once, under it; the limits of a value come from the codec that writes it. What a later version may add is not ruled
out: no answer says ``additionalProperties: false``.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from ledger.fields import Json, JsonOf, Length, Shown, get_codec, get_field_types
from ledger.receipt import Event, Tagged
from ledger.transaction import Payload
from node.answers import Merged, Named, Without
from node.prose import make_prose

Schema = dict[str, Json]
_PLAIN: Final[Mapping[object, str]] = {int: "integer", str: "string", bool: "boolean", types.NoneType: "null"}


@dataclass(frozen=True, slots=True)
class _Field:
    schema: Schema
    is_required: bool = True


_Fields = dict[str, _Field]


def to_draft7(schema: Json) -> Json:
    """A codec's schema in the words of JSON Schema draft 7, which has no ``nullable``."""
    if isinstance(schema, list):
        return [to_draft7(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner: Schema = {name: to_draft7(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner


def make_reference(name: str) -> Schema:
    """Where a component is described."""
    return {"$ref": f"#/components/schemas/{name}"}


class SchemaBook:
    """The schemas of types, and the components that they refer to: those of this book, ``Event`` and ``Payload``."""

    def __init__(self, events: Iterable[type[Event]]) -> None:
        self.components: dict[str, Schema] = {}
        self._events = tuple(events)
        self._owners: dict[str, object] = {}

    def describe(self, kind: object) -> Schema:
        """The schema of an answer, or of a part of one."""
        origin, arguments = get_origin(kind), get_args(kind)
        if kind in _PLAIN:  # a number in an answer is a sum, a count or a place: it has no limit of its own
            return {"type": _PLAIN[kind]}
        if kind is Any:
            return {}
        if origin is Annotated:
            return self._describe_annotated(kind)
        if origin is Literal:
            return {"type": "string", "enum": [*arguments]}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.describe(part) for part in arguments]}
        if origin is list:
            return {"type": "array", "items": self.describe(arguments[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.describe(arguments[1])}
        if is_typeddict(kind):
            return self._refer(cast(type, kind).__name__, kind, cast(type, kind).__doc__)
        if origin is Shown:
            return self._describe_record(arguments[0])
        if origin is Tagged and arguments[0] is Event:
            return make_reference(Event.__name__)
        return self._describe_object(kind)

    def describe_event(self, kind: type[Event]) -> Schema:
        """The schema of one kind of event, under its name."""
        return {"title": kind.name, "description": make_prose(kind.__doc__), **_make_object(self._show_event(kind))}

    def _describe_annotated(self, kind: object) -> Schema:
        base, *notes = get_args(kind)
        for note in notes:
            if isinstance(note, Named):
                return self._refer(note.name, base, None)
            if isinstance(note, JsonOf):
                return cast(Schema, to_draft7(get_codec(note.kind).schema))
            if isinstance(note, Length) and get_origin(base) is list:
                return {**self.describe(base), "minItems": note.least, "maxItems": note.most}
        return cast(Schema, to_draft7(get_codec(kind).schema))

    def _describe_record(self, kind: object) -> Schema:
        assert isinstance(kind, type), kind
        return make_reference(kind.__name__) if kind is Payload else self._refer(kind.__name__, kind, kind.__doc__)

    def _describe_stored(self, kind: object) -> Schema:
        """The schema of a field of a record: as its codec's, but what has a name is referred to."""
        schema = cast(Schema, to_draft7(get_codec(kind).schema))
        base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if get_origin(base) in (Union, types.UnionType):
            (inner,) = (part for part in get_args(base) if part is not types.NoneType)
            return {"anyOf": [self._describe_stored(inner), {"type": "null"}]}
        if get_origin(base) is tuple:
            first, *rest = get_args(base)
            if rest == [Ellipsis]:
                return {**schema, "items": self._describe_stored(first)}
            return {**schema, "items": [self._describe_stored(part) for part in get_args(base)]}
        return self._describe_record(base) if is_dataclass(base) else schema

    def _refer(self, name: str, kind: object, docstring: str | None) -> Schema:
        if name not in self._owners:
            self._owners[name] = kind
            described: Schema = {"title": name}
            if docstring is not None:
                described["description"] = make_prose(docstring)
            self.components[name] = {**described, **self._describe_object(kind)}
        assert self._owners[name] == kind, f"two types are named {name}"
        return make_reference(name)

    def _describe_object(self, kind: object) -> Schema:
        shapes = [_make_object(one) for one in self._list_shapes(kind)]
        return shapes[0] if len(shapes) == 1 else {"anyOf": [*shapes]}

    def _list_shapes(self, kind: object) -> list[_Fields]:
        """The fields of an object; several if it can be like one thing or another."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self._list_shapes(arguments[0])
        if origin is Merged:
            firsts, seconds = map(self._list_shapes, arguments)
            return [{**first, **second} for first in firsts for second in seconds]
        if origin is Without:
            whole, (name,) = arguments[0], get_args(arguments[1])
            return [{at: one for at, one in shape.items() if at != name} for shape in self._list_shapes(whole)]
        if origin is Shown:
            return self._list_shapes(arguments[0])
        if origin is Tagged:
            return [self._show_event(one) for one in self._list_kinds(arguments[0])]
        if isinstance(kind, type) and is_dataclass(kind):
            return [self._show_record(kind)]
        assert is_typeddict(kind), f"{kind} does not say which fields an answer has"
        hints = get_type_hints(kind, localns={"Json": Any}, include_extras=True)  # Json names itself, without end
        return [{name: self._describe_member(one) for name, one in hints.items()}]

    def _describe_member(self, hint: object) -> _Field:
        if get_origin(hint) is NotRequired:
            return _Field(self.describe(get_args(hint)[0]), is_required=False)
        return _Field(self.describe(hint))

    def _show_event(self, kind: type[Event]) -> _Fields:
        name = _Field({"type": "string", "const": kind.name})
        return {"event": name, **self._show_record(kind)}

    def _show_record(self, kind: type) -> _Fields:
        return {name: _Field(self._describe_stored(one)) for name, one in get_field_types(kind).items()}

    def _list_kinds(self, kind: object) -> tuple[type[Event], ...]:
        """One kind of event, those of a union, or all that there are."""
        return self._events if kind is Event else cast("tuple[type[Event], ...]", get_args(kind) or (kind,))


def _make_object(fields: _Fields) -> Schema:
    return {
        "type": "object",
        "properties": {name: one.schema for name, one in fields.items()},
        "required": [name for name, one in fields.items() if one.is_required],
    }
