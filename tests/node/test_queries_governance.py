"""Questions about proposals, validators and parameters of every height, and what was proven of whom."""

from __future__ import annotations

from typing import cast

import pytest

from contracts_native.evidence import CHAIN_NAME, NONE, ReportEvidence, Statement, StatementKind
from contracts_native.governance import ParameterChange, ProposalStatus, Propose, ShowReadiness, Vote
from contracts_native.lots import SliceRef
from ledger.authorities import SignedChain
from ledger.block import compute_block_id
from ledger.fields import Json
from ledger.primitives import Signature, sha256
from node.certificates.verify import verify_certificate
from node.chain_store import get_header
from node.queries import chain, governance
from node.queries.certificates import certificate_get
from node.queries.errors import NotFound
from node.queries.view import JsonObject
from tests.contracts_native.council import make_change
from tests.contracts_native.harness import BOB, CHAIN_ID, make_person
from tests.node.certificate_chain import VALIDATORS, CertifiedChain, claim
from tests.node.query_answers import rows
from tests.node.query_chain import VALIDATOR, QueryChain

NEWCOMER = make_person("newcomer")


def show_members(world: QueryChain, height: int | None = None) -> list[Json]:
    return [one["moniker"] for one in rows(chain.chain_validators(world.view, height=height), "validators")]


def run_to(world: QueryChain, height: int) -> None:
    while world.height < height:
        world.commit_block([])


def propose(world: QueryChain, change: Propose) -> str:
    return world.apply(change, by=VALIDATOR).make_id("proposal").hex()


def test_validators_and_parameters_of_every_height_are_told_over_a_change() -> None:
    world = QueryChain()
    run_to(world, 2)
    first = propose(world, make_change(6, add=NEWCOMER))
    world.apply(ShowReadiness(2, compute_block_id(get_header(world.store, 2))), by=NEWCOMER)
    change = ParameterChange("reading_skew_s", 7, None)
    second = propose(world, Propose(None, None, None, (change,), None, 7))
    run_to(world, 9)
    assert [len(show_members(world, height)) for height in (0, 4, 5, 6, None)] == [1, 1, 2, 2, 2]
    for height in range(10):
        answer = chain.chain_validators(world.view, height=height)
        assert answer["validators_hash"] == get_header(world.store, height).next_validators_hash.hex()
    skews = [
        cast(JsonObject, chain.chain_parameters(world.view, height=height)["parameters"])["reading_skew_s"]
        for height in (0, 5, 6, 9)
    ]
    assert skews == [60, 60, 7, 7]
    listed = {one["proposal"]: one["status"] for one in rows(governance.governance_list(world.view), "proposals")}
    assert listed == {first: "in_force", second: "in_force"}


def test_a_proposal_is_shown_with_its_votes() -> None:
    world = QueryChain()
    proposal = propose(world, make_change(50, parameters={"reading_skew_s": 5}))
    shown = governance.governance_get(world.view, proposal=proposal)
    assert (shown["status"], shown["approvals"]) == ("scheduled", [VALIDATOR.public_key.hex()])
    assert cast(JsonObject, shown["change"])["parameters"] == [
        {"name": "reading_skew_s", "value": 5, "zone_pairs": None}
    ]
    assert shown["silent"] == []
    with pytest.raises(NotFound, match="proposal_not_found"):
        governance.governance_get(world.view, proposal="00" * 16)


def test_proposals_are_listed_by_page_and_status() -> None:
    world = QueryChain()
    made = {propose(world, make_change(50 + n, parameters={"reading_skew_s": n})) for n in range(3)}
    page = governance.governance_list(world.view, limit=2)
    rest = governance.governance_list(world.view, cursor=cast(str, page["next_cursor"]))
    assert {one["proposal"] for one in (*rows(page, "proposals"), *rows(rest, "proposals"))} == made
    assert rows(governance.governance_list(world.view, status=ProposalStatus.OPEN), "proposals") == []


def test_offences_are_listed_with_what_proves_them() -> None:
    world = QueryChain()
    run_to(world, 3)
    signed_chain = SignedChain(CHAIN_ID, CHAIN_NAME.get(world.state).genesis_hash)
    said = []
    for value in (b"a", b"b"):
        plain = Statement(StatementKind.PRECOMMIT, 2, 4, sha256(value), NONE, 0, Signature(bytes(64)))
        signature = VALIDATOR.sign(plain.compute_bytes(signed_chain))
        said.append(Statement(StatementKind.PRECOMMIT, 2, 4, sha256(value), NONE, 0, signature))
    applied = world.apply(ReportEvidence(VALIDATOR.public_key, *said), by=VALIDATOR)
    (offence,) = rows(governance.governance_offences(world.view), "offences")
    assert (offence["offender"], offence["height"], offence["round"]) == (VALIDATOR.public_key.hex(), 2, 4)
    assert (offence["kind"], offence["tx_id"]) == ("duplicate_precommit", applied.tx_id.hex())


def test_a_certificate_carries_the_changes_that_the_validators_voted() -> None:
    world = CertifiedChain()
    world.commit_block([])
    world.commit_block([])
    proposal = world.apply(make_change(8, add=NEWCOMER), by=VALIDATORS[0]).make_id("proposal")
    world.apply(ShowReadiness(2, compute_block_id(get_header(world.store, 2))), by=NEWCOMER)
    for voter in VALIDATORS[1:3]:
        world.apply(Vote(proposal, approves=True), by=voter)
    while world.height < 9:
        world.commit_block([])
    lots = world.produce(world.add_producer(BOB), 40, 50)
    claimed = claim(world, "after the change", SliceRef(lots[0], 0, 40))
    verified = verify_certificate(certificate_get(world.view, claim=claimed.hex()), world.document)
    (change,) = verified.certificate.validator_changes
    assert (change.header.height, verified.validators_count) == (7, 5)
