"""The Python client of a node: calls, local signing, waiting, subscriptions; asynchronous, and blocking beside it.

Touches the world (sockets, a clock to age what it knows of the head, salts). A secret key never leaves this process:
a transaction is signed here and only its envelope is sent.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import aiohttp
import orjson

from ledger.fields import Json
from ledger.transaction import SALT_BYTES, Payload
from node.client_errors import ClientError, NodeUnreachable, NotYetCommitted, Refused, RpcError, UnknownItem, make_error
from node.client_forms import (
    SignedTransaction,
    Signer,
    Submitted,
    encode_call,
    read_answer,
    read_outcomes,
    read_submitted,
    sign_payload,
)
from node.client_methods import Answer, Methods
from node.jsonrpc import MESSAGES, TIMED_OUT

__all__ = [
    "Answer",
    "Client",
    "ClientError",
    "NodeUnreachable",
    "NotYetCommitted",
    "Refused",
    "RpcError",
    "SignedTransaction",
    "Signer",
    "Submitted",
    "Subscription",
    "SyncClient",
    "SyncSubscription",
    "UnknownItem",
]

DEFAULT_URL: Final = "http://127.0.0.1:8600"
CALL_TIMEOUT_MS: Final = 30_000
COMMIT_TIMEOUT_MS: Final = 30_000
CONNECT_TIMEOUT_MS: Final = 5_000
CONNECTIONS_MAX: Final = 64
ATTEMPTS_MAX: Final = 5
BACK_OFF_MS: Final = 100  # doubles with each attempt: 1.5 s in all
HEAD_FRESH_MS: Final = 2_000  # after that the head is asked for again
VALID_FOR_BLOCKS: Final = 500  # from the head at signing, unless the chain allows less
POLL_MS: Final = 100
SUBSCRIPTION_BYTES_MAX: Final = 16 * 1024 * 1024
SUBSCRIPTION_HEARTBEAT_SECONDS: Final = 20
KEEP_ALIVE_SECONDS: Final = 15  # less than the server's, so that it is we who let go of an idle connection
NOT_IDEMPOTENT: Final = frozenset({"tx_submit", "tx_submit_many"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Head:
    chain_id: str
    height: int
    valid_for_blocks: int
    known_since_s: float


class Client(Methods[Coroutine[Any, Any, Answer]]):
    """A node's asynchronous client: ``async with Client(url, key=key) as client``.

    ``key`` signs unless a call names another; ``token`` is for a node that asks for one. ``make_salt`` gives
    ``SALT_BYTES`` bytes that never repeat.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: Signer | None = None,
        token: str | None = None,
        timeout_ms: int = CALL_TIMEOUT_MS,
        attempts_max: int = ATTEMPTS_MAX,
        connections_max: int = CONNECTIONS_MAX,
        make_salt: Callable[[], bytes] = lambda: secrets.token_bytes(SALT_BYTES),
    ) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout_ms = timeout_ms
        self._attempts_max = attempts_max
        self._connections_max = connections_max
        self._make_salt = make_salt
        self._head: _Head | None = None
        self._last_id = 0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.get_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of every connection. A call after that opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, method: str, /, **params: Json) -> Answer:
        """Call any method by its name. Raises ``RpcError`` or ``NodeUnreachable``."""
        waits_ms = params.get("timeout_ms")  # the node's own patience, where a method has one
        timeout_ms = self._timeout_ms + (waits_ms if isinstance(waits_ms, int) else 0)
        return cast(Answer, await self.request(method, params, timeout_ms=timeout_ms))

    async def request(self, method: str, params: dict[str, Json], *, timeout_ms: int) -> object:
        """As ``call``, with parameters as a dict and any timeout; the result as it came."""
        self._last_id += 1
        body = encode_call(method, params, self._last_id)
        raw = await self._exchange(body, timeout_ms=timeout_ms, is_idempotent=method not in NOT_IDEMPOTENT)
        return read_answer(raw, self.url)

    async def sign(
        self, payload: Payload, *, key: Signer | None = None, cosigners: Sequence[Signer] = ()
    ) -> SignedTransaction:
        """Sign a payload here, valid from the chain's head on for ``VALID_FOR_BLOCKS``."""
        signer = key or self.key
        if signer is None:
            raise ValueError("no key to sign with: give one to the client or to the call")
        head = await self._get_head()
        return sign_payload(
            payload,
            chain_id=head.chain_id,
            valid_until=head.height + head.valid_for_blocks,
            salt=self._make_salt(),
            signer=signer,
            cosigners=cosigners,
        )

    async def submit(
        self,
        payload: Payload,
        *,
        key: Signer | None = None,
        cosigners: Sequence[Signer] = (),
        wait: str = "committed",
        timeout_ms: int = COMMIT_TIMEOUT_MS,
    ) -> Submitted:
        """Sign, submit and wait (until ``admitted`` or ``committed``).

        Raises ``Refused`` with the ledger's reason, ``NotYetCommitted``, ``NodeUnreachable``.
        """
        signed = await self.sign(payload, key=key, cosigners=cosigners)
        return await self.submit_signed(signed, wait=wait, timeout_ms=timeout_ms)

    async def submit_signed(
        self, signed: SignedTransaction, *, wait: str = "committed", timeout_ms: int = COMMIT_TIMEOUT_MS
    ) -> Submitted:
        """Submit what is signed already."""
        params: dict[str, Json] = {"transaction": signed.raw.hex(), "wait": wait, "timeout_ms": timeout_ms}
        return read_submitted(await self.request("tx_submit", params, timeout_ms=timeout_ms + self._timeout_ms))

    async def submit_many(
        self,
        payloads: Sequence[Payload],
        *,
        key: Signer | None = None,
        cosigners: Sequence[Signer] = (),
        wait: str = "committed",
        timeout_ms: int = COMMIT_TIMEOUT_MS,
    ) -> list[Submitted | RpcError]:
        """Sign and submit payloads, in order, in one call: an outcome each; a refused one does not raise."""
        signed = [await self.sign(payload, key=key, cosigners=cosigners) for payload in payloads]
        return await self.submit_many_signed(signed, wait=wait, timeout_ms=timeout_ms)

    async def submit_many_signed(
        self, signed: Sequence[SignedTransaction], *, wait: str = "committed", timeout_ms: int = COMMIT_TIMEOUT_MS
    ) -> list[Submitted | RpcError]:
        """Submit what is signed already, at most 1,000 at once; an outcome each, in order."""
        if not signed:
            return []
        envelopes: list[Json] = [one.raw.hex() for one in signed]
        params: dict[str, Json] = {"transactions": envelopes, "wait": wait, "timeout_ms": timeout_ms}
        return read_outcomes(await self.request("tx_submit_many", params, timeout_ms=timeout_ms + self._timeout_ms))

    async def tx_submit_many(
        self, transactions: Sequence[str], *, wait: str | None = None, timeout_ms: int | None = None
    ) -> list[Answer]:
        """What became of each signed envelope (hex), as the node says it; ``submit_many`` signs as well."""
        params: dict[str, Json] = {"transactions": [*transactions], "wait": wait, "timeout_ms": timeout_ms}
        return cast("list[Answer]", await self.call("tx_submit_many", **params))

    async def wait(self, tx_id: str, *, timeout_ms: int = COMMIT_TIMEOUT_MS) -> Answer:
        """The committed transaction (as of ``tx_get``). Raises ``Refused`` if it was dropped, ``NotYetCommitted``."""
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_ms / 1000
        while True:
            try:
                found = await self.tx_get(tx_id)
            except UnknownItem:  # perhaps another node has it, and this one hears of it later
                found = {"status": "unknown"}
            if found["status"] == "committed":
                return found
            if "error" in found:
                raise make_error(found["error"])
            if clock() >= until:
                data = {"reason": "transaction_not_yet_committed", "item": tx_id, "tx_id": tx_id}
                raise NotYetCommitted(TIMED_OUT, MESSAGES[TIMED_OUT], data)
            await asyncio.sleep(POLL_MS / 1000)

    def subscribe(self, topic: str, filter: dict[str, Json] | None = None) -> Subscription:
        """Hear of ``blocks``, ``transactions`` or ``events``: ``async for item in client.subscribe("blocks")``."""
        return Subscription(self, topic, filter)

    async def unsubscribe(self, subscription: Subscription) -> bool:
        """End a subscription: whether it was open."""
        return await subscription.close()

    def get_session(self) -> aiohttp.ClientSession:
        """The connections of this client, opened on first use."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections_max, keepalive_timeout=KEEP_ALIVE_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self._session

    async def _exchange(self, body: bytes, *, timeout_ms: int, is_idempotent: bool) -> bytes:
        timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000, sock_connect=CONNECT_TIMEOUT_MS / 1000)
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.get_session().post(f"{self.url}/rpc", data=body, timeout=timeout) as response:
                    return await response.read()
            except aiohttp.InvalidURL:
                raise NodeUnreachable(self.url, "not a URL") from None
            except aiohttp.ClientConnectorError:  # nothing was sent: any call may be repeated
                reason, may_repeat = "no connection", True
            except TimeoutError:  # the node is there, and has more to do already than it can
                reason, may_repeat = f"no answer in {timeout_ms} ms", False
            except (aiohttp.ClientError, OSError):
                reason, may_repeat = "the connection broke", is_idempotent
            if not may_repeat or attempt >= self._attempts_max:
                raise NodeUnreachable(self.url, reason)
            await asyncio.sleep(BACK_OFF_MS / 1000 * 2 ** (attempt - 1))

    async def _get_head(self) -> _Head:
        now_s = asyncio.get_running_loop().time()
        head = self._head
        if head is None or now_s - head.known_since_s > HEAD_FRESH_MS / 1000:
            valid_for_blocks = head.valid_for_blocks if head else await self._get_valid_for_blocks()
            status = await self.chain_status()
            head = self._head = _Head(status["chain_id"], status["height"], valid_for_blocks, now_s)
        return head

    async def _get_valid_for_blocks(self) -> int:
        answer = await self.chain_parameters()
        return min(VALID_FOR_BLOCKS, int(answer["parameters"]["transaction_lifetime_blocks"]))


class Subscription:
    """What a node says on one topic, item by item; it has a connection of its own.

    Iterating opens it; ``async with`` opens it before the first item, so that nothing after that is missed.
    The iteration ends with ``NodeUnreachable`` when the node closes it, whose reason it carries.
    """

    def __init__(self, client: Client, topic: str, filter: dict[str, Json] | None) -> None:
        self._client = client
        self._params: dict[str, Json] = {"topic": topic, "filter": filter}
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer:
        socket = self._socket or await self.open()
        message = orjson.loads(await self._receive(socket))
        return cast(Answer, message["params"]["item"])

    async def close(self) -> bool:
        """End the subscription: whether it was open."""
        if self._socket is None:
            return False
        await self._socket.close()
        self._socket = None
        return True

    async def open(self) -> aiohttp.ClientWebSocketResponse:
        """Begin to hear; iterating does it too. Raises ``RpcError`` or ``NodeUnreachable``."""
        url = f"{self._client.url}/ws"
        try:
            socket = await self._client.get_session().ws_connect(
                url, max_msg_size=SUBSCRIPTION_BYTES_MAX, heartbeat=SUBSCRIPTION_HEARTBEAT_SECONDS
            )
        except (aiohttp.ClientError, OSError):
            raise NodeUnreachable(url, "no connection") from None
        try:
            await socket.send_str(encode_call("subscribe", self._params, 1).decode())
            read_answer(await self._receive(socket), url)
        except (ClientError, OSError):
            await socket.close()
            raise
        self._socket = socket
        return socket

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> bytes:
        message = await socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return cast(str, message.data).encode()
        await self.close()
        reason = message.extra if message.type is aiohttp.WSMsgType.CLOSE else ""
        raise NodeUnreachable(f"{self._client.url}/ws", reason or "the connection broke")


class SyncSubscription:
    """What a node says on one topic, for programs that do not await. It is open until ``close``."""

    def __init__(self, subscription: Subscription, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._subscription = subscription
        self._run = run

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Answer:
        return cast(Answer, self._run(anext(self._subscription)))

    def close(self) -> bool:
        """End the subscription: whether it was open."""
        return cast(bool, self._run(self._subscription.close()))


class SyncClient(Methods[Answer]):
    """The same client for programs that do not await: notebooks, scripts. It keeps an event loop in a thread."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: Signer | None = None,
        token: str | None = None,
        timeout_ms: int = CALL_TIMEOUT_MS,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._client = Client(url, key=key, token=token, timeout_ms=timeout_ms, attempts_max=attempts_max)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wattprint-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection and end the thread. The client is of no use after that."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, method: str, /, **params: Json) -> Answer:
        """As ``Client.call``."""
        return self._run(self._client.call(method, **params))

    def sign(
        self, payload: Payload, *, key: Signer | None = None, cosigners: Sequence[Signer] = ()
    ) -> SignedTransaction:
        """As ``Client.sign``."""
        return self._run(self._client.sign(payload, key=key, cosigners=cosigners))

    def submit(
        self,
        payload: Payload,
        *,
        key: Signer | None = None,
        cosigners: Sequence[Signer] = (),
        wait: str = "committed",
        timeout_ms: int = COMMIT_TIMEOUT_MS,
    ) -> Submitted:
        """As ``Client.submit``."""
        coroutine = self._client.submit(payload, key=key, cosigners=cosigners, wait=wait, timeout_ms=timeout_ms)
        return self._run(coroutine)

    def submit_signed(
        self, signed: SignedTransaction, *, wait: str = "committed", timeout_ms: int = COMMIT_TIMEOUT_MS
    ) -> Submitted:
        """As ``Client.submit_signed``."""
        return self._run(self._client.submit_signed(signed, wait=wait, timeout_ms=timeout_ms))

    def submit_many(
        self,
        payloads: Sequence[Payload],
        *,
        key: Signer | None = None,
        cosigners: Sequence[Signer] = (),
        wait: str = "committed",
        timeout_ms: int = COMMIT_TIMEOUT_MS,
    ) -> list[Submitted | RpcError]:
        """As ``Client.submit_many``."""
        coroutine = self._client.submit_many(payloads, key=key, cosigners=cosigners, wait=wait, timeout_ms=timeout_ms)
        return self._run(coroutine)

    def submit_many_signed(
        self, signed: Sequence[SignedTransaction], *, wait: str = "committed", timeout_ms: int = COMMIT_TIMEOUT_MS
    ) -> list[Submitted | RpcError]:
        """As ``Client.submit_many_signed``."""
        return self._run(self._client.submit_many_signed(signed, wait=wait, timeout_ms=timeout_ms))

    def tx_submit_many(
        self, transactions: Sequence[str], *, wait: str | None = None, timeout_ms: int | None = None
    ) -> list[Answer]:
        """As ``Client.tx_submit_many``."""
        return self._run(self._client.tx_submit_many(transactions, wait=wait, timeout_ms=timeout_ms))

    def wait(self, tx_id: str, *, timeout_ms: int = COMMIT_TIMEOUT_MS) -> Answer:
        """As ``Client.wait``."""
        return self._run(self._client.wait(tx_id, timeout_ms=timeout_ms))

    def subscribe(self, topic: str, filter: dict[str, Json] | None = None) -> SyncSubscription:
        """As ``Client.subscribe``, from now on: each ``next`` waits for an item."""
        subscription = self._client.subscribe(topic, filter)
        self._run(subscription.open())
        return SyncSubscription(subscription, self._run)

    def unsubscribe(self, subscription: SyncSubscription) -> bool:
        """End a subscription: whether it was open."""
        return subscription.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
