"""Links of the kernel for a test network: a namespace for each node, a bridge between them, packets that are lost.

Needs root and iproute2. Loss and delay are those of ``netem`` where the kernel has it; else of a slow link whose queue
is so short that bursts overflow it. A cut is silent and one-way: packets go to an address of the wire that nobody has.
JSON-RPC comes in through the loopback of the node's namespace, which is never cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final, Self

from node.config import read_config, write_config
from node.readiness import HOST
from node.testnet import Launch, Testnet
from tests.integration.links import Way, carry_both, ending

NAMESPACES: Final = Path("/run/netns")
SWITCH: Final = "switch"
CLONE_NEWNET: Final = 0x40000000
NOBODY: Final = "02:00:00:00:00:fe"  # a locally administered address of Ethernet
NETEM: Final = ("netem", "delay", "30ms", "10ms", "loss", "3%")
SHORT_QUEUE: Final = ("tbf", "rate", "400kbit", "burst", "1600", "limit", "3200")


class NamespacesMissing(Exception):
    """This machine has no network namespaces for us; the text says why."""


class NamespaceLinks:
    """``async with`` it around the network that it is wired to. Raises ``NamespacesMissing`` on entering."""

    def __init__(self, *, nodes: int = 4) -> None:
        self._nodes: Final = range(nodes)
        self._prefix: Final = f"wattprint-{os.getpid()}"
        self._made: list[str] = []
        self._cuts: set[tuple[int, int]] = set()
        self._is_bad = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
            raise NamespacesMissing("network namespaces need root and iproute2")
        try:
            await self._make()
        except OSError as error:
            await self._remove()
            raise NamespacesMissing(f"a network namespace cannot be made: {error}") from error
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._remove()

    def wire(self, net: Testnet) -> None:
        """The nodes start inside; their ports of JSON-RPC are found outside as well."""
        p2p_ports = {node.p2p_port: node.index for node in net.list_nodes()}
        for index in self._nodes:
            config = read_config(net.get_home(index), {})
            peers = tuple(replace(peer, host=_get_address(p2p_ports[peer.port])) for peer in config.peers)
            write_config(replace(config, p2p_host=_get_address(index), peers=peers))
            net.launches[index] = Launch(through=("ip", "netns", "exec", self._get_name(index)))
            self._start(self._forward(index, config.rpc_port))

    async def cut(self, sender: int, receiver: int) -> None:
        """What one sends to the other goes to nobody."""
        self._cuts.add((sender, receiver))
        where = (_get_address(receiver), "dev", "eth0")
        await self._ip(sender, "neigh", "replace", *where, "lladdr", NOBODY, "nud", "permanent")

    async def worsen(self) -> None:
        """Each node's way out is slow and loses packets."""
        self._is_bad = True
        for index in self._nodes:
            command = ("tc", "-n", self._get_name(index), "qdisc", "replace", "dev", "eth0", "root")
            try:
                await run(*command, *NETEM)
            except OSError as error:
                if "kind is unknown" not in str(error):
                    raise
                await run(*command, *SHORT_QUEUE)

    async def heal(self) -> None:
        """As it was at first."""
        for sender, receiver in self._cuts:
            await self._ip(sender, "neigh", "del", _get_address(receiver), "dev", "eth0")
        self._cuts.clear()
        if self._is_bad:
            self._is_bad = False
            for index in self._nodes:
                await run("tc", "-n", self._get_name(index), "qdisc", "del", "dev", "eth0", "root")

    def _get_name(self, index: int | str) -> str:
        return f"{self._prefix}-{index}"

    async def _ip(self, index: int | str, *words: str) -> None:
        await run("ip", "-n", self._get_name(index), *words)

    async def _make(self) -> None:
        for index in (SWITCH, *self._nodes):
            name = self._get_name(index)
            await run("ip", "netns", "add", name)
            self._made.append(name)
            await self._ip(index, "link", "set", "lo", "up")
        await self._ip(SWITCH, "link", "add", "bridge", "type", "bridge")
        await self._ip(SWITCH, "link", "set", "bridge", "up")
        for index in self._nodes:
            port, inside, outside = f"port{index}", self._get_name(index), self._get_name(SWITCH)
            pair = ("type", "veth", "peer", "name", port, "netns", outside)
            await run("ip", "link", "add", "eth0", "netns", inside, *pair)
            await self._ip(SWITCH, "link", "set", port, "master", "bridge", "up")
            await self._ip(index, "addr", "add", f"{_get_address(index)}/24", "dev", "eth0")
            await self._ip(index, "link", "set", "eth0", "up")

    async def _remove(self) -> None:
        for name in self._made:
            await run("ip", "netns", "del", name)
        self._made.clear()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, index: int, port: int) -> None:
        """Lead a port of our loopback to that of the node's."""
        with ThreadPoolExecutor(1, initializer=enter, initargs=(self._get_name(index),)) as inside:

            def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                self._start(self._join(inside, port, reader, writer))

            async with await asyncio.start_server(greet, HOST, port) as server:
                await server.serve_forever()

    async def _join(
        self, inside: ThreadPoolExecutor, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        way = Way(Random(0))
        with contextlib.suppress(OSError):
            async with ending(writer):
                loop = asyncio.get_running_loop()
                # A socket belongs to the namespace of the thread that makes it, whoever uses it then.
                far_socket = await loop.run_in_executor(inside, socket.socket)
                far_socket.setblocking(False)
                with contextlib.ExitStack() as undo:
                    undo.callback(far_socket.close)
                    await loop.sock_connect(far_socket, (HOST, port))
                    undo.pop_all()
                far = await asyncio.open_connection(sock=far_socket)
                async with ending(far[1]):
                    await carry_both((reader, writer), far, there=way, back=way)


def _get_address(index: int) -> str:
    return f"198.18.0.{index + 1}"  # of the block that is set aside for tests of networks (RFC 2544)


def enter(name: str) -> None:
    """This thread is in that namespace from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(NAMESPACES / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(handle, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns", name)
    finally:
        os.close(handle)


async def run(*words: str) -> None:
    """Run a command. Raises ``OSError`` with what it says when it fails."""
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(words)}: {said.decode().strip()}")
