"""Real nodes for the integration tests: a test network in a temporary directory, and how its chain is watched.

Owns the life of the processes: whatever a test does, none outlives it. Nothing sleeps; a test waits for a transaction,
a block or the end of a process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from contracts_native.credits import IssueCredits, TransferCredits
from ledger.primitives import format_address
from node.client import Answer, Client, Submitted, UnknownItem
from node.keystore import SigningKey
from node.testnet import Testnet

BLOCK_MS: Final = 100
TIMEOUT_MS: Final = 60_000  # for what takes a second or two on an idle machine

_numbers = itertools.count(1)


class Network:
    """A running test network with a client for each node."""

    def __init__(self, net: Testnet, clients: list[Client]) -> None:
        self.net = net
        self.clients = clients
        self.utility = net.load_key("utility")
        self.consumer = net.load_key("consumer")

    async def issue(self, cents: int, *, at: int = 0) -> Submitted:
        """Pay credits in for the consumer, through node ``at``."""
        payload = IssueCredits(self.consumer.address, cents, f"payment-{next(_numbers)}")
        return await self.clients[at].submit(payload, key=self.utility, timeout_ms=TIMEOUT_MS)

    async def transfer(
        self, cents: int, *, at: int = 0, wait: str = "committed", timeout_ms: int = TIMEOUT_MS
    ) -> Submitted:
        """Move credits from the consumer to the utility, through node ``at``."""
        payload = TransferCredits(self.utility.address, cents, "")
        return await self.clients[at].submit(payload, key=self.consumer, wait=wait, timeout_ms=timeout_ms)

    async def wait(self, tx_id: str, *indices: int) -> list[Answer]:
        """The transaction as these nodes have it (all, if none is named), once each has committed it."""
        wanted = indices or range(len(self.clients))
        return list(await asyncio.gather(*(self.clients[i].wait(tx_id, timeout_ms=TIMEOUT_MS) for i in wanted)))

    async def tell_of(self, tx_id: str) -> list[Answer]:
        """What each node says of a transaction now; ``unknown`` where it never came."""
        return list(await asyncio.gather(*(self._tell_of(client, tx_id) for client in self.clients)))

    async def _tell_of(self, client: Client, tx_id: str) -> Answer:
        try:
            return await client.tx_get(tx_id)
        except UnknownItem:
            return {"status": "unknown"}

    async def get_roots(self, height: int) -> set[tuple[str, str]]:
        """The block ids and state roots that the nodes have at a height: one pair, if they agree."""
        blocks = await asyncio.gather(*(client.chain_block(height=height) for client in self.clients))
        return {(block["block_id"], block["header"]["state_root"]) for block in blocks}

    async def get_heights(self, *indices: int) -> list[int]:
        """How far these nodes are (all, if none is named)."""
        wanted = indices or range(len(self.clients))
        return [(await self.clients[index].chain_status())["height"] for index in wanted]

    async def check_one_chain(self, tx_id: str, *, first: int = 1) -> None:
        """Every node commits the transaction, and has the same block at each height up to it."""
        heights = {answer["height"] for answer in await self.wait(tx_id)}
        assert len(heights) == 1
        for height in range(first, heights.pop() + 1):
            assert len(await self.get_roots(height)) == 1, height

    async def get_balances(self, key: SigningKey) -> set[int]:
        """The credits of a participant, as each node knows them."""
        holder = format_address(key.address)
        answers = await asyncio.gather(*(client.call("credit_balance", holder=holder) for client in self.clients))
        return {answer["balance_cents"] for answer in answers}


@asynccontextmanager
async def running_network(
    directory: Path,
    *,
    validators: int = 4,
    block_ms: int = BLOCK_MS,
    prepare: Callable[[Testnet], None] = lambda _net: None,
) -> AsyncIterator[Network]:
    """A network that runs; its processes are gone afterwards, orderly or by force. ``prepare`` may change its homes."""
    net = Testnet.create(directory, validators=validators, block_ms=block_ms, base_port=0)
    prepare(net)
    try:
        await net.start(timeout_ms=TIMEOUT_MS)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(url)) for url in net.urls]
            yield Network(net, clients)
    finally:
        await net.stop()


async def end_orderly(net: Testnet, index: int) -> None:
    """Tell a node to stop, and wait until it has."""
    pid = net.find_pid(index)
    assert pid is not None, f"node{index} does not run"
    os.kill(pid, signal.SIGTERM)
    await wait_ended(pid)


async def wait_ended(pid: int) -> None:
    """Until a node that we started has ended, by itself or because it was told to."""
    async with asyncio.timeout(TIMEOUT_MS / 1000):
        await asyncio.to_thread(os.waitpid, pid, 0)
