"""How fast a node that was away catches up: the others commit a load without it, then its process starts again.

Owns this one measurement. What is counted includes the start of the process, as whoever waits for the node sees it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from node.bench.field import COMMIT_TIMEOUT_S, BenchError, Field
from node.bench.measure import Stopwatch, Throughput, sign_transfers

VALIDATORS_MIN: Final = 4  # so that the others are a quorum without it
POLL_MS: Final = 20


async def measure_catching_up(field: Field, *, count: int) -> Throughput:
    """Transactions a second that the last node takes over from its peers, checks and executes."""
    away = field.net.count - 1
    field.net.kill(away)
    await field.refresh()
    await field.submit_many(sign_transfers(field, count))
    target = (await field.clients[0].chain_status())["height"]
    watch = Stopwatch(field)
    await field.net.restart(away)
    await _wait_for_height(field, away, target)
    return watch.stop("transactions caught up with, the start of the node included", count)


async def _wait_for_height(field: Field, index: int, height: int) -> None:
    clock = asyncio.get_running_loop().time
    until = clock() + COMMIT_TIMEOUT_S
    while (await field.clients[index].chain_status())["height"] < height:
        if clock() >= until:
            raise BenchError("bench_timed_out", f"node{index} is not at height {height}")
        await asyncio.sleep(POLL_MS / 1_000)
