"""A validator dies by SIGKILL while the others go on, and comes back without help.

Owns the heights that show it: where it fell, how far the others came, and when it had caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from node.client import Answer
from node.demo.network import MS_PER_S, run_together
from node.demo.stage import Stage

VICTIM: Final = 3  # not the first: that one times the blocks


@dataclass(slots=True)
class Outage:
    """What happened to the node: filled in as it goes."""

    index: int = VICTIM
    pid: int = 0
    killed_at_height: int = 0
    others_at_height: int = 0
    caught_up_ms: int = 0


async def kill_during(stage: Stage, work: Callable[[], Coroutine[object, object, None]]) -> Outage:
    """End a validator at once while the work, which is given to the others, is under way."""
    outage = Outage()

    async def kill() -> None:
        outage.killed_at_height = await stage.network.get_height(outage.index)
        outage.pid = await asyncio.to_thread(stage.testnet.kill, outage.index)

    stage.network.live.discard(outage.index)
    await run_together(work(), kill())
    outage.others_at_height = await stage.network.get_height(0)
    return outage


async def restart_during(stage: Stage, outage: Outage, work: Callable[[], Coroutine[object, object, None]]) -> None:
    """Start it again while the others work on, and wait until it has what they have."""
    clock = asyncio.get_running_loop().time

    async def come_back() -> None:
        started_s = clock()
        await stage.testnet.restart(outage.index)
        await stage.network.wait_for_height(outage.index, await stage.network.get_height(0))
        outage.caught_up_ms = int((clock() - started_s) * MS_PER_S)

    await run_together(come_back(), work())
    stage.network.live.add(outage.index)


async def compare_return(stage: Stage, outage: Outage) -> None:
    """Compare the node that was away with another at one height, and tell it."""
    with stage.narrator.step("kill -9", 1) as step:
        height = await stage.network.get_height(outage.index)
        await stage.network.settle(height)
        roots = [await _get_state_root(stage, index, height) for index in (outage.index, 0)]
        compare = stage.checks.compare
        heights = outage.killed_at_height, outage.others_at_height
        compare("height of the killed node < height of the others when it returned", *heights, relation="<")
        compare(f"state root of node{outage.index} after its return = of node0", *roots)
        stage.facts["outage"] = {
            "node": outage.index,
            "pid": outage.pid,
            "killed_at_height": outage.killed_at_height,
            "others_at_height": outage.others_at_height,
            "caught_up_at_height": height,
            "caught_up_ms": outage.caught_up_ms,
        }
        step.advance()
        step.text = (
            f"node{outage.index} killed at height {outage.killed_at_height} while claims went on; the other three "
            f"reached {outage.others_at_height}; back and caught up after {outage.caught_up_ms / MS_PER_S:.1f} s"
        )


async def _get_state_root(stage: Stage, index: int, height: int) -> str:
    block: Answer = await stage.network.ask(index).chain_block(height=height)
    return str(block["header"]["state_root"])
