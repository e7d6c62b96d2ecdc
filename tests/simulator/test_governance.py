"""Validators come and go by vote while the network runs, and whoever starts from genesis can follow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.codec import encode_message
from consensus.messages import Precommit, SignedVote, compute_signed_bytes
from contracts_native.governance import ProposalStatus
from contracts_native.table import load_table
from ledger.errors import Rejected
from ledger.parameters import get_parameters
from ledger.primitives import Height, sha256
from ledger.state import State
from ledger.validators import VALIDATOR_HISTORY
from node import chain_store
from node.verification import verify_store
from p2p.messages import ConsensusMessage
from tests.simulator.checkers import check_all, check_liveness
from tests.simulator.cluster import Cluster
from tests.simulator.governance import follow, grow, list_proposals, propose, show_readiness, vote
from tests.simulator.stories import run_seed


def list_signers(net: Cluster, height: int) -> set[int]:
    """Whose precommits decided a height, at any node."""
    certificates = [chain_store.find_certificate(node.store, height) for node in net.nodes]
    return {net.find_number(one.voter) for found in certificates if found is not None for one in found.signatures}


def list_proposers(net: Cluster, *, from_height: int) -> set[int]:
    heights = range(from_height, net[0].height + 1)
    return {net.find_number(chain_store.get_header(net[0].store, height).proposer) for height in heights}


def test_a_fifth_validator_is_voted_in_and_takes_part() -> None:
    net = Cluster(validators=4, seed=30, followers=1)
    net.run_until(height=3)
    from_height = grow(net, 4, (0, 1, 2))
    net.run_until(height=from_height + 10, within_ms=120_000)
    assert list_proposals(net, 0)[-1][1].status is ProposalStatus.IN_FORCE
    assert 4 in list_proposers(net, from_height=from_height)
    assert any(4 in list_signers(net, height) for height in range(from_height, from_height + 10))
    assert not any(4 in list_signers(net, height) for height in range(1, from_height))
    assert follow(net, 4).height == net[4].height
    assert [one.height for one in verify_store(net[4].store, net.genesis, load_table())][-1] == net[4].height
    check_liveness(net)
    check_all(net)


def test_with_five_validators_one_founder_may_fall_silent() -> None:
    net = Cluster(validators=4, seed=31, followers=1)
    net.run_until(height=3)
    from_height = grow(net, 4, (0, 1, 2))
    net.crash(0)
    net.run_until(height=from_height + 6, within_ms=120_000)
    assert list_signers(net, from_height + 5) == {1, 2, 3, 4}


def test_a_removed_validator_no_longer_counts_and_goes_on_following() -> None:
    net = Cluster(validators=5, seed=32)
    net.run_until(height=3)
    propose(net, 1, remove=3, ahead=8)
    net.run_for(3_000)
    ((proposal_id, proposal),) = list_proposals(net, 0)
    vote(net, 0, 2, 4, proposal=proposal_id)
    net.run_until(height=proposal.effective_height + 3, within_ms=120_000)
    from_height = proposal.effective_height
    assert list_proposals(net, 0)[0][1].status is ProposalStatus.IN_FORCE
    assert not any(3 in list_signers(net, height) for height in range(from_height, net[0].height + 1))
    assert 3 not in list_proposers(net, from_height=from_height)
    core = net[0].core
    assert core is not None
    assert len(core.validators) == 4
    late = Precommit(Height(core.header.height + 1), 0, sha256(b"anything"))
    signature = net[3].key.sign(compute_signed_bytes(core.context, late))
    net._deliver(3, 0, ConsensusMessage(encode_message(SignedVote(late, net[3].key.public_key, signature))))
    assert [(who, whom, what[:13]) for who, whom, what in net.observed.blames] == [(0, 3, "voter_unknown")]
    net.observed.blames.clear()
    follow(net, 3)
    check_liveness(net)
    check_all(net)


def test_a_light_client_follows_several_changes_from_genesis() -> None:
    net = Cluster(validators=4, seed=38, followers=2)
    net.run_until(height=3)
    grow(net, 4, (0, 1, 2))
    propose(net, 1, remove=0, ahead=10)
    net.run_for(3_000)
    proposal_id, proposal = list_proposals(net, 2)[-1]
    vote(net, 2, 3, 4, proposal=proposal_id)
    net.run_until(height=proposal.effective_height + 1, within_ms=120_000)
    from_height = grow(net, 5, (4, 1, 2))
    net.run_until(height=from_height + 3, within_ms=120_000)
    headers = [chain_store.get_header(net[5].store, height) for height in range(net[5].height + 1)]
    assert len({header.validators_hash for header in headers}) == 4
    assert [follow(net, node.number).height for node in net.nodes] == [node.height for node in net.nodes]
    assert list_signers(net, from_height + 2) <= {1, 2, 3, 4, 5}
    check_all(net)


def test_a_light_client_refuses_a_set_that_no_header_announced() -> None:
    net = Cluster(validators=4, seed=33, followers=1)
    net.run_until(height=3)
    from_height = grow(net, 4, (0, 1, 2))
    follow(net, 0)
    state = State(net[0].store)
    record = VALIDATOR_HISTORY.get(state, from_height)
    VALIDATOR_HISTORY.put(state, from_height, value=replace(record, members=record.members[:4]))
    net[0].store.write(state.compute_changes())
    with pytest.raises(Rejected, match="validators_not_those_of_header"):
        follow(net, 0)


def test_parameters_change_at_the_named_height_and_not_before() -> None:
    net = Cluster(validators=4, seed=34)
    net.run_until(height=2)
    propose(net, 0, parameters={"block_transactions_max": 77}, ahead=8)
    net.run_for(2_000)
    ((proposal_id, proposal),) = list_proposals(net, 0)
    vote(net, 2, 3, proposal=proposal_id)
    net.run_until(height=proposal.effective_height - 2)
    assert get_parameters(State(net[1].store)).block_transactions_max == 4_000
    net.run_until(height=proposal.effective_height)
    assert {get_parameters(State(node.store)).block_transactions_max for node in net.nodes} == {77}
    check_all(net)


def test_without_more_than_two_thirds_nothing_changes() -> None:
    net = Cluster(validators=4, seed=35, followers=1)
    net.run_until(height=2)
    propose(net, 0, add=4, ahead=8)
    net.run_for(2_000)
    ((proposal_id, proposal),) = list_proposals(net, 0)
    show_readiness(net, 4)
    vote(net, 1, proposal=proposal_id)
    net.run_until(height=proposal.effective_height + 2)
    assert [one.status for _, one in list_proposals(net, 0)] == [ProposalStatus.LAPSED]
    core = net[0].core
    assert core is not None
    assert len(core.validators) == 4
    check_all(net)


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_promises_hold_while_validators_come_and_go_in_any_weather(first: int) -> None:
    changed = 0
    for seed in range(first, first + 20):
        net = run_seed(seed, kind="changing")
        changed += len({record.members for _, record in VALIDATOR_HISTORY.scan(State(net[0].store))}) > 1
    assert changed >= 10, "the weather hardly let a change through"


def test_same_seed_is_the_same_run_of_changes() -> None:
    first, second = (run_seed(5, kind="changing") for _ in range(2))
    assert first.observed.commits == second.observed.commits


def test_a_version_is_activated_over_a_rolling_upgrade() -> None:
    net = Cluster(validators=4, seed=36)
    net.run_until(height=2)
    propose(net, 0, version=2, ahead=12)
    net.run_for(2_000)
    ((proposal_id, proposal),) = list_proposals(net, 0)
    vote(net, 1, 2, proposal=proposal_id)
    for number in (0, 1, 2):
        upgrade(net, number)
        net.run_for(1_000)
    net.run_until(height=proposal.effective_height - 1)
    net.run_for(10_000)
    versions = [chain_store.get_header(net[0].store, height).version for height in range(1, net[0].height + 1)]
    at = proposal.effective_height - 1
    assert set(versions[:at]) == {1}
    assert set(versions[at:]) == {2}
    assert net.observed.halts == [(3, "protocol_version_not_supported: 2, this program knows versions up to 1")]
    net.observed.halts.clear()
    upgrade(net, 3)
    check_liveness(net)
    check_all(net)


def test_programs_that_do_not_know_a_version_wait_for_their_upgrade_and_lose_nothing() -> None:
    net = Cluster(validators=4, seed=37)
    net.run_until(height=2)
    propose(net, 0, version=2, ahead=8)
    net.run_for(2_000)
    ((proposal_id, proposal),) = list_proposals(net, 0)
    vote(net, 1, 2, proposal=proposal_id)
    net.run_for(60_000)
    assert {node.height for node in net.nodes} == {proposal.effective_height - 1}
    assert len(net.observed.halts) == 4
    net.observed.halts.clear()
    for number in range(4):
        upgrade(net, number)
    check_liveness(net)
    check_all(net)


def upgrade(net: Cluster, number: int) -> None:
    """Restart a node with a program that knows version 2."""
    net.crash(number)
    net[number].table = replace(net[number].table, version_max=2)
    net.restart(number)
