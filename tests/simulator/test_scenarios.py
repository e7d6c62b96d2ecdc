"""Named stories of a small network, told to a cluster."""

from __future__ import annotations

import pytest

from contracts_native.credits import BALANCES, IssueCredits, TransferCredits
from ledger.state import State
from ledger.storage import CERTIFICATES, format_height
from node import chain_store
from p2p.messages import Blocks, ConsensusMessage, ProposalMessage, Transactions
from tests.simulator.checkers import check_all, check_liveness
from tests.simulator.cluster import Cluster
from tests.simulator.stories import run_seed


def test_isolated_validator_catches_up() -> None:
    net = Cluster(validators=4, seed=7)
    net.submit_something()
    net.isolate(3)
    net.run_until(height=5)
    assert net[3].height < 5
    net.heal()
    net.run_until(height=8)
    assert net.block_ids(height=8) == {net[0].block_id(8)}
    check_all(net)


def test_without_a_quorum_nothing_is_decided_and_then_it_goes_on() -> None:
    net = Cluster(validators=4, seed=8)
    net.run_until(height=2)
    net.split({0, 1}, {2, 3})
    net.run_for(20_000)  # what was on its way may still decide one height
    stuck_at = [node.height for node in net.nodes]
    net.run_for(60_000)
    assert [node.height for node in net.nodes] == stuck_at
    net.heal()
    check_liveness(net)
    check_all(net)


def test_dead_proposer_is_skipped() -> None:
    net = Cluster(validators=4, seed=9)
    net.run_until(height=1)
    net.crash(2)
    net.run_until(height=6)
    assert net[2].height < 6
    net.restart(2)
    net.run_until(height=7)
    check_all(net)


def test_two_of_four_down_nothing_is_lost_and_it_resumes() -> None:
    net = Cluster(validators=4, seed=10)
    net.submit(0, IssueCredits(net.accounts[1].address, 500, "first"), by=net.accounts[0])
    net.run_until(height=2)
    net.crash(1)
    net.crash(2)
    net.run_for(30_000)
    net.heal()
    net.run_until(height=max(node.height for node in net.nodes) + 3)
    check_all(net)
    assert all(_get_cents(net, node, 1) == 500 for node in range(4))


def test_all_four_at_once_and_it_resumes() -> None:
    net = Cluster(validators=4, seed=11)
    net.run_until(height=3)
    for number in range(4):
        net.crash(number)
    net.heal()
    check_liveness(net)
    check_all(net)


def test_transaction_submitted_to_a_minority_is_decided_after_healing() -> None:
    net = Cluster(validators=4, seed=12)
    net.isolate(3)
    net.run_until(height=1)
    net.submit(3, IssueCredits(net.accounts[2].address, 77, "lonely"), by=net.accounts[0])
    net.run_for(2_000)
    assert _get_cents(net, 0, 2) == 0
    net.heal()
    net.run_for(15_000)
    assert [_get_cents(net, node, 2) for node in range(4)] == [77, 77, 77, 77]


def test_dependent_transactions_through_one_door_are_both_decided() -> None:
    net = Cluster(validators=4, seed=13)
    net.submit(0, IssueCredits(net.accounts[1].address, 100, "a"), by=net.accounts[0])
    net.submit(0, TransferCredits(net.accounts[2].address, 60, ""), by=net.accounts[1])
    net.submit(0, TransferCredits(net.accounts[3].address, 60, ""), by=net.accounts[1])
    reasons = [one.error.reason if one.error else None for one in net[0].admissions]
    assert reasons == [None, None, "credits_not_sufficient"]
    net.run_for(3_000)
    assert [_get_cents(net, 2, account) for account in (1, 2)] == [40, 60]


def test_idle_network_makes_only_heartbeats() -> None:
    net = Cluster(validators=4, seed=14)
    net.run_for(31_000)
    assert 5 <= net[0].height <= 11  # one each 3 seconds
    counts = [chain_store.get_header(net[0].store, height).transactions_count for height in range(1, net[0].height)]
    assert set(counts) == {0}


def test_rubbish_from_a_peer_is_blamed_and_changes_nothing() -> None:
    net = Cluster(validators=4, seed=15)
    net.run_until(height=1)
    before = net[0].height
    for message in (
        Transactions((b"rubbish",)),
        ConsensusMessage(b"\x93\x01"),
        ProposalMessage(b"", b"", b""),
        Blocks(((b"x", b"y"),)),
    ):
        net._deliver(1, 0, message)
    net.run_for(10)
    assert [(who, whom) for who, whom, _ in net.observed.blames] == [(0, 1)] * 4
    net.observed.blames.clear()
    check_liveness(net)
    check_all(net)
    assert net[0].height > before


def test_a_checker_catches_a_lost_block() -> None:
    net = run_seed(3)
    height = net[0].height
    net[0].store.write({CERTIFICATES + format_height(height): None})
    with pytest.raises(AssertionError, match=r"lost block(.|\n)*--seed 3"):
        check_all(net)


def _get_cents(net: Cluster, node: int, account: int) -> int:
    balance = BALANCES.find(State(net[node].store), net.accounts[account].address)
    return 0 if balance is None else balance.cents
