"""What subscribers hear of a block, and which of it a filter lets through.

Owns the form of the items of each topic. An item is made once per block, whoever asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ledger.errors import Malformed
from ledger.fields import Json
from ledger.receipt import to_json as event_to_json
from ledger.transaction import transaction_to_json
from node.queries.view import JsonObject
from node.rpc_methods import Topic
from node.service import CommittedBlock

FILTER_FIELDS_MAX: Final = 8
FILTER_TEXT_MAX: Final = 256
MENTIONS: Final = "participant"  # matches wherever an item names the address, in whatever role


@dataclass(frozen=True, slots=True)
class Filter:
    """What an item must be like: fields with their values, and perhaps an address that it mentions."""

    fields: tuple[tuple[str, Json], ...]
    participant: str | None

    def lets_through(self, item: JsonObject) -> bool:
        """Whether an item is as the filter says."""
        if any(name not in item or item[name] != value for name, value in self.fields):
            return False
        return self.participant is None or mentions(item, self.participant)


@dataclass(slots=True)
class BlockNews:
    """The items of one block by topic, each made when first asked for."""

    block: CommittedBlock
    _items: dict[Topic, list[JsonObject]] = field(default_factory=dict)

    def get_items(self, topic: Topic) -> list[JsonObject]:
        """What the block has to say on a topic, in the order of the block."""
        if topic not in self._items:
            self._items[topic] = list(_MAKERS[topic](self.block))
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


def mentions(value: Json, text: str) -> bool:
    """Whether a text is anywhere among the values of a document."""
    if isinstance(value, dict):
        return any(mentions(part, text) for part in value.values())
    if isinstance(value, list):
        return any(mentions(part, text) for part in value)
    return value == text


def _make_block(block: CommittedBlock) -> list[JsonObject]:
    return [
        {
            "height": block.height,
            "block_id": block.block_id.hex(),
            "time_ms": block.time_ms,
            "transactions": len(block.transactions),
            "events": sum(map(len, block.events)),
        }
    ]


def _make_transactions(block: CommittedBlock) -> list[JsonObject]:
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


def _make_events(block: CommittedBlock) -> list[JsonObject]:
    items: list[JsonObject] = []
    for index, (tx, events) in enumerate(zip(block.transactions, block.events, strict=True)):
        place: JsonObject = {"height": block.height, "index": index, "tx_id": tx.tx_id.hex()}
        for one in events:
            shown = event_to_json(one)
            assert isinstance(shown, dict)
            items.append({**place, **shown})
    return items


_MAKERS: Final = {Topic.BLOCKS: _make_block, Topic.TRANSACTIONS: _make_transactions, Topic.EVENTS: _make_events}
