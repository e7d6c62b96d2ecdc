"""What peers tell each other beside votes: nothing in good weather, all that is missing after bad."""

from __future__ import annotations

from dataclasses import replace

from consensus.admission import Admission
from consensus.codec import STATUS_BLOCKS_MAX, STATUS_VOTES_MAX
from consensus.effects import Broadcast, BuildBlock, Refused, RequestCatchup, ScheduleTimeout, SendTo, ServeHeight
from consensus.gossip import RESEND_VOTES_MAX
from consensus.inbox import PROPOSALS_MAX, STRANGERS_MAX, VOTES_PER_SENDER_MAX
from consensus.inputs import (
    BlockChecked,
    GossipTick,
    HeightStarted,
    ProposalReceived,
    RequestReceived,
    StatusReceived,
    TransactionsAvailable,
    VoteReceived,
)
from consensus.messages import (
    BlockRequest,
    Precommit,
    Prevote,
    Proposal,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Status,
    Step,
    VoteKind,
    VoteRequest,
    VoteSummary,
)
from consensus.round import BLOCKS_MAX
from consensus.votes import EVIDENCE_MAX, ROUNDS_AHEAD_MAX
from ledger.primitives import Hash, Height, sha256
from tests.consensus.harness import CONTEXT, HEIGHT, KEYS, START_MS, Key, Solo, only

A, B = b"block A", b"block B"
ID_A, ID_B = sha256(A), sha256(B)
PEER = KEYS[0].public


def empty_status(
    height: int = HEIGHT,
    *,
    has_proposal: bool = False,
    votes: tuple[VoteSummary, ...] = (),
    blocks: tuple[Hash, ...] = (),
) -> Status:
    """The status of a node that has just begun a height."""
    return Status(Height(height), 0, Step.PROPOSE, has_proposal=has_proposal, votes=votes, blocks=blocks)


def tick(solo: Solo, count: int = 1) -> Solo:
    for _ in range(count):
        solo.now_ms += 1_000
        solo.tell(GossipTick(solo.now_ms))
    return solo


def hear(solo: Solo, status: Status) -> list[SendTo]:
    """What we send a peer in answer to its status."""
    solo.log.clear()
    solo.tell(StatusReceived(PEER, status, solo.now_ms))
    return only(solo.log, SendTo)


def test_status_is_sent_once_for_each_change_of_step() -> None:
    solo = Solo(parent_time_ms=START_MS - 600).idle()
    assert [status.step for status in solo.sent(Status)] == [Step.NEW_HEIGHT]
    solo.tell(TransactionsAvailable(solo.now_ms)).propose(A).prevote(A, 0).prevote(A, 1)
    steps = [Step.NEW_HEIGHT, Step.PROPOSE, Step.PREVOTE, Step.PRECOMMIT]
    assert [status.step for status in solo.sent(Status)] == steps


def test_status_tells_round_votes_and_bodies() -> None:
    solo = Solo().start().propose(A).prevote(A, 0).prevote(None, 2)
    status = solo.engine.get_status()
    assert status is not None
    assert status.has_proposal
    assert status.blocks == (ID_A,)
    assert set(status.votes) == {
        VoteSummary(0, VoteKind.PREVOTE, ID_A, 0b1001),
        VoteSummary(0, VoteKind.PREVOTE, None, 0b0100),
    }


def test_fresh_votes_are_not_sent_twice_but_settled_ones_are() -> None:
    solo = Solo().start().propose(A).prevote(A, 1)
    assert hear(solo, empty_status()) == []
    (sent,) = hear(tick(solo), empty_status())
    assert isinstance(sent.message, RoundCertificate)
    assert {signed.voter for signed in sent.message.votes} == {KEYS[1].public, KEYS[3].public}


def test_peer_is_sent_only_what_it_lacks() -> None:
    solo = tick(Solo().start().propose(A).prevote(A, 1))
    known = (VoteSummary(0, VoteKind.PREVOTE, ID_A, 0b1000),)
    assert [sent.message for sent in hear(solo, empty_status(votes=known))] == [
        KEYS[1].vote(Prevote(HEIGHT, 0, ID_A, -1))
    ]
    assert hear(solo, empty_status(votes=(VoteSummary(0, VoteKind.PREVOTE, ID_A, 0b1010),))) == []


def test_both_votes_of_an_equivocator_are_passed_on() -> None:
    solo = tick(Solo().start().prevote(A, 1).prevote(B, 1))
    known = (VoteSummary(0, VoteKind.PREVOTE, ID_A, 0b0010),)
    (sent,) = hear(solo, empty_status(votes=known))
    assert isinstance(sent.message, SignedVote)
    assert sent.message.vote.block_id == ID_B


def test_stalled_node_sends_its_own_votes_of_all_rounds_again() -> None:
    solo = Solo().start().elapse(Step.PROPOSE)
    for round_ in range(3):
        solo.prevote(None, 0, 1, round_=round_).precommit(None, 0, 1, round_=round_)
        solo.elapse(Step.PRECOMMIT, round_=round_).elapse(Step.PROPOSE, round_=round_ + 1)
    assert len(solo.prevotes) + len(solo.precommits) == 7
    solo.log.clear()
    assert tick(solo).sent(SignedVote) == []
    assert len(tick(solo).sent(SignedVote)) == 7 <= RESEND_VOTES_MAX


def test_peer_in_a_lower_height_is_served() -> None:
    solo = tick(Solo().start())
    hear(solo, empty_status(HEIGHT - 1))
    assert only(solo.log, ServeHeight) == [ServeHeight(PEER, Height(HEIGHT - 1))]


def test_peer_about_to_decide_is_left_to_itself_and_one_far_behind_is_not() -> None:
    solo = Solo().start()
    hear(solo, empty_status(HEIGHT - 1))
    assert only(solo.log, ServeHeight) == []
    hear(solo, empty_status(HEIGHT - 2))
    assert only(solo.log, ServeHeight) == [ServeHeight(PEER, Height(HEIGHT - 2))]


def test_node_that_stays_behind_asks_for_blocks() -> None:
    solo = Solo().start()
    hear(solo, empty_status(HEIGHT + 1))
    assert only(solo.log, RequestCatchup) == []
    hear(tick(solo), empty_status(HEIGHT + 1))
    assert only(solo.log, RequestCatchup) == [RequestCatchup(PEER, Height(HEIGHT + 1))]


def test_missing_proposal_is_asked_for_after_a_tick_and_once_a_tick() -> None:
    solo = Solo().start()
    status = empty_status(has_proposal=True, blocks=(ID_A,))
    assert hear(solo, status) == []
    assert [sent.message for sent in hear(tick(solo), status)] == [BlockRequest(HEIGHT, 0, None)]
    assert hear(solo, status) == []
    assert hear(tick(solo), empty_status()) == []


def test_body_that_a_quorum_wants_is_asked_for() -> None:
    solo = Solo().start().propose(A).precommit(B, 0, 1, 2)
    messages = [sent.message for sent in hear(tick(solo), empty_status(blocks=(ID_B,)))]
    assert BlockRequest(HEIGHT, 0, ID_B) in messages


def test_body_is_handed_out_by_round_or_by_name() -> None:
    solo = Solo().start().propose(A)
    for wanted in (None, ID_A):
        solo.log.clear()
        solo.tell(RequestReceived(PEER, BlockRequest(HEIGHT, 0, wanted), solo.now_ms))
        (sent,) = only(solo.log, SendTo)
        assert isinstance(sent.message, SignedProposal)
        assert sent.body == A
    solo.log.clear()
    solo.tell(RequestReceived(PEER, BlockRequest(HEIGHT, 0, ID_B), solo.now_ms))
    assert only(solo.log, SendTo) == []


def test_votes_of_a_round_are_handed_out() -> None:
    solo = Solo().start().prevote(A, 0, 1)
    solo.tell(RequestReceived(PEER, VoteRequest(HEIGHT, 0), solo.now_ms))
    solo.tell(RequestReceived(PEER, VoteRequest(HEIGHT, 1), solo.now_ms))
    (sent,) = only(solo.log, SendTo)
    assert isinstance(sent.message, RoundCertificate)
    assert len(sent.message.votes) == 2


def test_request_for_an_older_height_is_served_by_the_chain() -> None:
    solo = Solo().start()
    solo.tell(RequestReceived(PEER, VoteRequest(Height(3), 0), solo.now_ms))
    assert only(solo.log, ServeHeight) == [ServeHeight(PEER, Height(3))]


def test_first_messages_of_the_next_height_wait_for_it() -> None:
    solo = Solo().start()
    later = Height(HEIGHT + 1)
    solo.now_ms += 500
    proposal = KEYS[1].propose(Proposal(later, 0, ID_A, -1, solo.now_ms))
    solo.tell(ProposalReceived(proposal, A, None, solo.now_ms))
    for voter in (0, 1):
        solo.tell(VoteReceived(KEYS[voter].vote(Prevote(later, 0, ID_A, -1)), solo.now_ms))
    solo.log.clear()
    solo.tell(HeightStarted(later, solo.validators, solo.now_ms, solo.now_ms - 10))
    assert solo.precommits == [(0, ID_A)]


def test_messages_of_the_next_height_are_bounded() -> None:
    solo, admission = Solo().start(), Admission(CONTEXT)
    later = Height(HEIGHT + 1)
    for number in range(50):
        for key in (KEYS[0], Key(100 + number)):
            vote = key.vote(Prevote(later, number, None, -1))
            admission.receive_vote(solo.state, VoteReceived(vote, solo.now_ms), tick=0)
        proposal = KEYS[number % 4].propose(Proposal(later, number, ID_A, -1, solo.now_ms))
        admission.receive_proposal(solo.state, ProposalReceived(proposal, A, None, solo.now_ms), tick=0)
    proposals, votes = admission.inbox.take_all()
    assert len(proposals) == PROPOSALS_MAX
    assert sum(received.vote.voter == KEYS[0].public for received in votes) == VOTES_PER_SENDER_MAX
    assert len(votes) == VOTES_PER_SENDER_MAX + STRANGERS_MAX


def test_forged_messages_of_the_next_height_are_refused() -> None:
    solo = Solo().start()
    later = Height(HEIGHT + 1)
    vote = KEYS[0].vote(Prevote(later, 0, ID_A, -1))
    solo.tell(VoteReceived(replace(vote, voter=KEYS[1].public), solo.now_ms))
    proposal = KEYS[0].propose(Proposal(later, 0, ID_A, -1, solo.now_ms))
    solo.tell(ProposalReceived(replace(proposal, proposer=KEYS[1].public), A, None, solo.now_ms))
    reasons = [refused.reason for refused in only(solo.log, Refused)]
    assert reasons == ["vote_signature_invalid", "proposal_signature_invalid"]


def test_spam_of_f_senders_stays_bounded() -> None:
    solo = Solo().start()
    for number in range(600):
        body = b"spam %d" % number
        solo.prevote(body, 1).precommit(body, 1, round_=number).prevote(None, 1, round_=10_000 + number)
        by_turn = number % 4 == 1
        solo.propose(body, round_=number if by_turn else 1).propose(body, round_=1)
    state = solo.state
    assert len(state.blocks) <= BLOCKS_MAX <= STATUS_BLOCKS_MAX
    assert len(state.proposals) <= 2 * ROUNDS_AHEAD_MAX + 2
    assert len(state.votes.evidence) <= EVIDENCE_MAX
    assert len(state.votes.list_round(0)) == 3
    status = solo.engine.get_status()
    assert status is not None
    assert len(status.votes) <= STATUS_VOTES_MAX


# When a height begins


def test_nothing_begins_without_work() -> None:
    solo = Solo(parent_time_ms=START_MS - 100).idle()
    assert solo.timeouts(Step.NEW_HEIGHT) == [(0, 9_900)]
    assert solo.timeouts(Step.PROPOSE) == []


def test_heartbeat_begins_the_round_everywhere() -> None:
    solo = Solo(me=0, parent_time_ms=START_MS - 100).idle().elapse(Step.NEW_HEIGHT, after_ms=9_900)
    assert len(only(solo.log, BuildBlock)) == 1
    assert solo.timeouts(Step.PROPOSE) == [(0, 2_000)]


def test_timer_that_fires_early_is_set_again() -> None:
    solo = Solo(parent_time_ms=START_MS - 100).idle().elapse(Step.NEW_HEIGHT, after_ms=9_899)
    assert solo.timeouts(Step.NEW_HEIGHT) == [(0, 9_900), (0, 1)]


def test_work_waits_for_the_block_interval() -> None:
    solo = Solo(me=0, parent_time_ms=START_MS - 100).start()
    assert only(solo.log, BuildBlock) == []
    assert solo.timeouts(Step.NEW_HEIGHT) == [(0, 9_900), (0, 400)]
    assert len(only(solo.elapse(Step.NEW_HEIGHT, after_ms=400).log, BuildBlock)) == 1


def test_work_at_another_than_the_proposer_starts_its_propose_timeout() -> None:
    assert Solo().start().timeouts(Step.PROPOSE) == [(0, 2_000)]


def test_vote_of_a_peer_begins_the_round() -> None:
    assert Solo(me=0).idle().prevote(None, 1).timeouts(Step.PROPOSE) == [(0, 2_000)]


def test_proposal_begins_the_round_at_once() -> None:
    solo = Solo(parent_time_ms=START_MS - 100).idle().propose(A)
    assert solo.prevotes == [(0, ID_A)]


def test_nothing_is_done_before_the_first_height() -> None:
    solo = Solo()
    assert solo.tell(TransactionsAvailable(0)).tell(BlockChecked(ID_A, valid=True)).log == []
    assert solo.engine.get_status() is None
    assert only(solo.log, ScheduleTimeout) == []


def test_messages_of_other_heights_change_nothing() -> None:
    solo = Solo().start()
    solo.log.clear()
    solo.tell(VoteReceived(KEYS[0].vote(Precommit(Height(7), 0, ID_A)), solo.now_ms))
    solo.tell(VoteReceived(KEYS[0].vote(Precommit(Height(99), 0, ID_A)), solo.now_ms))
    assert only(solo.log, Broadcast) == []
    assert solo.state.votes.is_empty()
