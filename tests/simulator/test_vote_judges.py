"""Safety 4, 5 and 6 on whole nodes: an engine with a bug is seen in storms, and the judges look at what nodes knew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from consensus.messages import Precommit, Prevote, SignedVote
from ledger.primitives import Hash, Height, sha256
from node import chain_store
from tests.simulator import checkers
from tests.simulator.arena import Arena
from tests.simulator.broken import Broken
from tests.simulator.cluster import Cluster
from tests.simulator.directed import build_scenario
from tests.simulator.governance import grow
from tests.simulator.invariants import PrecommitsJustified
from tests.simulator.polkas import Polka, find_claimed_polka
from tests.simulator.scenario import Behaviour, Corrupt
from tests.simulator.stories import build_storm, play_storm
from tests.simulator.test_judges import apply_mutant, fail, hear_too_little, is_for, say
from tests.simulator.vote_log import Entry, How

STORMS_MAX: Final = 60

Check = Callable[[Cluster], None]

NAMES: Final[dict[Check, str]] = {checkers.check_locks: "lock holds"}
# (checker, bug, storms): the bug that this checker by itself must see.
SEEN_IN_STORMS: Final[tuple[tuple[Check, str, str], ...]] = (
    *((checkers.check_precommits_are_justified, "skip_polka_check", kind) for kind in ("weather", "changing")),
    *((checkers.check_precommits_are_justified, "quorum_minus_one", kind) for kind in ("byzantine", "changing")),
    (checkers.check_precommits_are_justified, "count_a_sender_twice", "weather"),
    (checkers.check_precommits_are_justified, "trust_every_signature", "byzantine"),
    *((checkers.check_prevotes_are_justified, "quorum_minus_one", kind) for kind in ("weather", "byzantine")),
    (checkers.check_prevotes_are_justified, "count_a_sender_twice", "changing"),
    *((checkers.check_polkas_follow_commits, "ignore_lock", kind) for kind in ("byzantine", "lock_attack")),
    (checkers.check_prevotes_are_justified, "accept_reproposal_without_its_polka", "lock_attack"),
    (checkers.check_precommits_are_justified, "skip_polka_check", "lock_attack"),
    (checkers.check_locks, "forget_lock_on_restart", "lock_attack"),
)


@pytest.mark.parametrize(("check", "bug", "kind"), SEEN_IN_STORMS, ids=lambda one: getattr(one, "__name__", str(one)))
def test_a_bug_of_the_engine_is_seen_in_storms_by_one_checker_alone(check: Check, bug: str, kind: str) -> None:
    with apply_mutant(bug), pytest.raises(Broken) as broken:
        play_before(check, kind)
    assert broken.value.promise == NAMES.get(check, check.__name__.removeprefix("check_").replace("_", " "))


def play_before(check: Check, kind: str) -> None:
    """Play storms, as long as their faults last, before one checker only."""
    for seed in range(STORMS_MAX):
        check(play_storm(build_storm(kind, seed, 4)))


@pytest.mark.parametrize(("members", "is_enough"), [(4, True), (5, False)])
def test_a_quorum_is_one_of_the_set_of_its_height(members: int, is_enough: bool) -> None:
    """Three of the four of genesis are a polka, three of the five after a vote are not."""
    net = Cluster(validators=4, seed=30, followers=1)
    net.run_until(height=3)
    from_height = grow(net, 4, (0, 1, 2))
    polka = find_polka_seen(net, height=2 if members == 4 else from_height)
    assert len(chain_store.read_validators_at(net[0].store, polka[0]).members) == members
    checkers.check_precommits_are_justified(net)
    own = sum(signed.voter == net[0].key.public_key for signed in list_seen(net, polka))
    hear_too_little(net, polka, count=3 - own)
    if is_enough:
        checkers.check_precommits_are_justified(net)
    else:
        assert fail(lambda: checkers.check_precommits_are_justified(net)) == "precommits are justified"


def find_polka_seen(net: Cluster, *, height: int) -> Polka:
    """What node 0 has seen before it precommitted at a height."""
    own = (
        one for entry in net.observed.votes.entries if (entry.node, entry.how) == (0, How.SENT) for one in entry.votes
    )
    precommits = (one.vote for one in own if isinstance(one.vote, Precommit) and one.vote.height == height)
    polka = next(map(find_claimed_polka, precommits))
    assert polka is not None
    return polka


def list_seen(net: Cluster, polka: Polka) -> set[SignedVote]:
    return {one for entry in net.observed.votes.entries if entry.node == 0 for one in entry.votes if is_for(one, polka)}


def test_after_a_restart_a_node_has_seen_what_its_journal_holds_and_nothing_else() -> None:
    net = Cluster(validators=4, seed=3)
    net.run_until(height=3)
    polka = find_polka_seen(net, height=2)
    votes, (height, round_, block_id) = net.observed.votes, polka
    say(net, 0, Prevote(Height(height), round_ + 1, block_id, round_))
    votes.entries.append(Entry(0, How.RESTORED, tuple(list_seen(net, polka))))
    say(net, 0, Prevote(Height(height), round_ + 2, block_id, round_))
    votes.note_started(0, [])
    say(net, 0, Precommit(Height(height), round_, block_id))  # said again, it was judged when it was signed
    for check in (checkers.check_precommits_are_justified, checkers.check_prevotes_are_justified):
        check(net)
    say(net, 0, Prevote(Height(height), round_ + 3, block_id, round_))
    assert fail(lambda: checkers.check_prevotes_are_justified(net)) == "prevotes are justified"


@pytest.mark.parametrize(("corrupt", "honest_least"), [((), 3), ((Corrupt(3, Behaviour.WITHHOLD, 1, frozenset()),), 2)])
def test_the_byzantine_are_taken_to_have_said_what_completes_a_quorum(
    corrupt: tuple[Corrupt, ...], honest_least: int
) -> None:
    one, another = sha256(b"one"), sha256(b"another")
    net = Cluster(validators=4, seed=3, corrupt=corrupt)
    net.run_until(height=2)
    height = Height(max(node.height for node in net.nodes) + 1)

    def say_all(vote: Precommit | Prevote) -> None:
        for number in range(honest_least):
            checkers.check_polkas_follow_commits(net)
            say(net, number, vote)

    say_all(Prevote(height, 6, another, -1))  # before the commit: no matter
    say_all(Precommit(height, 7, one))
    say_all(Prevote(height, 8, one, 7))  # of the same block
    checkers.check_polkas_follow_commits(net)
    say_all(Prevote(height, 9, another, -1))
    assert fail(lambda: checkers.check_polkas_follow_commits(net)) == "polkas follow commits"


@pytest.mark.parametrize("own", [None, sha256(b"block")])
def test_in_the_arena_ones_own_prevote_counts_for_what_it_says(own: Hash | None) -> None:
    """Two of four others are no polka if the copy itself has prevoted nil."""
    arena, block_id = Arena(build_scenario("twins", 0), real_signatures=True), sha256(b"block")
    judge = PrecommitsJustified(arena)
    copy, height = arena.copies[0], Height(arena.scenario.first_height)
    others = [index for index in range(4) if index != copy.index][:2]
    copy.heard += [arena.make_vote(index, Prevote(height, 0, block_id, -1)) for index in others]
    said = [arena.make_vote(copy.index, vote) for vote in (Prevote(height, 0, own, -1), Precommit(height, 0, block_id))]
    copy.signed.update(signed.signature for signed in said)
    judge.on_sent(copy, said[0])
    if own == block_id:
        judge.on_sent(copy, said[1])
    else:
        assert fail(lambda: judge.on_sent(copy, said[1])) == "precommits are justified"
