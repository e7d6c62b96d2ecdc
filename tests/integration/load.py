"""Constant load on a test network while its nodes come and go, and the memory of every word that a node gave.

A node's word is that a transaction is committed. Whatever happens afterwards, each such transaction is to be found, at
that height, on every node. What a client heard no word of may be committed or not.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from contracts_native.credits import TransferCredits
from ledger.primitives import Address
from node.client import Client, ClientError, NotYetCommitted, RpcError, Submitted
from node.keystore import SigningKey
from tests.integration.processes import Network

PATIENCE_MS: Final = 3_000  # then a client asks another node
SENDERS: Final = 4
PAUSE_S: Final = 0.05  # after a node had no word for us; another is asked


@dataclass(frozen=True, slots=True)
class Word:
    """A node said that a transaction is committed: at this height, so long after it was signed, at this time."""

    node: int
    tx_id: str
    height: int
    latency_ms: int
    at_s: float


@dataclass(slots=True)
class Load:
    """What the senders heard. ``words`` grows; ``failures`` counts why a client went to another node."""

    words: list[Word] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def note(self, node: int, done: Submitted, latency_ms: int) -> None:
        """A word was given."""
        assert done.height is not None
        self.words.append(Word(node, done.tx_id, done.height, latency_ms, time.monotonic()))
        self._heard.set()

    def take_words(self) -> list[Word]:
        """The words given since this was asked last."""
        taken, self.words = self.words, []
        return taken

    async def wait_for_words(self, count: int, *, timeout_ms: int) -> None:
        """Until so many more were given."""
        wanted = len(self.words) + count
        async with asyncio.timeout(timeout_ms / 1000):
            while len(self.words) < wanted:
                self._heard.clear()
                await self._heard.wait()


@asynccontextmanager
async def under_load(network: Network, *, senders: int = SENDERS) -> AsyncIterator[Load]:
    """Clients who pay one transfer after the other, each at every node in turn; they end with the block."""
    load = Load()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for number in range(senders):
            clients = [
                await stack.enter_async_context(Client(url, attempts_max=1, timeout_ms=PATIENCE_MS))
                for url in network.net.urls
            ]
            tasks.create_task(_pay(load, clients, number, network.consumer, network.utility.address))
        try:
            yield load
        finally:
            load.is_over = True


async def _pay(load: Load, clients: list[Client], turn: int, payer: SigningKey, recipient: Address) -> None:
    while not load.is_over:
        turn += 1
        began = time.monotonic()
        try:
            payload = TransferCredits(recipient, 1, "")
            done = await clients[turn % len(clients)].submit(payload, key=payer, timeout_ms=PATIENCE_MS)
        except NotYetCommitted:
            load.failures["not yet committed"] += 1
        except ClientError as error:
            load.failures[error.reason if isinstance(error, RpcError) else "no answer"] += 1
            await asyncio.sleep(PAUSE_S)
        else:
            load.note(turn % len(clients), done, int(1000 * (time.monotonic() - began)))


async def find_lost(words: list[Word], network: Network) -> list[str]:
    """Those of which some node does not say the same. Every node is past their heights."""
    lost = []
    for word in words:
        if {answer.get("height") for answer in await network.tell_of(word.tx_id)} != {word.height}:
            lost.append(word.tx_id)
    return lost
