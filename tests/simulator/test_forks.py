"""More liars than the protocol bears, on whole nodes: the chain forks; every honest node tells and names the guilty."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native.credits import IssueCredits
from contracts_native.evidence import OffenceKind, find_recorded
from ledger.state import State
from ledger.storage import MemoryStore
from node import chain_store
from node.core import Core
from node.core_config import CoreConfig
from node.fork_proof import read_proof, verify_proof
from node.forks import compute_forgetting, compute_fork_changes, list_fork_heights, list_forks
from node.inputs import Started
from node.queries.forks import ForkRow, chain_forks
from node.queries.view import View
from node.rollback import roll_back
from tests.simulator.broken import Broken
from tests.simulator.checkers import check_certificates, check_no_honest_node_is_blamed
from tests.simulator.cluster import PARAMETERS, Node
from tests.simulator.overrun import find_parting, list_ids
from tests.simulator.stories import run_seed
from tests.simulator.twins import HONEST, LIARS, TwinCluster, check_twins_are_told

# Both parts have the proposer of height 6, so that they decide it in one round; one of them lacks that of height 4.
ONE_ROUND, TWO_ROUNDS = 5, 3


def fork(seed: int, *, after: int, with_copies: bool) -> TwinCluster:
    """A chain that has forked after a height, and whose parts have met and told."""
    net = TwinCluster(seed)
    net.run_until(height=after)
    net.part()
    for number in HONEST:  # what one part is paid, the other does not know
        net.submit(number, IssueCredits(net.accounts[1].address, 1, f"part {number}"), by=net.accounts[0])
    net.run_until_both_reach(after + 2)
    net.meet(with_copies=with_copies)
    net.run_until_told()
    return net


@pytest.mark.parametrize("after", [ONE_ROUND, TWO_ROUNDS])
@pytest.mark.parametrize("with_copies", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_every_honest_node_tells_of_the_fork_and_names_the_guilty_and_nobody_else(
    seed: int, with_copies: bool, after: int
) -> None:
    net = fork(seed, after=after, with_copies=with_copies)
    assert find_parting(net) == after + 1
    check_twins_are_told(net)
    check_certificates(net)
    check_no_honest_node_is_blamed(net)
    assert [halt for halt in net.observed.halts if halt[0] in HONEST] == []


def test_two_final_blocks_of_one_round_prove_the_guilty_on_chain() -> None:
    net = fork(0, after=ONE_ROUND, with_copies=False)
    net.run_for(10_000)
    (first,) = list_forks(net[0].store)
    assert (first.height, first.is_first) == (ONE_ROUND + 1, True)
    assert {net.find_number(one.first.voter) for one in first.list_duplicates()} == LIARS
    assert {liar for liar in LIARS if is_recorded(net, liar, ONE_ROUND + 1)} == LIARS


def test_two_final_blocks_of_two_rounds_prove_nothing_of_a_single_one() -> None:
    net = fork(0, after=TWO_ROUNDS, with_copies=False)
    net.run_for(10_000)
    assert list_fork_heights(net[0].store) == [TWO_ROUNDS + 1]
    (shown,) = list_shown(net[0])
    assert shown["guilty"] == []
    suspects = shown["suspects"]
    assert isinstance(suspects, list)
    assert [one["moniker"] for one in suspects if isinstance(one, dict)] == ["v2", "v3"]
    assert not any(is_recorded(net, number, TWO_ROUNDS + 1) for number in range(4))


def test_both_parts_go_on_with_their_own_chain() -> None:
    net = fork(1, after=ONE_ROUND, with_copies=True)
    heights = [node.height for node in net.honest]
    heads = [node.block_id(node.height) for node in net.honest]
    net.run_for(20_000)
    for node, height, head in zip(net.honest, heights, heads, strict=True):
        assert node.height > height
        assert node.block_id(height) == head


def test_the_alarm_outlives_a_restart() -> None:
    net = fork(2, after=ONE_ROUND, with_copies=False)
    kept = list(list_forks(net[1].store))
    net.crash(1)
    net.restart(1)
    net.run_for(40_000)
    assert list(list_forks(net[1].store))[: len(kept)] == kept


def test_what_a_node_tells_is_proven_by_the_genesis_document_alone() -> None:
    net = fork(0, after=TWO_ROUNDS, with_copies=True)
    for node in net.honest:
        for shown in list_shown(node):
            culprits = verify_proof(read_proof(shown["proof"]), net.genesis)
            named = {net.find_number(one.public_key) for one in (*culprits.guilty, *culprits.suspects)}
            assert named == LIARS


def test_rolled_back_below_the_fork_a_node_follows_the_other_chain_and_the_alarm_stays_off_once_cleared() -> None:
    net = fork(0, after=TWO_ROUNDS, with_copies=False)
    node, target = net[1], MemoryStore()
    net.crash(1)
    for _ in roll_back(node.store, target, net.genesis, node.table, until=TWO_ROUNDS):
        pass
    assert list_fork_heights(target) == [TWO_ROUNDS + 1]
    target.write(compute_forgetting(target))
    node.store = target
    height = net[0].height
    start_without_signing(net, node)
    net.run_for(40_000)  # long enough for each peer to be checked
    assert node.height > height
    assert list_ids(net, height) == {net[0].block_id(height)}
    assert list_fork_heights(node.store) == []


def test_the_judge_sees_a_fork_that_is_not_told() -> None:
    net = fork(0, after=TWO_ROUNDS, with_copies=False)
    net[1].store.write(compute_forgetting(net[1].store))
    with pytest.raises(Broken, match="a fork is told"):
        check_twins_are_told(net)


def test_the_judge_sees_a_fork_whose_guilty_are_not_all_named() -> None:
    net = fork(0, after=TWO_ROUNDS, with_copies=False)
    (kept,) = list_forks(net[1].store)
    commit = kept.theirs.commit
    others = tuple(one for one in commit.signatures if one.voter != net[2].key.public_key)
    less = replace(kept, theirs=replace(kept.theirs, commit=replace(commit, signatures=others)))
    net[1].store.write(compute_forgetting(net[1].store))
    net[1].store.write(compute_fork_changes(net[1].store, less))
    with pytest.raises(Broken, match="a fork names the guilty"):
        check_twins_are_told(net)


@pytest.mark.parametrize("kind", ["weather", "byzantine", "changing", "lock_attack"])
def test_no_storm_that_the_protocol_bears_raises_the_alarm(kind: str) -> None:
    for seed in range(40, 46):
        net = run_seed(seed, kind=kind)
        assert net.observed.forks == []
        assert [list_fork_heights(node.store) for node in net.honest] == [[]] * len(net.honest)
        assert any(chain_store.read_head_height(node.store) > 3 for node in net.honest)


def start_without_signing(net: TwinCluster, node: Node) -> None:
    """As a node starts whose journal was set aside."""
    config = CoreConfig(own_key=None, sign=None, consensus=PARAMETERS)
    node.core = Core(config, node.store, node.table, journal_frames=[])
    node.life += 1
    node.tell(Started())
    node.tick()
    net._connect(node.number)


def is_recorded(net: TwinCluster, number: int, height: int) -> bool:
    """Whether two precommits of a validator for one round of a height stand on node 0's chain."""
    key = net[number].key.public_key
    return find_recorded(State(net[0].store), key, height, OffenceKind.DUPLICATE_PRECOMMIT) is not None


def list_shown(node: Node) -> list[ForkRow]:
    """The forks as JSON-RPC shows them."""
    return chain_forks(View(node.store, node.table))["forks"]
