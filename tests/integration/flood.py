"""How long finality takes in quiet and under a flood: the measurement of ``test_flood.py``, and by hand for longer.

Run as ``python -m tests.integration.flood --seconds 60``: four validators on loopback, quiet first, then as long under
a dozen permitted peers of each node that send one type of message each at full speed. Exits 1 when past the bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp

from node.config import read_config, write_config
from node.testnet import Testnet
from tests.integration.flooder import FLOODER_KEYS
from tests.integration.processes import BLOCK_MS, TIMEOUT_MS, Network, running_network

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAID_IN_CENTS: Final = 1_000_000  # one of them goes with each transfer
FACTOR_MAX: Final = 2  # what the flooded p95 may be of the quiet one
RESIDENT: Final = "wattprint_process_resident_memory_bytes"


@dataclass(frozen=True, slots=True)
class Measured:
    """Both runs: latencies until final, sorted, and what each node told Prometheus before and at the end."""

    quiet_ms: list[int]
    flooded_ms: list[int]
    before: list[dict[str, float]]
    after: list[dict[str, float]]

    @property
    def slack_ms(self) -> int:
        """Nodes, flooders and the one who measures share a few cores: what quiet varies by, and a block each way."""
        return self.quiet_ms[-1] - self.quiet_ms[0] + 2 * BLOCK_MS

    @property
    def grown_bytes(self) -> list[int]:
        """By how much each node's memory has grown."""
        return [int(now[RESIDENT] - then[RESIDENT]) for then, now in zip(self.before, self.after, strict=True)]


def get_p95(latencies_ms: list[int]) -> int:
    """The 95th percentile of sorted figures."""
    return latencies_ms[len(latencies_ms) * 95 // 100]


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


async def measure_flood(directory: Path, *, quiet_seconds: float, flood_seconds: float) -> Measured:
    """A network of its own, quiet and then flooded."""
    async with running_network(directory, prepare=allow_flooders) as network:
        await network.wait((await network.issue(PAID_IN_CENTS)).tx_id)
        quiet = await measure_latencies_ms(network, quiet_seconds)
        before = await read_metrics(network.net)
        async with flooding(network.net):
            flooded = await measure_latencies_ms(network, flood_seconds)
            after = await read_metrics(network.net)
    return Measured(quiet, flooded, before, after)


def main(arguments: list[str]) -> int:
    """Measure, print the figures as JSON, and say by the exit status whether the bound holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.flood", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of quiet, and then of flood")
    seconds = parser.parse_args(arguments).seconds
    with tempfile.TemporaryDirectory() as directory:
        work = measure_flood(Path(directory) / "net", quiet_seconds=seconds, flood_seconds=seconds)
        measured = asyncio.run(work)
    quiet_p95, flooded_p95 = get_p95(measured.quiet_ms), get_p95(measured.flooded_ms)
    figures = {
        "seconds": seconds,
        "quiet": {"transfers": len(measured.quiet_ms), "p95_ms": quiet_p95, "max_ms": measured.quiet_ms[-1]},
        "flooded": {"transfers": len(measured.flooded_ms), "p95_ms": flooded_p95, "max_ms": measured.flooded_ms[-1]},
        "memory_grown_mib": [grown >> 20 for grown in measured.grown_bytes],
        "holds": flooded_p95 <= FACTOR_MAX * quiet_p95,
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["holds"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
