"""Whole networks, as stories: idle chains, dead proposers, partitions, laggards, power cuts."""

from __future__ import annotations

from consensus.parameters import ConsensusParameters
from tests.consensus.harness import START_MS
from tests.consensus.network import Faults, Net


def test_four_validators_agree_at_the_pace_of_the_block_interval() -> None:
    net = Net(4).run_until(20)
    assert net.now_ms - START_MS < 20 * 600
    assert all(decide.round == 0 for decide in net[0].chain)


def test_one_validator_alone_decides_by_itself() -> None:
    assert Net(1).run_until(10)[0].height >= 10


def test_idle_chain_makes_no_blocks_but_a_heartbeat() -> None:
    net = Net(4, busy=False, parameters=ConsensusParameters(heartbeat_ms=10_000))
    net.run(45_000)  # the first heartbeat is due at once, the parent being a minute old
    assert {node.height for node in net.nodes} == {5}


def test_lone_transaction_is_final_at_once_on_an_idle_chain() -> None:
    net = Net(4, busy=False).run(5_000)
    height = net[0].height
    net.submit(0, 1, 2, 3).run_until(height + 1, within_ms=300)


def test_transaction_that_only_one_node_knows_still_gets_its_block() -> None:
    net = Net(4, busy=False).run(5_000)
    height = net[0].height
    proposer = (height + 1) % 4
    net.submit((proposer + 1) % 4).run_until(height + 1, within_ms=3_000)


def test_dead_proposer_is_skipped_when_there_is_work() -> None:
    net = Net(4).crash(2)
    net.run_until(12, nodes=[0, 1, 3])
    assert any(decide.round == 1 for decide in net[0].chain)
    assert net.now_ms - START_MS < 30_000


def test_isolated_validator_catches_up_without_a_restart() -> None:
    net = Net(4).split([0, 1, 2], [3])
    net.run_until(8, nodes=[0, 1, 2])
    assert net[3].height < 2
    net.heal().run_until(net[0].height + 2, within_ms=20_000)


def test_two_of_four_decide_nothing_and_go_on_together() -> None:
    net = Net(4).run_until(3).split([0, 1], [2, 3])
    net.run(2_000)
    heights = [node.height for node in net.nodes]
    net.run(60_000)
    assert [node.height for node in net.nodes] == heights
    assert all(node.engine.state is not None and node.engine.state.round == 0 for node in net.nodes)
    net.heal().run_until(max(heights) + 3, within_ms=20_000)


def test_all_validators_lose_power_and_resume() -> None:
    net = Net(4)
    for _ in range(5):
        net.run(net.random.randrange(1_500))
        for number in range(4):
            net.crash(number)
        net.heal()
    net.run_until(8, within_ms=60_000)


def test_watcher_follows_without_a_vote() -> None:
    net = Net(4, watchers=1).run_until(6)
    assert net[4].frames == []


def test_lossy_slow_network_still_decides() -> None:
    net = Net(4, seed=3)
    net.faults = Faults(drop_percent=20, duplicate_percent=20, delay_ms_max=400)
    net.run_until(10, within_ms=300_000)


def test_rounds_of_connected_nodes_stay_within_one_of_each_other() -> None:
    net = Net(4, seed=5).crash(1).crash(2)
    for _ in range(100):
        net.run(500)
        rounds = {node.engine.state.round for node in (net[0], net[3]) if node.engine.state is not None}
        assert max(rounds) - min(rounds) <= 1


def test_same_seed_gives_the_same_chain() -> None:
    def run() -> list[bytes]:
        net = Net(4, seed=11)
        net.faults = Faults(drop_percent=10, delay_ms_max=300)
        return [decide.block_id for decide in net.run(20_000)[0].chain]

    assert run() == run()
