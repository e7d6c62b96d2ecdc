"""The links between the validators of a test network, to be cut and made bad: through a proxy on loopback, anywhere.

Each node dials each other at a port of ours, and the bytes go on from there. A cut is silent, as a broken cable is:
what is sent waits, as TCP would send it again. ``sever`` breaks connections instead. A lossy link is what TCP makes of
lost packets: bytes that come later. Packets are really lost in ``namespaces.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Final, Protocol, Self, TypeAlias

from node.config import read_config, write_config
from node.readiness import HOST
from node.testnet import Testnet
from tests.integration.processes import Network, running_network

CHUNK_BYTES: Final = 64 * 1024
WAITING_CHUNKS_MAX: Final = 64  # of one direction of one connection; then TCP holds the sender back
LATENCY_MS: Final = (20, 60)  # of a bad link, each way
LOST_PERCENT: Final = 3
RETRANSMISSION_MS: Final = 200  # what Linux waits at least before it sends a lost packet again
BYTES_PER_SECOND: Final = 250_000  # two megabits


Greeter: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Links(Protocol):
    """What can be done to the links of a network. Nodes are named by their index; each direction is its own."""

    def wire(self, net: Testnet) -> None:
        """Lead the connections of a network that does not run yet over these links."""

    async def cut(self, sender: int, receiver: int) -> None:
        """From now on nothing that one node sends reaches the other."""

    async def worsen(self) -> None:
        """Every link is slow and lossy from now on."""

    async def heal(self) -> None:
        """Every link is whole and fast again."""


async def part(links: Links, ours: Iterable[int], theirs: Iterable[int]) -> None:
    """Cut every link between two groups, both ways."""
    others = tuple(theirs)
    for here in ours:
        for there in others:
            await links.cut(here, there)
            await links.cut(there, here)


@asynccontextmanager
async def linked_network(links: Links, directory: Path) -> AsyncIterator[Network]:
    """Four validators that run and reach one another over these links."""
    async with running_network(directory, prepare=links.wire) as network:
        yield network


class Way:
    """What happens to the bytes from one node to another, whichever of the two dialled."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._is_bad = False
        self.is_open = asyncio.Event()
        self.is_open.set()

    def worsen(self) -> None:
        """Slow and lossy from now on."""
        self._is_bad = True

    def heal(self) -> None:
        """Open, and fast."""
        self._is_bad = False
        self.is_open.set()

    def draw_delay_s(self, size: int) -> float:
        """How much later a chunk of so many bytes arrives."""
        if not self._is_bad:
            return 0.0
        delay_ms = self._random.randint(*LATENCY_MS) + 1000 * size // BYTES_PER_SECOND
        while self._random.randrange(100) < LOST_PERCENT:
            delay_ms += RETRANSMISSION_MS
        return delay_ms / 1000

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Move bytes until the sender ends."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WAITING_CHUNKS_MAX)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deliver(waiting, writer))
            clock = asyncio.get_running_loop().time
            chunk = b"first"
            while chunk:
                chunk = await reader.read(CHUNK_BYTES)
                await waiting.put((clock() + self.draw_delay_s(len(chunk)), chunk))

    async def _deliver(self, waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, chunk = await waiting.get()
            await asyncio.sleep(max(0.0, due - clock()))
            await self.is_open.wait()
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def ending(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """A side of a connection, which ends as the block does: in order, or at once."""
    try:
        yield
    except BaseException:
        writer.transport.abort()
        raise
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def carry_both(near: Streams, far: Streams, *, there: Way, back: Way) -> None:
    """Move bytes between two connections until both have ended. Raises ``ConnectionError`` when one breaks."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(there.carry(near[0], far[1]))
            tasks.create_task(back.carry(far[0], near[1]))
    except* OSError as broken:
        raise ConnectionError("one of the two broke") from broken


class ProxyLinks:
    """A listener for each ordered pair of nodes; ``async with`` it around the network that it is wired to."""

    def __init__(self, *, nodes: int = 4, seed: int = 1) -> None:
        random = Random(seed)
        self._ways: Final = {pair: Way(random) for pair in permutations(range(nodes), 2)}
        self._ports: dict[tuple[int, int], int] = {}
        self._targets: list[int] = []
        self._severed: set[frozenset[int]] = set()
        self._streams: dict[asyncio.StreamWriter, frozenset[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for dialler, listener in self._ways:
            server = await asyncio.start_server(self._make_greeter(dialler, listener), HOST, 0)
            await self._stack.enter_async_context(server)
            self._ports[dialler, listener] = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    def wire(self, net: Testnet) -> None:
        """Each node's peers are found at our ports from its next start on."""
        self._targets = [node.p2p_port for node in net.list_nodes()]
        for index in range(net.count):
            config = read_config(net.get_home(index), {})
            ports = {target: self._ports[index, i] for i, target in enumerate(self._targets) if i != index}
            peers = tuple(replace(peer, port=ports[peer.port]) for peer in config.peers)
            write_config(replace(config, peers=peers))

    async def cut(self, sender: int, receiver: int) -> None:
        """Hold what one sends to the other, and say so to nobody."""
        self._ways[sender, receiver].is_open.clear()

    async def worsen(self) -> None:
        """Every link, both ways."""
        for way in self._ways.values():
            way.worsen()

    async def heal(self) -> None:
        """Held bytes arrive now; severed peers get through when they dial again."""
        self._severed.clear()
        for way in self._ways.values():
            way.heal()

    def sever(self, one: int, other: int) -> None:
        """Reset the connections between two, and every new one, until all is healed."""
        pair = frozenset((one, other))
        self._severed.add(pair)
        for writer in [writer for writer, of in self._streams.items() if of == pair]:
            writer.transport.abort()

    def _make_greeter(self, dialler: int, listener: int) -> Greeter:
        def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._join(dialler, listener, (reader, writer)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return greet

    async def _join(self, dialler: int, listener: int, near: Streams) -> None:
        pair = frozenset((dialler, listener))
        there, back = self._ways[dialler, listener], self._ways[listener, dialler]
        with contextlib.suppress(OSError):
            async with self._ending(near[1], pair):
                if pair in self._severed:
                    raise ConnectionAbortedError("severed")
                far = await asyncio.open_connection(HOST, self._targets[listener])
                async with self._ending(far[1], pair):
                    await carry_both(near, far, there=there, back=back)

    @asynccontextmanager
    async def _ending(self, writer: asyncio.StreamWriter, pair: frozenset[int]) -> AsyncIterator[None]:
        self._streams[writer] = pair
        try:
            async with ending(writer):
                yield
        finally:
            del self._streams[writer]
