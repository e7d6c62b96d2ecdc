"""How a text on the command line becomes the JSON form of a field: by the field's schema, whatever its type is.

Owns the forms that people type: a moment as ISO 8601, an address or a public key as the path of a key file, an object
as ``name=value,…`` or JSON. What the text must be is still decided by the field's codec.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

import click
from click.shell_completion import CompletionItem

from ledger.errors import Malformed
from ledger.fields import Codec, Json
from ledger.primitives import ADDRESS_PREFIX, format_address
from node.keystore import KEY_FILE_SUFFIX, read_key_file

VALUE_FILE_BYTES_MAX: Final = 4 * 1024 * 1024

TEXT: Final = "TEXT"
HEX: Final = "HEX"
TIME: Final = "TIME"
TIME_FORMS: Final = "milliseconds, or 2016-06-06T00:00:00Z"

Schema = dict[str, Json]


class FieldType(click.ParamType[object]):
    """The type of an option that stands for a field, or for one item of a field that repeats."""

    def __init__(self, field: str, schema: Schema, codec: Codec | None) -> None:
        self.name = describe(schema, field)
        self._field = field
        self._schema = schema
        self._codec = codec  # checks the value at once, so that a mistake names its option

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """The JSON form. Fails as click does, naming the option."""
        try:
            read = read_text(str(value), self._schema, self._field) if isinstance(value, str) else cast(Json, value)
            if self._codec is not None:
                self._codec.from_json(read)
        except Malformed as error:
            self.fail(str(error), param, ctx)
        return read

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What a shell may offer: the choices, or files where a key file may stand for the value."""
        del ctx, param
        choices = [str(choice) for choice in cast("list[Json]", self._schema.get("enum", []))]
        if choices:
            return [CompletionItem(choice) for choice in choices if choice.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file")] if self._schema.get("format") in ("address", "hex") else []

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What help shows for the value."""
        del param, ctx
        return self.name


def describe(schema: Schema, field: str = "") -> str:
    """A schema in a word, for help; the field's name says when a moment or a key file may stand for the value."""
    kind = schema.get("type")
    if kind == "integer" and field.endswith("_ms"):
        return TIME
    if schema.get("format") == "hex" and field.endswith(("key", "validator")):
        return f"{HEX}|KEYFILE"
    if "enum" in schema:
        return "|".join(str(choice) for choice in cast("list[Json]", schema["enum"]))
    if schema.get("format") == "address":
        return f"{ADDRESS_PREFIX}1…|KEYFILE"
    if kind == "object":
        return ",".join(f"{name}=…" for name in cast(Schema, schema.get("properties", {}))) or "JSON"
    if kind == "array":
        items = schema["items"]
        if isinstance(items, list):
            return ",".join(describe(cast(Schema, item)) for item in items)
        return describe(cast(Schema, items))
    return {"integer": "INTEGER", "boolean": "true|false"}.get(
        str(kind), HEX if schema.get("format") == "hex" else TEXT
    )


def read_text(text: str, schema: Schema, field: str) -> Json:
    """The JSON form of a text. Raises ``Malformed``."""
    kind = schema.get("type")
    if kind == "integer":
        return _read_integer(text, field)
    if kind == "boolean":
        if text not in ("true", "false"):
            raise Malformed("field_has_wrong_type", f"expected true or false, got {ascii(text)[:60]}")
        return text == "true"
    if kind in ("object", "array"):
        return _read_json(text) if text.lstrip().startswith(("{", "[")) else _read_parts(text, schema, ",")
    if schema.get("format") in ("address", "hex") and text.endswith(KEY_FILE_SUFFIX):
        key = read_key_file(Path(text))
        if schema["format"] == "hex":
            return key.public_key.hex()
        if key.address is None:
            raise Malformed("address_invalid", f"{text} holds a meter's key, which has no address")
        return format_address(key.address)
    return text


def read_json_file(path: str) -> Json:
    """A JSON document from a file, or from standard input (``-``). Raises ``Malformed``; ``OSError``."""
    with click.open_file(path, "rb") as stream:
        data = stream.read(VALUE_FILE_BYTES_MAX + 1)
    if len(data) > VALUE_FILE_BYTES_MAX:
        raise Malformed("payload_too_large", f"{path}: at most {VALUE_FILE_BYTES_MAX} bytes")
    try:
        document: Json = json.loads(data, parse_float=_refuse_float)
    except (ValueError, RecursionError):
        raise Malformed("payload_not_json", path) from None
    return document


def _read_integer(text: str, field: str) -> int:
    plain = text.replace("_", "")
    if plain.lstrip("-").isascii() and plain.lstrip("-").isdecimal() and len(plain) < 30:
        return int(plain)
    if field.endswith("_ms"):
        return read_moment(text)
    raise Malformed("field_has_wrong_type", f"expected an integer, got {ascii(text)[:60]}")


def read_moment(text: str) -> int:
    """Milliseconds since the epoch from ISO 8601 with a zone, or a date (midnight UTC). Raises ``Malformed``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(
            "time_invalid", f"{ascii(text)[:60]} is neither milliseconds nor 2016-06-06T00:00:00Z"
        ) from None
    if moment.tzinfo is None:
        if "T" in text or " " in text.strip():
            raise Malformed("time_without_zone", ascii(text)[:60])
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000 + delta.microseconds // 1_000


def _read_parts(text: str, schema: Schema, separator: str) -> Json:
    """An object as ``name=value,…`` (inside another object: its values with colons between), an array by commas."""
    if schema.get("type") == "array":
        parts = text.split(separator)
        items = schema["items"]
        kinds = cast("list[Schema]", items) if isinstance(items, list) else [cast(Schema, items)] * len(parts)
        if len(parts) != len(kinds):
            raise Malformed("array_length_out_of_range", f"{len(parts)} items, {len(kinds)} expected")
        return [_read_inner(part, kind, "") for part, kind in zip(parts, kinds, strict=True)]
    properties = cast("dict[str, Schema]", schema.get("properties", {}))
    document: dict[str, Json] = {}
    for part in text.split(separator):
        name, equals, value = part.partition("=")
        if not equals or name not in properties:
            raise Malformed("field_unknown", f"{ascii(part)[:60]}; expected {describe(schema)} or JSON")
        document[name] = _read_inner(value, properties[name], name)
    return document


def _read_inner(text: str, schema: Schema, field: str) -> Json:
    if schema.get("type") != "object":
        return read_text(text, schema, field)
    properties = cast("dict[str, Schema]", schema["properties"])
    parts = text.split(":" if ":" in text else "/")
    if len(parts) != len(properties):
        raise Malformed("field_count_wrong", f"{ascii(text)[:80]}; expected {':'.join(properties)}")
    return {name: read_text(part, properties[name], name) for name, part in zip(properties, parts, strict=True)}


def _read_json(text: str) -> Json:
    try:
        document: Json = json.loads(text, parse_float=_refuse_float)
    except (ValueError, RecursionError):
        raise Malformed("payload_not_json", ascii(text)[:80]) from None
    return document


def _refuse_float(text: str) -> Json:
    raise Malformed("field_has_wrong_type", f"expected an integer, got {text[:40]}")
