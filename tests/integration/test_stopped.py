"""Validators that stand still (SIGSTOP) and go on: their machine is suspended, swaps, or pauses for too long."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.client_errors import NotYetCommitted
from node.testnet import Testnet
from tests.integration.processes import running_network

HALT_MS = 4_000  # longer than a round, its timeouts included


@contextmanager
def standing_still(net: Testnet, *indices: int) -> Iterator[None]:
    """These nodes do nothing, and their connections stay open."""
    pids = [net.find_pid(index) for index in indices]
    running = [pid for pid in pids if pid is not None]
    assert len(running) == len(indices)
    for pid in running:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in running:
            os.kill(pid, signal.SIGCONT)


async def test_one_stands_still_the_others_go_on_and_it_catches_up(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        issued = await network.issue(1_000)
        await network.wait(issued.tx_id)
        with standing_still(network.net, 3):
            done = [await network.transfer(cents, at=cents % 3) for cents in range(1, 4)]
            await network.wait(done[-1].tx_id, 0, 1, 2)
            (height,) = await network.get_heights(0)
        await network.check_one_chain(done[-1].tx_id)
        after = await network.transfer(100, at=3)
        assert after.height is not None
        assert after.height > height
        await network.check_one_chain(after.tx_id)
        assert await network.get_balances(network.consumer) == {1_000 - 6 - 100}


async def test_two_stand_still_nothing_is_decided_without_them_and_the_chain_resumes(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        await network.wait((await network.issue(1_000)).tx_id)
        with standing_still(network.net, 1, 2):
            with pytest.raises(NotYetCommitted) as waiting:
                await network.transfer(30, timeout_ms=HALT_MS)
            before = await network.get_heights(0, 3)
        committed = (await network.wait(str(waiting.value.tx_id)))[0]
        assert committed["height"] > max(before)
        await network.check_one_chain((await network.transfer(1, at=2)).tx_id)
        assert await network.get_balances(network.consumer) == {1_000 - 30 - 1}
