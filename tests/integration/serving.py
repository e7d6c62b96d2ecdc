"""A server on loopback that leaves nothing behind: every connection has ended and is closed when the block is left.

`asyncio.Server` does not wait for its connections; a socket that outlives its loop is a warning in some later test.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

HOST: Final = "127.0.0.1"
END_SECONDS: Final = 30  # for the other side to go away
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handle: Handler, port: int = 0) -> AsyncIterator[int]:
    """Serve each connection by ``handle``, which ends when its peer goes; the port."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await handle(reader, writer)
        finally:
            await close(writer)
            running.discard(task)

    server = await asyncio.start_server(serve, HOST, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if running:
            _, late = await asyncio.wait(running, timeout=END_SECONDS)
            assert not late, "a connection of this server did not end"


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is."""
    writer.close()
    with contextlib.suppress(OSError):  # broken by the other side: that is closed, too
        await writer.wait_closed()
