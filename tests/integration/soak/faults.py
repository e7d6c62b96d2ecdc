"""What goes wrong during a soak: one fault after the other, of a seed, each begun, borne for a while and mended.

Owns the kinds of faults. At most one validator is away at a time, except where the network is cut into halves: then
nothing may be decided. Node 0 is never ended, so that what its process keeps shows over the whole run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.integration.links import ProxyLinks, part
from tests.integration.processes import TIMEOUT_MS, Network, end_orderly

AWAY_S: Final = (2, 14)
QUIET_S: Final = (4, 10)  # between two faults
ALL: Final = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as it was: ``node`` None concerns all."""

    kind: str
    node: int | None
    began_s: float
    ended_s: float


class Faults:
    """Faults at random, until it is time. ``now`` names the one under way; ``done`` are those that are over."""

    def __init__(self, network: Network, links: ProxyLinks, random: Random) -> None:
        self._network = network
        self._links = links
        self._random = random
        self.now: str = ""
        self.done: list[Fault] = []
        self._kinds: Final[dict[str, tuple[tuple[int, ...], Callable[[int], AbstractAsyncContextManager[None]]]]] = {
            "killed": ((1, 2, 3), self._killed),
            "ended": ((1, 2, 3), self._ended),
            "standing still": (ALL, self._standing_still),
            "cut off": (ALL, self._cut_off),
            "severed": (ALL, self._severed),
            "not heard": (ALL, self._not_heard),
            "halves": ((), self._halves),
            "bad links": ((), self._bad_links),
        }

    async def run(self, *, until_s: float) -> None:
        """One after the other, on the monotonic clock; the last is mended by then."""
        deck: list[str] = []
        while True:
            quiet_s, away_s = self._random.uniform(*QUIET_S), self._random.uniform(*AWAY_S)
            if time.monotonic() + quiet_s + away_s + AWAY_S[1] > until_s:
                return
            await asyncio.sleep(quiet_s)
            if not deck:  # each kind once, before any comes again
                deck = self._random.sample(sorted(self._kinds), len(self._kinds))
            await self._suffer(deck.pop(), away_s)

    async def _suffer(self, kind: str, away_s: float) -> None:
        nodes, make = self._kinds[kind]
        node = self._random.choice(nodes) if nodes else None
        self.now = kind if node is None else f"node{node} {kind}"
        began_s = time.monotonic()
        async with make(-1 if node is None else node):
            await asyncio.sleep(away_s)
        self.now = ""
        self.done.append(Fault(kind, node, began_s, time.monotonic()))

    @asynccontextmanager
    async def _killed(self, node: int) -> AsyncIterator[None]:
        await asyncio.to_thread(self._network.net.kill, node)
        yield
        await self._network.net.restart(node, timeout_ms=TIMEOUT_MS)

    @asynccontextmanager
    async def _ended(self, node: int) -> AsyncIterator[None]:
        await end_orderly(self._network.net, node)
        yield
        await self._network.net.restart(node, timeout_ms=TIMEOUT_MS)

    @asynccontextmanager
    async def _standing_still(self, node: int) -> AsyncIterator[None]:
        pid = self._network.net.find_pid(node)
        assert pid is not None, f"node{node} has ended by itself"
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @asynccontextmanager
    async def _cut_off(self, node: int) -> AsyncIterator[None]:
        await part(self._links, [node], [other for other in ALL if other != node])
        yield
        await self._links.heal()

    @asynccontextmanager
    async def _severed(self, node: int) -> AsyncIterator[None]:
        for other in ALL:
            if other != node:
                self._links.sever(node, other)
        yield
        await self._links.heal()

    @asynccontextmanager
    async def _not_heard(self, node: int) -> AsyncIterator[None]:
        for other in ALL:
            if other != node:
                await self._links.cut(node, other)
        yield
        await self._links.heal()

    @asynccontextmanager
    async def _halves(self, _node: int) -> AsyncIterator[None]:
        one, other, *rest = self._random.sample(ALL, len(ALL))
        await part(self._links, [one, other], rest)
        yield
        await self._links.heal()

    @asynccontextmanager
    async def _bad_links(self, _node: int) -> AsyncIterator[None]:
        await self._links.worsen()
        yield
        await self._links.heal()
