"""What counts as evidence against a validator, for how long, and that it is recorded once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native.evidence import (
    CHAIN_NAME,
    EVIDENCE_AGE_MS_MAX,
    EVIDENCE_BLOCKS_MAX,
    NONE,
    OFFENCES,
    OffenceKind,
    OffenceRecorded,
    ReportEvidence,
    Statement,
    StatementKind,
    check_age,
)
from contracts_native.recent_blocks import RECENT, RECENT_BLOCKS, TIMES, note_block
from ledger.authorities import SignedChain
from ledger.errors import RuleViolated
from ledger.primitives import Signature, sha256
from ledger.transaction import BlockContext, BlockEnd
from tests.contracts_native.council import BLOCK_MS, CHAIN_ID, START_MS, Council, make_change
from tests.contracts_native.harness import Person, make_person

A, B = sha256(b"a"), sha256(b"b")
A_KEY = make_person("proposer").public_key
UNSIGNED = Signature(bytes(64))
PREVOTE_A = Statement(StatementKind.PREVOTE, 2, 0, A, NONE, 0, UNSIGNED)
PREVOTE_B = replace(PREVOTE_A, block_id=B)
PRECOMMIT_A = replace(PREVOTE_A, kind=StatementKind.PRECOMMIT)
PROPOSAL_A = replace(PREVOTE_A, kind=StatementKind.PROPOSAL, time_ms=5)


def report(
    council: Council, first: Statement, second: Statement, *, by: Person | None = None, chain_id: str = CHAIN_ID
) -> ReportEvidence:
    """The evidence with both statements signed by the offender, ``v3`` by default."""
    offender = by or council.members[3]
    chain = SignedChain(chain_id, CHAIN_NAME.get(council.state).genesis_hash)
    signed = [replace(one, signature=offender.sign(one.compute_bytes(chain))) for one in (first, second)]
    return ReportEvidence(offender.public_key, *signed)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (PREVOTE_A, PREVOTE_B, OffenceKind.DUPLICATE_PREVOTE),
        (replace(PREVOTE_A, round=4, valid_round=1), replace(PREVOTE_A, round=4), OffenceKind.DUPLICATE_PREVOTE),
        (PRECOMMIT_A, replace(PRECOMMIT_A, block_id=None), OffenceKind.DUPLICATE_PRECOMMIT),
        (PROPOSAL_A, replace(PROPOSAL_A, time_ms=6), OffenceKind.DUPLICATE_PROPOSAL),
        (PRECOMMIT_A, replace(PREVOTE_B, round=1), OffenceKind.AMNESIA),
        (replace(PRECOMMIT_A, round=3), replace(PREVOTE_B, round=7, valid_round=2), OffenceKind.AMNESIA),
    ],
)
def test_an_offence_is_recorded_once(first: Statement, second: Statement, kind: OffenceKind) -> None:
    council = Council(4)
    council.run_to(4)
    evidence = report(council, first, second)
    (event,) = council.apply(evidence, council.members[0])
    assert event == OffenceRecorded(council.members[3].public_key, kind, 2, first.round)
    assert OFFENCES.get(council.state, council.members[3].public_key, 2, kind).recorded_height == 5
    council.refuses(evidence, "offence_already_recorded", council.members[1])
    swapped = report(council, replace(first, round=first.round + 10), replace(second, round=second.round + 10))
    council.refuses(swapped, "offence_already_recorded", council.members[1])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PREVOTE_A, PREVOTE_A),
        (PREVOTE_A, replace(PREVOTE_B, round=1)),
        (PREVOTE_A, replace(PREVOTE_B, height=3)),
        (PREVOTE_A, replace(PRECOMMIT_A, block_id=B)),
        (PRECOMMIT_A, replace(PREVOTE_A, round=1)),
        (PRECOMMIT_A, replace(PREVOTE_B, round=1, block_id=None)),
        (replace(PRECOMMIT_A, block_id=None), replace(PREVOTE_B, round=1)),
        (replace(PRECOMMIT_A, round=2), replace(PREVOTE_B, round=3, valid_round=2)),
        (replace(PRECOMMIT_A, round=2), replace(PREVOTE_B, round=1)),
        (replace(PREVOTE_B, round=1), PRECOMMIT_A),
        (replace(PREVOTE_A, time_ms=1), PREVOTE_B),  # says what a prevote does not say
        (replace(PRECOMMIT_A, valid_round=0), replace(PRECOMMIT_A, block_id=B)),
    ],
)
def test_what_an_honest_validator_may_say_is_no_offence(first: Statement, second: Statement) -> None:
    council = Council(4)
    council.run_to(4)
    council.refuses(report(council, first, second), "statements_prove_nothing", council.members[0])


def test_a_signature_of_another_key_or_chain_proves_nothing() -> None:
    council = Council(4)
    council.run_to(4)
    good = report(council, PREVOTE_A, PREVOTE_B)
    blamed = replace(good, offender=council.members[2].public_key)
    council.refuses(blamed, "statement_signature_invalid", council.members[0])
    foreign = report(council, PREVOTE_A, PREVOTE_B, chain_id="other")
    council.refuses(foreign, "statement_signature_invalid", council.members[0])


def test_only_members_of_that_height_are_judged_and_old_keys_stay_answerable() -> None:
    council = Council(5)
    council.run_to(3)
    stranger = make_person("stranger")
    council.refuses(report(council, PREVOTE_A, PREVOTE_B, by=stranger), "offender_not_a_validator", council.members[0])
    removal = council.propose(make_change(10, remove=council.members[3]))
    council.vote(removal, 1, 2, 4)
    council.run_to(12)
    assert "v3" not in council.list_members()
    late = [replace(one, height=11) for one in (PREVOTE_A, PREVOTE_B)]
    council.refuses(report(council, *late), "offender_not_a_validator", council.members[0])
    council.apply(report(council, PREVOTE_A, PREVOTE_B), council.members[0])


def test_evidence_grows_old_by_the_clock() -> None:
    council = Council(4)
    council.run_to(250)
    within, beyond = (
        report(council, *(replace(one, height=height) for one in (PREVOTE_A, PREVOTE_B))) for height in (120, 121)
    )
    end_ms = START_MS + 200 * BLOCK_MS + EVIDENCE_AGE_MS_MAX  # counted from height 200, the next hundredth
    signer = council.members[0]
    assert council.block(council.sign(within, signer), after_ms=end_ms - council.parent.time_ms)[1] == []
    assert council.block(council.sign(beyond, signer), after_ms=1)[1] == ["evidence_too_old"]


def test_evidence_grows_old_by_the_count_of_blocks() -> None:
    state = Council(1).state
    for height in range(100, 100_300, 100):  # a chain so busy that all of it happened within minutes
        note_block(state, BlockEnd(BlockContext(CHAIN_ID, height, START_MS + height, 1), A_KEY, A))
    head = BlockContext(CHAIN_ID, 100_250, START_MS + 100_250, 1)
    check_age(state, 100_250 - EVIDENCE_BLOCKS_MAX, head)
    with pytest.raises(RuleViolated, match="evidence_too_old"):
        check_age(state, 100_249 - EVIDENCE_BLOCKS_MAX, head)
    assert (EVIDENCE_BLOCKS_MAX, EVIDENCE_AGE_MS_MAX) == (100_000, 48 * 3_600_000)


def test_evidence_of_the_last_blocks_is_fresh_after_an_outage_of_a_month() -> None:
    council = Council(4)
    council.run_to(5)
    statements = [replace(one, height=5) for one in (PREVOTE_A, PREVOTE_B)]
    tx = council.sign(report(council, *statements), council.members[0])
    assert council.block(tx, after_ms=30 * 86_400_000)[1] == []


def test_evidence_of_a_height_to_come_is_refused() -> None:
    council = Council(4)
    early = [replace(one, height=2) for one in (PREVOTE_A, PREVOTE_B)]
    council.refuses(report(council, *early), "evidence_of_the_future", council.members[0])  # in block 1
    council.apply(report(council, *early), council.members[0])  # in block 2


def test_what_is_remembered_of_blocks_does_not_grow() -> None:
    council = Council(1)
    state = council.state
    for height in range(1, 102_000):
        if height < 300 or height > 101_000 or height % 100 == 0:
            block = BlockContext(CHAIN_ID, height, START_MS + height, 1)
            note_block(state, BlockEnd(block, council.members[0].public_key, A))
    assert len(list(RECENT.scan(state))) <= RECENT_BLOCKS
    kept = [int.from_bytes(key[len(TIMES.prefix) :], "big") for key, _ in TIMES.scan(state)]
    assert (min(kept), max(kept), len(kept)) == (1_900, 101_900, 1_001)
