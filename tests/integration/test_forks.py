"""Two running nodes with two branches of one chain meet over real connections: each tells of the fork by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from node.forks import FORK_SEEN, list_forks
from node.launch import make_runtime, open_node
from node.rpc import find_unreadiness
from node.runtime import Runtime
from tests.node.fork_chain import KEYS, make_fork
from tests.node.test_forks import fill, make_home

WAIT_SECONDS: Final = 30
FIRST, SECOND = 0, 3  # validators: each has signed its own branch only


class Ear(logging.Handler):
    """Hears the alarm of so many nodes."""

    def __init__(self, alarms: int) -> None:
        super().__init__()
        self._left = alarms
        self.heard = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "fields", {}).get("reason") == FORK_SEEN and record.levelno == logging.ERROR:
            self._left -= 1
            if not self._left:
                self.heard.set()


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    monkeypatch.setattr("node.logs.configure", lambda *_: None)
    ear, logger = Ear(2), logging.getLogger("wattprint")
    logger.addHandler(ear)
    yield ear
    logger.removeHandler(ear)


async def start(home: Path) -> Runtime:
    runtime = make_runtime(await asyncio.to_thread(open_node, home))
    await runtime.start()
    return runtime


async def test_two_nodes_with_two_chains_tell_each_their_operator(tmp_path: Path, ear: Ear) -> None:
    mine, other = make_fork(common=3, ours=4, theirs=2)
    homes = [make_home(tmp_path / "first", FIRST)]
    fill(homes[0], mine)
    runtimes = [await start(homes[0])]
    try:
        address = f"{KEYS[FIRST].public_key.hex()}@127.0.0.1:{runtimes[0].p2p_port}"
        homes.append(make_home(tmp_path / "second", SECOND, address))
        fill(homes[1], other)
        runtimes.append(await start(homes[1]))
        await asyncio.wait_for(ear.heard.wait(), WAIT_SECONDS)
        assert [find_unreadiness(one) for one in runtimes] == [FORK_SEEN] * 2
        (first,), (second,) = (list(list_forks(one.reader)) for one in runtimes)
    finally:
        for runtime in runtimes:
            await runtime.stop()
    assert (first.height, first.is_first) == (second.height, second.is_first) == (4, True)
    assert (first.ours, first.theirs) == (second.theirs, second.ours)
    assert (first.peer, second.peer) == (KEYS[SECOND].public_key, KEYS[FIRST].public_key)
