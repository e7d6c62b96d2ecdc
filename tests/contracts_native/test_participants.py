"""Who may sign, and who may register whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native.lots import LotId, SliceRef, TransferEnergy
from contracts_native.participants import (
    KycStatus,
    ParticipantRegistered,
    RegisterParticipant,
    Role,
    check_not_frozen,
    get_participant,
    has_role,
    make_possession_message,
)
from ledger.errors import NotAdmitted, NotPermitted, Rejected
from ledger.execution import execute_transaction
from ledger.primitives import Signature
from ledger.transaction import BlockContext, check_signatures, decode_transaction
from tests.contracts_native.harness import (
    ADMIN,
    ALICE,
    BOB,
    CHAIN_ID,
    RIVAL,
    STRANGER,
    UTILITY,
    Person,
    World,
    make_person,
)

DAVE = make_person("dave")


def make_registration(person: Person, registrar: Person, *roles: Role) -> RegisterParticipant:
    message = make_possession_message(CHAIN_ID, registrar.address, person.public_key)
    return RegisterParticipant(person.public_key, person.sign(message), roles, person.name)


def test_utility_registers_a_customer_who_can_then_register_nobody() -> None:
    world = World()
    applied = world.apply(make_registration(DAVE, UTILITY, Role.CONSUMER, Role.PROSUMER), by=UTILITY)
    roles = (Role.CONSUMER, Role.PROSUMER)
    assert applied.one(ParticipantRegistered) == ParticipantRegistered(DAVE.address, UTILITY.address, roles, "dave")
    dave = get_participant(world.state, DAVE.address)
    assert dave.registrar == UTILITY.address
    assert dave.registered_ms == world.time_ms
    assert dave.kyc is KycStatus.NONE
    world.refuses(make_registration(STRANGER, DAVE, Role.CONSUMER), "role_missing", by=DAVE)


def test_a_key_registers_once() -> None:
    world = World()
    world.apply(make_registration(DAVE, UTILITY, Role.CONSUMER), by=UTILITY)
    payload = make_registration(DAVE, RIVAL, Role.INVESTOR)
    world.refuses(payload, "participant_already_registered", by=RIVAL)


def test_possession_is_bound_to_the_key_and_to_the_registrar() -> None:
    world = World()
    payload = make_registration(DAVE, UTILITY, Role.CONSUMER)
    world.refuses(payload, "key_possession_not_proven", by=RIVAL)
    by_another = replace(payload, public_key=STRANGER.public_key)
    world.refuses(by_another, "key_possession_not_proven", by=UTILITY)
    empty = replace(payload, possession=Signature(bytes(64)))
    world.refuses(empty, "key_possession_not_proven", by=UTILITY)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.ADMIN, Role.UTILITY, Role.FULFILMENT, Role.MEASUREMENT_BODY])
def test_only_the_admin_appoints_those_who_watch_over_others(role: Role) -> None:
    world = World()
    payload = make_registration(DAVE, UTILITY, Role.CONSUMER, role)
    world.refuses(payload, "role_not_grantable_by_utility", by=UTILITY)
    world.apply(make_registration(DAVE, ADMIN, role), by=ADMIN)
    assert has_role(world.state, DAVE.address, [role])


def test_roles_are_named_once() -> None:
    world = World()
    payload = make_registration(DAVE, UTILITY, Role.CONSUMER, Role.CONSUMER)
    world.refuses(payload, "role_named_twice", by=UTILITY)


def test_a_stranger_signs_nothing() -> None:
    world = World()
    payload = make_registration(DAVE, STRANGER, Role.CONSUMER)
    world.refuses(payload, "signer_unknown", by=STRANGER)
    world.refuses(make_registration(DAVE, UTILITY, Role.CONSUMER), "signer_unknown", by=UTILITY, cosigners=[STRANGER])


def test_a_signature_under_a_key_not_in_force_counts_for_nothing() -> None:
    world = World()
    impostor = replace(UTILITY, seed=DAVE.seed, public_key=DAVE.public_key)
    payload = make_registration(DAVE, UTILITY, Role.CONSUMER)
    world.refuses(payload, "signing_key_not_in_force", by=impostor)


def test_a_false_signature_is_refused() -> None:
    world = World()
    forger = replace(UTILITY, seed=DAVE.seed)
    tx = decode_transaction(world.sign(make_registration(DAVE, UTILITY, Role.CONSUMER), by=forger), world.table)
    with pytest.raises(NotAdmitted, match="signature_invalid"):
        check_signatures(tx)


def test_a_frozen_participant_signs_nothing_not_even_beside_others() -> None:
    world = World()
    world.freeze(ALICE)
    ref = SliceRef(LotId(bytes(16), 0, 1), 0, 1)
    world.refuses(TransferEnergy(BOB.address, (ref,), ""), "participant_frozen", by=ALICE)
    registration = make_registration(DAVE, UTILITY, Role.CONSUMER)
    world.refuses(registration, "participant_frozen", by=UTILITY, cosigners=[ALICE])


def test_a_transaction_of_another_chain_is_refused() -> None:
    world = World()
    tx = decode_transaction(world.sign(make_registration(DAVE, UTILITY, Role.CONSUMER), by=UTILITY), world.table)
    elsewhere = BlockContext("other-1", 1, world.time_ms, version=1)
    with pytest.raises(NotAdmitted, match="transaction_of_another_chain"):
        execute_transaction(world.state, tx, world.table, elsewhere, index=0)


def test_an_unknown_participant_has_no_role() -> None:
    world = World()
    assert not has_role(world.state, STRANGER.address, list(Role))
    with pytest.raises(Rejected, match="participant_unknown"):
        get_participant(world.state, STRANGER.address)


def test_a_frozen_participant_is_named_so() -> None:
    world = World()
    check_not_frozen(world.state, ALICE.address)
    world.freeze(ALICE)
    with pytest.raises(NotPermitted, match="participant_frozen"):
        check_not_frozen(world.state, ALICE.address)
