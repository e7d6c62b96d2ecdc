"""Keys follow each other, roles and freezes are given by those who may; every pair of a standing and a transaction."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts_native.credits import TransferCredits
from contracts_native.kyc import DecideKyc, KycDecision
from contracts_native.participants import (
    PARTICIPANT_TRANSITIONS,
    FreezeParticipant,
    KeyRotated,
    ParticipantFrozen,
    ParticipantUnfrozen,
    Role,
    RolesSet,
    RotateKey,
    SetRoles,
    Standing,
    UnfreezeParticipant,
    get_participant,
    make_possession_message,
    make_rotation_message,
)
from ledger.errors import Malformed, Rejected
from ledger.primitives import Signature
from ledger.transaction import Payload
from tests.contracts_native.harness import (
    ADMIN,
    ALICE,
    AUDITOR,
    BOB,
    CHAIN_ID,
    RIVAL,
    UTILITY,
    Person,
    World,
    make_person,
)
from tests.contracts_native.money import pay_in
from tests.contracts_native.papers import DAVE, add_dave, add_papers, cite, registration


def with_key(person: Person, name: str) -> Person:
    """The same participant with another key."""
    other = make_person(name)
    return Person(person.name, other.seed, other.public_key, person.address)


def rotation(person: Person, new: Person) -> RotateKey:
    message = make_rotation_message(CHAIN_ID, person.address, new.public_key)
    return RotateKey(new.public_key, new.sign(message))


# Keys


def test_the_address_stays_and_only_the_new_key_signs() -> None:
    world = World()
    pay_in(world, ALICE, 100)
    renewed = with_key(ALICE, "alice's second key")
    applied = world.apply(rotation(ALICE, renewed), by=ALICE)
    assert applied.one(KeyRotated) == KeyRotated(ALICE.address, renewed.public_key)
    payload = TransferCredits(BOB.address, 10, "")
    world.refuses(payload, "signing_key_not_in_force", by=ALICE)
    world.apply(payload, by=renewed)
    third = with_key(ALICE, "alice's third key")
    world.apply(rotation(ALICE, third), by=renewed)
    world.refuses(payload, "signing_key_not_in_force", by=renewed)
    world.apply(payload, by=third)


def test_a_key_is_shown_to_be_held_for_this_participant_on_this_chain() -> None:
    world = World()
    renewed = with_key(ALICE, "new")
    good = rotation(ALICE, renewed)
    message = make_rotation_message("other-1", ALICE.address, renewed.public_key)
    forgeries = [
        RotateKey(good.public_key, Signature(bytes(64))),
        RotateKey(good.public_key, renewed.sign(message)),
        RotateKey(good.public_key, renewed.sign(make_rotation_message(CHAIN_ID, BOB.address, renewed.public_key))),
        RotateKey(good.public_key, renewed.sign(make_possession_message(CHAIN_ID, ALICE.address, good.public_key))),
    ]
    for forgery in forgeries:
        world.refuses(forgery, "key_possession_not_proven", by=ALICE)
    world.apply(good, by=ALICE)


def test_no_key_comes_back_or_is_shared() -> None:
    world = World()
    renewed = with_key(ALICE, "new")
    world.refuses(rotation(ALICE, ALICE), "key_already_used", by=ALICE)
    world.refuses(rotation(ALICE, with_key(ALICE, "bob")), "key_already_used", by=ALICE)
    world.apply(rotation(ALICE, renewed), by=ALICE)
    world.refuses(rotation(ALICE, ALICE), "key_already_used", by=renewed)
    world.refuses(rotation(BOB, with_key(BOB, "new")), "key_already_used", by=BOB)
    stolen = make_person("new")
    world.refuses(registration(stolen), "key_already_used", by=UTILITY)


# Roles


def test_the_admin_sets_any_role_and_a_utility_those_of_its_customers() -> None:
    world = World()
    add_dave(world)
    applied = world.apply(SetRoles(DAVE.address, (Role.PROSUMER, Role.INVESTOR)), by=UTILITY)
    assert applied.one(RolesSet) == RolesSet(DAVE.address, (Role.PROSUMER, Role.INVESTOR), UTILITY.address)
    assert get_participant(world.state, DAVE.address).roles == (Role.PROSUMER, Role.INVESTOR)
    world.refuses(SetRoles(DAVE.address, (Role.CONSUMER,)), "participant_of_another_registrar", by=RIVAL)
    world.refuses(SetRoles(DAVE.address, (Role.AUDITOR,)), "role_not_grantable_by_utility", by=UTILITY)
    world.apply(SetRoles(DAVE.address, (Role.AUDITOR,)), by=ADMIN)
    world.refuses(SetRoles(DAVE.address, (Role.CONSUMER,)), "role_not_grantable_by_utility", by=UTILITY)


def test_roles_that_cannot_be_set() -> None:
    world = World()
    world.refuses(SetRoles(ADMIN.address, (Role.CONSUMER,)), "roles_of_oneself", by=ADMIN)
    world.refuses(SetRoles(BOB.address, (Role.CONSUMER,)), "roles_already_set", by=ADMIN)
    world.refuses(SetRoles(BOB.address, (Role.CONSUMER, Role.CONSUMER)), "role_named_twice", by=ADMIN)
    world.refuses(SetRoles(DAVE.address, (Role.CONSUMER,)), "participant_unknown", by=ADMIN)
    world.refuses(SetRoles(BOB.address, (Role.INVESTOR,)), "role_missing", by=ALICE)
    with pytest.raises(Malformed, match="array_length_out_of_range"):
        world.apply(SetRoles(BOB.address, ()), by=ADMIN)


# Freezes


def test_a_frozen_participant_signs_nothing_until_it_is_unfrozen() -> None:
    world = World()
    pay_in(world, BOB, 100)
    applied = world.apply(FreezeParticipant(BOB.address, "stolen key"), by=AUDITOR)
    assert applied.one(ParticipantFrozen) == ParticipantFrozen(BOB.address, AUDITOR.address, "stolen key")
    payload = TransferCredits(ALICE.address, 10, "")
    world.refuses(payload, "participant_frozen", by=BOB)
    world.refuses(rotation(BOB, with_key(BOB, "new")), "participant_frozen", by=BOB)
    applied = world.apply(UnfreezeParticipant(BOB.address, "key replaced"), by=AUDITOR)
    assert applied.one(ParticipantUnfrozen).reason == "key replaced"
    world.apply(payload, by=BOB)


@pytest.mark.parametrize("person", [ADMIN, UTILITY, BOB])
def test_only_an_auditor_freezes_and_not_itself(person: Person) -> None:
    world = World()
    world.refuses(FreezeParticipant(ALICE.address, "x"), "role_missing", by=person)
    world.refuses(UnfreezeParticipant(ALICE.address, "x"), "role_missing", by=person)
    world.refuses(FreezeParticipant(AUDITOR.address, "x"), "freeze_of_oneself", by=AUDITOR)
    world.refuses(FreezeParticipant(DAVE.address, "x"), "participant_unknown", by=AUDITOR)
    with pytest.raises(Malformed, match="text_length_out_of_range"):
        world.apply(FreezeParticipant(ALICE.address, ""), by=AUDITOR)


# Every pair of a standing and a transaction

ACTIONS: dict[str, tuple[Callable[[], Payload], Person]] = {
    "participant.freeze": (lambda: FreezeParticipant(DAVE.address, "x"), AUDITOR),
    "participant.unfreeze": (lambda: UnfreezeParticipant(DAVE.address, "x"), AUDITOR),
    "participant.set_roles": (lambda: SetRoles(DAVE.address, (Role.PROSUMER,)), UTILITY),
    "participant.decide_kyc": (lambda: DecideKyc(DAVE.address, KycDecision.APPROVED, cite(1)), UTILITY),
    "participant.rotate_key": (lambda: rotation(DAVE, with_key(DAVE, "dave's second key")), DAVE),
}
AFTER: dict[Standing, dict[str, Standing]] = {
    Standing.FREE: {
        "participant.freeze": Standing.FROZEN,
        "participant.set_roles": Standing.FREE,
        "participant.decide_kyc": Standing.FREE,
        "participant.rotate_key": Standing.FREE,
    },
    Standing.FROZEN: {
        "participant.unfreeze": Standing.FREE,
        "participant.set_roles": Standing.FROZEN,
        "participant.decide_kyc": Standing.FROZEN,
    },
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("standing", Standing)
def test_a_participant_goes_only_where_the_domain_lets_it(standing: Standing, action: str) -> None:
    world = World()
    add_dave(world)
    add_papers(world, DAVE)
    if standing is Standing.FROZEN:
        world.freeze(DAVE)
    make, by = ACTIONS[action]
    wanted = AFTER[standing].get(action)
    if wanted is None:
        reason = "participant_frozen" if by == DAVE else f"participant_not_open_to_this: .* is {standing}"
        with pytest.raises(Rejected, match=reason):
            world.apply(make(), by=by)
    else:
        world.apply(make(), by=by)
    assert get_participant(world.state, DAVE.address).standing is (wanted or standing)


def test_the_table_says_what_was_walked() -> None:
    walked = {(standing, tag): after for standing, row in AFTER.items() for tag, after in row.items()}
    assert dict(PARTICIPANT_TRANSITIONS) == walked
