"""The node's door over real sockets for the tests: a server on a free port, and a client that nobody here wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jsonrpcclient
import orjson

from node.rpc import RpcServer
from tests.node.fake_service import UTILITY, FakeService, make_issue, sign_fake

ISSUE = sign_fake(make_issue("p1"), UTILITY)


class Door:
    """A server on a free port, the service behind it, and a plain HTTP session."""

    def __init__(self, service: FakeService, server: RpcServer, session: aiohttp.ClientSession) -> None:
        self.service = service
        self.server = server
        self.session = session
        self.url = f"http://127.0.0.1:{server.port}"

    async def post(self, body: bytes | str, **headers: str) -> tuple[int, bytes]:
        async with self.session.post(f"{self.url}/rpc", data=body, headers=headers) as response:
            return response.status, await response.read()

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.get(f"{self.url}{path}", headers=headers) as response:
            return response.status, await response.text()

    async def ask(self, method: str, params: Any = None) -> Any:
        """A call by the foreign library: its ``Ok`` or ``Error``."""
        status, body = await self.post(jsonrpcclient.request_json(method, params=params))
        assert status == 200
        return jsonrpcclient.parse_json(body.decode())

    async def error_of(self, body: bytes) -> tuple[int, object]:
        """The code and the id of the one error that a body is answered with."""
        status, answer = await self.post(body)
        assert status in (200, 413)
        document = orjson.loads(answer)
        assert document["jsonrpc"] == "2.0"
        assert "result" not in document
        check_is_discreet(answer)
        return document["error"]["code"], document["id"]


def check_is_discreet(answer: bytes) -> None:
    """An error carries no traceback and no path."""
    assert b"Traceback" not in answer
    assert b".py" not in answer
    assert b"/home" not in answer


@asynccontextmanager
async def open_door() -> AsyncIterator[Door]:
    """A door until the block ends."""
    service = FakeService()
    server = RpcServer(service, port=0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Door(service, server, session)
    finally:
        await server.stop()


async def ask_socket(ws: aiohttp.ClientWebSocketResponse, method: str, params: Any, request_id: int = 1) -> Any:
    """A call over a WebSocket: its ``Ok`` or ``Error``."""
    await ws.send_str(orjson.dumps(jsonrpcclient.request(method, params=params, id=request_id)).decode())
    return jsonrpcclient.parse(await ws.receive_json(timeout=5))
