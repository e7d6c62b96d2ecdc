"""The state while a block executes: a read-only snapshot below, decoded changes and events above.

Owns the overlay. Values stay decoded until the block ends, so each is decoded once and encoded once. A savepoint
marks where a transaction began; rolling back to it undoes that transaction whole.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ledger.encoding import encode

if TYPE_CHECKING:
    from ledger.receipt import Event
    from ledger.storage import Reader
    from ledger.tables import Table

CACHED_BYTES_MAX: Final = 4 * 1024 * 1024  # of one overlay, as stored; decoded they take some ten times as much
HOT_VALUES_MAX: Final = 50_000  # decoded values kept from block to block; about 25 MB
_ABSENT: Final = object()  # in the undo log: the overlay had no entry


class State:
    """An overlay over a snapshot. Tables read and write it; nothing else does."""

    __slots__ = ("_cache", "_cached_bytes", "_dirty", "_dirty_keys", "_events", "_hot", "_reader", "_undo")

    def __init__(self, reader: Reader, *, hot: dict[bytes, object] | None = None) -> None:
        """``hot`` holds decoded values of the same snapshot's hot tables, shared by all overlays over it."""
        self._reader = reader
        self._cache: dict[bytes, object] = {}
        self._cached_bytes = 0
        self._hot: dict[bytes, object] = {} if hot is None else hot
        self._dirty: dict[bytes, tuple[Table[Any], object]] = {}
        self._dirty_keys: dict[bytes, list[bytes]] = {}  # per table prefix, sorted
        self._undo: list[tuple[bytes, object]] = []
        self._events: list[Event] = []

    def find(self, table: Table[Any], key: bytes) -> Any:
        """The value at a full key, of the table's type, or None."""
        entry = self._dirty.get(key)
        if entry is not None:
            return entry[1]
        cache = self._hot if table.is_hot else self._cache
        value = cache.get(key, _ABSENT)
        if value is _ABSENT:
            raw = self._reader.get(key)
            value = None if raw is None else table.decode(raw)
            self._remember(table, key, raw, value)
        return value

    def put(self, table: Table[Any], key: bytes, value: object | None) -> None:
        """Set the value at a full key; None deletes."""
        before = self._dirty.get(key)
        if before is None:
            self._undo.append((key, _ABSENT))
            insort(self._dirty_keys.setdefault(table.prefix, []), key)
        else:
            self._undo.append((key, before))
        self._dirty[key] = (table, value)

    def scan(
        self, table: Table[Any], start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, Any]]:
        """Pairs with ``start`` ≤ key < ``stop`` in key order, or reversed; changes of this overlay included."""
        changed = self._dirty_keys.get(table.prefix, [])
        changed = changed[bisect_left(changed, start) : bisect_left(changed, stop)]
        if reverse:
            changed.reverse()
        position = 0
        for key, raw in self._reader.scan(start, stop, reverse=reverse):
            while position < len(changed) and (changed[position] > key if reverse else changed[position] < key):
                yield from self._present(changed[position])
                position += 1
            if position < len(changed) and changed[position] == key:
                yield from self._present(key)
                position += 1
                continue
            cache = self._hot if table.is_hot else self._cache
            value = cache.get(key)
            if value is None:
                value = table.decode(raw)
                self._remember(table, key, raw, value)
            yield key, value
        for key in changed[position:]:
            yield from self._present(key)

    def emit(self, event: Event) -> None:
        """Record what happened; the events of a transaction are its receipt."""
        self._events.append(event)

    def savepoint(self) -> tuple[int, int]:
        """A mark to roll back to."""
        return len(self._undo), len(self._events)

    def rollback(self, mark: tuple[int, int]) -> None:
        """Undo every change and event since the mark."""
        undo_length, events_length = mark
        while len(self._undo) > undo_length:
            key, before = self._undo.pop()
            if before is _ABSENT:
                table, _ = self._dirty.pop(key)
                keys = self._dirty_keys[table.prefix]
                del keys[bisect_left(keys, key)]
            else:
                assert isinstance(before, tuple)
                self._dirty[key] = before
        del self._events[events_length:]

    def take_events(self, mark: tuple[int, int]) -> tuple[Event, ...]:
        """The events since a mark."""
        return tuple(self._events[mark[1] :])

    def compute_changes(self) -> dict[bytes, bytes | None]:
        """Full key → encoded value or None, for every key this overlay changed."""
        return {
            key: None if value is None else encode(table.to_plain(value)) for key, (table, value) in self._dirty.items()
        }

    def get_hot_changes(self) -> dict[bytes, object | None]:
        """Full key → decoded value or None, of the changes to hot tables: for ``hot`` of the next snapshot."""
        return {key: value for key, (table, value) in self._dirty.items() if table.is_hot}

    def _remember(self, table: Table[Any], key: bytes, raw: bytes | None, value: object | None) -> None:
        """Keep what was decoded, which has no end: a question reads a whole table, a stranger names what nobody has."""
        if table.is_hot:
            if len(self._hot) >= HOT_VALUES_MAX:
                self._hot.clear()
            self._hot[key] = value
            return
        self._cached_bytes += len(key) + len(raw or b"")
        if self._cached_bytes > CACHED_BYTES_MAX:
            self._cache.clear()
            self._cached_bytes = len(key) + len(raw or b"")
        self._cache[key] = value

    def _present(self, key: bytes) -> Iterator[tuple[bytes, Any]]:
        value = self._dirty[key][1]
        if value is not None:
            yield key, value
