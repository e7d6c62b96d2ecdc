"""Genesis: one document, one first state, one hash; and what is wrong in it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contracts_native.participants import PARTICIPANTS, Role
from ledger.errors import Malformed
from ledger.fields import Json
from ledger.genesis import (
    PARTICIPANTS_MAX,
    GenesisDocument,
    GenesisParticipant,
    GenesisValidator,
    compute_genesis_changes,
    compute_genesis_hash,
    make_genesis_header,
    read_genesis,
    write_genesis,
)
from ledger.parameters import Parameters, get_parameters
from ledger.primitives import ZERO_HASH, Hash
from ledger.state import State
from ledger.storage import MemoryStore
from ledger.validators import VALIDATORS, VALIDATORS_MAX
from tests.ledger.toy import ALICE, BOB, PROPOSER, STRANGER, TABLE, WATCHER, ToyChain, make_document

Edit = Callable[[dict[str, Json]], object]


def as_object(data: Json) -> dict[str, Json]:
    assert isinstance(data, dict)
    return data


def as_list(data: Json) -> list[Json]:
    assert isinstance(data, list)
    return data


def first_state(document: GenesisDocument) -> State:
    store = MemoryStore()
    store.write(compute_genesis_changes(document, TABLE))
    return State(store)


def test_a_document_survives_its_json() -> None:
    document = make_document(Parameters(zone_pairs=(("north", "south"),), lot_lifetime_s=7))
    assert read_genesis(write_genesis(document)) == document


def test_the_first_state_holds_what_the_document_says() -> None:
    parameters = Parameters(reading_skew_s=5)
    state = first_state(make_document(parameters))
    assert get_parameters(state) == parameters
    assert [one.public_key for one in VALIDATORS.get(state).members] == [PROPOSER.public_key]
    assert PARTICIPANTS.get(state, ALICE.address).roles == (Role.CONSUMER,)
    assert PARTICIPANTS.get(state, WATCHER.address).roles == (Role.AUDITOR,)
    assert PARTICIPANTS.find(state, STRANGER.address) is None
    assert PARTICIPANTS.find(state, PROPOSER.address) is None  # a validator signs votes, not transactions


def test_two_nodes_with_one_document_begin_with_one_state_and_one_header() -> None:
    one, two = ToyChain(), ToyChain()
    assert one.parent == two.parent
    assert one.tree.root == two.tree.root == one.parent.state_root != ZERO_HASH


def changed_documents() -> list[GenesisDocument]:
    base = make_document()
    other = GenesisValidator(BOB.public_key, "two")
    return [
        replace(base, chain_id="toy-2"),
        replace(base, time_ms=base.time_ms + 1),
        replace(base, validators=(other,)),
        replace(base, validators=(*base.validators, other)),
        replace(base, validators=(other, *base.validators)),
        replace(base, participants=base.participants[1:]),
        replace(base, participants=base.participants[::-1]),
        replace(base, parameters=Parameters(reading_skew_s=5)),
    ]


def test_the_hash_and_the_header_depend_on_every_part_of_the_document() -> None:
    documents = [make_document(), *changed_documents()]
    assert len(set(map(compute_genesis_hash, documents))) == len(documents)
    header = make_genesis_header(make_document(), state_root=Hash(b"s" * 32), validators_hash=Hash(b"v" * 32))
    assert header.height == 0
    assert header.parent_id == compute_genesis_hash(make_document())
    assert (header.state_root, header.validators_hash) == (b"s" * 32, b"v" * 32)
    assert header.next_validators_hash == header.validators_hash


def set_first(group: str, name: str, value: Json) -> Edit:
    return lambda data: as_object(as_list(data[group])[0]).update({name: value})


def repeat(group: str, times: int) -> Edit:
    return lambda data: data.update({group: as_list(data[group])[:1] * times})


WRONG: list[tuple[Edit, str]] = [
    (lambda data: data.pop("chain_id"), "field_missing"),
    (lambda data: data.pop("parameters"), "field_missing"),
    (lambda data: data.update(extra=1), "field_unknown"),
    (lambda data: data.update(chain_id=""), "text_length_out_of_range"),
    (lambda data: data.update(chain_id="c" * 65), "text_length_out_of_range"),
    (lambda data: data.update(chain_id=7), "field_has_wrong_type"),
    (lambda data: data.update(time_ms=0), "number_out_of_range"),
    (lambda data: data.update(time_ms="now"), "field_has_wrong_type"),
    (lambda data: data.update(validators=[]), "array_length_out_of_range"),
    (repeat("validators", VALIDATORS_MAX + 1), "array_length_out_of_range"),
    (repeat("validators", 2), "validator_named_twice"),
    (repeat("participants", PARTICIPANTS_MAX + 1), "array_length_out_of_range"),
    (set_first("validators", "public_key", "00"), "bytes_length_out_of_range"),
    (set_first("validators", "public_key", "zz" * 32), "hex_invalid"),
    (set_first("validators", "moniker", "m" * 65), "text_length_out_of_range"),
    (set_first("participants", "credit_limit_cents", -1), "number_out_of_range"),
    (set_first("participants", "roles", "consumer"), "field_has_wrong_type"),
    (lambda data: as_object(data["parameters"]).update(block_bytes_max=1), "number_out_of_range"),
    (lambda data: as_object(data["parameters"]).update(block_bytes_max=2**40), "number_out_of_range"),
    (lambda data: as_object(data["parameters"]).update(zone_pairs=[["one"]]), "array_length_out_of_range"),
]


@pytest.mark.parametrize(("edit", "reason"), WRONG)
def test_a_wrong_document_is_refused_by_name(edit: Edit, reason: str) -> None:
    data = as_object(write_genesis(make_document()))
    edit(data)
    with pytest.raises(Malformed) as refusal:
        read_genesis(data)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("data", [None, [], "genesis", 7, {}])
def test_something_else_is_no_document(data: Json) -> None:
    with pytest.raises(Malformed):
        read_genesis(data)


@pytest.mark.parametrize(
    ("participants", "reason"),
    [
        ((GenesisParticipant(ALICE.public_key, "a", ("king",), 0),), "role_unknown"),
        ((GenesisParticipant(ALICE.public_key, "a", ("consumer",), 0),) * 2, "participant_named_twice"),
    ],
)
def test_participants_that_cannot_be_are_refused(participants: tuple[GenesisParticipant, ...], reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        compute_genesis_changes(replace(make_document(), participants=participants), TABLE)
    assert refusal.value.reason == reason
