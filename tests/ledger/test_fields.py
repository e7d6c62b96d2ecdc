"""Codecs of fields: every kind goes there and back in both forms, and what is wrong is refused by name."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.encoding import Plain, decode, encode
from ledger.errors import Malformed
from ledger.fields import (
    BYTES_MAX,
    INTEGER_MAX,
    ITEMS_MAX,
    TEXT_BYTES_MAX,
    Amount,
    Bounds,
    Json,
    Length,
    from_json,
    from_plain,
    get_codec,
    get_field_types,
    to_json,
    to_plain,
)
from ledger.primitives import Address, Hash, Height, MeterKey, PublicKey, Signature, format_address


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Inner:
    amount: Amount
    note: str


@dataclass(frozen=True, slots=True)
class Everything:
    address: Address
    hash: Hash
    key: PublicKey
    meter_key: MeterKey
    signature: Signature
    height: Height
    number: int
    small: Annotated[int, Bounds(-5, 5)]
    yes: bool
    text: Annotated[str, Length(8, 1)]
    blob: Annotated[bytes, Length(4)]
    colour: Colour
    inner: Inner
    many: Annotated[tuple[Inner, ...], Length(3)]
    pair: tuple[str, int]
    maybe: Address | None
    annotated_only: Annotated[int, "a remark"]


SAMPLE = Everything(
    address=Address(b"a" * 20),
    hash=Hash(b"h" * 32),
    key=PublicKey(b"k" * 32),
    meter_key=MeterKey(b"\x02" * 33),
    signature=Signature(b"s" * 64),
    height=Height(7),
    number=INTEGER_MAX,
    small=-5,
    yes=True,
    text="grün",
    blob=b"\x00\xff",
    colour=Colour.BLUE,
    inner=Inner(1, ""),
    many=(Inner(2, "two"), Inner(3, "three")),
    pair=("left", 0),
    maybe=None,
    annotated_only=4,
)


def everything() -> st.SearchStrategy[Everything]:
    text = st.text("aZ 9ü€😀", max_size=8)
    inner = st.builds(Inner, st.integers(1, INTEGER_MAX), text)
    fixed = {size: st.binary(min_size=size, max_size=size) for size in (20, 32, 33, 64)}
    return st.builds(
        Everything,
        address=fixed[20],
        hash=fixed[32],
        key=fixed[32],
        meter_key=fixed[32] | fixed[33],
        signature=fixed[64],
        height=st.integers(0, INTEGER_MAX),
        number=st.integers(0, INTEGER_MAX),
        small=st.integers(-5, 5),
        yes=st.booleans(),
        text=st.text("aZ 9ü", min_size=1, max_size=4),
        blob=st.binary(max_size=4),
        colour=st.sampled_from(Colour),
        inner=inner,
        many=st.lists(inner, max_size=3).map(tuple),
        pair=st.tuples(text, st.integers(0, 9)),
        maybe=st.none() | fixed[20],
        annotated_only=st.integers(0, 9),
    )


@given(everything())
def test_every_kind_survives_its_bytes_and_its_json(value: Everything) -> None:
    assert from_plain(Everything, decode(encode(to_plain(value)))) == value
    assert from_json(Everything, to_json(value)) == value


def test_json_shows_addresses_as_bech32m_and_bytes_as_hex() -> None:
    shown = to_json(SAMPLE)
    assert isinstance(shown, dict)
    assert shown["address"] == format_address(SAMPLE.address)
    assert shown["blob"] == "00ff"
    assert shown["colour"] == "blue"
    assert shown["many"] == [{"amount": 2, "note": "two"}, {"amount": 3, "note": "three"}]
    assert shown["pair"] == ["left", 0]
    assert shown["maybe"] is None


WRONG_PLAIN: list[tuple[str, Plain, str]] = [
    ("address", b"a" * 19, "address_invalid"),
    ("address", "a" * 20, "field_has_wrong_type"),
    ("hash", b"h" * 31, "bytes_length_out_of_range"),
    ("key", b"k" * 33, "bytes_length_out_of_range"),
    ("meter_key", b"k" * 34, "bytes_length_out_of_range"),
    ("meter_key", b"k" * 31, "bytes_length_out_of_range"),
    ("signature", b"s" * 63, "bytes_length_out_of_range"),
    ("signature", "s" * 64, "field_has_wrong_type"),
    ("height", -1, "number_out_of_range"),
    ("number", -1, "number_out_of_range"),
    ("number", INTEGER_MAX + 1, "number_out_of_range"),
    ("number", True, "field_has_wrong_type"),
    ("number", None, "field_has_wrong_type"),
    ("number", "1", "field_has_wrong_type"),
    ("small", 6, "number_out_of_range"),
    ("small", -6, "number_out_of_range"),
    ("yes", 1, "field_has_wrong_type"),
    ("text", b"text", "field_has_wrong_type"),
    ("text", "", "text_length_out_of_range"),
    ("text", "ü" * 5, "text_length_out_of_range"),
    ("text", "a\nb", "text_not_printable"),
    ("text", "a\0b", "text_not_printable"),
    ("text", "\u202eb", "text_not_printable"),
    ("blob", b"12345", "bytes_length_out_of_range"),
    ("colour", "green", "choice_unknown"),
    ("colour", 1, "choice_unknown"),
    ("colour", (), "choice_unknown"),
    ("inner", (0, ""), "number_out_of_range"),
    ("inner", (1,), "field_count_wrong"),
    ("inner", (1, "", 1), "field_count_wrong"),
    ("inner", 1, "field_has_wrong_type"),
    ("many", ((1, ""),) * 4, "array_length_out_of_range"),
    ("many", 1, "field_has_wrong_type"),
    ("many", ((1, ""), (0, "")), "number_out_of_range"),
    ("pair", ("left",), "array_length_out_of_range"),
    ("pair", ("left", "right"), "field_has_wrong_type"),
    ("pair", b"xy", "field_has_wrong_type"),
    ("maybe", b"", "address_invalid"),
]


@pytest.mark.parametrize(("name", "value", "reason"), WRONG_PLAIN)
def test_a_wrong_plain_value_is_refused_and_its_field_is_named(name: str, value: Plain, reason: str) -> None:
    values = to_plain(SAMPLE)
    assert isinstance(values, tuple)
    at = list(get_field_types(Everything)).index(name)
    with pytest.raises(Malformed) as refusal:
        from_plain(Everything, (*values[:at], value, *values[at + 1 :]))
    assert refusal.value.reason == reason
    assert refusal.value.item.startswith(f"{name}: ")


WRONG_JSON: list[tuple[str, Json, str]] = [
    ("address", "a" * 40, "address_invalid"),
    ("address", 1, "field_has_wrong_type"),
    ("hash", "00", "bytes_length_out_of_range"),
    ("hash", "H" * 64, "hex_invalid"),
    ("blob", "0", "hex_invalid"),
    ("blob", "FF", "hex_invalid"),
    ("blob", "0 0", "hex_invalid"),
    ("blob", "00 ff", "hex_invalid"),
    ("blob", 5, "field_has_wrong_type"),
    ("number", "1", "field_has_wrong_type"),
    ("number", True, "field_has_wrong_type"),
    ("yes", "true", "field_has_wrong_type"),
    ("text", "\ud800", "text_invalid"),
    ("text", None, "field_has_wrong_type"),
    ("colour", "RED", "choice_unknown"),
    ("inner", [1, ""], "field_has_wrong_type"),
    ("inner", {"amount": 1}, "field_missing"),
    ("inner", {"amount": 1, "note": "", "more": 1}, "field_unknown"),
    ("many", {"amount": 1, "note": ""}, "field_has_wrong_type"),
    ("many", [{"amount": 1, "note": ""}] * 4, "array_length_out_of_range"),
    ("pair", ["left"], "array_length_out_of_range"),
    ("pair", "xy", "field_has_wrong_type"),
]


@pytest.mark.parametrize(("name", "value", "reason"), WRONG_JSON)
def test_a_wrong_json_value_is_refused_and_its_field_is_named(name: str, value: Json, reason: str) -> None:
    data = to_json(SAMPLE)
    assert isinstance(data, dict)
    data[name] = value
    with pytest.raises(Malformed) as refusal:
        from_json(Everything, data)
    assert refusal.value.reason == reason
    assert refusal.value.item.startswith(f"{name}: ")


def test_json_needs_every_field_but_the_optional_and_knows_no_other() -> None:
    data = to_json(SAMPLE)
    assert isinstance(data, dict)
    without = {name: value for name, value in data.items() if name != "maybe"}
    assert from_json(Everything, without) == SAMPLE
    for name in without:
        with pytest.raises(Malformed, match="field_missing"):
            from_json(Everything, {key: value for key, value in data.items() if key != name})
    with pytest.raises(Malformed, match="field_unknown"):
        from_json(Everything, {**data, "extra": 1})
    with pytest.raises(Malformed, match="field_has_wrong_type"):
        from_json(Everything, [])


def test_a_field_without_limits_of_its_own_has_the_general_ones() -> None:
    assert get_codec(str).from_plain("x" * TEXT_BYTES_MAX)
    assert get_codec(bytes).from_plain(bytes(BYTES_MAX))
    assert get_codec(tuple[int, ...]).from_plain((1,) * ITEMS_MAX)
    for kind, value in ((str, "x" * (TEXT_BYTES_MAX + 1)), (bytes, bytes(BYTES_MAX + 1))):
        with pytest.raises(Malformed, match="length_out_of_range"):
            get_codec(kind).from_plain(value)
    with pytest.raises(Malformed, match="array_length_out_of_range"):
        get_codec(tuple[int, ...]).from_plain((1,) * (ITEMS_MAX + 1))


def test_a_type_without_a_codec_is_our_own_mistake() -> None:
    for kind in (float, dict, list, object):
        with pytest.raises(AssertionError, match="no codec"):
            get_codec(kind)
    with pytest.raises(AssertionError, match="only X"):
        get_codec(int | str)


def test_the_schema_of_a_dataclass_says_what_is_required_and_how_large() -> None:
    schema = get_codec(Everything).schema
    assert schema["additionalProperties"] is False
    required, properties = schema["required"], schema["properties"]
    assert isinstance(required, list)
    assert isinstance(properties, dict)
    assert set(properties) - set(map(str, required)) == {"maybe"}
    assert properties["small"] == {"type": "integer", "minimum": -5, "maximum": 5}
    assert properties["colour"] == {"type": "string", "enum": ["red", "blue"]}
    assert properties["text"] == {"type": "string", "maxLength": 8}


def test_a_choice_that_nests_as_deep_as_json_goes_is_refused_by_name() -> None:
    """To show it in the refusal would recur deeper than reading it did."""
    deep: Json = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Malformed, match="choice_unknown: list is none of red, blue"):
        get_codec(Colour).from_json(deep)
