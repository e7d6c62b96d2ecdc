"""One WebSocket: the same methods as over HTTP, and what its subscriptions hear.

Touches the world (the socket, its tasks). What is to be sent waits in a queue of limited size, so that a slow reader
costs itself the connection, and nobody else anything. What all connections together make us hold is limited too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial
from typing import Final, cast

from aiohttp import WSMsgType, web

from ledger.errors import Malformed
from ledger.fields import Json
from node.jsonrpc import OVERLOADED, TOO_LARGE, encode_error, encode_notification, make_fault
from node.methods import Handler, explain_question
from node.rpc_dispatch import Dispatcher
from node.rpc_gate import Visitor
from node.rpc_methods import Subscription
from node.service import CommittedBlock, NodeService
from node.subscriptions import Filter, News, NewsOfBlock, Topic, read_filter

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
QUEUE_BYTES_MAX: Final = 8 * 1024 * 1024  # a full block's events, twice
QUEUES_BYTES_MAX: Final = 64 * 1024 * 1024  # of all connections; beyond it, whoever has let most wait is too slow
CALLS_MAX: Final = 64  # at once on one connection
CALLS_BYTES_MAX: Final = 64 * 1024 * 1024  # at once on all; one that waits for its block keeps its message
SUBSCRIPTIONS_MAX: Final = 16  # of one connection
SOCKETS_MAX: Final = 256
HEARTBEAT_SECONDS: Final = 20
CLOSE_SECONDS: Final = 2
TRY_AGAIN_LATER: Final = 1013
GOING_AWAY: Final = 1001
READER_TOO_SLOW: Final = "reader_too_slow"


class Socket:
    """One connection; ``run`` it until it ends."""

    def __init__(self, hub: Hub, dispatcher: Dispatcher, visitor: Visitor) -> None:
        self._hub = hub
        self._dispatcher = dispatcher
        self._visitor = visitor
        self._ws = web.WebSocketResponse(
            max_msg_size=MESSAGE_BYTES_MAX,
            heartbeat=HEARTBEAT_SECONDS,
            timeout=CLOSE_SECONDS,
            compress=False,
            decode_text=False,
        )
        self._handlers: dict[str, Handler] = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe}
        self._subscriptions: dict[int, tuple[Topic, Filter]] = {}
        self._last_subscription = 0
        self._queue: deque[bytes] = deque()
        self.queue_bytes = 0
        self._has_more = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def run(self, request: web.BaseRequest) -> web.WebSocketResponse:
        """Serve the connection until either side ends it."""
        await self._ws.prepare(request)
        writer = asyncio.create_task(self._write())
        try:
            async for message in self._ws:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self._take(cast(bytes, message.data))
        finally:
            for task in (writer, *self._calls):
                task.cancel()
            self._count(-self.queue_bytes)
            if self._closing is not None:
                await self._closing
                if request.transport is not None:
                    request.transport.abort()
        return self._ws

    def publish(self, news: NewsOfBlock) -> None:
        """Send what this connection's subscriptions let through."""
        for subscription, (topic, wanted) in list(self._subscriptions.items()):  # a full queue ends them all
            for item in news.get_items(topic):
                if wanted.lets_through(item):
                    params = {"subscription": subscription, "topic": str(topic), "item": item}
                    self._send(encode_notification("subscription", cast(News, params)))

    def close(self, reason: str, *, code: int = TRY_AGAIN_LATER) -> None:
        """End the connection; the other side is told why, if it still reads."""
        if self._closing is None:
            self._queue.clear()
            self._count(-self.queue_bytes)  # also what is on its way: it is given up within CLOSE_SECONDS
            self._subscriptions.clear()
            self._closing = asyncio.create_task(self._close(reason, code))

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self._closing is not None

    async def _close(self, reason: str, code: int) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._ws.close(code=code, message=reason.encode(), drain=False)

    def _take(self, raw: bytes) -> None:
        if len(self._calls) >= CALLS_MAX or self._hub.calls_bytes + len(raw) > CALLS_BYTES_MAX:
            most = f"at most {CALLS_MAX} on a connection, and {CALLS_BYTES_MAX} bytes on all"
            self._send(encode_error(None, make_fault(OVERLOADED, "too_many_calls_at_once", most)))
            return
        self._hub.calls_bytes += len(raw)
        task = asyncio.create_task(self._answer(raw))
        self._calls.add(task)
        task.add_done_callback(partial(self._forget_call, len(raw)))

    async def _answer(self, raw: bytes) -> None:
        answer = await self._dispatcher.answer(raw, self._visitor, self._handlers)
        if answer is not None:
            self._send(answer)

    def _forget_call(self, size: int, task: asyncio.Task[None]) -> None:
        self._hub.calls_bytes -= size
        self._calls.discard(task)

    def _count(self, size: int) -> None:
        self.queue_bytes += size
        self._hub.queues_bytes += size

    def _send(self, data: bytes) -> None:
        if self._closing is not None:
            return
        if self.queue_bytes + len(data) > QUEUE_BYTES_MAX:
            self.close(READER_TOO_SLOW)
            return
        self._count(len(data))
        self._queue.append(data)
        self._has_more.set()
        self._hub.make_room()

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await self._has_more.wait()
                self._has_more.clear()
                while self._queue:
                    data = self._queue.popleft()
                    await self._ws.send_frame(data, WSMsgType.TEXT)
                    if self._closing is None:
                        self._count(-len(data))

    def _subscribe(self, _service: NodeService, topic: Topic, filter: dict[str, Json] | None = None) -> Subscription:
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise make_fault(TOO_LARGE, "too_many_subscriptions", f"at most {SUBSCRIPTIONS_MAX} on a connection")
        try:
            wanted = read_filter(filter)
        except Malformed as error:
            raise explain_question(error) from error
        self._last_subscription += 1
        self._subscriptions[self._last_subscription] = (topic, wanted)
        return {"subscription": self._last_subscription}

    def _unsubscribe(self, _service: NodeService, subscription: int) -> bool:
        return self._subscriptions.pop(subscription, None) is not None


class Hub:
    """Every open WebSocket, so that a block's news are made once for all."""

    def __init__(self) -> None:
        self._sockets: set[Socket] = set()
        self.queues_bytes = 0  # that wait to be sent
        self.calls_bytes = 0  # of the messages that are being answered

    def __len__(self) -> int:
        return len(self._sockets)

    async def serve(self, request: web.BaseRequest, dispatcher: Dispatcher, visitor: Visitor) -> web.StreamResponse:
        """Serve one connection, unless there are too many."""
        if len(self._sockets) >= SOCKETS_MAX:
            return web.Response(status=503, text="too many connections")
        socket = Socket(self, dispatcher, visitor)
        self._sockets.add(socket)
        try:
            return await socket.run(request)
        finally:
            self._sockets.discard(socket)

    def publish(self, block: CommittedBlock) -> None:
        """A block is durable: tell whoever listens."""
        news = NewsOfBlock(block)
        for socket in list(self._sockets):
            socket.publish(news)

    def make_room(self) -> None:
        """Something more waits: if that is too much, the connection that lets most wait ends."""
        if self.queues_bytes > QUEUES_BYTES_MAX:
            slowest = max((one for one in self._sockets if not one.is_closing), key=lambda one: one.queue_bytes)
            slowest.close(READER_TOO_SLOW)

    def close(self) -> None:
        """End every connection: the node stops."""
        for socket in list(self._sockets):
            socket.close("node_stops", code=GOING_AWAY)
