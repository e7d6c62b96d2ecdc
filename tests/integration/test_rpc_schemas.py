"""What a WebSocket says, held against the document that the same node serves."""

from __future__ import annotations

from typing import Any

import aiohttp
import fastjsonschema
import orjson
import pytest

from node.rpc import RpcServer
from node.service import Wait
from tests.node.fake_service import UTILITY, FakeService, make_issue, sign_fake
from tests.node.json_schemas import Description

TOPICS = ("blocks", "transactions", "events")


async def ask(ws: aiohttp.ClientWebSocketResponse, method: str, *params: object) -> Any:
    await ws.send_str(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).decode())
    return (await ws.receive_json(timeout=5))["result"]


async def test_news_and_answers_of_a_socket_are_as_the_document_says() -> None:
    service = FakeService(commits=False)
    server = RpcServer(service, port=0)
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws") as ws:
            async with session.get(f"{url}/openrpc.json") as response:
                description = Description(await response.json())
            for topic in TOPICS:
                description.check(description.results["subscribe"], await ask(ws, "subscribe", topic))
            await service.submit((sign_fake(make_issue("p1"), UTILITY).raw,), wait=Wait.ADMITTED, timeout_ms=0)
            service.commit()
            heard = [(await ws.receive_json(timeout=5))["params"] for _ in TOPICS]
            description.check(description.results["unsubscribe"], await ask(ws, "unsubscribe", 1))
    finally:
        await server.stop()
    assert [one["topic"] for one in heard] == [*TOPICS]
    notification = description.components["Notification"]
    for one in heard:
        description.check(notification, one)
        with pytest.raises(fastjsonschema.JsonSchemaException):
            description.check(notification, {**one, "item": {**one["item"], "another": 1}})
