"""What the authorities may change by vote, when it comes in force, and which changes are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native import members
from contracts_native.credits import TransferCredits
from contracts_native.governance import (
    EFFECT_BLOCKS_MAX,
    OPEN_PROPOSALS_MAX,
    ChangeApproved,
    ChangeProposed,
    ParameterChange,
    ProposalStatus,
    ShowReadiness,
    Vote,
)
from contracts_native.members import READY_MS_MAX
from ledger.errors import Rejected
from ledger.parameters import get_parameters
from ledger.primitives import Hash
from ledger.validators import VALIDATOR_HISTORY, find_validators_at, get_protocol_version
from tests.contracts_native.council import Council, make_change
from tests.contracts_native.harness import make_person

NEWCOMER = make_person("newcomer")
OTHER = make_person("other")


def test_a_member_is_added_by_three_of_four_at_the_named_height() -> None:
    council = Council(4)
    council.run_to(3)
    proposal = council.propose(make_change(10, add=NEWCOMER))
    council.make_ready(NEWCOMER)
    council.vote(proposal, 1)
    assert council.get_status(proposal) is ProposalStatus.OPEN
    council.vote(proposal, 3)
    assert council.get_status(proposal) is ProposalStatus.SCHEDULED
    council.run_to(8)
    before = council.parent.next_validators_hash
    council.run_to(9)
    assert council.list_members() == ["v0", "v1", "v2", "v3", "newcomer"]
    assert council.parent.validators_hash == before != council.parent.next_validators_hash
    council.run_to(10)
    assert council.parent.validators_hash == council.parent.next_validators_hash
    assert council.get_status(proposal) is ProposalStatus.IN_FORCE


def test_old_sets_stay_answerable() -> None:
    council = Council(4)
    proposal = council.propose(make_change(5, remove=council.members[0]), by=1)
    council.vote(proposal, 2, 3)
    council.run_to(8)
    sizes = []
    for height in (0, 4, 5, 100):
        record = find_validators_at(council.state, height)
        assert record is not None
        sizes.append(len(record.members))
    assert sizes == [4, 4, 3, 3]
    assert [key[-8:] for key, _ in VALIDATOR_HISTORY.scan(council.state)] == [bytes(8), (5).to_bytes(8, "big")]


def test_the_approving_vote_comes_two_heights_before_at_the_latest() -> None:
    council = Council(4)
    in_time = council.propose(make_change(5, parameters={"reading_skew_s": 5}))
    too_late = council.propose(make_change(5, parameters={"reading_skew_s": 6}))
    first = [council.sign(Vote(in_time, approves=True), council.members[n]) for n in (1, 2)]
    assert council.block(*first)[1] == []  # height 3
    council.refuses(Vote(too_late, approves=True), "voting_is_over", council.members[1])
    assert council.height == 4
    assert [council.get_status(one) for one in (in_time, too_late)] == [
        ProposalStatus.IN_FORCE,
        ProposalStatus.LAPSED,
    ]
    assert get_parameters(council.state).reading_skew_s == 5


@pytest.mark.parametrize("ahead", [1, EFFECT_BLOCKS_MAX + 1])
def test_a_height_too_near_or_too_far_is_refused(ahead: int) -> None:
    council = Council(1)
    change = make_change(council.height + 1 + ahead, parameters={"reading_skew_s": 5})
    council.refuses(change, "effective_height_out_of_range", council.members[0])


def test_a_lone_validator_decides_by_proposing() -> None:
    council = Council(1)
    events = council.apply(make_change(3, parameters={"reading_skew_s": 5}), council.members[0])
    assert [type(one) for one in events] == [ChangeProposed, ChangeApproved]
    council.run_to(2)
    assert get_parameters(council.state).reading_skew_s == 5


def test_only_validators_in_force_sign_and_only_with_their_key() -> None:
    council = Council(4)
    change = make_change(20, parameters={"reading_skew_s": 5})
    council.refuses(change, "signer_not_a_validator", NEWCOMER)
    proposal = council.propose(change)
    council.refuses(Vote(proposal, approves=True), "signer_not_a_validator", NEWCOMER)
    borrowed = replace(NEWCOMER, address=council.members[1].address)
    council.refuses(Vote(proposal, approves=True), "signing_key_not_in_force", borrowed)
    council.refuses(TransferCredits(NEWCOMER.address, 1, ""), "signer_unknown", council.members[0])


def test_an_authority_signs_alone() -> None:
    council = Council(2)
    change = make_change(20, parameters={"reading_skew_s": 5})
    assert council.block(council.sign(change, council.members[0], cosigner=council.members[1]))[1] == [
        "cosigner_not_expected"
    ]


def test_a_validator_votes_once() -> None:
    council = Council(4)
    proposal = council.propose(make_change(20, parameters={"reading_skew_s": 5}))
    council.refuses(Vote(proposal, approves=True), "vote_already_cast", council.members[0])
    council.vote(proposal, 1, approves=False)
    council.refuses(Vote(proposal, approves=True), "vote_already_cast", council.members[1])


def test_two_of_four_refusing_end_a_proposal() -> None:
    council = Council(4)
    proposal = council.propose(make_change(20, parameters={"reading_skew_s": 5}))
    council.vote(proposal, 1, 2, approves=False)
    assert council.get_status(proposal) is ProposalStatus.REJECTED
    council.refuses(Vote(proposal, approves=True), "proposal_not_open", council.members[3])
    council.run_to(20)
    assert council.get_status(proposal) is ProposalStatus.REJECTED
    assert get_parameters(council.state).reading_skew_s == 60


def test_votes_of_removed_validators_do_not_count() -> None:
    council = Council(5)
    council.run_to(2)
    later = council.propose(make_change(40, parameters={"reading_skew_s": 5}), by=4)
    council.vote(later, 0, 1)
    removal = council.propose(make_change(10, remove=council.members[4]))
    council.vote(removal, 1, 2, 3)
    council.run_to(12)
    assert council.list_members() == ["v0", "v1", "v2", "v3"]
    council.refuses(Vote(later, approves=True), "signer_not_a_validator", council.members[4])
    assert council.get_status(later) is ProposalStatus.OPEN  # v4, v0 and v1 approved; of those four two count
    council.vote(later, 2)
    assert council.get_status(later) is ProposalStatus.SCHEDULED


def test_a_candidate_that_has_not_shown_readiness_stays_outside() -> None:
    council = Council(4)
    council.run_to(3)
    proposal = council.propose(make_change(9, add=NEWCOMER))
    council.vote(proposal, 1, 2, 3)
    assert council.get_status(proposal) is ProposalStatus.OPEN
    council.run_to(9)
    assert council.get_status(proposal) is ProposalStatus.LAPSED
    assert len(council.list_members()) == 4


def test_readiness_may_come_after_the_votes() -> None:
    council = Council(1)
    council.run_to(3)
    proposal = council.propose(make_change(12, add=NEWCOMER))
    council.make_ready(NEWCOMER)
    assert council.get_status(proposal) is ProposalStatus.SCHEDULED
    council.run_to(12)
    assert council.list_members() == ["v0", "newcomer"]


def test_readiness_names_a_recent_block_of_this_chain() -> None:
    council = Council(4)
    council.run_to(120)
    last, before = council.find_id(120), council.find_id(119)
    council.refuses(ShowReadiness(119, before), "signer_not_a_candidate", NEWCOMER)
    council.propose(make_change(200, add=NEWCOMER))
    council.refuses(ShowReadiness(119, last), "block_not_of_this_chain", NEWCOMER)
    council.refuses(ShowReadiness(10, before), "block_not_recent", NEWCOMER)
    council.refuses(ShowReadiness(500, before), "block_not_of_this_chain", NEWCOMER)
    council.refuses(ShowReadiness(119, Hash(bytes(32))), "block_not_of_this_chain", NEWCOMER)
    council.refuses(ShowReadiness(119, before), "signer_not_a_candidate", OTHER)
    council.apply(ShowReadiness(119, before), NEWCOMER)


def test_readiness_does_not_last() -> None:
    council = Council(4)
    council.run_to(3)
    proposal = council.propose(make_change(50, add=NEWCOMER))
    council.make_ready(NEWCOMER)
    council.block(after_ms=READY_MS_MAX + 1)
    council.vote(proposal, 1, 2)
    assert council.get_status(proposal) is ProposalStatus.OPEN
    council.make_ready(NEWCOMER)
    assert council.get_status(proposal) is ProposalStatus.SCHEDULED


def test_the_last_validator_stays() -> None:
    council = Council(1)
    council.refuses(make_change(9, remove=council.members[0]), "last_validator_stays", council.members[0])


def test_members_that_are_or_are_not_there_cannot_be_added_or_removed() -> None:
    council = Council(2)
    council.refuses(make_change(9, add=council.members[1]), "validator_already_in_force", council.members[0])
    council.refuses(make_change(9, remove=NEWCOMER), "validator_not_in_force", council.members[0])


def test_no_member_is_added_to_a_full_council(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "VALIDATORS_MAX", 3)
    council = Council(2)
    council.apply(make_change(20, add=NEWCOMER), council.members[0])
    full = Council(3)
    full.refuses(make_change(20, add=NEWCOMER), "validators_too_many", full.members[0])


def test_one_member_changes_at_a_time() -> None:
    council = Council(7)
    council.run_to(3)
    first = council.propose(make_change(20, remove=council.members[6]))
    second = council.propose(make_change(30, remove=council.members[5]))
    council.vote(first, 1, 2, 3, 4)
    council.vote(second, 1, 2, 3)
    council.refuses(Vote(second, approves=True), "member_change_already_scheduled", council.members[4])
    council.run_to(20)
    council.vote(second, 4)
    council.run_to(30)
    assert council.list_members() == ["v0", "v1", "v2", "v3", "v4"]


def test_a_change_that_leaves_too_few_responsive_members_is_refused() -> None:
    council = Council(4)
    silent = council.members[3]
    council.run_to(40, without=silent)
    removal = council.propose(make_change(80, remove=council.members[2]))  # of three left, v3 is silent
    council.vote(removal, 1)
    council.refuses(Vote(removal, approves=True), "too_few_responsive_validators", council.members[2])
    better = council.propose(make_change(80, remove=silent))
    council.vote(better, 1, 2)
    assert council.get_status(better) is ProposalStatus.SCHEDULED


def test_a_silent_member_counts_again_once_it_proposes() -> None:
    council = Council(4)
    council.run_to(40, without=council.members[3])
    council.block(proposer=council.members[3])
    removal = council.propose(make_change(80, remove=council.members[2]))
    council.vote(removal, 1, 2)
    assert council.get_status(removal) is ProposalStatus.SCHEDULED


def test_an_approved_change_that_has_become_impossible_is_void() -> None:
    council = Council(4)
    council.run_to(3)
    proposal = council.propose(make_change(60, remove=council.members[2]))
    council.vote(proposal, 1, 2)
    assert council.get_status(proposal) is ProposalStatus.SCHEDULED
    council.run_to(60, without=council.members[3])
    assert council.get_status(proposal) is ProposalStatus.VOID
    assert council.find_last()[1].reason == "too_few_responsive_validators"
    assert council.list_members() == ["v0", "v1", "v2", "v3"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ((ParameterChange("reading_skew_s", 3_601, None),), "number_out_of_range"),
        ((ParameterChange("no_such", 1, None),), "parameter_unknown"),
        ((ParameterChange("reading_skew_s", None, None),), "field_has_wrong_type"),
        ((ParameterChange("zone_pairs", 1, None),), "field_has_wrong_type"),
        ((ParameterChange("reading_skew_s", 1, None),) * 2, "parameter_named_twice"),
        ((ParameterChange("block_bytes_max", 1_024, None),), "parameter_too_low"),
        ((), "one_change_expected"),
    ],
)
def test_parameters_change_by_name_within_their_bounds(changes: tuple[ParameterChange, ...], reason: str) -> None:
    council = Council(1)
    council.refuses(replace(make_change(9), parameters=changes), reason, council.members[0])


def test_zone_pairs_are_a_parameter_like_any_other() -> None:
    council = Council(1)
    pairs = (("DE-LU", "FR"),)
    council.propose(replace(make_change(4), parameters=(ParameterChange("zone_pairs", None, pairs),)))
    council.run_to(4)
    assert get_parameters(council.state).zone_pairs == pairs


def test_a_proposal_is_of_one_thing() -> None:
    council = Council(2)
    both = make_change(9, add=NEWCOMER, remove=council.members[1])
    council.refuses(both, "one_change_expected", council.members[0])
    nameless = replace(make_change(9, add=NEWCOMER), moniker=None)
    council.refuses(nameless, "moniker_of_new_validator_expected", council.members[0])


def test_one_validator_cannot_fill_the_agenda() -> None:
    council = Council(4)
    change = make_change(90, parameters={"reading_skew_s": 5})
    signed = [council.sign(change, council.members[0]) for _ in range(OPEN_PROPOSALS_MAX + 1)]
    assert council.block(*signed)[1] == ["too_many_open_proposals"]
    assert council.block(council.sign(change, council.members[1]))[1] == []


def test_a_version_comes_in_force_at_its_height_and_only_rises() -> None:
    council = Council(1, version_max=3)
    council.propose(make_change(5, version=3))
    council.propose(make_change(6, version=2))
    council.run_to(4)
    assert (council.parent.version, get_protocol_version(council.state)) == (1, 3)
    council.run_to(6)
    assert council.parent.version == 3
    assert council.find_last()[1].status is ProposalStatus.VOID
    council.refuses(make_change(20, version=3), "protocol_version_does_not_rise", council.members[0])


def test_a_program_does_not_build_blocks_of_a_version_that_it_does_not_know() -> None:
    council = Council(1)
    council.propose(make_change(3, version=2))
    council.run_to(2)
    with pytest.raises(Rejected, match="protocol_version_not_supported"):
        council.block()
