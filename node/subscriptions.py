"""What subscribers hear of a block, and which of it a filter lets through.

Owns the form of the items of each topic. An item is made once per block, whoever asked for it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypedDict

from ledger.errors import Malformed
from ledger.fields import HashText, Json
from ledger.receipt import Event, Tagged
from ledger.receipt import to_json as event_to_json
from ledger.transaction import SignedTransaction, transaction_to_json
from node.answers import Merged, Named, merge
from node.queries.view import TimeMs
from node.service import CommittedBlock

FILTER_FIELDS_MAX: Final = 8
FILTER_TEXT_MAX: Final = 256
MENTIONS: Final = "participant"  # matches wherever an item names the address, in whatever role


class Topic(enum.StrEnum):
    """What a connection can hear of."""

    BLOCKS = "blocks"
    TRANSACTIONS = "transactions"
    EVENTS = "events"


class BlockItem(TypedDict):
    """A block, and how many transactions and events it has."""

    height: int
    block_id: HashText
    time_ms: TimeMs
    transactions: int
    events: int


class TransactionItem(SignedTransaction):
    """A committed transaction, with its place and what it did."""

    height: int
    index: int
    status: Literal["committed"]
    events: list[Tagged[Event]]


class EventPlace(TypedDict):
    """The transaction that an event is of."""

    height: int
    index: int
    tx_id: HashText


EventItem = Annotated[Merged[EventPlace, Tagged[Event]], Named("EventItem")]
Item = BlockItem | TransactionItem | EventItem


class BlockNews(TypedDict):
    """A subscription hears of a block."""

    subscription: int
    topic: Literal["blocks"]
    item: BlockItem


class TransactionNews(TypedDict):
    """A subscription hears of a transaction."""

    subscription: int
    topic: Literal["transactions"]
    item: TransactionItem


class EventNews(TypedDict):
    """A subscription hears of an event."""

    subscription: int
    topic: Literal["events"]
    item: EventItem


News = BlockNews | TransactionNews | EventNews  # what the notification ``subscription`` carries


@dataclass(frozen=True, slots=True)
class Filter:
    """What an item must be like: fields with their values, and perhaps an address that it mentions."""

    fields: tuple[tuple[str, Json], ...]
    participant: str | None

    def lets_through(self, item: Mapping[str, object]) -> bool:
        """Whether an item is as the filter says."""
        if any(name not in item or item[name] != value for name, value in self.fields):
            return False
        return self.participant is None or mentions(item, self.participant)


@dataclass(slots=True)
class NewsOfBlock:
    """The items of one block by topic, each made when first asked for."""

    block: CommittedBlock
    _items: dict[Topic, Sequence[Item]] = field(default_factory=dict)

    def get_items(self, topic: Topic) -> Sequence[Item]:
        """What the block has to say on a topic, in the order of the block."""
        if topic not in self._items:
            self._items[topic] = _MAKERS[topic](self.block)
        return self._items[topic]


def read_filter(given: dict[str, Json] | None) -> Filter:
    """The filter of a subscription. Raises ``Malformed``."""
    given = given or {}
    if len(given) > FILTER_FIELDS_MAX:
        raise Malformed("filter_has_too_many_fields", f"at most {FILTER_FIELDS_MAX}")
    for name, value in given.items():
        if type(value) not in (str, int, bool) or len(name) > FILTER_TEXT_MAX:
            raise Malformed("filter_value_invalid", f"{name[:60]!a} is compared with a text, a number or a truth")
        if isinstance(value, str) and len(value) > FILTER_TEXT_MAX:
            raise Malformed("filter_value_invalid", f"{name[:60]!a}: at most {FILTER_TEXT_MAX} characters")
    participant = given.get(MENTIONS)
    if MENTIONS in given and not isinstance(participant, str):
        raise Malformed("filter_value_invalid", f"{MENTIONS} is an address")
    rest = tuple((name, value) for name, value in given.items() if name != MENTIONS)
    return Filter(rest, participant if isinstance(participant, str) else None)


def mentions(value: object, text: str) -> bool:
    """Whether a text is anywhere among the values of a document."""
    if isinstance(value, dict):
        return any(mentions(part, text) for part in value.values())
    if isinstance(value, list):
        return any(mentions(part, text) for part in value)
    return value == text


def _make_block(block: CommittedBlock) -> list[BlockItem]:
    return [
        {
            "height": block.height,
            "block_id": block.block_id.hex(),
            "time_ms": block.time_ms,
            "transactions": len(block.transactions),
            "events": sum(map(len, block.events)),
        }
    ]


def _make_transactions(block: CommittedBlock) -> list[TransactionItem]:
    return [
        {
            "height": block.height,
            "index": index,
            "status": "committed",
            **transaction_to_json(tx),
            "events": [event_to_json(one) for one in events],
        }
        for index, (tx, events) in enumerate(zip(block.transactions, block.events, strict=True))
    ]


def _make_events(block: CommittedBlock) -> list[EventItem]:
    items: list[EventItem] = []
    for index, (tx, events) in enumerate(zip(block.transactions, block.events, strict=True)):
        place: EventPlace = {"height": block.height, "index": index, "tx_id": tx.tx_id.hex()}
        items += [merge(place, event_to_json(one)) for one in events]
    return items


_MAKERS: Final[Mapping[Topic, Callable[[CommittedBlock], Sequence[Item]]]] = {
    Topic.BLOCKS: _make_block,
    Topic.TRANSACTIONS: _make_transactions,
    Topic.EVENTS: _make_events,
}
