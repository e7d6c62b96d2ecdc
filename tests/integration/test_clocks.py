"""A validator whose wall clock is wrong: the chain goes on without its proposals, and it can be seen."""

from __future__ import annotations

import sys
from pathlib import Path

from node.testnet import Launch, Testnet
from tests.integration.flood import read_metrics
from tests.integration.processes import TIMEOUT_MS, Network, running_network

OFF_MS = 30_000  # beyond clock_skew_ms, 10 s
NEAR_MS = 5_000  # what a busy machine may make of no skew at all
METRIC = "wattprint_clock_skew_ms"
TRANSFERS = 6  # a turn of each validator, and more


def set_clock(net: Testnet, index: int, *, off_ms: int) -> None:
    """From its next start on the node sees another time."""
    net.launches[index] = Launch(through=(sys.executable, "-m", "tests.integration.other_clock", str(off_ms)))


async def pay(network: Network) -> list[tuple[int, str]]:
    """Transfers, then the block time and the proposer of each height that they took."""
    (before,) = await network.get_heights(0)
    for number in range(TRANSFERS):
        done = await network.transfer(1, at=number % 4)
    await network.check_one_chain(done.tx_id)
    assert done.height is not None
    headers = [
        (await network.clients[0].chain_block(height=height))["header"] for height in range(before + 1, done.height + 1)
    ]
    return [(header["time_ms"], header["proposer"]) for header in headers]


async def test_proposals_by_a_wrong_clock_are_refused_and_the_chain_goes_on(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net", prepare=lambda net: set_clock(net, 3, off_ms=OFF_MS)) as network:
        await network.wait((await network.issue(1_000)).tx_id)
        own = (await network.clients[3].chain_status())["public_key"]
        assert own not in {proposer for _, proposer in await pay(network)}
        skews = [page[METRIC] for page in await read_metrics(network.net)]
        assert abs(skews[3] - OFF_MS) < NEAR_MS
        assert max(map(abs, skews[:3])) < NEAR_MS

        set_clock(network.net, 3, off_ms=-OFF_MS)
        await network.net.restart(3, timeout_ms=TIMEOUT_MS)
        times_ms = [time_ms for time_ms, _ in await pay(network)]
        assert times_ms == sorted(set(times_ms))
        assert abs((await read_metrics(network.net))[3][METRIC] + OFF_MS) < NEAR_MS

        del network.net.launches[3]
        await network.net.restart(3, timeout_ms=TIMEOUT_MS)
        assert own in {proposer for _, proposer in [*await pay(network), *await pay(network)]}
