"""How the nodes stand during a soak: their processes as the system shows them, their chain as JSON-RPC tells it.

Owns what is measured, and the check that all nodes have one chain and every word in it, made as the chain grows: a run
of days keeps no list of its transactions.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.client import Client, ClientError
from node.config import read_config
from tests.integration.load import Word, find_lost
from tests.integration.processes import Network

ANSWER_MS: Final = 1_000
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
BLOCK_BYTES: Final = 512  # what a file system counts in
HEIGHTS_PER_LOOK: Final = 200  # compared at one sample


@dataclass(frozen=True, slots=True)
class Sample:
    """One node at one time. What a node that is away does not tell is None."""

    at_s: float
    node: int
    pid: int | None
    height: int | None
    memory_bytes: int | None
    sockets: int | None
    files: int | None  # of the database, the journal, the log
    disk_bytes: int
    words: int  # that this node gave since the sample before
    p95_ms: int | None  # of these, from signing to the word


class Sampler:
    """Looks at every node; ``samples`` grows by one of each at a time."""

    def __init__(self, network: Network, began_s: float) -> None:
        self._network = network
        self._began_s = began_s
        self._clients = [Client(url, attempts_max=1, timeout_ms=ANSWER_MS) for url in network.net.urls]
        self.samples: list[Sample] = []

    async def close(self) -> None:
        """Let go of the connections."""
        for client in self._clients:
            await client.close()

    async def look(self, words: list[Word]) -> list[Sample]:
        """A sample of each node, now; ``words`` are those that were given since the last."""
        nodes = range(len(self._clients))
        heights = await asyncio.gather(*(self._find_height(node) for node in nodes))
        taken = [self._sample(node, heights[node], [one for one in words if one.node == node]) for node in nodes]
        self.samples += taken
        return taken

    async def _find_height(self, node: int) -> int | None:
        try:
            return int((await self._clients[node].chain_status())["height"])
        except ClientError:
            return None

    def _sample(self, node: int, height: int | None, words: list[Word]) -> Sample:
        net = self._network.net
        pid = net.find_pid(node)
        latencies = sorted(word.latency_ms for word in words)
        sockets, files = (None, None) if pid is None else count_handles(pid)
        return Sample(
            at_s=time.monotonic() - self._began_s,
            node=node,
            pid=pid,
            height=height,
            memory_bytes=None if pid is None else read_memory_bytes(pid),
            sockets=sockets,
            files=files,
            disk_bytes=measure_disk_bytes(read_config(net.get_home(node), {}).chain_directory),
            words=len(words),
            p95_ms=latencies[len(latencies) * 95 // 100] if latencies else None,
        )


def read_memory_bytes(pid: int) -> int | None:
    """What a process has in memory; None if it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return None


def count_handles(pid: int) -> tuple[int | None, int | None]:
    """Open sockets and other open files of a process; None if it has just ended."""
    try:
        handles = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return None, None
    names = [_read_link(handle.path) for handle in handles]
    sockets = sum(name.startswith("socket:") for name in names)
    return sockets, len(names) - sockets


def _read_link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:  # closed since
        return ""


def measure_disk_bytes(directory: Path) -> int:
    """What the files of a directory take on the disk, now."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_blocks * BLOCK_BYTES
        except FileNotFoundError:  # the database has compacted it away
            continue
    return total


class Auditor:
    """Compares the nodes' chains height by height, and looks each word up on every node."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._unchecked: deque[Word] = deque()
        self.height = 0  # compared up to here
        self.words = 0  # found everywhere
        self.forks: list[int] = []
        self.lost: list[str] = []

    @property
    def unchecked(self) -> int:
        """Words that wait until every node is past their heights."""
        return len(self._unchecked)

    def note(self, words: list[Word]) -> None:
        """Words to be looked up."""
        self._unchecked.extend(words)

    async def advance(self, height: int) -> None:
        """Compare up to a height that all nodes have. Raises ``NodeUnreachable`` where one goes away meanwhile."""
        until = min(height, self.height + HEIGHTS_PER_LOOK)
        while self.height < until:
            if len(await self._network.get_roots(self.height + 1)) != 1:
                self.forks.append(self.height + 1)
            self.height += 1
        for _ in range(len(self._unchecked)):
            word = self._unchecked.popleft()
            self._unchecked.append(word)
            if word.height <= self.height:
                self.lost += await find_lost([word], self._network)
                self._unchecked.pop()
                self.words += 1
