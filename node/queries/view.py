"""What a query reads from, and how it reads its parameters and cuts its lists into pages.

Owns the forms that all queries share: ids as lower-case hex, addresses as bech32m, ``limit`` and ``cursor``. A page
reads a bounded number of rows, so that no question can keep a node busy; it may be short and still have a next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Final, Generic, TypedDict, TypeVar, cast

from ledger.errors import Malformed
from ledger.fields import Bounds, Json, JsonOf, Length
from ledger.primitives import Address, parse_address
from ledger.state import State
from ledger.state_root import StateTree
from ledger.storage import Reader, compute_prefix_end
from ledger.tables import Table
from ledger.transaction import TransactionTable
from node import index

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
ROWS_READ_MAX: Final = 20_000  # by one page, whether they match its filter or not
HEX_BYTES_MAX: Final = 256  # of a cursor or a key
ID_BYTES: Final = 16
TIME_MS_MAX: Final = 2**53  # what JSON can carry everywhere

Limit = Annotated[int, Bounds(1, LIMIT_MAX)]
TimeMs = Annotated[int, Bounds(0, TIME_MS_MAX)]
ObjectId = Annotated[str, JsonOf(Annotated[bytes, Length(ID_BYTES, ID_BYTES)])]
Cursor = Annotated[str, JsonOf(Annotated[bytes, Length(HEX_BYTES_MAX)])]
JsonObject = dict[str, Json]
V = TypeVar("V")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class View:
    """The committed chain as one question sees it.

    ``tree`` is the state tree in memory; without it a proof of the state reads all of the tree from the store.
    """

    reader: Reader
    table: TransactionTable
    tree: StateTree | None = None
    state: State = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", State(self.reader))


class PeriodShown(TypedDict):
    """The period that an answer is about: half-open, null where it has no end."""

    from_ms: TimeMs | None
    until_ms: TimeMs | None


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open, in milliseconds; an end that was not given is None."""

    from_ms: int | None
    until_ms: int | None

    @property
    def start_ms(self) -> int:
        """Where it begins; the epoch, if nothing was said."""
        return 0 if self.from_ms is None else self.from_ms

    @property
    def end_ms(self) -> int:
        """Where it ends; the end of time, if nothing was said."""
        return TIME_MS_MAX if self.until_ms is None else self.until_ms

    def to_json(self) -> PeriodShown:
        """The limits that an answer is about."""
        return {"from_ms": self.from_ms, "until_ms": self.until_ms}


class Paged(TypedDict):
    """What every list says beside its items; null on the last page."""

    next_cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class Page(Generic[S]):
    """The items of one page, and the cursor of the next (None: this is the last)."""

    items: list[S]
    next_cursor: str | None


def read_bytes(text: str, *, name: str, length: int | None = None) -> bytes:
    """Bytes from lower-case hex. Raises ``Malformed`` (``hex_invalid``, ``bytes_length_out_of_range``)."""
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise Malformed("hex_invalid", f"{name}: {text[:80]!a}") from error
    if raw.hex() != text:
        raise Malformed("hex_invalid", f"{name}: not lower-case and unbroken")
    if len(raw) > HEX_BYTES_MAX or length not in (None, len(raw)):
        raise Malformed("bytes_length_out_of_range", f"{name}: {len(raw)} bytes, {length or HEX_BYTES_MAX} allowed")
    return raw


def read_id(text: str, *, name: str) -> bytes:
    """An object's id from its hex. Raises ``Malformed``."""
    return read_bytes(text, name=name, length=ID_BYTES)


def read_cursor(cursor: str | None, *, length: int | None = None) -> bytes | None:
    """The bytes of a cursor, or None for the first page. Raises ``Malformed`` (``cursor_invalid``)."""
    if cursor is None:
        return None
    try:
        return read_bytes(cursor, name="cursor", length=length)
    except Malformed as error:
        raise Malformed("cursor_invalid", error.item) from error


def read_optional_address(text: str | None) -> Address | None:
    """An address that filters, or None. Raises ``Malformed``."""
    return None if text is None else parse_address(text)


def read_period(from_ms: int | None, until_ms: int | None) -> Period:
    """A period. Raises ``Malformed`` (``period_invalid``) when it is empty or not within time."""
    period = Period(from_ms, until_ms)
    if not 0 <= period.start_ms < period.end_ms <= TIME_MS_MAX:
        raise Malformed("period_invalid", f"from {from_ms} until {until_ms} ms")
    return period


def read_period_in_hours(from_ms: int | None, until_ms: int | None) -> Period:
    """A period, widened to whole hours: the grain of the index. Raises as ``read_period`` does."""
    given = read_period(from_ms, until_ms)
    start_ms = given.start_ms - given.start_ms % index.HOUR_MS
    end_ms = -(-given.end_ms // index.HOUR_MS) * index.HOUR_MS
    return Period(None if from_ms is None else start_ms, None if until_ms is None else end_ms)


def scan_table(view: View, table: Table[V], cursor: str | None) -> Iterator[tuple[bytes, V]]:
    """(Key behind the table's prefix, value) of every entry past the cursor, in key order."""
    past = read_cursor(cursor)
    start = table.prefix if past is None else table.prefix + past + b"\0"
    pairs = view.state.scan(cast("Table[object]", table), start, compute_prefix_end(table.prefix))
    cut = len(table.prefix)
    return ((key[cut:], cast(V, value)) for key, value in pairs)


def scan_objects(
    view: View, table: Table[V], lists: tuple[tuple[index.List, bytes | None], ...], cursor: str | None
) -> Iterator[tuple[bytes, tuple[bytes, V]]]:
    """(What a cursor names, (id, record)) of a table's objects, past the cursor.

    From the first of the ``lists`` whose parent is given, oldest first; by id from the whole table if none is.
    """
    for kind, parent in lists:
        if parent is not None:
            places = index.scan_list(view.reader, kind, parent, after=read_cursor(cursor))
            return ((place, (object_id, table.get(view.state, object_id))) for place, object_id in places)
    return ((key, (key, record)) for key, record in scan_table(view, table, cursor))


def make_page(
    rows: Iterator[tuple[bytes, V]], limit: int, show: Callable[[V], S], *, keep: Callable[[V], bool] | None = None
) -> Page[S]:
    """One page of the rows that ``keep`` keeps. A row is what a cursor names, in rising order, and a value."""
    if not 1 <= limit <= LIMIT_MAX:
        raise Malformed("limit_out_of_range", f"{limit} is not within 1 … {LIMIT_MAX}")
    items: list[S] = []
    last = b""
    for count, (key, value) in enumerate(islice(rows, ROWS_READ_MAX + 1)):
        if len(items) == limit or count == ROWS_READ_MAX:
            return Page(items, last.hex())
        last = key
        if keep is None or keep(value):
            items.append(show(value))
    return Page(items, None)
