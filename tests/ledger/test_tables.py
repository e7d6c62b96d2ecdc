"""Tables: keys sort like their values, neighbours are found within one group, and no table reads another's values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.encoding import encode
from ledger.errors import CorruptStore, RuleViolated
from ledger.state import State
from ledger.storage import STATE, MemoryStore
from ledger.tables import Table, check_distinct


@dataclass(frozen=True, slots=True)
class Item:
    """A value to store."""

    number: int


class Letter(enum.StrEnum):
    A = "a"
    AB = "ab"


ITEMS: Table[Item] = Table("it", Item, missing="item_unknown")
OTHERS: Table[Item] = Table("iu", Item, missing="other_unknown")


def numbers_of(pairs: object) -> list[int]:
    return [item.number for _, item in cast("list[tuple[bytes, Item]]", list(cast("list[object]", pairs)))]


@given(st.lists(st.integers(0, 2**64 - 1), unique=True))
def test_numbers_sort_in_keys_as_they_count(numbers: list[int]) -> None:
    keys = [ITEMS.key(b"group", number) for number in numbers]
    assert sorted(keys) == [ITEMS.key(b"group", number) for number in sorted(numbers)]


@given(st.lists(st.text("ab\u00e9\U0001f600", max_size=5), unique=True), st.integers(0, 9), st.integers(0, 9))
def test_texts_sort_in_keys_whatever_follows_them(texts: list[str], one: int, two: int) -> None:
    keys = {text: ITEMS.key(text, one if text < "b" else two) for text in texts}
    assert sorted(texts, key=lambda text: keys[text]) == sorted(texts, key=str.encode)


def test_an_enum_is_the_text_of_its_value() -> None:
    assert ITEMS.key(Letter.AB, 1) == ITEMS.key("ab", 1)
    assert ITEMS.key(Letter.A, 1) < ITEMS.key(Letter.AB, 0)


def test_a_key_begins_with_the_prefix_of_the_state_and_the_table() -> None:
    assert ITEMS.key(b"\x01", 2) == STATE + b"it" + b"\x01" + bytes(7) + b"\x02"


def test_a_part_of_another_type_is_our_own_mistake() -> None:
    for part in (True, None, 1.5, (1,)):
        with pytest.raises(AssertionError, match="not a key part"):
            ITEMS.key(cast(int, part))


def test_a_prefix_has_two_ascii_letters() -> None:
    for prefix in ("i", "ite", "é", "éé"):
        with pytest.raises(AssertionError):
            Table(prefix, Item, missing="item_unknown")


def test_get_refuses_with_the_reason_of_the_table_and_names_the_key() -> None:
    state = State(MemoryStore())
    with pytest.raises(RuleViolated) as refusal:
        ITEMS.get(state, b"\xab", 7, "seven")
    assert (refusal.value.reason, refusal.value.item) == ("item_unknown", "ab 7 seven")
    assert ITEMS.find(state, b"\xab", 7) is None


def test_what_is_put_is_found_and_what_is_deleted_is_not() -> None:
    state = State(MemoryStore())
    ITEMS.put(state, 1, value=Item(5))
    assert ITEMS.get(state, 1) == Item(5)
    assert OTHERS.find(state, 1) is None
    ITEMS.delete(state, 1)
    ITEMS.delete(state, 2)
    assert ITEMS.find(state, 1) is None


def neighbours_state(*, stored: bool) -> State:
    """Groups g and h; in g the numbers 10, 20, 30; below and above, other groups and another table."""
    store = MemoryStore()
    state = State(store)
    for number in (10, 20, 30):
        ITEMS.put(state, b"g", number, value=Item(number))
    ITEMS.put(state, b"f", 15, value=Item(1))
    ITEMS.put(state, b"h", 15, value=Item(2))
    OTHERS.put(state, b"g", 15, value=Item(3))
    if not stored:
        return state
    store.write(state.compute_changes())
    return State(store)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    ("at", "floor", "above"),
    [(0, None, 10), (9, None, 10), (10, 10, 20), (11, 10, 20), (29, 20, 30), (30, 30, None), (2**64 - 1, 30, None)],
)
def test_neighbours_are_found_within_the_group(stored: bool, at: int, floor: int | None, above: int | None) -> None:
    state = neighbours_state(stored=stored)
    assert ITEMS.find_floor(state, b"g", at) == (None if floor is None else (ITEMS.key(b"g", floor), Item(floor)))
    assert ITEMS.find_above(state, b"g", at) == (None if above is None else (ITEMS.key(b"g", above), Item(above)))


@pytest.mark.parametrize("stored", [False, True])
def test_a_deleted_neighbour_is_passed_over(stored: bool) -> None:
    state = neighbours_state(stored=stored)
    ITEMS.delete(state, b"g", 20)
    assert ITEMS.find_floor(state, b"g", 29) == (ITEMS.key(b"g", 10), Item(10))
    assert ITEMS.find_above(state, b"g", 10) == (ITEMS.key(b"g", 30), Item(30))


@pytest.mark.parametrize("stored", [False, True])
def test_a_scan_stays_in_its_table_and_its_group(stored: bool) -> None:
    state = neighbours_state(stored=stored)
    assert numbers_of(ITEMS.scan(state, b"g")) == [10, 20, 30]
    assert numbers_of(ITEMS.scan(state)) == [1, 10, 20, 30, 2]
    assert numbers_of(OTHERS.scan(state)) == [3]
    assert numbers_of(ITEMS.scan(state, b"g", 20)) == [20]


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", encode((1, 2)), encode(1), encode((-1,)), encode(("1",)), b"\x91\xcc\x01"]
)
def test_a_stored_value_that_nobody_wrote_stops_the_node(raw: bytes) -> None:
    state = State(MemoryStore([(ITEMS.key(1), raw)]))
    with pytest.raises(CorruptStore, match="it"):
        ITEMS.find(state, 1)
    with pytest.raises(CorruptStore):
        list(ITEMS.scan(state))


def test_two_tables_with_one_prefix_are_refused() -> None:
    tables = [cast("Table[object]", table) for table in (ITEMS, OTHERS)]
    check_distinct(tables)
    with pytest.raises(AssertionError, match="share prefix"):
        check_distinct([*tables, cast("Table[object]", Table("it", Item, missing="item_unknown"))])
