"""A load of prepared JSON-RPC requests over a few connections, one request at a time on each.

Owns the sending side of a measurement. It shares the machine with the nodes it measures, so a connection is a bare
protocol that writes bytes prepared beforehand: an HTTP client library would take a third of a core for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

import orjson

from node.errors import LocalError

HOST: Final = "127.0.0.1"
ERRORS_KEPT_MAX: Final = 5
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024


class LoadError(LocalError):
    """The load could not be carried to the node: ``load_connection_lost``, ``load_answer_malformed``."""


@dataclass(slots=True)
class LoadResult:
    """What came back: how many requests were answered, and what the refusals among them said."""

    answered: int = 0
    refused: int = 0
    refusals: list[str] = field(default_factory=list)


def make_request(method: str, params: dict[str, object]) -> bytes:
    """The bytes of one JSON-RPC call over HTTP/1.1, on a connection that is kept."""
    body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    head = (
        f"POST /rpc HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def send_all(requests: Sequence[bytes], ports: Sequence[int], *, connections: int) -> LoadResult:
    """Send every request, ``connections`` at a time, spread over the ports in turn. Raises ``LoadError``."""
    result = LoadResult()
    waiting = iter(requests)
    loop = asyncio.get_running_loop()
    opened: list[tuple[asyncio.Transport, _Connection]] = []
    try:
        for number in range(connections):
            done: asyncio.Future[None] = loop.create_future()
            connection = _Connection(waiting, result, done)
            transport, _ = await loop.create_connection(partial(_same, connection), HOST, ports[number % len(ports)])
            opened.append((transport, connection))
        await asyncio.gather(*(connection.done for _, connection in opened))
    finally:
        for transport, _ in opened:
            transport.close()
    return result


def _same(connection: _Connection) -> _Connection:
    return connection


class _Connection(asyncio.Protocol):
    """Sends the next request when the answer to the one before has come."""

    def __init__(self, waiting: Iterator[bytes], result: LoadResult, done: asyncio.Future[None]) -> None:
        self.done = done
        self._waiting = waiting
        self._result = result
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send_next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while not self.done.done():
            body = self._take_answer()
            if body is None:
                return
            self._result.answered += 1
            at = body.find(b'"error"')  # of the call, or of one of the transactions in it
            if at >= 0:
                self._result.refused += 1
                if len(self._result.refusals) < ERRORS_KEPT_MAX:
                    self._result.refusals.append(body[at : at + 300].decode(errors="replace"))
            self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError("load_connection_lost", exc or "the node closed it"))

    def _take_answer(self) -> bytes | None:
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = bytes(self._received[:head_end]).lower()
        at = head.find(b"content-length:")
        if at < 0 or len(self._received) > ANSWER_BYTES_MAX:
            self.done.set_exception(LoadError("load_answer_malformed", head[:100]))
            return None
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        end = head_end + 4 + length
        if len(self._received) < end:
            return None
        body = bytes(self._received[head_end + 4 : end])
        del self._received[:end]
        return body

    def _send_next(self) -> None:
        request = next(self._waiting, None)
        if request is None:
            self.done.set_result(None)
        elif self._transport is not None:
            self._transport.write(request)
