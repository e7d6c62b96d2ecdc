"""One encrypted transport, taken out of aiohttp's hands: it counts what arrives, and it can be cut.

Touches the world (the transport). aiohttp closes a connection by TLS's rules, and TLS then reads on, unbounded, what
the peer still sends. Here the end is ours: little more is taken, and what is cut is gone at once.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

LAST_BYTES_MAX: Final = 256 * 1024  # taken of a peer after the end; the last of them should be its own farewell


class ListeningWebSocket(web.WebSocketResponse):
    """Of a peer that dialled us. What is broken is not closed by itself: the connection has something to say first."""

    transport: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self.transport = request.transport
        return await super().prepare(request)

    async def close(self, **options: Any) -> bool:
        return is_gone(self.transport) and await super().close(**options)


class DialledWebSocket(aiohttp.ClientWebSocketResponse):
    """Of a peer that we dialled; the same."""

    def __init__(
        self,
        reader: Any,
        writer: Any,
        protocol: str | None,
        response: aiohttp.ClientResponse,
        *rest: Any,
        **options: Any,
    ) -> None:
        super().__init__(reader, writer, protocol, response, *rest, **options)
        self.transport: Final = response.connection.transport if response.connection is not None else None

    async def close(self, **options: Any) -> bool:
        return is_gone(self.transport) and await super().close(**options)


WebSocket: TypeAlias = ListeningWebSocket | DialledWebSocket


def is_gone(transport: asyncio.Transport | None) -> bool:
    """Whether nothing more can be sent."""
    return transport is None or transport.is_closing()


class Wire(asyncio.Protocol):
    """Takes the place of the protocol that a transport has, and hands everything on to it until the end."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        """Take over the transport of an open connection. Raises ``ConnectionError`` when it is lost already."""
        above = None if transport is None else transport.get_protocol()
        if transport is None or not isinstance(above, asyncio.Protocol):
            raise ConnectionResetError("the connection was lost before it was served")
        self._transport = transport
        self._above = above
        self._left_bytes: int | None = None  # that may still be taken; None: not ended, no limit
        self.arrived_bytes = 0
        self.lost: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        transport.set_protocol(self)

    def hang_up(self) -> None:
        """The connection is at its end: from now on take ``LAST_BYTES_MAX`` at most, and leave the rest unread."""
        if self._left_bytes is None:
            self._left_bytes = LAST_BYTES_MAX

    def cut(self) -> None:
        """End it now, whatever is under way: not a byte is read or written any more."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.arrived_bytes += len(data)
        if self._left_bytes is not None:
            self._left_bytes -= len(data)
            if self._left_bytes < 0:
                self._transport.pause_reading()
                return
        self._above.data_received(data)

    def eof_received(self) -> bool | None:
        return self._above.eof_received()

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._above.connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)
