"""What a query reads from, and how it reads its parameters and cuts its lists into pages.

Owns the forms that all queries share: ids as lower-case hex, addresses as bech32m, ``limit`` and ``cursor``. A page
reads a bounded number of rows, so that no question can keep a node busy; it may be short and still have a next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeVar, cast

from ledger.errors import Malformed
from ledger.fields import Json, to_json
from ledger.primitives import Address, parse_address
from ledger.state import State
from ledger.state_root import StateTree
from ledger.storage import Reader, compute_prefix_end
from ledger.tables import KeyPart, Table
from ledger.transaction import TransactionTable

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
ROWS_READ_MAX: Final = 20_000  # by one page, whether they match its filter or not
CURSOR_BYTES_MAX: Final = 256
TIME_MS_MAX: Final = 2**53  # what JSON can carry everywhere

V = TypeVar("V")
JsonObject = dict[str, Json]


@dataclass(frozen=True, slots=True)
class View:
    """The committed chain as one question sees it. ``tree`` is the state tree of the head, for proofs of the state."""

    reader: Reader
    table: TransactionTable
    tree: StateTree | None = None
    state: State = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", State(self.reader))


def read_bytes(text: str, *, name: str, length: int | None = None, bytes_max: int = CURSOR_BYTES_MAX) -> bytes:
    """Bytes from lower-case hex. Raises ``Malformed`` (``hex_invalid``, ``bytes_length_out_of_range``)."""
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise Malformed("hex_invalid", f"{name}: {ascii(text[:80])}") from error
    if raw.hex() != text:
        raise Malformed("hex_invalid", f"{name}: not lower-case and unbroken")
    if len(raw) > bytes_max or length not in (None, len(raw)):
        raise Malformed("bytes_length_out_of_range", f"{name}: {len(raw)} bytes, {length or bytes_max} allowed")
    return raw


def read_optional_address(text: str | None) -> Address | None:
    """An address filter, or None. Raises ``Malformed``."""
    return None if text is None else parse_address(text)


def read_period(from_ms: int | None, until_ms: int | None) -> tuple[int, int]:
    """Half-open limits in milliseconds; None stands for the beginning and the end of time. Raises ``Malformed``."""
    start = 0 if from_ms is None else from_ms
    end = TIME_MS_MAX if until_ms is None else until_ms
    if not 0 <= start < end <= TIME_MS_MAX:
        raise Malformed("period_invalid", f"from {start} until {end} ms")
    return start, end


def read_limit(limit: int) -> int:
    """How many items a page has at most. Raises ``Malformed`` (``limit_out_of_range``)."""
    if not 1 <= limit <= LIMIT_MAX:
        raise Malformed("limit_out_of_range", f"{limit} is not within 1 … {LIMIT_MAX}")
    return limit


@dataclass(frozen=True, slots=True)
class Page:
    """The items of one page, and the cursor of the next (None: this is the last)."""

    items: list[Json]
    next_cursor: str | None

    def to_json(self, name: str) -> JsonObject:
        """The answer of a list method, its items under ``name``."""
        return {name: self.items, "next_cursor": self.next_cursor}


def scan_from(
    view: View, table: Table[V], prefix: tuple[KeyPart, ...], cursor: str | None, *, reverse: bool = False
) -> Iterator[tuple[bytes, V]]:
    """(Key behind the table's prefix, value) of every entry that begins with ``prefix`` and lies past the cursor."""
    start = table.key(*prefix)
    stop = compute_prefix_end(start)
    if cursor is not None:
        past = table.prefix + read_bytes(cursor, name="cursor")
        start, stop = (start, min(stop, past)) if reverse else (max(start, past + b"\0"), stop)
    pairs = view.state.scan(cast("Table[object]", table), start, stop, reverse=reverse)
    cut = len(table.prefix)
    return ((key[cut:], cast(V, value)) for key, value in pairs)


def make_page(
    rows: Iterator[tuple[bytes, V]], limit: int, show: Callable[[bytes, V], Json], *, keep: Callable[[V], bool] = bool
) -> Page:
    """One page of the rows that ``keep`` keeps. Rows come in key order, past the cursor; see ``scan_from``."""
    read_limit(limit)
    items: list[Json] = []
    last = b""
    for count, (key, value) in enumerate(islice(rows, ROWS_READ_MAX + 1)):
        if len(items) == limit or count == ROWS_READ_MAX:
            return Page(items, last.hex())
        last = key
        if keep(value):
            items.append(show(key, value))
    return Page(items, None)


def show_record(**beside: Json) -> Callable[[object], JsonObject]:
    """A function from a stored record to its JSON with more fields before its own."""
    return lambda record: {**beside, **cast(JsonObject, to_json(record))}


def merge_json(first: JsonObject, record: object) -> JsonObject:
    """The JSON of a stored record, with ``first`` before its own fields."""
    return {**first, **cast(JsonObject, to_json(record))}
