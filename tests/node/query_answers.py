"""How the tests of the queries read answers, and move and claim energy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import cast

from contracts_native.claims import ClaimEnergy
from contracts_native.lots import LotId, SliceRef, TransferEnergy
from ledger.primitives import format_address
from node.queries.view import JsonObject
from tests.contracts_native.harness import DAY_0_MS, DAY_MS, Person
from tests.node.query_chain import QueryChain


def text(person: Person) -> str:
    return format_address(person.address)


Answer = Mapping[str, object]  # of any question: most have a type of their own


def rows(answer: Answer, name: str) -> list[JsonObject]:
    """The objects under a name of an answer, which must be JSON through and through."""
    assert json.loads(json.dumps(answer)) == answer
    return cast("list[JsonObject]", answer[name])


def number(value: object) -> int:
    assert type(value) is int
    return value


def part(answer: Answer, name: str) -> JsonObject:
    value = answer[name]
    assert isinstance(value, dict)
    return value


def read_all(ask: Callable[[str | None], Answer], name: str) -> list[JsonObject]:
    """All pages of a list."""
    found: list[JsonObject] = []
    cursor: object = None
    while True:
        assert cursor is None or isinstance(cursor, str)
        answer = ask(cursor)
        found += rows(answer, name)
        cursor = answer["next_cursor"]
        if cursor is None:
            return found


def move(world: QueryChain, lot: LotId, first_wh: int, end_wh: int, *, by: Person, to: Person) -> None:
    world.apply(TransferEnergy(to.address, (SliceRef(lot, first_wh, end_wh),), "sale"), by=by)


def claim(
    world: QueryChain, lot: LotId, first_wh: int, end_wh: int, *, by: Person, meter: bytes | None = None
) -> bytes:
    """Claim a range for the holder itself; the claim's id."""
    ref = SliceRef(lot, first_wh, end_wh)
    payload = ClaimEnergy(
        (ref,), by.address, "heat", DAY_0_MS, DAY_0_MS + DAY_MS, f"{lot.start_ms} {first_wh}", consumption_meter=meter
    )
    return world.apply(payload, by=by).make_id("claim")
