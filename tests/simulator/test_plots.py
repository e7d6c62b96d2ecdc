"""Puppets against whole nodes: locks are attacked, chains are parted, and each judge of it is seen to fail.

A storm that ever failed goes into ``KEPT`` of `test_seeds.py` and stays there; no seed is ever excluded.
"""

from __future__ import annotations

from typing import Final
from unittest.mock import patch

import pytest

from consensus.validators import ValidatorSet
from ledger.primitives import PublicKey
from node import chain_store
from node.fork_proof import Culprits, find_culprits
from node.forks import FinalHeader, list_forks
from tests.consensus.mutants import MUTANTS
from tests.simulator.checkers import list_named
from tests.simulator.cluster import Cluster
from tests.simulator.guilt import find_guilty, find_unjustified
from tests.simulator.minimise import find_failure, judge
from tests.simulator.overrun import check_all_are_up, find_parting, list_going_on, list_heard_in_time, list_held
from tests.simulator.plots import PLOTS
from tests.simulator.scenario import Crash, SayProposal
from tests.simulator.stories import build_storm, play_storm, run_seed
from tests.simulator.test_judges import fail

SEEDS_PER_TEST: Final = 10

# (bug, how many storms it may take, and the promises that may break): the arena needs 6, 18, 1 and 38 scenarios.
CAUGHT: Final = (
    ("ignore_lock", 16, {"no honest node is blamed", "polkas follow commits", "agreement"}),
    ("older_polka_opens_the_lock", 32, {"no honest node is blamed", "polkas follow commits", "agreement"}),
    ("skip_polka_check", 4, {"precommits are justified"}),
    ("accept_reproposal_without_its_polka", 16, {"prevotes are justified"}),
)


@pytest.mark.parametrize(("kind", "first"), [("lock_attack", 0), ("lock_attack", 10), ("liars", 0)])
def test_promises_hold_under_attack_of_four(kind: str, first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        judge(build_storm(kind, seed, 4))


@pytest.mark.parametrize("kind", sorted(PLOTS))
@pytest.mark.parametrize("validators", [5, 7])
def test_promises_hold_under_attack_of_more(kind: str, validators: int) -> None:
    judge(build_storm(kind, 1, validators))


@pytest.mark.parametrize(("bug", "budget", "promises"), CAUGHT, ids=[one[0] for one in CAUGHT])
def test_a_bug_in_the_handling_of_locks_is_caught_on_whole_nodes(bug: str, budget: int, promises: set[str]) -> None:
    with next(mutant for mutant in MUTANTS if mutant.name == bug).apply():
        found = (find_failure(build_storm("lock_attack", seed, 4)) for seed in range(budget))
        failure = next((one for one in found if one is not None), None)
    assert failure is not None, f"{bug} survived {budget} storms"
    assert failure[0] in promises


def test_lock_attacks_reach_later_rounds_lie_and_cut_power() -> None:
    storms = [build_storm("lock_attack", seed, 4) for seed in range(8)]
    nets = [play_storm(storm) for storm in storms]
    rounds = [net.attack.highest_round for net in nets if net.attack is not None]
    assert sum(rounds) >= 10
    assert max(rounds) >= 4
    assert any(node.life > 1 for net in nets for node in net.honest)
    assert any(isinstance(move, Crash) for storm in storms for move in storm.moves)
    assert any(isinstance(move, SayProposal) and move.polka == "forged" for storm in storms for move in storm.moves)


# Storms of liars that part the chain: in one round, and in two rounds by liars who say one thing a round.
IN_ONE_ROUND, BY_THE_CAREFUL = 15, 9
FORK_STORMS_MAX: Final = 8  # whatever changes who says what when changes what liars then do


def test_liars_part_the_chain_in_every_way() -> None:
    """A generator whose chains stay whole would prove nothing."""
    ways = [name_way(run_seed(seed, kind="liars")) for seed in range(40, 50)]
    assert {"one round", "two rounds", "nothing on record", "whole"} <= set(ways)
    assert ways.count("whole") < 6


def name_way(net: Cluster) -> str:
    if find_parting(net) is None:
        return "whole"
    fork = next(list_forks(net.honest[0].store))
    if fork.ours.commit.round == fork.theirs.commit.round:
        return "one round"
    return "two rounds" if net.observed.evidence else "nothing on record"


def test_who_precommits_two_blocks_in_one_round_is_proven_guilty_by_every_node_and_on_chain() -> None:
    net = run_seed(IN_ONE_ROUND, kind="liars")
    for node in net.honest:
        (culprits,) = list_culprits(net, node.number)
        assert {net.find_number(one.public_key) for one in culprits.guilty} == net.guilty
    going = list_going_on(net)
    assert going
    assert [list_named(net, node) for node in going] == [net.guilty] * len(going)


def test_careful_liars_are_suspects_to_each_node_and_convicted_by_the_votes_of_all() -> None:
    """They name a polka that never was. No node can know that; all of them together do, and no chain records it."""
    net = run_seed(BY_THE_CAREFUL, kind="liars")
    parting = find_parting(net)
    assert parting is not None
    assert list_going_on(net)
    assert net.observed.evidence == []
    for node in net.honest:
        (culprits,) = list_culprits(net, node.number)
        assert culprits.guilty == ()
        assert {net.find_number(one.public_key) for one in culprits.suspects} == net.guilty
        assert find_guilty(list_heard_in_time(net, parting)[node.number]) == set()
        assert list_named(net, node) == set()
    held = list_held(net, parting)
    assert find_guilty(held) == set()
    assert {net.find_number(key) for key in find_unjustified(held, 3)} == net.guilty


def list_culprits(net: Cluster, number: int) -> list[Culprits]:
    """What a node says of whom, for each fork that it keeps."""
    store = net[number].store
    validators = chain_store.read_validators(store)
    return [find_culprits(fork.ours, fork.theirs, validators) for fork in list_forks(store)]


def accuse_every_signer(ours: FinalHeader, theirs: FinalHeader) -> list[PublicKey]:
    return sorted({*ours.list_votes(), *theirs.list_votes()})


def accuse_suspects(ours: FinalHeader, theirs: FinalHeader, validators: ValidatorSet) -> Culprits:
    culprits = find_culprits(ours, theirs, validators)
    return Culprits((*culprits.guilty, *culprits.suspects), ())


# (what is wrong, with what in its place, the first storm, the promise that breaks)
FORK_BUGS: Final[tuple[tuple[str, object, int, str], ...]] = (
    ("node.fork_watch.compute_fork_changes", lambda *_: {}, BY_THE_CAREFUL, "a fork is told"),
    ("node.fork_proof.list_signers_of_both", accuse_every_signer, IN_ONE_ROUND, "a fork names the guilty"),
    ("tests.simulator.overrun.find_culprits", accuse_suspects, BY_THE_CAREFUL, "a fork names the guilty"),
    ("tests.simulator.overrun.find_unjustified", lambda *_: set(), BY_THE_CAREFUL, "a fork names the guilty"),
    ("node.candidates.Candidates.is_of_another_branch", lambda *_: False, BY_THE_CAREFUL, "validity"),
    ("node.evidence.EvidencePool.list_due", lambda *_: [], 30, "evidence is recorded"),
    ("consensus.votes.VoteBook._find_conflict", lambda *_: None, IN_ONE_ROUND, "evidence is what was heard"),
    ("tests.simulator.overrun.GO_ON_MS_MAX", 0, IN_ONE_ROUND, "a branch goes on"),
)


@pytest.mark.parametrize(("target", "wrong", "first", "promise"), FORK_BUGS, ids=[one[0] for one in FORK_BUGS])
def test_a_judge_of_forks_sees_what_is_wrong(target: str, wrong: object, first: int, promise: str) -> None:
    with patch(target, wrong):
        found = (find_failure(build_storm("liars", seed, 4)) for seed in range(first, first + FORK_STORMS_MAX))
        failure = next((one for one in found if one is not None), None)
    assert failure is not None
    assert failure[0] == promise


def test_a_node_that_gives_up_after_a_fork_is_seen() -> None:
    net = run_seed(IN_ONE_ROUND, kind="liars")
    net.crash(net.honest[0].number)
    assert fail(lambda: check_all_are_up(net)) == "a branch goes on"
