"""What a transaction did: events, and the receipt that keeps them.

Owns the ``@event`` declaration and the bytes that go into a block's events root. Events are the only thing that
indexes, subscribers and certificates read; a rule emits one for each change that somebody may ask about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Generic, TypeVar, cast

from ledger.encoding import Plain, decode, encode
from ledger.errors import CorruptStore, Malformed
from ledger.fields import Json, get_codec
from ledger.merkle import compute_root
from ledger.primitives import Hash


class Event:
    """Base of every event: a frozen dataclass declared with ``@event("family.happened")``."""

    __slots__ = ()
    name: ClassVar[str]


E = TypeVar("E", bound=type[Event])
One = TypeVar("One", bound=Event)


class Tagged(dict[str, Json], Generic[One]):
    """The JSON form of an event, to whoever checks or reads types. At run time it is a plain object."""


def event(name: str) -> Callable[[E], E]:
    """Declare an event under its stable name."""

    def declare(kind: E) -> E:
        kind.name = name
        return kind

    return declare


@dataclass(frozen=True, slots=True)
class Receipt:
    """The events of one applied transaction, in the order in which they were emitted."""

    tx_id: Hash
    events: tuple[Event, ...]


EventKinds = Mapping[str, type[Event]]


def to_plain(one: Event) -> Plain:
    """The plain form of an event: its name and its fields."""
    return (one.name, get_codec(type(one)).to_plain(one))


def to_json(one: One) -> Tagged[One]:
    """The JSON form of an event: its fields beside its name."""
    fields = cast("dict[str, Json]", get_codec(type(one)).to_json(one))
    return cast("Tagged[One]", {"event": one.name, **fields})


def compute_event_leaves(receipts: Iterable[Receipt]) -> tuple[tuple[bytes, ...], ...]:
    """For each transaction the leaves of its events in the block's events tree: (transaction index, event)."""
    return tuple(
        tuple([encode((index, to_plain(one))) for one in receipt.events]) for index, receipt in enumerate(receipts)
    )


def compute_events_root(leaves: Iterable[Iterable[bytes]]) -> Hash:
    """RFC 6962 root of the block's events, from each transaction's leaves."""
    return compute_root(list(chain.from_iterable(leaves)))


def encode_receipts(receipts: Iterable[Receipt], leaves: Iterable[tuple[bytes, ...]]) -> bytes:
    """The stored form of a block's receipts: each transaction's id and leaves."""
    return encode(tuple((receipt.tx_id, mine) for receipt, mine in zip(receipts, leaves, strict=True)))


def decode_receipts(raw: bytes, kinds: EventKinds) -> tuple[Receipt, ...]:
    """The receipts of a block as they were stored. Raises ``CorruptStore``."""
    return tuple(_decode_receipt(plain, kinds) for plain in _decode_stored(raw))


def decode_receipt_at(raw: bytes, index: int, kinds: EventKinds) -> Receipt:
    """One of the receipts of a block as they were stored. Raises ``CorruptStore``."""
    stored = _decode_stored(raw)
    if not 0 <= index < len(stored):
        raise CorruptStore(f"receipts: {len(stored)}, none at {index}")
    return _decode_receipt(stored[index], kinds)


def _decode_stored(raw: bytes) -> tuple[Plain, ...]:
    try:
        stored = decode(raw)
    except Malformed as error:
        raise CorruptStore(f"receipts: {error}") from error
    if not isinstance(stored, tuple):
        raise CorruptStore("receipts: not an array")
    return stored


def _decode_receipt(plain: Plain, kinds: EventKinds) -> Receipt:
    try:
        tx_id, leaves = cast("tuple[bytes, tuple[bytes, ...]]", plain)
        return Receipt(Hash(tx_id), tuple(_decode_event(leaf, kinds) for leaf in leaves))
    except (Malformed, ValueError, TypeError, KeyError) as error:
        raise CorruptStore(f"receipts: {error}") from error


def _decode_event(leaf: bytes, kinds: EventKinds) -> Event:
    _, (name, values) = cast("tuple[int, tuple[str, Plain]]", decode(leaf))
    return cast(Event, get_codec(kinds[name]).from_plain(values))
