"""aiohttp's plain server, with what it leaves open: how many connections there may be, and what is worth a log line.

Touches the world (sockets). A connection that sends nothing is closed by aiohttp after the keep-alive time; until then
it costs a file handle, of which a node has few and needs some for its store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from node.rpc_gate import is_loopback_host

CONNECTIONS_MAX: Final = 512
CONNECTIONS_FAR_MAX: Final = 448  # of other machines, so that this one's operator always gets through
CONNECTIONS_OF_ADDRESS_MAX: Final = 128  # of another machine; a proxy on this one speaks for many
KEEP_ALIVE_SECONDS: Final = 75  # more than clients keep an idle connection, so that it is they who let go
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 20\r\n\r\ntoo many connections"
)


class HttpServer(web.Server):
    """A server without an application: no router, no middlewares, no signals on the way of a transaction.

    ``name_client`` gives the part of an address that tells clients apart.
    """

    def __init__(
        self,
        serve: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        body_bytes_max: int,
        count_refusal: Callable[[str], None],
        name_client: Callable[[str], str],
    ) -> None:
        loop = asyncio.get_running_loop()

        def make_request(
            message: RawRequestMessage,
            payload: StreamReader,
            protocol: RequestHandler,
            writer: AbstractStreamWriter,
            task: asyncio.Task[None],
        ) -> web.BaseRequest:
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=body_bytes_max)

        super().__init__(
            serve,
            request_factory=make_request,
            access_log=None,
            logger=_logger,
            debug=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            auto_decompress=False,
        )
        self._count_refusal = count_refusal
        self._name_client = name_client
        self._hosts: dict[RequestHandler, str] = {}
        self._counts: Counter[str] = Counter()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """As aiohttp's; one connection too many is told so, and ends."""
        super().connection_made(handler, transport)
        host = self._name_client(str((transport.get_extra_info("peername") or ("",))[0]))
        self._hosts[handler] = host
        self._counts[host] += 1
        if self._is_one_too_many(host):
            self._count_refusal("too_many_connections")
            transport.write(_FULL)
            asyncio.get_running_loop().call_soon(transport.close)  # once the handler has begun to wait, as it must

    def _is_one_too_many(self, host: str) -> bool:
        if is_loopback_host(host):
            return len(self._hosts) > CONNECTIONS_MAX
        return len(self._hosts) > CONNECTIONS_FAR_MAX or self._counts[host] > CONNECTIONS_OF_ADDRESS_MAX

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """As aiohttp's."""
        super().connection_lost(handler, exc)
        host = self._hosts.pop(handler, None)
        if host is not None:
            self._counts[host] -= 1
            if not self._counts[host]:
                del self._counts[host]


class _NoNoise(logging.Filter):
    """What is no HTTP is its sender's mistake, and answered with 400: a traceback each would fill our disk."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_logger: Final = logging.getLogger("aiohttp.server.rpc")
_logger.addFilter(_NoNoise())
