"""A chain with a little of everything that books are kept of, and a fake node that answers from it.

Owns the story: two plants in two zones, a buyer with a meter of its own, transfers, claims of both kinds.
"""

from __future__ import annotations

from collections.abc import Callable

from contracts_native.sites import Technology
from ledger.fields import Json
from node.queries.catalogue import QUERIES
from node.rpc_methods import METHODS
from tests.contracts_native.harness import ALICE, BOB, CAROL, DAY_0_MS, QUARTER_MS
from tests.node.fake_node import FakeNode
from tests.node.query_answers import claim, move
from tests.node.query_chain import QueryChain


def make_books() -> QueryChain:
    """Solar of Alice in DE-LU and wind of Carol in FR, both partly Bob's."""
    chain = QueryChain()
    solar = chain.add_producer(ALICE)
    wind = chain.add_producer(CAROL, zone="FR", technology=Technology.WIND)
    load = chain.add_consumer(BOB)
    lots = chain.produce(solar, 100, 200, 300, 0)
    gusts = chain.produce(wind, 50, 60, start_ms=DAY_0_MS + QUARTER_MS)
    chain.consume(load, 80, 90, 100, 110)
    for place, lot in enumerate(lots[:3]):
        move(chain, lot, 0, 90 + place, by=ALICE, to=BOB)
    move(chain, gusts[0], 10, 40, by=CAROL, to=BOB)
    claim(chain, lots[0], 0, 60, by=BOB, meter=load.meter_id)
    claim(chain, lots[1], 0, 40, by=BOB)
    claim(chain, gusts[0], 10, 30, by=BOB)
    return chain


def make_node(chain: QueryChain) -> FakeNode:
    """A node that has this chain: it answers every question from it."""
    node = FakeNode()
    for query in QUERIES:
        node.answers[query.__name__] = _make_answer(chain, query)
    return node


def _make_answer(chain: QueryChain, query: Callable[..., object]) -> Callable[[dict[str, Json]], object]:
    return lambda params: query(chain.view, **METHODS[query.__name__].bind(params))
