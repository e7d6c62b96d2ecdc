"""Real processes: validators vote one of them out and in again, and change a parameter, while the chain goes on."""

from __future__ import annotations

from pathlib import Path

from contracts_native.governance import ParameterChange, Propose, ShowReadiness, Vote
from ledger.primitives import Hash, PublicKey
from node.config import read_config
from node.keystore import SigningKey, load_signing_key
from tests.integration.processes import TIMEOUT_MS, Network, running_network


async def get_height(network: Network) -> int:
    return int((await network.clients[0].chain_status())["height"])


def load_keys(network: Network) -> list[SigningKey]:
    """The keys that the validators vote with."""
    homes = [network.net.get_home(index) for index in range(4)]
    return [load_signing_key(read_config(home).key_file) for home in homes]


async def run_to(network: Network, height: int) -> None:
    """Every transfer is a block: an idle chain hardly moves."""
    done = await network.transfer(1)
    while await get_height(network) < height:
        done = await network.transfer(1)
    await network.wait(done.tx_id)


async def decide(network: Network, keys: list[SigningKey], change: Propose, *voters: int) -> None:
    """The first voter proposes, the others vote, each at its own node; then the chain goes past the height."""
    first = voters[0]
    proposed = await network.clients[first].submit(change, key=keys[first], timeout_ms=TIMEOUT_MS)
    await network.wait(proposed.tx_id)
    (event,) = [one for one in proposed.events if one["event"] == "governance.proposed"]
    proposal = bytes.fromhex(str(event["proposal"]))
    if change.add_validator is not None:
        height = await get_height(network) - 1
        block = await network.clients[3].chain_block(height=height)
        readiness = ShowReadiness(height, Hash(bytes.fromhex(block["block_id"])))
        await network.clients[3].submit(readiness, key=keys[3], timeout_ms=TIMEOUT_MS)
    for voter in voters[1:]:
        vote = Vote(proposal, approves=True)
        voted = await network.clients[voter].submit(vote, key=keys[voter], timeout_ms=TIMEOUT_MS)
        await network.wait(voted.tx_id)
    shown = await network.clients[0].governance_get(proposal.hex())
    assert shown["status"] == "scheduled"
    await run_to(network, change.effective_height + 1)


def make(
    height: int,
    *,
    add: PublicKey | None = None,
    remove: PublicKey | None = None,
    parameters: tuple[ParameterChange, ...] = (),
) -> Propose:
    return Propose(add, None if add is None else "node3", remove, parameters, None, height)


async def test_a_validator_is_voted_out_and_in_again(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        keys = load_keys(network)
        last = keys[3].public_key
        await network.wait((await network.issue(1_000)).tx_id)
        await decide(network, keys, make(await get_height(network) + 8, remove=last), 0, 1, 2)
        assert len((await network.clients[3].chain_validators())["validators"]) == 3
        assert (await network.clients[3].chain_status())["is_validator"] is False
        network.net.kill(3)  # it is not needed now
        await network.wait((await network.transfer(1)).tx_id, 0, 1, 2)
        await network.net.restart(3, timeout_ms=TIMEOUT_MS)
        await decide(network, keys, make(await get_height(network) + 12, add=last), 2, 0, 1)
        members = (await network.clients[0].chain_validators())["validators"]
        assert [one["public_key"] for one in members] == [one.public_key.hex() for one in keys]
        network.net.kill(0)  # now the newcomer is
        done = await network.transfer(1, at=3)
        await network.wait(done.tx_id, 1, 2, 3)


async def test_a_parameter_changes_on_every_node_at_one_height(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        keys = load_keys(network)
        await network.wait((await network.issue(1_000)).tx_id)
        height = await get_height(network) + 6
        change = (ParameterChange("matching_period_s", 900, None),)
        await decide(network, keys, make(height, parameters=change), 1, 2, 3)
        for client in network.clients:
            periods = [
                (await client.chain_parameters(at))["parameters"]["matching_period_s"]
                for at in (height - 2, height - 1)
            ]
            assert periods == [3_600, 900]
