"""Each rule of the algorithm, as a scripted scenario around one engine: number 3 of 4, at height 8.

The proposer of round r is number r mod 4, so our own turn comes in round 3.
"""

from __future__ import annotations

import pytest

from consensus.effects import Broadcast, BuildBlock, CheckBlock, Decide, EvidenceFound, Halt, Persist, Refused
from consensus.inputs import BlockBuilt, BlockChecked, CertificateReceived, ProposalReceived, VoteReceived
from consensus.messages import (
    DuplicateProposal,
    DuplicateVote,
    Precommit,
    Prevote,
    Proposal,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Step,
    VoteKind,
    VoteRequest,
)
from ledger.primitives import sha256
from tests.consensus.harness import BAD, HEIGHT, KEYS, Solo, only

A, B, C = b"block A", b"block B", b"block C"
ID_A, ID_B = sha256(A), sha256(B)


def lock_on_a() -> Solo:
    """Locked on A in round 0; the round failed, and round 1 has begun."""
    solo = Solo().start().propose(A).prevote(A, 0, 1)
    assert solo.state.locked_block == ID_A
    return solo.precommit(None, 0, 1).elapse(Step.PRECOMMIT)


# A fresh proposal (L22)


def test_valid_fresh_proposal_is_prevoted() -> None:
    assert Solo().start().propose(A).prevotes == [(0, ID_A)]


def test_invalid_proposal_is_prevoted_nil() -> None:
    assert Solo().start().propose(BAD).prevotes == [(0, None)]


def test_prevote_waits_for_the_check() -> None:
    solo = Solo(answers=False).start().propose(A)
    assert solo.prevotes == []
    assert solo.tell(BlockChecked(ID_A, valid=True)).prevotes == [(0, ID_A)]


@pytest.mark.parametrize(
    ("offset_ms", "is_timely"), [(10_000, True), (10_001, False), (-10_000, False), (-9_999, True)]
)
def test_fresh_proposal_far_from_our_clock_is_prevoted_nil(offset_ms: int, is_timely: bool) -> None:
    solo = Solo().start()  # the parent's time lies 10,000 ms back, and times rise strictly
    solo.propose(A, time_ms=solo.now_ms + offset_ms)
    assert solo.prevotes == [(0, ID_A if is_timely else None)]


def test_proposal_is_judged_by_the_clock_at_its_arrival() -> None:
    solo = Solo(answers=False).start().propose(A)
    solo.now_ms += 60_000
    assert solo.tell(BlockChecked(ID_A, valid=True)).prevotes == [(0, ID_A)]


def test_proposal_of_another_than_the_proposer_is_refused() -> None:
    solo = Solo().start().propose(A, by=1)
    assert [refused.reason for refused in only(solo.log, Refused)] == ["proposer_unexpected"]
    assert solo.prevotes == []


def test_forged_proposal_is_refused() -> None:
    solo = Solo().start()
    proposal = Proposal(HEIGHT, 0, ID_A, -1, solo.now_ms)
    forged = SignedProposal(proposal, KEYS[0].public, KEYS[1].propose(proposal).signature)
    solo.tell(ProposalReceived(forged, A, None, solo.now_ms))
    assert [refused.reason for refused in only(solo.log, Refused)] == ["proposal_signature_invalid"]
    assert solo.state.proposals == {}


def test_locked_node_prevotes_nil_for_another_fresh_block() -> None:
    assert lock_on_a().propose(B, round_=1).prevotes[-1] == (1, None)


def test_locked_node_prevotes_its_own_block_again() -> None:
    assert lock_on_a().propose(A, round_=1).prevotes[-1] == (1, ID_A)


# A re-proposal (L28)


def test_reproposal_without_its_polka_is_not_prevoted_and_the_votes_are_asked_for() -> None:
    solo = lock_on_a().precommit(None, 0, 1, round_=1).elapse(Step.PRECOMMIT, round_=1)
    solo.propose(B, round_=2, valid_round=1)
    assert [round_ for round_, _ in solo.prevotes] == [0]
    assert VoteRequest(HEIGHT, 1) in solo.sent(VoteRequest)


def test_newer_polka_overrides_the_lock() -> None:
    solo = lock_on_a().precommit(None, 0, 1, round_=1).elapse(Step.PRECOMMIT, round_=1)
    solo.propose(B, round_=2, valid_round=1, polka=solo.polka(B, 0, 1, 2, round_=1))
    assert solo.prevotes[-1] == (2, ID_B)


def test_older_polka_does_not_override_the_lock() -> None:
    solo = Solo().start().prevote(None, 0, 1).elapse(Step.PROPOSE).precommit(None, 0, 1).elapse(Step.PRECOMMIT)
    solo.propose(A, round_=1).prevote(A, 0, 1, round_=1).precommit(None, 0, 1, round_=1)
    assert solo.state.locked_round == 1
    solo.elapse(Step.PRECOMMIT, round_=1)
    solo.propose(B, round_=2, valid_round=0, polka=solo.polka(B, 0, 1, 2, round_=0))
    assert solo.prevotes[-1] == (2, None)


def test_polka_with_a_forged_vote_does_not_count() -> None:
    solo = lock_on_a().precommit(None, 0, 1, round_=1).elapse(Step.PRECOMMIT, round_=1)
    polka = solo.polka(B, 0, 1, 2, round_=1)
    wrong = type(polka)(polka.height, polka.round, polka.block_id, (*polka.signatures[:2], polka.signatures[0]))
    solo.propose(B, round_=2, valid_round=1, polka=wrong)
    assert [round_ for round_, _ in solo.prevotes] == [0]


def test_reproposal_is_not_held_against_the_clock() -> None:
    solo = lock_on_a()
    solo.now_ms += 10_000_000
    solo.propose(A, round_=1, valid_round=0, time_ms=solo.parent_time_ms + 1)
    assert solo.prevotes[-1] == (1, ID_A)


def test_prevote_for_a_reproposal_names_its_valid_round() -> None:
    solo = lock_on_a().propose(A, round_=1, valid_round=0)
    votes = [signed.vote for signed in solo.sent(SignedVote)]
    assert votes[-1] == Prevote(HEIGHT, 1, ID_A, 0)


# Quorums of prevotes (L36, L44)


def test_polka_locks_and_precommits() -> None:
    solo = Solo().start().propose(A).prevote(A, 0)
    assert solo.precommits == []
    solo.prevote(A, 1)
    assert solo.precommits == [(0, ID_A)]
    assert (solo.state.locked_round, solo.state.valid_round) == (0, 0)


def test_polka_at_a_later_step_sets_valid_without_lock() -> None:
    solo = Solo().start().propose(A).prevote(None, 0).prevote(A, 1).elapse(Step.PREVOTE)
    assert solo.precommits == [(0, None)]
    solo.prevote(A, 2)
    assert (solo.state.locked_round, solo.state.valid_round, solo.state.valid_block) == (-1, 0, ID_A)
    assert solo.precommits == [(0, None)]


def test_polka_without_the_body_locks_nothing() -> None:
    solo = Solo().start().elapse(Step.PROPOSE).prevote(A, 0, 1, 2)
    assert solo.precommits == []
    assert solo.state.locked_round == -1


def test_polka_that_came_before_the_proposal_counts() -> None:
    solo = Solo().start().prevote(A, 0, 1, 2).propose(A)
    assert solo.precommits == [(0, ID_A)]


def test_quorum_of_nil_prevotes_precommits_nil() -> None:
    solo = Solo().start().elapse(Step.PROPOSE).prevote(None, 0, 1)
    assert solo.precommits == [(0, None)]


def test_repeated_vote_counts_once() -> None:
    solo = Solo().start().propose(A).prevote(A, 0, 0, 0)
    assert solo.precommits == []


# Timeouts: L34 and L47 start them; L57, L61 and L65 answer them


def test_prevote_timeout_starts_only_on_a_quorum_of_votes() -> None:
    solo = Solo().start().propose(A).prevote(None, 0)
    assert solo.timeouts(Step.PREVOTE) == []
    solo.prevote(B, 1)
    assert solo.timeouts(Step.PREVOTE) == [(0, 1_000)]
    assert solo.elapse(Step.PREVOTE).precommits == [(0, None)]


def test_precommit_timeout_starts_only_on_a_quorum_of_votes_and_begins_the_next_round() -> None:
    solo = Solo().start().precommit(None, 0, 1)
    assert solo.timeouts(Step.PRECOMMIT) == []
    solo.precommit(A, 2)
    assert solo.timeouts(Step.PRECOMMIT) == [(0, 1_000)]
    assert solo.elapse(Step.PRECOMMIT).state.round == 1


def test_propose_timeout_prevotes_nil() -> None:
    solo = Solo().start()
    assert solo.timeouts(Step.PROPOSE) == [(0, 2_000)]
    assert solo.elapse(Step.PROPOSE).prevotes == [(0, None)]


def test_timeouts_grow_with_the_round_up_to_their_limit() -> None:
    compute = Solo().parameters.compute_timeout_ms
    assert [compute(Step.PROPOSE, round_) for round_ in (0, 1, 4, 1_000)] == [2_000, 2_500, 4_000, 60_000]
    assert [compute(Step.PRECOMMIT, round_) for round_ in (0, 1, 4, 1_000)] == [1_000, 1_500, 3_000, 60_000]


def test_timeout_of_an_earlier_round_or_height_does_nothing() -> None:
    solo = lock_on_a()
    before = len(solo.prevotes)
    solo.elapse(Step.PROPOSE, round_=0).elapse(Step.PRECOMMIT, round_=0)
    assert (solo.state.round, len(solo.prevotes)) == (1, before)


# Decisions, from any round (L49)


def test_quorum_of_precommits_decides() -> None:
    solo = Solo().start().propose(A).prevote(A, 0, 1).precommit(A, 0)
    assert solo.decisions == []
    assert solo.precommit(A, 1).decisions == [(0, ID_A)]


def test_decision_from_an_older_round() -> None:
    solo = lock_on_a()
    assert solo.state.round == 1
    assert solo.precommit(A, 0, 1).decisions == [(0, ID_A)]


def test_decision_waits_for_the_body_and_takes_it_from_any_proposal() -> None:
    solo = Solo().start().precommit(A, 0, 1, 2)
    assert solo.decisions == []
    assert solo.propose(A).decisions == [(0, ID_A)]


def test_certificate_decides() -> None:
    solo = Solo().start().propose(A)
    votes = tuple(KEYS[voter].vote(Precommit(HEIGHT, 0, ID_A)) for voter in (0, 1, 2))
    solo.tell(CertificateReceived(RoundCertificate(HEIGHT, 0, votes), solo.now_ms))
    assert solo.decisions == [(0, ID_A)]


def test_invalid_block_with_a_quorum_halts() -> None:
    solo = Solo().start().propose(BAD).precommit(BAD, 0, 1, 2)
    assert only(solo.log, Halt) == [Halt(HEIGHT, sha256(BAD))]
    assert solo.decisions == []


def test_third_conflicting_vote_that_completes_a_quorum_counts() -> None:
    solo = Solo().start().propose(A)
    solo.precommit(None, 1).precommit(B, 1)  # number 1 equivocates, twice
    solo.precommit(A, 0, 2).precommit(A, 1)
    assert solo.decisions == [(0, ID_A)]
    assert len(only(solo.log, EvidenceFound)) == 1


def test_third_value_that_nobody_else_chose_is_not_kept() -> None:
    solo = Solo().start().prevote(None, 1).prevote(A, 1).prevote(B, 1)
    assert solo.state.votes.count_voters(0, VoteKind.PREVOTE, ID_B) == 0


# Jumps to a later round (L55)


def test_messages_of_f_plus_one_in_a_higher_round_bring_us_there() -> None:
    solo = Solo().start().prevote(None, 0, round_=5)
    assert solo.state.round == 0
    assert solo.precommit(None, 2, round_=5).state.round == 5


def test_one_sender_brings_us_nowhere() -> None:
    solo = Solo().start().prevote(None, 0, round_=5).precommit(None, 0, round_=6).prevote(A, 0, round_=7)
    assert solo.state.round == 0


def test_jump_goes_no_further_than_an_honest_node_has() -> None:
    solo = Solo().start().prevote(None, 0, round_=2_000_000).prevote(None, 1, round_=300)
    assert solo.state.round == 300
    assert solo.timeouts(Step.PROPOSE)[-1][0] == 300


def test_votes_of_far_rounds_count_once_we_are_there() -> None:
    solo = Solo().start().prevote(None, 0, 1, 2, round_=40).elapse(Step.PROPOSE, round_=40)
    assert solo.precommits == [(40, None)]


# Evidence


def test_two_votes_of_one_sender_are_kept_as_evidence() -> None:
    solo = Solo().start().prevote(A, 1).prevote(B, 1)
    (found,) = only(solo.log, EvidenceFound)
    assert isinstance(found.evidence, DuplicateVote)
    assert {found.evidence.first.vote.block_id, found.evidence.second.vote.block_id} == {ID_A, ID_B}
    assert found.evidence.first.voter == found.evidence.second.voter == KEYS[1].public


def test_same_block_with_another_valid_round_is_evidence_and_counts_once() -> None:
    solo = lock_on_a().prevote(A, 1, round_=1, valid_round=-1).prevote(A, 1, round_=1, valid_round=0)
    assert len(only(solo.log, EvidenceFound)) == 1
    assert solo.state.votes.count_voters(1, VoteKind.PREVOTE, ID_A) == 1


def test_two_proposals_of_one_round_are_evidence_and_the_first_is_answered() -> None:
    solo = Solo().start().propose(A).propose(B).propose(B)
    (found,) = only(solo.log, EvidenceFound)
    assert isinstance(found.evidence, DuplicateProposal)
    assert solo.prevotes == [(0, ID_A)]


def test_body_of_the_second_proposal_is_taken_when_a_quorum_wants_it() -> None:
    solo = Solo().start().propose(A).precommit(B, 0, 1, 2).propose(B)
    assert solo.decisions == [(0, ID_B)]


def test_forged_and_foreign_votes_are_refused() -> None:
    solo = Solo().start()
    vote = Prevote(HEIGHT, 0, ID_A, -1)
    forged = type(KEYS[0].vote(vote))(vote, KEYS[0].public, KEYS[1].vote(vote).signature)
    solo.tell(VoteReceived(forged, solo.now_ms)).tell(VoteReceived(KEYS[7].vote(vote), solo.now_ms))
    assert [refused.reason for refused in only(solo.log, Refused)] == ["vote_signature_invalid", "voter_unknown"]
    assert solo.state.votes.is_empty()


# Proposing


def test_proposer_builds_proposes_and_prevotes_its_block() -> None:
    solo = Solo(me=0).start()
    (build,) = only(solo.log, BuildBlock)
    solo.tell(BlockBuilt(build.height, build.round, ID_A, build.time_ms, A))
    (signed,) = solo.sent(SignedProposal)
    assert signed.proposal == Proposal(HEIGHT, 0, ID_A, -1, build.time_ms)
    assert solo.prevotes == [(0, ID_A)]
    assert only(solo.log, CheckBlock) == []


def test_block_time_rises_even_if_our_clock_is_behind_the_parent() -> None:
    solo = Solo(me=0)
    solo.parent_time_ms = solo.now_ms + 5_000
    solo.start().elapse(Step.NEW_HEIGHT, after_ms=500)
    assert [build.time_ms for build in only(solo.log, BuildBlock)] == [solo.parent_time_ms + 1]


def test_block_built_too_late_is_not_proposed() -> None:
    solo = Solo(me=0).start().elapse(Step.PROPOSE)
    solo.tell(BlockBuilt(HEIGHT, 0, ID_A, solo.now_ms, A))
    assert solo.sent(SignedProposal) == []


def test_proposer_with_a_valid_block_proposes_it_again_with_its_polka() -> None:
    solo = Solo(me=1).start().propose(A).prevote(A, 0, 2).precommit(None, 0, 2).elapse(Step.PRECOMMIT)
    assert only(solo.log, BuildBlock) == []
    (again,) = [sent for sent in only(solo.log, Broadcast) if isinstance(sent.message, SignedProposal)]
    assert isinstance(again.message, SignedProposal)
    assert (again.message.proposal.block_id, again.message.proposal.valid_round, again.body) == (ID_A, 0, A)
    assert again.polka is not None
    assert len(again.polka.signatures) == 3


def test_watcher_follows_and_decides_without_a_word() -> None:
    solo = Solo(watcher=True).start().propose(A).prevote(A, 0, 1, 2).precommit(A, 0, 1, 2)
    assert len(only(solo.log, Decide)) == 1
    assert solo.prevotes == solo.precommits == []
    assert only(solo.log, Persist) == []
