"""Permitted peers that flood every type of message at full speed do not stop finality; judged by JSON-RPC alone."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp

from node.config import read_config, write_config
from node.testnet import Testnet
from tests.integration.flooder import FLOODER_KEYS
from tests.integration.processes import BLOCK_MS, TIMEOUT_MS, Network, running_network

ROOT = Path(__file__).resolve().parent.parent.parent
QUIET_SECONDS = 2
FLOOD_SECONDS = 5
MEMORY_GROWTH_BYTES_MAX = 160 * 2**20  # of a node: queues and buffers of eleven flooders, all of them bounded


def allow_flooders(net: Testnet) -> None:
    """The flooders are permitted peers of every node."""
    for index in range(net.count):
        write_config(replace(read_config(net.get_home(index), {}), allowed_peers=FLOODER_KEYS))


@asynccontextmanager
async def flooding(net: Testnet) -> AsyncIterator[None]:
    """Every flooder has got in, and goes on until the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.flooder", str(net.directory)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT_MS / 1000):
            assert await process.stdout.readline() == b"flooding\n"
        yield
        assert process.returncode is None
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def measure_latencies_ms(network: Network, seconds: float) -> list[int]:
    """How long one transfer after the other takes until it is final, through each node in turn; sorted."""
    latencies: list[int] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        done = await network.transfer(1, at=len(latencies) % len(network.clients))
        assert done.status == "committed"
        latencies.append(int(1000 * (time.monotonic() - began)))
    return sorted(latencies)


async def read_metrics(net: Testnet) -> list[dict[str, float]]:
    """What each node tells Prometheus."""
    async with aiohttp.ClientSession() as session:
        pages = []
        for url in net.urls:
            async with session.get(f"{url}/metrics") as response:
                pages.append(await response.text())
    return [{name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", page, re.MULTILINE)} for page in pages]


async def test_a_flood_of_every_message_type_does_not_stop_finality_nor_eat_memory(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net", prepare=allow_flooders) as network:
        await network.wait((await network.issue(100_000)).tx_id)
        quiet = await measure_latencies_ms(network, QUIET_SECONDS)
        before = await read_metrics(network.net)
        async with flooding(network.net):
            flooded = await measure_latencies_ms(network, FLOOD_SECONDS)
            after = await read_metrics(network.net)
    quiet_p95, flooded_p95 = quiet[len(quiet) * 95 // 100], flooded[len(flooded) * 95 // 100]
    # Nodes, flooders and this test share a few cores: what the quiet figure varies by, and a block more each way.
    slack_ms = quiet[-1] - quiet[0] + 2 * BLOCK_MS
    assert flooded_p95 <= 2 * quiet_p95 + slack_ms, (quiet, flooded)
    for then, now in zip(before, after, strict=True):
        grown = now["wattprint_process_resident_memory_bytes"] - then["wattprint_process_resident_memory_bytes"]
        assert grown < MEMORY_GROWTH_BYTES_MAX
        assert now["wattprint_syncing"] == 0  # whatever the flooders say of their heights
        assert now['wattprint_node_total{counter="peers_banned"}'] > 0
