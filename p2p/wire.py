"""What lies between one encrypted transport and aiohttp's protocol: it counts what arrives, and it can be cut.

Touches the world (the transport). aiohttp ends a connection by TLS's rules, and TLS then reads on, unbounded, what the
peer still sends. Here the end is ours: little more is taken, and what is cut is gone at once.
"""

from __future__ import annotations

import asyncio
from typing import Final

LAST_BYTES_MAX: Final = 256 * 1024  # taken of a peer after the end; the last of them should be its own farewell


class Wire(asyncio.Protocol):
    """Takes the place of the protocol that a transport has, and hands everything on to it until the end."""

    def __init__(self, transport: asyncio.BaseTransport | None) -> None:
        """Take over the transport of an open connection. Raises ``ConnectionError`` when it is lost already."""
        if not isinstance(transport, asyncio.Transport):
            raise ConnectionResetError("the connection was lost before it was served")
        above = transport.get_protocol()
        if not isinstance(above, asyncio.Protocol):
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
