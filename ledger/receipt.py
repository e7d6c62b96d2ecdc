"""What a transaction did: events, and the receipt that keeps them.

Owns the ``@event`` declaration and the bytes that go into a block's events root. Events are the only thing that
indexes, subscribers and certificates read; a rule emits one for each change that somebody may ask about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar, cast

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


def to_json(one: Event) -> Json:
    """The JSON form of an event: its fields beside its name."""
    return {"event": one.name, **cast("dict[str, Json]", get_codec(type(one)).to_json(one))}


def compute_event_leaves(receipts: Iterable[Receipt]) -> list[bytes]:
    """The leaves of a block's events tree: (transaction index, event), canonical."""
    return [encode((index, to_plain(one))) for index, receipt in enumerate(receipts) for one in receipt.events]


def compute_events_root(receipts: Iterable[Receipt]) -> Hash:
    """RFC 6962 root of the block's events."""
    return compute_root(compute_event_leaves(receipts))


def encode_receipts(receipts: Iterable[Receipt]) -> bytes:
    """The stored form of a block's receipts."""
    return encode(tuple((receipt.tx_id, tuple(map(to_plain, receipt.events))) for receipt in receipts))


def decode_receipts(raw: bytes, kinds: EventKinds) -> tuple[Receipt, ...]:
    """The receipts of a block as they were stored. Raises ``CorruptStore``."""
    try:
        return tuple(
            Receipt(Hash(tx_id), tuple(_decode_event(one, kinds) for one in events))
            for tx_id, events in cast("tuple[tuple[bytes, tuple[Plain, ...]], ...]", decode(raw))
        )
    except (Malformed, ValueError, TypeError, KeyError) as error:
        raise CorruptStore(f"receipts: {error}") from error


def _decode_event(plain: Plain, kinds: EventKinds) -> Event:
    name, values = cast("tuple[str, Plain]", plain)
    return cast(Event, get_codec(kinds[name]).from_plain(values))
