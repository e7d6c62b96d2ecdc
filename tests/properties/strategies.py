"""Values of every declared type, from its fields alone; and JSON and plain forms with something changed.

A new transaction, event or record is tried as soon as it is declared.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Final, NewType, Union, get_args, get_origin

from hypothesis import strategies as st

from ledger.encoding import Plain
from ledger.fields import (
    BYTES_MAX,
    INTEGER_MAX,
    TEXT_BYTES_MAX,
    Bounds,
    Json,
    Length,
    get_field_types,
)
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
)

FEW: Final = 3  # of what may be many
SHORT: Final = 40  # of what may be long
Strategy = st.SearchStrategy[Any]
Pool = Mapping[object, tuple[object, ...]]  # values of a type or a length of bytes that mean something

LETTERS: Final = st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" ")
FIXED: Final[dict[object, tuple[int, int]]] = {
    Address: (ADDRESS_BYTES, ADDRESS_BYTES),
    Hash: (HASH_BYTES, HASH_BYTES),
    PublicKey: (PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES),
    MeterKey: (PUBLIC_KEY_BYTES, P256_KEY_BYTES),
    Signature: (SIGNATURE_BYTES, SIGNATURE_BYTES),
}


def values_of(kind: object, pool: Pool | None = None) -> Strategy:
    """Values of a type that its codec accepts; with a pool, mostly those in it where they fit."""
    pool = pool or {}
    if kind in FIXED:
        least, most = FIXED[kind]
        return _prefer(pool.get(kind, ()), st.binary(min_size=least, max_size=most))
    if get_origin(kind) is Annotated:
        return _annotated(kind, pool)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        parts = {name: values_of(field, pool) for name, field in get_field_types(kind).items()}
        return _prefer(pool.get(kind, ()), st.builds(kind, **parts))
    if get_origin(kind) is tuple:
        return _tuples(kind, Length(FEW), pool)
    if get_origin(kind) in (Union, types.UnionType):
        (inner,) = (part for part in get_args(kind) if part is not types.NoneType)
        return st.none() | values_of(inner, pool)
    plain = {bool: st.booleans(), int: _numbers(Bounds(0, INTEGER_MAX), pool)}
    plain |= {str: _texts(Length(TEXT_BYTES_MAX), pool), bytes: _bytes(Length(BYTES_MAX), pool)}
    for known, strategy in plain.items():
        if kind is known:
            return strategy
    assert isinstance(kind, NewType), f"no values are known of {kind}"
    return values_of(kind.__supertype__, pool)


def _prefer(some: tuple[object, ...], others: Strategy) -> Strategy:
    return st.one_of(st.sampled_from(some), st.sampled_from(some), others) if some else others


def _annotated(kind: object, pool: Pool) -> Strategy:
    base, *notes = get_args(kind)
    for note in notes:
        if isinstance(note, Bounds):
            return _numbers(note, pool)
        if isinstance(note, Length):
            if get_origin(base) is tuple:
                return _tuples(base, note, pool)
            return _texts(note, pool) if base is str else _bytes(note, pool)
    return values_of(base, pool)


def _numbers(bounds: Bounds, pool: Pool) -> Strategy:
    fit = tuple(one for one in pool.get(int, ()) if isinstance(one, int) and bounds.least <= one <= bounds.most)
    small = st.integers(bounds.least, min(bounds.most, bounds.least + 100))
    return _prefer(fit, small | st.integers(bounds.least, bounds.most) | st.just(bounds.most))


def _texts(length: Length, pool: Pool) -> Strategy:
    fit = tuple(one for one in pool.get(str, ()) if isinstance(one, str) and len(one.encode()) <= length.most)
    most = min(length.most // 4, SHORT)  # a character has up to four bytes
    return _prefer(fit, st.text(LETTERS, min_size=length.least, max_size=max(most, length.least)))


def _bytes(length: Length, pool: Pool) -> Strategy:
    every = [one for one in pool.get(bytes, ()) if isinstance(one, bytes)]
    fit = tuple(one for one in every if length.least <= len(one) <= length.most)
    return _prefer(fit, st.binary(min_size=length.least, max_size=max(length.least, min(length.most, SHORT))))


def _tuples(kind: object, length: Length, pool: Pool) -> Strategy:
    parts = get_args(kind)
    if len(parts) == 2 and parts[1] is Ellipsis:
        most = min(length.most, length.least + FEW)
        return st.lists(values_of(parts[0], pool), min_size=length.least, max_size=most).map(tuple)
    return st.tuples(*(values_of(part, pool) for part in parts))


ANY_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text(max_size=8) | st.just("00" * 16),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ANY_PLAIN: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=33),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def spoil_json(draw: Callable[[Strategy], Any], value: Json) -> Json:
    """The document with one node, wherever it is, made something else, doubled, left out or renamed."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(value)))
        how = draw(st.integers(0, 5))
        rest = {key: one for key, one in value.items() if key != name}
        if how == 0:
            return rest
        if how == 1:
            return {**rest, name + "x": value[name]}
        return {**value, name: spoil_json(draw, value[name])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], spoil_json(draw, value[place]), *value[place + draw(st.integers(0, 1)) :]]
    other: Json = draw(ANY_JSON)
    return other


def spoil_plain(draw: Callable[[Strategy], Any], value: Plain) -> Plain:
    """The same for a plain form."""
    if isinstance(value, tuple) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return (*value[:place], spoil_plain(draw, value[place]), *value[place + draw(st.integers(0, 1)) :])
    other: Plain = draw(ANY_PLAIN)
    return other
