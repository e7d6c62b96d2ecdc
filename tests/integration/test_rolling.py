"""All nodes are restarted, one after the other, while clients go on: for maintenance, and for a new release."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from contracts_native.governance import Propose, Vote
from node.client_errors import Refused
from node.testnet import LOG_NAME, Launch
from tests.integration.load import Load, find_lost, under_load
from tests.integration.next_release import PROTOCOL_VERSION, RELEASE, make_release
from tests.integration.next_release.notices import PostNotice
from tests.integration.processes import TIMEOUT_MS, Network, end_orderly, running_network, wait_ended
from tests.integration.test_governance import load_keys

PAID_IN_CENTS = 1_000_000
WORDS_WHILE_AWAY = 8  # more than the clients had on their way
BLOCKS_TO_VOTE = 40  # an upgraded network has time for two votes


async def take_away_and_bring_back(network: Network, load: Load, index: int) -> None:
    """The clients go on without the node, and afterwards it has all that they heard of."""
    await end_orderly(network.net, index)
    await load.wait_for_words(WORDS_WHILE_AWAY, timeout_ms=TIMEOUT_MS)
    await network.net.restart(index, timeout_ms=TIMEOUT_MS)
    await network.wait(load.words[-1].tx_id, index)


async def test_a_rolling_restart_under_load_loses_no_word_and_stops_nobody(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        await network.wait((await network.issue(PAID_IN_CENTS)).tx_id)
        async with under_load(network) as load:
            for index in range(4):
                await take_away_and_bring_back(network, load, index)
        await network.check_one_chain((await network.transfer(1)).tx_id)
        assert await find_lost(load.words, network) == []
        assert len(await network.get_balances(network.consumer)) == 1


async def activate(network: Network, version: int) -> int:
    """Three of the four vote for a version of the rules; gives the height of its first block."""
    keys = load_keys(network)
    height = (await network.get_heights(0))[0] + BLOCKS_TO_VOTE
    proposed = await network.clients[0].submit(Propose(None, None, None, (), version, height), key=keys[0])
    (event,) = [one for one in proposed.events if one["event"] == "governance.proposed"]
    proposal = bytes.fromhex(str(event["proposal"]))
    for voter in (1, 2):
        await network.clients[voter].wait(proposed.tx_id, timeout_ms=TIMEOUT_MS)
        await network.clients[voter].submit(Vote(proposal, approves=True), key=keys[voter], timeout_ms=TIMEOUT_MS)
    return height


async def post_notice(network: Network, *, at: int) -> str:
    """A transaction that only the next release knows; its id once it is committed."""
    done = await network.clients[at].submit(PostNotice(7), key=network.consumer, timeout_ms=TIMEOUT_MS)
    assert [one["event"] for one in done.events] == ["notice.posted"]
    return done.tx_id


async def test_a_rolling_upgrade_and_the_one_who_missed_it(tmp_path: Path) -> None:
    release = await asyncio.to_thread(make_release, tmp_path / "next")
    async with running_network(tmp_path / "net") as network:
        net = network.net
        await network.wait((await network.issue(PAID_IN_CENTS)).tx_id)
        async with under_load(network) as load:
            for index in (0, 1, 2):
                net.launches[index] = Launch(release=release)
                await take_away_and_bring_back(network, load, index)
                assert (await network.clients[index].chain_status())["version"] == RELEASE
            for at, reason in ((0, "transaction_type_not_active"), (3, "transaction_type_unknown")):
                with pytest.raises(Refused, match=reason):
                    await post_notice(network, at=at)
            late = net.find_pid(3)
            assert late is not None
            first = await activate(network, PROTOCOL_VERSION)
            await wait_ended(late)  # the clients' blocks bring the height on
            assert "protocol_version_not_supported" in (net.get_home(3) / LOG_NAME).read_text()
            notice = await post_notice(network, at=1)
            net.launches[3] = Launch(release=release)
            await net.restart(3, timeout_ms=TIMEOUT_MS)
        await network.check_one_chain(notice)
        await network.check_one_chain((await network.transfer(1, at=3)).tx_id, first=first)
        assert await find_lost(load.words, network) == []
        assert (await network.clients[3].chain_status())["is_validator"] is True
