"""What a node says of its own clock, by the proposals of the others."""

from __future__ import annotations

from consensus.clocks import PeerClocks
from consensus.messages import VALID_ROUND_NONE, Proposal
from consensus.round import HeightState, KnownProposal
from consensus.votes import VoteBook
from ledger.primitives import sha256
from tests.consensus.harness import HEIGHT, KEYS, START_MS, build_validators
from tests.simulator.cluster import Cluster

AHEAD_MS = 30_000


def make_state(ahead_ms: dict[int, int], *, count: int = 4, valid_round: int = VALID_ROUND_NONE) -> HeightState:
    """A height at which each of these proposed, a round each, and our clock was ahead of theirs by so much."""
    validators = build_validators(count)
    state = HeightState(HEIGHT, validators, VoteBook(validators), START_MS, 10_000)
    for round_, (number, ahead) in enumerate(ahead_ms.items()):
        proposal = Proposal(HEIGHT, round_, sha256(b"block"), valid_round, START_MS)
        state.proposals[round_] = KnownProposal(KEYS[number].propose(proposal), START_MS + ahead)
    return state


def compute(state: HeightState, *, own: int = 3) -> int | None:
    clocks = PeerClocks()
    clocks.note_height(state, KEYS[own].public)
    return clocks.compute_skew_ms()


def test_the_median_of_the_others_counts_and_our_own_word_does_not() -> None:
    assert compute(make_state({})) is None
    assert compute(make_state({3: 0})) is None
    assert compute(make_state({0: 40, 1: AHEAD_MS, 2: 60, 3: 0})) == 60
    assert compute(make_state({0: -5_000, 1: -4_000})) == -5_000


def test_a_block_proposed_again_tells_no_time() -> None:
    assert compute(make_state({1: AHEAD_MS}, valid_round=0)) is None


def test_a_member_that_has_left_is_forgotten_and_the_last_word_of_each_counts() -> None:
    clocks = PeerClocks()
    clocks.note_height(make_state({3: AHEAD_MS}), KEYS[0].public)
    clocks.note_height(make_state({1: 50}, count=3), KEYS[0].public)
    assert clocks.compute_skew_ms() == 50
    clocks.note_height(make_state({1: 70}, count=3), KEYS[0].public)
    assert clocks.compute_skew_ms() == 70


def test_a_clock_that_is_off_shows_at_its_node_and_not_at_the_others() -> None:
    net = Cluster(validators=4, seed=5)
    net.clock_offsets_ms = [0, 0, 0, AHEAD_MS]
    for number in range(8):
        net.submit_something()
        net.run_until(height=number + 1)
    skews = [node.core.clock_skew_ms for node in net.nodes if node.core is not None]
    assert None not in skews
    assert abs((skews[3] or 0) - AHEAD_MS) < 1_000
    assert max(abs(skew or 0) for skew in skews[:3]) < 1_000
