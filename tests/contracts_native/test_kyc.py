"""A decision on a participant's papers says on which version of which document it was made."""

from __future__ import annotations

import pytest

from contracts_native.documents import RetireDocument
from contracts_native.kyc import KYC_RECORDS, KYC_TRANSITIONS, DecideKyc, KycDecided, KycDecision
from contracts_native.participants import KycStatus, get_participant
from tests.contracts_native.harness import ADMIN, BOB, RIVAL, UTILITY, World
from tests.contracts_native.papers import DAVE, add_dave, add_papers, add_version, cite


@pytest.fixture
def world() -> World:
    """Dave is registered by the utility, and has anchored his papers."""
    one = World()
    add_dave(one)
    add_papers(one, DAVE)
    return one


def decide(decision: KycDecision, version: int = 1) -> DecideKyc:
    return DecideKyc(DAVE.address, decision, cite(version))


@pytest.mark.parametrize("decision", KycDecision)
@pytest.mark.parametrize("before", KycStatus)
def test_every_decision_follows_every_status(world: World, before: KycStatus, decision: KycDecision) -> None:
    if before is not KycStatus.NONE:
        world.apply(decide(KycDecision(before.value)), by=UTILITY)
    add_version(world, 2, DAVE, UTILITY)
    applied = world.apply(decide(decision, 2), by=UTILITY)
    assert applied.one(KycDecided) == KycDecided(DAVE.address, decision, cite(2), UTILITY.address)
    after = get_participant(world.state, DAVE.address).kyc
    assert after is KYC_TRANSITIONS[before, decision]
    assert after.value == decision.value
    record = KYC_RECORDS.get(world.state, DAVE.address)
    assert (record.citation, record.decided_by, record.decided_ms) == (cite(2), UTILITY.address, world.time_ms)
    world.refuses(decide(decision, 2), "kyc_already_decided", by=UTILITY)


def test_the_utility_that_registered_a_participant_decides(world: World) -> None:
    payload = decide(KycDecision.APPROVED)
    world.refuses(payload, "participant_of_another_registrar", by=RIVAL)
    world.refuses(payload, "role_missing", by=ADMIN)
    oneself = DecideKyc(UTILITY.address, KycDecision.APPROVED, cite(1))
    world.refuses(oneself, "kyc_of_oneself", by=UTILITY)
    world.apply(payload, by=UTILITY)


def test_any_utility_decides_on_whom_none_registered() -> None:
    world = World()
    add_dave(world, registrar=ADMIN)
    add_papers(world, DAVE)
    world.apply(decide(KycDecision.APPROVED), by=RIVAL)
    of_genesis = World()
    add_papers(of_genesis, BOB)
    of_genesis.apply(DecideKyc(BOB.address, KycDecision.REFUSED, cite(1, BOB)), by=RIVAL)


def test_a_decision_is_made_on_the_latest_version_that_the_decider_could_read(world: World) -> None:
    world.refuses(decide(KycDecision.APPROVED, 2), "document_version_unknown", by=UTILITY)
    unknown = DecideKyc(DAVE.address, KycDecision.APPROVED, cite(1, BOB))
    world.refuses(unknown, "document_unknown", by=UTILITY)
    add_version(world, 2, DAVE, RIVAL)
    world.refuses(decide(KycDecision.APPROVED, 1), "document_version_superseded", by=UTILITY)
    world.refuses(decide(KycDecision.APPROVED, 2), "reader_not_granted", by=UTILITY)
    add_version(world, 3, DAVE, UTILITY)
    world.apply(decide(KycDecision.APPROVED, 3), by=UTILITY)
    world.apply(RetireDocument(cite(1).document), by=DAVE)
    world.refuses(decide(KycDecision.REFUSED, 3), "document_not_open_to_this", by=UTILITY)


def test_the_papers_are_those_of_the_participant(world: World) -> None:
    add_papers(other := World(), BOB)
    add_dave(other)
    wrong = DecideKyc(DAVE.address, KycDecision.APPROVED, cite(1, BOB))
    other.refuses(wrong, "document_is_no_paper_of_participant", by=UTILITY)
    world.apply(decide(KycDecision.REFUSED), by=UTILITY)
