"""Rates, tokens and origins over real sockets: who is turned away hears why, and nobody else notices."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any

import aiohttp
import pytest

from node.client import Client, RpcError
from node.jsonrpc import BATCH_MAX
from node.rpc import RpcServer
from node.rpc_gate import GateSettings
from tests.node.fake_service import UTILITY, FakeService, make_issue, sign_fake

TOKEN = "correct horse"
HASHES = frozenset({hashlib.sha256(TOKEN.encode()).hexdigest()})
KNOWN = {"Authorization": f"Bearer {TOKEN}"}
SUBMIT = {"jsonrpc": "2.0", "id": 1, "method": "tx_submit", "params": [sign_fake(make_issue("p1"), UTILITY).raw.hex()]}
READ = {"jsonrpc": "2.0", "id": 1, "method": "chain_status"}
ANY = str(IPv4Address(0))
NAMED = "https://grid.example"


@asynccontextmanager
async def open_door(settings: GateSettings, *, host: str = "127.0.0.1") -> AsyncIterator[aiohttp.ClientSession]:
    server = RpcServer(FakeService(), host=host, port=0, settings=settings)
    await server.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            yield session
    finally:
        await server.stop()


async def ask(session: aiohttp.ClientSession, body: Any, **headers: str) -> tuple[int, Any]:
    async with session.post("/rpc", json=body, headers=headers) as response:
        return response.status, await response.json()


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes for the rates: a machine that is busy gives nobody more."""
    monkeypatch.setattr(time, "monotonic_ns", lambda: 10**12)


@pytest.mark.usefixtures("still")
async def test_requests_beyond_the_rate_are_refused_and_health_is_still_answered() -> None:
    async with open_door(GateSettings(loopback_requests_per_second=1)) as session:
        assert (await ask(session, READ))[0] == 200
        _, answer = await ask(session, [READ] * BATCH_MAX)
        assert answer["error"]["data"]["reason"] == "request_rate_exceeded"
        _, answers = await ask(session, [READ] * (BATCH_MAX - 1))
        assert len(answers) == BATCH_MAX - 1
        status, answer = await ask(session, READ)
        assert (status, answer["error"]["code"]) == (429, -32003)
        async with session.get("/healthz") as response:
            assert response.status == 200


@pytest.mark.usefixtures("still")
async def test_messages_of_a_websocket_count_too() -> None:
    async with (
        open_door(GateSettings(loopback_requests_per_second=1)) as session,
        session.ws_connect("/ws") as ws,
    ):
        await ws.send_json([READ] * BATCH_MAX)
        assert len(await ws.receive_json(timeout=5)) == BATCH_MAX
        await ws.send_json(READ)
        assert (await ws.receive_json(timeout=5))["error"]["data"]["reason"] == "request_rate_exceeded"


async def test_a_submission_needs_a_token_when_there_are_any_and_reading_does_not() -> None:
    async with open_door(GateSettings(token_hashes=HASHES)) as session:
        assert (await ask(session, READ))[1]["result"]["height"] == 0
        for headers in ({}, {"Authorization": "Bearer guess"}):
            _, answer = await ask(session, SUBMIT, **headers)
            assert (answer["error"]["code"], answer["error"]["message"]) == (-32006, "not_permitted")
        _, answers = await ask(session, [READ, SUBMIT])
        assert ["result" in one for one in answers] == [True, False]
        assert "result" in (await ask(session, SUBMIT, **KNOWN))[1]


async def test_a_websocket_has_the_token_it_was_opened_with() -> None:
    async with open_door(GateSettings(token_hashes=HASHES)) as session:
        for headers, key in (({}, "error"), (KNOWN, "result")):
            async with session.ws_connect("/ws", headers=headers) as ws:
                await ws.send_json(SUBMIT)
                assert key in await ws.receive_json(timeout=5)


async def test_reading_may_need_a_token_too() -> None:
    async with open_door(GateSettings(token_hashes=HASHES, reads_need_token=True)) as session:
        assert (await ask(session, READ))[1]["error"]["data"]["reason"] == "token_required"
        assert "result" in (await ask(session, READ, **KNOWN))[1]
        for path, headers, status in (
            ("/metrics", {}, 401),
            ("/metrics", KNOWN, 200),
            ("/ws", {}, 401),
            ("/readyz", {}, 200),
            ("/", {}, 200),
        ):
            async with session.get(path, headers=headers) as response:
                assert (path, response.status) == (path, status)


async def test_a_named_origin_reads_the_answers_and_no_other_does() -> None:
    async with open_door(GateSettings(origins=frozenset({NAMED}))) as session:
        async with session.options("/rpc", headers={"Origin": NAMED}) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Methods"] == "GET, POST"
        async with session.post("/rpc", json=READ, headers={"Origin": NAMED}) as response:
            assert response.headers["Access-Control-Allow-Origin"] == NAMED
        async with session.post("/rpc", json=READ) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
        async with session.post("/rpc", json=READ, headers={"Origin": "https://evil.example"}) as response:
            assert response.status == 403
        async with session.ws_connect("/ws", headers={"Origin": NAMED}) as ws:
            await ws.send_json(READ)
            assert "result" in await ws.receive_json(timeout=5)


@pytest.mark.parametrize(
    ("host", "settings", "warning"),
    [
        (ANY, GateSettings(), "nobody needs a token"),
        (ANY, GateSettings(token_hashes=HASHES), "let TLS end in front of it"),
        ("127.0.0.1", GateSettings(), ""),
    ],
)
async def test_a_door_that_other_machines_reach_is_warned_of(
    host: str, settings: GateSettings, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_door(settings, host=host):
        pass
    assert [warning in record.getMessage() for record in caplog.records] == ([True] if warning else [])


async def test_a_client_that_has_the_token_may_submit() -> None:
    server = RpcServer(FakeService(), port=0, settings=GateSettings(token_hashes=HASHES))
    await server.start()
    url = f"http://127.0.0.1:{server.port}"
    try:
        async with Client(url, key=UTILITY) as stranger:
            with pytest.raises(RpcError) as refused:
                await stranger.submit(make_issue("p1"), wait="admitted")
            assert refused.value.reason == "token_required"
        async with Client(url, key=UTILITY, token=TOKEN) as known:
            done = await known.submit(make_issue("p1"), wait="admitted")
            assert done.status == "pending"
    finally:
        await server.stop()
