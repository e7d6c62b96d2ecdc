"""The demo's line to its nodes: signs, submits in batches over all that are up, and measures how long finality takes.

Owns the clients and the clock of the figures. It knows nothing of the story; every answer comes from a node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from ledger.transaction import Payload
from node.client import Answer, Client, ClientError, Refused, RpcError, SignedTransaction, Submitted, Subscription
from node.demo.data import DemoError
from node.keystore import SigningKey

BATCH_TRANSACTIONS: Final = 100
BATCHES_PER_NODE: Final = 2  # one is signed while the other waits for its block
COMMIT_TIMEOUT_MS: Final = 60_000
SETTLE_TIMEOUT_S: Final = 60
POLL_S: Final = 0.05
MS_PER_S: Final = 1_000


@dataclass(frozen=True, slots=True)
class Order:
    """A payload, who sends it, and who signs with the sender."""

    payload: Payload
    key: SigningKey
    cosigners: tuple[SigningKey, ...] = ()


async def run_together(*works: Coroutine[object, object, None]) -> None:
    """Return when all are done; when one fails, the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


@dataclass(frozen=True, slots=True)
class _Sent:
    """A transaction that is final: when it was sent (loop time), and its height."""

    sent_s: float
    height: int
    is_lone: bool


@dataclass(slots=True)
class Network:
    """Clients of every node. ``live`` are those that work is given to."""

    urls: Sequence[str]
    chain_id: str = ""
    live: set[int] = field(default_factory=set)
    _clients: list[Client] = field(default_factory=list)
    _sent: list[_Sent] = field(default_factory=list)
    _heard_s: dict[int, float] = field(default_factory=dict)  # height → when the first node had it
    _listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._clients = [Client(url) for url in self.urls]
        self.live = set(range(len(self.urls)))
        self.chain_id = (await self.ask().chain_status())["chain_id"]
        blocks = self._clients[0].subscribe("blocks")
        await blocks.__aenter__()  # before the first transaction, so that no block is missed
        self._listener = asyncio.create_task(self._listen(blocks))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClientError):
                await self._listener
        for client in self._clients:
            await client.close()

    @property
    def transactions(self) -> int:
        """How many this line has seen become final."""
        return len(self._sent)

    def ask(self, index: int | None = None) -> Client:
        """The client of a node; of the first that is up, if none is named."""
        return self._clients[min(self.live) if index is None else index]

    async def submit(self, order: Order) -> Submitted:
        """Submit one transaction and wait until it is final. Raises ``Refused``."""
        client = self.ask()
        signed = await client.sign(order.payload, key=order.key, cosigners=order.cosigners)
        sent_s = asyncio.get_running_loop().time()
        outcome = await client.submit_signed(signed, timeout_ms=COMMIT_TIMEOUT_MS)
        self._note(outcome, sent_s, is_lone=True)
        return outcome

    async def find_refusal(self, order: Order) -> Refused | None:
        """Submit what should be refused: the refusal, or None if the ledger took it."""
        try:
            await self.submit(order)
        except Refused as refusal:
            return refusal
        return None

    async def submit_all(self, orders: Sequence[Order], advance: Callable[[int], None]) -> list[Submitted]:
        """Submit independent transactions over all live nodes, and wait until every live node has them.

        ``advance`` hears how many more are final. Raises the first refusal.
        """
        batches = [orders[start : start + BATCH_TRANSACTIONS] for start in range(0, len(orders), BATCH_TRANSACTIONS)]
        outcomes: list[list[Submitted]] = [[] for _ in batches]
        waiting = iter(range(len(batches)))

        async def work(client: Client) -> None:
            for number in waiting:
                outcomes[number] = await self._submit_batch(client, batches[number])
                advance(len(batches[number]))

        await run_together(*(work(self._clients[index]) for index in sorted(self.live) * BATCHES_PER_NODE))
        done = [one for batch in outcomes for one in batch]
        await self.settle(max((one.height or 0 for one in done), default=0))
        return done

    async def settle(self, height: int) -> None:
        """Return when every live node has this height. Raises ``DemoError`` (``demo_node_left_behind``)."""
        for index in sorted(self.live):
            await self.wait_for_height(index, height)

    async def wait_for_height(self, index: int, height: int) -> int:
        """Return a node's height when it has this one at least. Raises ``DemoError``."""
        clock = asyncio.get_running_loop().time
        until_s = clock() + SETTLE_TIMEOUT_S
        while (reached := await self.get_height(index)) < height:
            if clock() >= until_s:
                raise DemoError("demo_node_left_behind", f"node{index} is at {reached}, not at {height}")
            await asyncio.sleep(POLL_S)
        return reached

    async def get_height(self, index: int) -> int:
        """A node's height now."""
        status: Answer = await self._clients[index].chain_status()
        return int(status["height"])

    def list_finality_ms(self, *, is_lone: bool) -> list[int]:
        """From sending to the block's news on the first node, in rising order; of lone transactions or of batches."""
        return sorted(self._list_finality_ms(is_lone=is_lone))

    def _list_finality_ms(self, *, is_lone: bool) -> Iterator[int]:
        for one in self._sent:
            heard_s = self._heard_s.get(one.height)
            if one.is_lone is is_lone and heard_s is not None:
                yield max(0, round((heard_s - one.sent_s) * MS_PER_S))

    async def _submit_batch(self, client: Client, orders: Sequence[Order]) -> list[Submitted]:
        signed: list[SignedTransaction] = [
            await client.sign(order.payload, key=order.key, cosigners=order.cosigners) for order in orders
        ]
        sent_s = asyncio.get_running_loop().time()
        outcomes = await client.submit_many_signed(signed, timeout_ms=COMMIT_TIMEOUT_MS)
        done: list[Submitted] = []
        for outcome in outcomes:
            if isinstance(outcome, RpcError):
                raise outcome
            self._note(outcome, sent_s, is_lone=False)
            done.append(outcome)
        return done

    def _note(self, outcome: Submitted, sent_s: float, *, is_lone: bool) -> None:
        assert outcome.height is not None, "we wait until it is committed"
        self._sent.append(_Sent(sent_s, outcome.height, is_lone))

    async def _listen(self, blocks: Subscription) -> None:
        clock = asyncio.get_running_loop().time
        try:
            async for block in blocks:
                self._heard_s[block["height"]] = clock()
        finally:
            await blocks.close()
