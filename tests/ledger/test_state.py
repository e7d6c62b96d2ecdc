"""The overlay against a dict: whatever is put, deleted, marked and rolled back, it reads like the model."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Annotated, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.encoding import encode
from ledger.fields import Length
from ledger.receipt import Event, event
from ledger.state import CACHED_BYTES_MAX, HOT_VALUES_MAX, State
from ledger.storage import MemoryStore
from ledger.tables import Table


@dataclass(frozen=True, slots=True)
class Item:
    """A value to store."""

    number: int


@dataclass(frozen=True, slots=True)
class LargeItem:
    """A value that takes some room."""

    content: Annotated[bytes, Length(100_000)]


@event("test.happened")
@dataclass(frozen=True, slots=True)
class Happened(Event):
    """Something to emit."""

    number: int


ITEMS: Table[Item] = Table("it", Item, missing="item_unknown")
HOT_ITEMS: Table[Item] = Table("zh", Item, missing="item_unknown", is_hot=True)
LARGE_ITEMS: Table[LargeItem] = Table("zl", LargeItem, missing="item_unknown")
OTHERS: Table[Item] = Table("iu", Item, missing="other_unknown")
TABLES = (ITEMS, OTHERS)

KEYS = 6  # few, so that steps meet at one key
keys = st.integers(0, KEYS - 1)
tables = st.sampled_from(range(2))
Model = dict[tuple[int, int], int]


class Overlay(RuleBasedStateMachine):
    """Runs the same steps on a ``State`` and on a dict."""

    @initialize(stored=st.dictionaries(st.tuples(tables, keys), st.integers(0, 99)))
    def start(self, stored: Model) -> None:
        self.store = MemoryStore((TABLES[at].key(key), encode((number,))) for (at, key), number in stored.items())
        self.state = State(self.store)
        self.model: Model = dict(stored)
        self.events: list[int] = []
        self.marks: list[tuple[tuple[int, int], Model, list[int]]] = []

    @rule(at=tables, key=keys, number=st.integers(0, 99))
    def put(self, at: int, key: int, number: int) -> None:
        TABLES[at].put(self.state, key, value=Item(number))
        self.model[at, key] = number

    @rule(at=tables, key=keys)
    def delete(self, at: int, key: int) -> None:
        TABLES[at].delete(self.state, key)
        self.model.pop((at, key), None)

    @rule(number=st.integers(0, 99))
    def emit(self, number: int) -> None:
        self.state.emit(Happened(number))
        self.events.append(number)

    @rule()
    def mark(self) -> None:
        self.marks.append((self.state.savepoint(), dict(self.model), list(self.events)))

    @precondition(lambda self: bool(getattr(self, "marks", None)))
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.marks) - 1))
        mark, self.model, self.events = self.marks[at]
        del self.marks[at:]
        self.state.rollback(mark)

    @precondition(lambda self: not getattr(self, "marks", None))
    @rule()
    def commit(self) -> None:
        self.store.write(self.state.compute_changes())
        self.state = State(self.store)
        self.events = []

    @rule(at=tables, start=keys, stop=keys, is_reversed=st.booleans())
    def scan(self, at: int, start: int, stop: int, is_reversed: bool) -> None:
        table = cast("Table[object]", TABLES[at])
        pairs = self.state.scan(table, table.key(start), table.key(stop), reverse=is_reversed)
        wanted = sorted(key for owner, key in self.model if owner == at and start <= key < stop)
        if is_reversed:
            wanted.reverse()
        assert list(pairs) == [(table.key(key), Item(self.model[at, key])) for key in wanted]

    @rule(at=tables, key=keys)
    def find_neighbours(self, at: int, key: int) -> None:
        mine = [number for owner, number in self.model if owner == at]
        floor, above = max((k for k in mine if k <= key), default=None), min((k for k in mine if k > key), default=None)
        for found, wanted in (
            (TABLES[at].find_floor(self.state, key), floor),
            (TABLES[at].find_above(self.state, key), above),
        ):
            assert found == (None if wanted is None else (TABLES[at].key(wanted), Item(self.model[at, wanted])))

    @invariant()
    def reads_like_the_model(self) -> None:
        for at, table in enumerate(TABLES):
            mine = {key: number for (owner, key), number in self.model.items() if owner == at}
            for key in range(KEYS):
                assert table.find(self.state, key) == (Item(mine[key]) if key in mine else None)
            assert [pair[1].number for pair in table.scan(self.state)] == [mine[key] for key in sorted(mine)]
        assert self.state.take_events((0, 0)) == tuple(map(Happened, self.events))


OverlayTest = Overlay.TestCase
OverlayTest.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.dictionaries(keys, st.none() | st.integers(0, 99)))
def test_the_changes_of_an_overlay_bring_its_snapshot_to_its_state(wanted: dict[int, int | None]) -> None:
    store = MemoryStore((ITEMS.key(key), encode((key,))) for key in range(0, KEYS, 2))
    state = State(store)
    for key, number in wanted.items():
        if number is None:
            ITEMS.delete(state, key)
        else:
            ITEMS.put(state, key, value=Item(number))
    changes = state.compute_changes()
    assert changes == {ITEMS.key(key): None if number is None else encode((number,)) for key, number in wanted.items()}
    before = list(ITEMS.scan(state))
    store.write(changes)
    assert list(ITEMS.scan(State(store))) == before


def test_a_rolled_back_overlay_has_no_changes() -> None:
    state = State(MemoryStore([(ITEMS.key(1), encode((1,)))]))
    mark = state.savepoint()
    ITEMS.put(state, 1, value=Item(2))
    ITEMS.put(state, 1, value=Item(3))
    ITEMS.delete(state, 1)
    ITEMS.put(state, 2, value=Item(4))
    state.emit(Happened(1))
    state.rollback(mark)
    assert state.compute_changes() == {}
    assert state.take_events((0, 0)) == ()
    assert ITEMS.get(state, 1) == Item(1)


def test_a_rollback_restores_what_the_overlay_had_at_the_mark_and_not_the_snapshot() -> None:
    state = State(MemoryStore([(ITEMS.key(1), encode((1,)))]))
    ITEMS.put(state, 1, value=Item(2))
    ITEMS.delete(state, 2)
    outer = state.savepoint()
    ITEMS.put(state, 1, value=Item(3))
    inner = state.savepoint()
    ITEMS.delete(state, 1)
    ITEMS.put(state, 2, value=Item(9))
    state.rollback(inner)
    assert (ITEMS.find(state, 1), ITEMS.find(state, 2)) == (Item(3), None)
    state.rollback(outer)
    assert ITEMS.find(state, 1) == Item(2)
    assert state.compute_changes() == {ITEMS.key(1): encode((2,)), ITEMS.key(2): None}


def test_a_value_of_a_hot_table_is_decoded_once_for_all_overlays_that_share_it() -> None:
    hot: dict[bytes, object] = {}
    store = MemoryStore([(HOT_ITEMS.key(1), encode((1,))), (ITEMS.key(1), encode((1,)))])
    first = HOT_ITEMS.get(State(store, hot=hot), 1)
    assert HOT_ITEMS.get(State(store, hot=hot), 1) is first
    overlay = State(store, hot=hot)
    HOT_ITEMS.put(overlay, 1, value=Item(9))
    assert HOT_ITEMS.get(State(store, hot=hot), 1) is first
    assert ITEMS.get(State(store, hot=hot), 1) is not ITEMS.get(State(store, hot=hot), 1)


def test_the_hot_values_of_the_next_snapshot_are_those_that_its_store_holds() -> None:
    hot: dict[bytes, object] = {}
    store = MemoryStore([(HOT_ITEMS.key(1), encode((1,))), (HOT_ITEMS.key(2), encode((2,)))])
    state = State(store, hot=hot)
    assert HOT_ITEMS.find(state, 3) is None
    HOT_ITEMS.put(state, 1, value=Item(9))
    HOT_ITEMS.delete(state, 2)
    HOT_ITEMS.put(state, 3, value=Item(7))
    ITEMS.put(state, 4, value=Item(8))
    changes = state.get_hot_changes()
    assert changes == {HOT_ITEMS.key(1): Item(9), HOT_ITEMS.key(2): None, HOT_ITEMS.key(3): Item(7)}
    store.write(state.compute_changes())
    hot.update(changes)
    warm, cold = State(store, hot=hot), State(store)
    for key in (1, 2, 3):
        assert HOT_ITEMS.find(warm, key) == HOT_ITEMS.find(cold, key)


def test_names_that_nobody_has_do_not_pile_up_while_no_block_comes() -> None:
    hot: dict[bytes, object] = {}
    store = MemoryStore([(HOT_ITEMS.key(0), encode((7,)))])
    for number in range(HOT_VALUES_MAX + 2):
        HOT_ITEMS.find(State(store, hot=hot), number)
        assert len(hot) <= HOT_VALUES_MAX
    assert HOT_ITEMS.get(State(store, hot=hot), 0) == Item(7)


def test_an_overlay_that_reads_a_whole_table_keeps_no_more_of_it_than_so_many_bytes() -> None:
    size = 20_000
    count = 2 * CACHED_BYTES_MAX // size
    state = State(MemoryStore((LARGE_ITEMS.key(number), encode((bytes(size),))) for number in range(count)))
    LARGE_ITEMS.put(state, 3, value=LargeItem(b"changed"))
    assert [len(item.content) for _, item in LARGE_ITEMS.scan(state)] == [size] * 3 + [7] + [size] * (count - 4)
    gc.collect()
    kept = sum(type(held) is LargeItem for held in gc.get_objects())
    assert kept <= CACHED_BYTES_MAX // size + 1  # with the one that was changed
    assert LARGE_ITEMS.get(state, 0) == LargeItem(bytes(size))
