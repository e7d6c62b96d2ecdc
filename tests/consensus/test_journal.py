"""What was signed is on disk first, and a node that comes back says the same again and nothing else."""

from __future__ import annotations

import pytest

from consensus.effects import Broadcast, BuildBlock, Persist, ScheduleTimeout
from consensus.engine import Engine
from consensus.inputs import BlockBuilt, HeightStarted, TransactionsAvailable
from consensus.journal import JournalState, StateFrame, decode_frame, encode_frame, replay
from consensus.messages import Precommit, Prevote, Proposal, SignedProposal, SignedVote, Step
from consensus.parameters import ConsensusParameters
from consensus.signer import Signer
from ledger.encoding import Plain, encode
from ledger.errors import CorruptStore
from ledger.primitives import Height, sha256
from tests.consensus.harness import CONTEXT, HEIGHT, KEYS, START_MS, Solo, build_validators, only
from tests.consensus.network import Net

A, B = b"block A", b"block B"
ID_A, ID_B = sha256(A), sha256(B)


def test_journal_stands_before_the_vote_it_guards() -> None:
    solo = Solo().start().propose(A)
    kinds = [type(effect) for effect in solo.log]
    vote = next(i for i, e in enumerate(solo.log) if isinstance(e, Broadcast) and isinstance(e.message, SignedVote))
    assert kinds.index(Persist) < vote


def test_first_frame_of_a_height_drops_the_height_before() -> None:
    solo = Solo().start().propose(A).prevote(A, 0, 1)
    assert [persist.reset for persist in only(solo.log, Persist)][:2] == [True, False]


def test_body_and_polka_of_the_lock_are_written_once() -> None:
    solo = Solo().start().propose(A).prevote(A, 0, 1).precommit(None, 0, 1).elapse(Step.PRECOMMIT).propose(A, round_=1)
    assert sum(A in frame for frame in solo.frames) == 1
    recorded = replay(solo.frames)
    assert recorded is not None
    assert [(frame.proposal.proposal.block_id, frame.body) for frame in recorded.blocks] == [(ID_A, A)]
    assert [(polka.round, polka.block_id, len(polka.signatures)) for polka in recorded.polkas] == [(0, ID_A, 3)]
    assert (recorded.locked_round, recorded.locked_block) == (0, ID_A)


def test_restart_sends_the_identical_bytes_again() -> None:
    solo = Solo().start().propose(A).prevote(A, 0, 1)
    before = solo.sent(SignedVote)
    assert len(before) == 2
    assert solo.restart().sent(SignedVote) == before
    assert solo.state.step is Step.PRECOMMIT


def test_restarted_proposer_sends_its_proposal_again_with_the_body() -> None:
    solo = Solo(me=0).start()
    (build,) = only(solo.log, BuildBlock)
    solo.tell(BlockBuilt(HEIGHT, 0, ID_A, build.time_ms, A))
    (before,) = solo.sent(SignedProposal)
    solo.now_ms += 1_000
    solo.restart().tell(TransactionsAvailable(solo.now_ms))
    assert [(sent.message, sent.body) for sent in only(solo.log, Broadcast) if sent.body] == [(before, A)]
    assert only(solo.log, BuildBlock) == []


def test_lock_survives_a_restart() -> None:
    solo = Solo().start().propose(A).prevote(A, 0, 1).restart()
    assert (solo.state.locked_block, solo.state.valid_block) == (ID_A, ID_A)
    solo.precommit(None, 0, 1).elapse(Step.PRECOMMIT).propose(B, round_=1)
    assert solo.prevotes[-1] == (1, None)


def test_valid_value_without_a_lock_survives_a_restart() -> None:
    solo = Solo().start().propose(A).prevote(None, 0).prevote(A, 1).elapse(Step.PREVOTE).prevote(A, 2).restart()
    assert (solo.state.locked_block, solo.state.valid_block, solo.state.valid_round) == (None, ID_A, 0)


def test_restarted_node_decides_with_the_votes_that_still_come() -> None:
    solo = Solo().start().propose(A).prevote(A, 0, 1).restart().precommit(A, 0, 1)
    assert solo.decisions == [(0, ID_A)]


def test_restart_in_a_later_round_resumes_there_and_waits_again() -> None:
    solo = Solo().start().elapse(Step.PROPOSE).prevote(None, 0, 1).precommit(None, 0, 1).elapse(Step.PRECOMMIT)
    solo.elapse(Step.PROPOSE, round_=1).restart()
    assert (solo.state.round, solo.state.step) == (1, Step.PREVOTE)
    assert solo.prevote(None, 0, 1, round_=1).precommits == [(0, None), (1, None)]


@pytest.mark.parametrize("count", range(70))
def test_power_cut_after_any_effect_breaks_no_promise(count: int) -> None:
    net = Net(4, seed=count)
    net.effects_before_crash = count
    net.run(2_500)
    assert net[0].epoch == 1
    net.heal().run_until(4, within_ms=30_000)


@pytest.mark.parametrize("count", range(30))
def test_power_cut_of_a_lone_validator_after_any_effect_breaks_no_promise(count: int) -> None:
    net = Net(1, seed=count)
    net.effects_before_crash = count
    net.run(6_000)
    assert net[0].epoch == 1
    net.heal().run_until(5, within_ms=30_000)


def test_body_without_a_state_after_it_was_never_spoken_of() -> None:
    solo = Solo(me=0).start()
    (build,) = only(solo.log, BuildBlock)
    solo.tell(BlockBuilt(HEIGHT, 0, ID_A, build.time_ms, A))
    assert replay(solo.frames[:1]) == JournalState(HEIGHT)


def test_a_proposal_that_was_lost_with_its_state_is_not_said_after_another_restart() -> None:
    frames: list[list[bytes]] = []
    for body in (A, B):
        solo = Solo(me=0).start()
        (build,) = only(solo.log, BuildBlock)
        solo.tell(BlockBuilt(HEIGHT, 0, sha256(body), build.time_ms, body))
        frames.append(solo.frames[-2:])
    (body_of_a, _), of_b = frames  # the power failed between the body of A and its state; then B was proposed
    recorded = replay([body_of_a, *of_b])
    assert recorded is not None
    assert [frame.body for frame in recorded.blocks] == [B]
    assert recorded == replay(of_b)


def test_below_the_height_of_its_journal_a_node_only_watches() -> None:
    solo = Solo().start().propose(A)
    engine = Engine(
        CONTEXT, ConsensusParameters(), own_key=KEYS[3].public, sign=KEYS[3].sign, journal=replay(solo.frames)
    )
    validators = build_validators(4)
    effects = engine.handle(HeightStarted(Height(HEIGHT - 1), validators, START_MS, START_MS - 10_000))
    effects += engine.handle(TransactionsAvailable(START_MS))  # our own turn
    assert only(effects, ScheduleTimeout) != []
    assert only(effects, BuildBlock) == []
    effects = engine.handle(HeightStarted(HEIGHT, validators, START_MS, START_MS - 10_000))
    assert [sent.message for sent in only(effects, Broadcast)][:1] == solo.sent(SignedVote)


def test_signer_answers_a_second_payload_with_the_first() -> None:
    signer = Signer(CONTEXT, HEIGHT, KEYS[0].public, KEYS[0].sign, ())
    first = signer.sign_vote(Prevote(HEIGHT, 0, ID_A, -1))
    assert signer.sign_vote(Prevote(HEIGHT, 0, ID_B, -1)) == first
    proposal = signer.sign_proposal(Proposal(HEIGHT, 0, ID_A, -1, 5))
    assert signer.sign_proposal(Proposal(HEIGHT, 0, ID_B, -1, 6)) == proposal
    assert signer.take_new() == (first, proposal)
    assert signer.take_new() == ()
    resumed = Signer(CONTEXT, HEIGHT, KEYS[0].public, KEYS[0].sign, (first, proposal))
    assert resumed.sign_vote(Prevote(HEIGHT, 0, None, -1)) == first


def test_signer_refuses_another_height() -> None:
    signer = Signer(CONTEXT, HEIGHT, KEYS[0].public, KEYS[0].sign, ())
    with pytest.raises(AssertionError, match="not under way"):
        signer.sign_vote(Precommit(Height(9), 0, ID_A))


def test_frames_come_back_as_they_were_written() -> None:
    solo = Solo().start().propose(A).prevote(A, 0, 1)
    assert [encode_frame(decode_frame(frame)) for frame in solo.frames] == solo.frames


@pytest.mark.parametrize("frame", [b"", b"\x00", b"\x92\x01\x02", b"\x93\x01\xc4\x00\xc4\x00", b"\x91\x03"])
def test_garbage_in_the_journal_stops_the_node(frame: bytes) -> None:
    with pytest.raises(CorruptStore, match="journal_frame_invalid"):
        replay([frame])


def test_every_state_frame_cut_short_or_extended_is_refused() -> None:
    frame = Solo().start().propose(A).frames[0]
    for cut in range(len(frame)):
        with pytest.raises(CorruptStore):
            decode_frame(frame[:cut])
    with pytest.raises(CorruptStore):
        decode_frame(frame + b"\0")


def test_height_that_goes_back_in_the_journal_stops_the_node() -> None:
    def frame(height: int) -> bytes:
        return encode_frame(StateFrame(Height(height), 0, Step.PROPOSE, -1, None, -1, None, (), ()))

    assert replay([frame(5), frame(6)]) == JournalState(Height(6), step=Step.PROPOSE)
    with pytest.raises(CorruptStore, match="journal_height_goes_back"):
        replay([frame(6), frame(5)])


def test_lone_validator_resumes_the_decision_it_was_about_to_write() -> None:
    net = Net(1)
    net.run_until(3)
    frames = list(net[0].frames)
    net.crash(0)
    net[0].chain.pop()  # the journal speaks of height 3, the store lost it before it was synced
    net[0].frames[:] = frames
    net.restart(0).run_until(5)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_truth_value_is_no_number_of_a_frame(place: int) -> None:
    """It equals 0 or 1, but has other bytes: one frame would have two forms."""
    fields: list[Plain] = [2, 1, 1, 1, -1, None, -1, None, (), ()]
    assert decode_frame(encode(fields))
    fields[place] = True
    with pytest.raises(CorruptStore, match="journal_frame_invalid"):
        decode_frame(encode(fields))
