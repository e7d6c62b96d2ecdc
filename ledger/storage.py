"""Where bytes live: the read port, the write batch as data, the in-memory store, and the table of every key.

The ledger never opens a database. It reads through ``Reader`` and hands back changes; a node writes them, one
atomic batch per block (docs/architecture.md, "One transaction's way").

| prefix | key                          | value                          | meaning                                  |
|--------|------------------------------|--------------------------------|------------------------------------------|
| `a`    | name                         | canonical value                | meta: genesis document, head, forks seen |
| `b`    | height, 8 bytes              | block                          | header and transactions                  |
| `c`    | height, 8 bytes              | commit certificate             | why the block of this height is final    |
| `e`    | height, 8 bytes              | receipts                       | what each transaction of the block did   |
| `h`    | block id, 32 bytes           | height, 8 bytes                | find a block by its id                   |
| `t`    | transaction id, 32 bytes     | height, 8 ‖ index, 4 bytes     | find a transaction; an id is used once   |
| `n`    | path of a bucket             | bucket of the state trie       | `state_root.py`                          |
| `s`    | table, 2 bytes ‖ key         | canonical value                | the state; each table names its prefix   |
| `x`    | index, 1 byte ‖ key          | canonical value                | what trace queries read (`node/index.py`)|
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

META: Final = b"a"
BLOCKS: Final = b"b"
CERTIFICATES: Final = b"c"
RECEIPTS: Final = b"e"
BLOCK_IDS: Final = b"h"
TRANSACTION_IDS: Final = b"t"
STATE_TRIE: Final = b"n"
STATE: Final = b"s"
INDEXES: Final = b"x"

Changes = Mapping[bytes, bytes | None]  # key → new value, None deletes; a whole batch applies or nothing does


class Reader(Protocol):
    """Reads committed bytes. ``scan`` yields pairs with ``start`` ≤ key < ``stop`` in key order, or reversed."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


class Store(Reader, Protocol):
    """A reader that also takes batches. ``write`` is atomic, and durable on return when ``sync`` is true."""

    def write(self, changes: Changes, *, sync: bool = True) -> None: ...

    def close(self) -> None: ...


class MemoryStore:
    """A ``Store`` in memory, for tests and the simulator; ordered like LevelDB."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._values: dict[bytes, bytes] = dict(items)
        self._keys: list[bytes] | None = None

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        keys = self._sorted_keys()
        wanted = keys[bisect_left(keys, start) : bisect_left(keys, stop)]
        if reverse:
            wanted.reverse()
        values = self._values
        return iter([(key, values[key]) for key in wanted])

    def write(self, changes: Changes, *, sync: bool = True) -> None:
        assert sync in (True, False)
        for key, value in changes.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        self._keys = None

    def close(self) -> None:
        """Nothing is held open."""

    def _sorted_keys(self) -> list[bytes]:
        if self._keys is None:
            self._keys = sorted(self._values)
        return self._keys


def compute_prefix_end(prefix: bytes) -> bytes:
    """The smallest key above every key that starts with ``prefix`` (which is not all 0xFF)."""
    trimmed = prefix.rstrip(b"\xff")
    assert trimmed, "a prefix of 0xFF bytes has no end"
    return trimmed[:-1] + bytes([trimmed[-1] + 1])


def format_height(height: int) -> bytes:
    """A height as the 8 bytes that sort like the number."""
    return height.to_bytes(8, "big")
