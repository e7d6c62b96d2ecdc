"""Typed views of key ranges of the state.

Owns the form of a state key: `s` ‖ two letters that name the table ‖ the key's parts, each in a form whose bytes
sort like its value. Two tables with one prefix are refused when the table of transactions is put together.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from ledger.encoding import Plain, decode
from ledger.errors import CorruptStore, Malformed, RuleViolated
from ledger.fields import get_codec
from ledger.storage import STATE, compute_prefix_end

if TYPE_CHECKING:
    from ledger.state import State

V = TypeVar("V")
KeyPart = bytes | int | str  # fixed-length bytes, a number below 2⁶⁴, a short text or enum; never mixed in one place


class Table(Generic[V]):
    """A key range with one type of value (a frozen dataclass). Methods take the key's parts in order."""

    __slots__ = ("_codec", "is_hot", "kind", "missing", "prefix")

    def __init__(self, prefix: str, kind: type[V], *, missing: str, is_hot: bool = False) -> None:
        """``prefix``: two letters, unique. ``missing``: the reason with which ``get`` refuses.

        ``is_hot``: small values that block after block reads again; they stay decoded from one to the next.
        """
        assert len(prefix) == len(prefix.encode()) == 2, prefix
        self.prefix = STATE + prefix.encode()
        self.kind = kind
        self.missing = missing
        self.is_hot = is_hot
        self._codec = get_codec(kind)

    def find(self, state: State, *parts: KeyPart) -> V | None:
        """The value, or None."""
        value: V | None = state.find(self, _make_key(self.prefix, parts))
        return value

    def get(self, state: State, *parts: KeyPart) -> V:
        """The value. Raises ``RuleViolated`` with this table's reason if there is none."""
        value: V | None = state.find(self, _make_key(self.prefix, parts))
        if value is None:
            raise RuleViolated(self.missing, " ".join(map(_show_part, parts)))
        return value

    def put(self, state: State, *parts: KeyPart, value: V) -> None:
        """Insert or replace."""
        state.put(self, _make_key(self.prefix, parts), value)

    def delete(self, state: State, *parts: KeyPart) -> None:
        """Remove; absent is fine."""
        state.put(self, _make_key(self.prefix, parts), None)

    def scan(self, state: State, *parts: KeyPart) -> Iterator[tuple[bytes, V]]:
        """Every (full key, value) whose key begins with the parts, in key order."""
        start = self.key(*parts)
        return state.scan(self, start, compute_prefix_end(start))

    def find_floor(self, state: State, *parts: KeyPart) -> tuple[bytes, V] | None:
        """The last entry at or before the key of all parts that shares all but the last part.

        The parts are a whole key of this table: below a part of a key, longer keys would sort above it.
        """
        pairs = state.scan(self, self.key(*parts[:-1]), self.key(*parts) + b"\0", reverse=True)
        return next(pairs, None)

    def find_above(self, state: State, *parts: KeyPart) -> tuple[bytes, V] | None:
        """The first entry after the key of all parts that shares all but the last part."""
        start = self.key(*parts) + b"\0"
        pairs = state.scan(self, start, compute_prefix_end(self.key(*parts[:-1])))
        return next(pairs, None)

    def key(self, *parts: KeyPart) -> bytes:
        """The full key of the parts."""
        return _make_key(self.prefix, parts)

    def decode(self, raw: bytes) -> V:
        """A stored value. Raises ``CorruptStore``: the ledger wrote these bytes itself."""
        try:
            return cast(V, self._codec.from_plain(decode(raw)))
        except Malformed as error:
            raise CorruptStore(f"table {self.prefix!r}: {error}") from error

    def to_plain(self, value: V) -> Plain:
        """The plain form of a value of this table."""
        return self._codec.to_plain(value)


def check_distinct(tables: Iterable[Table[object]]) -> None:
    """Refuse two tables with one prefix: they would read each other's values."""
    seen: dict[bytes, type] = {}
    for table in tables:
        assert table.prefix not in seen, f"{table.kind} and {seen[table.prefix]} share prefix {table.prefix!r}"
        seen[table.prefix] = table.kind


def _make_key(prefix: bytes, parts: tuple[KeyPart, ...]) -> bytes:
    # Tables are asked some ten times a transaction, mostly for one id, or for their one record.
    if len(parts) == 1 and type(part := parts[0]) is bytes:
        return prefix + part
    return prefix + b"".join(map(_encode_part, parts)) if parts else prefix


def _encode_int(part: KeyPart) -> bytes:
    return cast(int, part).to_bytes(8, "big")


def _encode_text(part: KeyPart) -> bytes:
    return cast(str, part).encode() + b"\0"


_ENCODERS: dict[type, Callable[[KeyPart], bytes]] = {
    bytes: cast("Callable[[KeyPart], bytes]", bytes),
    int: _encode_int,
    str: _encode_text,
}


def _encode_part(part: KeyPart) -> bytes:
    encoder = _ENCODERS.get(type(part))
    if encoder is None:
        assert isinstance(part, enum.Enum), f"not a key part: {part!r}"
        return _encode_text(str(part.value))
    return encoder(part)


def _show_part(part: KeyPart) -> str:
    return part.hex() if isinstance(part, bytes) else str(part)
