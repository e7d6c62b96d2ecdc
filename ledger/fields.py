"""How a field's type becomes bytes, JSON, a schema and a limit: one codec per type, derived once.

Owns the derivation that lets a transaction, an event or a stored record be declared by its fields alone. A codec
goes both ways between the value, its plain form (``encoding.py``) and its JSON form, and refuses on the way in.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Final, Generic, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ledger.encoding import Plain
from ledger.errors import Malformed
from ledger.primitives import (
    ADDRESS_BYTES,
    HASH_BYTES,
    P256_KEY_BYTES,
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    Address,
    Hash,
    MeterKey,
    PublicKey,
    Signature,
    format_address,
    parse_address,
)

INTEGER_MAX: Final = 2**63 - 1
TEXT_BYTES_MAX: Final = 256
BYTES_MAX: Final = 4096
ITEMS_MAX: Final = 4096

Json = dict[str, "Json"] | list["Json"] | str | int | bool | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Inclusive limits of an integer field; without it a field is 0 … 2⁶³ − 1."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Length:
    """Limits of a field's length: bytes of a text or byte string, items of a tuple."""

    most: int
    least: int = 0


@dataclass(frozen=True, slots=True)
class Codec:
    """The forms of one type. ``from_plain`` and ``from_json`` raise ``Malformed`` and name the field."""

    to_plain: Callable[[object], Plain]
    from_plain: Callable[[Plain], object]
    to_json: Callable[[object], Json]
    from_json: Callable[[Json], object]
    schema: dict[str, Json]


class Shown(dict[str, Json], Generic[T]):
    """The JSON form of a dataclass, to whoever checks or reads types. At run time it is a plain object."""


@dataclass(frozen=True, slots=True)
class JsonOf:
    """Says of a text in an answer that it is the JSON form of this type: ``Annotated[str, JsonOf(Hash)]``."""

    kind: object


Amount = Annotated[int, Bounds(1, INTEGER_MAX)]  # a quantity that must not be nothing
AddressText: TypeAlias = Annotated[str, JsonOf(Address)]
HashText: TypeAlias = Annotated[str, JsonOf(Hash)]
KeyText: TypeAlias = Annotated[str, JsonOf(PublicKey)]
SignatureText: TypeAlias = Annotated[str, JsonOf(Signature)]


_codecs: dict[object, Codec] = {}  # derived once per type; types are few and live for ever


def get_codec(kind: object) -> Codec:
    """The codec of a type: a primitive of ours, int, bool, str, bytes, an enum, a tuple, an optional, a dataclass."""
    codec = _codecs.get(kind)
    if codec is None:
        codec = _codecs[kind] = _derive_codec(kind)
    return codec


def _derive_codec(kind: object) -> Codec:
    fixed = _FIXED_BYTES.get(kind)
    if kind is Address:
        return _address_codec()
    if fixed is not None:
        return _bytes_codec(fixed)
    if get_origin(kind) is Annotated:
        return _annotated_codec(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum_codec(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass_codec(kind)
    if get_origin(kind) is tuple:
        return _tuple_codec(kind, Length(ITEMS_MAX))
    if get_origin(kind) in (Union, types.UnionType):
        return _optional_codec(kind)
    if kind is bool:
        return _bool_codec()
    if kind is int:
        return _int_codec(Bounds(0, INTEGER_MAX))
    if kind is str:
        return _str_codec(Length(TEXT_BYTES_MAX))
    if kind is bytes:
        return _bytes_codec(Length(BYTES_MAX))
    supertype = getattr(kind, "__supertype__", None)
    assert supertype is not None, f"no codec for {kind!r}"
    return get_codec(supertype)


def to_plain(value: object) -> Plain:
    """The plain form of a dataclass value: an array of its fields in their order."""
    return get_codec(type(value)).to_plain(value)


def from_plain(kind: type[T], plain: Plain) -> T:
    """The dataclass value of a plain form. Raises ``Malformed``."""
    return cast(T, get_codec(kind).from_plain(plain))


def to_json(value: T) -> Shown[T]:
    """The JSON form of a dataclass value: an object; addresses as bech32m, bytes as hex."""
    return cast("Shown[T]", get_codec(type(value)).to_json(value))


def from_json(kind: type[T], data: Json) -> T:
    """The dataclass value of a JSON form. Raises ``Malformed``."""
    return cast(T, get_codec(kind).from_json(data))


def get_field_types(kind: type) -> dict[str, object]:
    """Field names of a dataclass with their types, ``Annotated`` kept, in order."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}


_FIXED_BYTES: Final[dict[object, Length]] = {
    Hash: Length(HASH_BYTES, HASH_BYTES),
    PublicKey: Length(PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES),
    MeterKey: Length(P256_KEY_BYTES, PUBLIC_KEY_BYTES),
    Signature: Length(SIGNATURE_BYTES, SIGNATURE_BYTES),
}


def _wrong_type(expected: str, value: object) -> Malformed:
    return Malformed("field_has_wrong_type", f"expected {expected}, got {type(value).__name__}")


def _identity(value: object) -> Plain:
    return cast(Plain, value)


def _identity_json(value: object) -> Json:
    return cast(Json, value)


def _int_codec(bounds: Bounds) -> Codec:
    least, most = bounds.least, bounds.most

    def check(value: object) -> int:
        if type(value) is not int:
            raise _wrong_type("an integer", value)
        if not least <= value <= most:
            raise Malformed("number_out_of_range", f"{value} is not within {least} … {most}")
        return value

    schema: dict[str, Json] = {"type": "integer", "minimum": least, "maximum": most}
    return Codec(_identity, check, _identity_json, check, schema)


def _bool_codec() -> Codec:
    def check(value: object) -> bool:
        if type(value) is not bool:
            raise _wrong_type("true or false", value)
        return value

    return Codec(_identity, check, _identity_json, check, {"type": "boolean"})


def _str_codec(length: Length) -> Codec:
    def check(value: object) -> str:
        if type(value) is not str:
            raise _wrong_type("text", value)
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise Malformed("text_invalid", "a lone surrogate") from error
        if not length.least <= size <= length.most:
            raise Malformed("text_length_out_of_range", f"{size} bytes, {length.least} … {length.most} allowed")
        if not value.isprintable():
            raise Malformed("text_not_printable", ascii(value[:40]))
        return value

    return Codec(_identity, check, _identity_json, check, {"type": "string", "maxLength": length.most})


def _bytes_codec(length: Length) -> Codec:
    def check(value: object) -> bytes:
        if type(value) is not bytes:
            raise _wrong_type("bytes", value)
        if not length.least <= len(value) <= length.most:
            raise Malformed("bytes_length_out_of_range", f"{len(value)} bytes, {length.least} … {length.most} allowed")
        return value

    def read_hex(value: Json) -> bytes:
        if type(value) is not str:
            raise _wrong_type("hexadecimal text", value)
        try:
            raw = bytes.fromhex(value)
        except ValueError as error:
            raise Malformed("hex_invalid", ascii(value[:80])) from error
        if raw.hex() != value:
            raise Malformed("hex_invalid", f"not lower-case and unbroken: {value[:80]!a}")
        return check(raw)

    schema: dict[str, Json] = {"type": "string", "format": "hex", "maxLength": 2 * length.most}
    return Codec(_identity, check, lambda value: cast(bytes, value).hex(), read_hex, schema)


def _address_codec() -> Codec:
    def check(value: object) -> Address:
        if type(value) is not bytes:
            raise _wrong_type("an address", value)
        if len(value) != ADDRESS_BYTES:
            raise Malformed("address_invalid", f"{len(value)} bytes, {ADDRESS_BYTES} expected")
        return Address(value)

    def read(value: Json) -> Address:
        if type(value) is not str:
            raise _wrong_type("an address (wp1…)", value)
        return parse_address(value)

    schema: dict[str, Json] = {"type": "string", "format": "address"}
    return Codec(_identity, check, lambda value: format_address(cast(Address, value)), read, schema)


def _enum_codec(kind: type[enum.Enum]) -> Codec:
    members = {member.value: member for member in kind}

    def read(value: object) -> enum.Enum:
        member = members.get(value) if isinstance(value, str) else None
        if member is None:
            said = ascii(value[:60]) if isinstance(value, str) else type(value).__name__  # which may nest deep
            raise Malformed("choice_unknown", f"{said} is none of {', '.join(map(str, members))}")
        return member

    def write(value: object) -> str:
        return str(cast(enum.Enum, value).value)

    return Codec(write, read, write, read, {"type": "string", "enum": [str(value) for value in members]})


def _optional_codec(kind: object) -> Codec:
    inner_types = [part for part in get_args(kind) if part is not types.NoneType]
    assert len(inner_types) == 1, f"only X | None is supported: {kind!r}"
    inner = get_codec(inner_types[0])
    return Codec(
        to_plain=lambda value: None if value is None else inner.to_plain(value),
        from_plain=lambda value: None if value is None else inner.from_plain(value),
        to_json=lambda value: None if value is None else inner.to_json(value),
        from_json=lambda value: None if value is None else inner.from_json(value),
        schema={**inner.schema, "nullable": True},
    )


def _tuple_codec(kind: object, length: Length) -> Codec:
    parts = get_args(kind)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return _sequence_codec(parts[0], length)
    codecs = tuple(get_codec(part) for part in parts)

    def each(value: object, way: str) -> list[object]:
        if type(value) not in (tuple, list):
            raise _wrong_type("an array", value)
        items = cast(tuple[object, ...], value)
        if len(items) != len(codecs):
            raise Malformed("array_length_out_of_range", f"{len(items)} items, {len(codecs)} expected")
        return [getattr(codec, way)(item) for codec, item in zip(codecs, items, strict=True)]

    return Codec(
        to_plain=lambda value: cast(Plain, tuple(each(value, "to_plain"))),
        from_plain=lambda value: tuple(each(value, "from_plain")),
        to_json=lambda value: cast(Json, each(value, "to_json")),
        from_json=lambda value: tuple(each(value, "from_json")),
        schema={"type": "array", "items": [codec.schema for codec in codecs]},
    )


def _sequence_codec(item_kind: object, length: Length) -> Codec:
    item = get_codec(item_kind)

    def check(value: object, expected: type) -> None:
        if type(value) is not expected:
            raise _wrong_type("an array", value)
        count = len(cast(tuple[object, ...], value))
        if not length.least <= count <= length.most:
            raise Malformed("array_length_out_of_range", f"{count} items, {length.least} … {length.most} allowed")

    def from_plain(value: Plain) -> object:
        check(value, tuple)
        read = item.from_plain
        return tuple([read(part) for part in cast(tuple[Plain, ...], value)])

    def from_json(value: Json) -> object:
        check(value, list)
        return tuple([item.from_json(part) for part in cast(list[Json], value)])

    def to_plain(value: object) -> Plain:
        if item.to_plain is _identity:
            return cast(Plain, value)
        return tuple([item.to_plain(part) for part in cast(tuple[object, ...], value)])

    return Codec(
        to_plain=to_plain,
        from_plain=from_plain,
        to_json=lambda value: [item.to_json(part) for part in cast(tuple[object, ...], value)],
        from_json=from_json,
        schema={"type": "array", "items": item.schema, "maxItems": length.most},
    )


def _annotated_codec(kind: object) -> Codec:
    base, *notes = get_args(kind)
    for note in notes:
        if isinstance(note, Bounds):
            return _int_codec(note)
        if isinstance(note, Length):
            if get_origin(base) is tuple:
                return _tuple_codec(base, note)
            return _str_codec(note) if base is str else _bytes_codec(note)
    return get_codec(base)


def _dataclass_codec(kind: type) -> Codec:
    named = [(name, get_codec(field_type)) for name, field_type in get_field_types(kind).items()]
    names = [name for name, _ in named]
    optional = {name for name, field_type in get_field_types(kind).items() if types.NoneType in get_args(field_type)}
    writers = [(name, codec.to_plain) for name, codec in named]
    readers = [(name, codec.from_plain) for name, codec in named]

    def to_plain(value: object) -> Plain:
        return tuple([write(getattr(value, name)) for name, write in writers])

    def from_plain(value: Plain) -> object:
        if type(value) is not tuple:
            raise _wrong_type(f"the fields of {kind.__name__}", value)
        if len(value) != len(readers):
            raise Malformed("field_count_wrong", f"{kind.__name__} has {len(readers)} fields, got {len(value)}")
        arguments = []
        for (name, read), part in zip(readers, value, strict=True):
            try:
                arguments.append(read(part))
            except Malformed as error:
                raise Malformed(error.reason, f"{name}: {error.item}") from error
        return kind(*arguments)

    def to_json(value: object) -> Json:
        return {name: codec.to_json(getattr(value, name)) for name, codec in named}

    def from_json(value: Json) -> object:
        if type(value) is not dict:
            raise _wrong_type(f"an object with the fields of {kind.__name__}", value)
        for name in value:
            if name not in names:
                raise Malformed("field_unknown", f"{ascii(name)[:60]} is no field of {kind.__name__}")
        arguments = []
        for name, codec in named:
            if name not in value and name not in optional:
                raise Malformed("field_missing", name)
            try:
                arguments.append(codec.from_json(value.get(name)))
            except Malformed as error:
                raise Malformed(error.reason, f"{name}: {error.item}") from error
        return kind(*arguments)

    schema: dict[str, Json] = {
        "type": "object",
        "properties": {name: codec.schema for name, codec in named},
        "required": [name for name in names if name not in optional],
        "additionalProperties": False,
    }
    return Codec(to_plain, from_plain, to_json, from_json, schema)
