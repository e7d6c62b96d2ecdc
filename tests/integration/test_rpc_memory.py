"""What many clients together can make a node hold has limits: what waits to be sent, and calls under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import aiohttp
import jsonrpcclient
import orjson
import pytest
import pytest_asyncio

from node import rpc_dispatch, rpc_socket
from node.service import Outcome, Wait
from tests.integration.rpc_door import ISSUE, Door, ask_socket, open_door
from tests.node.fake_service import ALICE, make_transfer, sign_fake


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door() as opened:
        yield opened


async def test_what_waits_on_all_connections_has_a_limit_and_who_lets_most_wait_is_too_slow(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door.session.ws_connect(f"{door.url}/ws") as most, door.session.ws_connect(f"{door.url}/ws") as less:
        await ask_socket(most, "subscribe", ["transactions"])
        await ask_socket(less, "subscribe", ["blocks"])
        monkeypatch.setattr(rpc_socket, "QUEUES_BYTES_MAX", 600)  # a block fits, a transaction does not
        await door.ask("tx_submit", [ISSUE.raw.hex()])
        message = await most.receive(timeout=5)
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 1013, "reader_too_slow")
        for height in (1, 2, 3):  # what was taken, or given up, waits no more
            assert (await less.receive_json(timeout=5))["params"]["item"]["height"] == height
            await door.ask("tx_submit", [sign_fake(make_transfer(height), ALICE).raw.hex()])


async def test_calls_at_once_on_all_connections_have_a_limit_in_bytes(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_let_go = asyncio.Event()
    submit = door.service.submit

    async def wait(raws: Sequence[bytes], *, wait: Wait, timeout_ms: int) -> list[Outcome]:
        await is_let_go.wait()
        return await submit(raws, wait=wait, timeout_ms=timeout_ms)

    monkeypatch.setattr(door.service, "submit", wait)
    monkeypatch.setattr(rpc_socket, "CALLS_BYTES_MAX", 1_000)
    call = jsonrpcclient.request_json("tx_submit", [ISSUE.raw.hex()])
    async with door.session.ws_connect(f"{door.url}/ws") as one, door.session.ws_connect(f"{door.url}/ws") as other:
        await one.send_str(call.ljust(900))
        assert (await ask_socket(one, "chain_status", None)).result["height"] == 0
        await other.send_str(call)
        refusal = (await other.receive_json(timeout=5))["error"]
        assert (refusal["code"], refusal["data"]["reason"]) == (-32003, "too_many_calls_at_once")
        is_let_go.set()
        assert (await one.receive_json(timeout=5))["result"]["tx_id"] == ISSUE.tx_id
        await other.send_str(call.ljust(900))
        assert (await other.receive_json(timeout=5))["error"]["data"]["reason"] != "too_many_calls_at_once"


async def test_answers_that_wait_for_the_rest_of_their_batches_have_a_limit_together(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_let_go, has_begun = asyncio.Event(), asyncio.Event()
    submit = door.service.submit

    async def wait(raws: Sequence[bytes], *, wait: Wait, timeout_ms: int) -> list[Outcome]:
        has_begun.set()
        await is_let_go.wait()
        return await submit(raws, wait=wait, timeout_ms=timeout_ms)

    monkeypatch.setattr(door.service, "submit", wait)
    monkeypatch.setattr(rpc_dispatch, "BATCHES_BYTES_MAX", 500)
    read = jsonrpcclient.request("chain_status")
    waiting = [jsonrpcclient.request("tx_submit", (ISSUE.raw.hex(),)), read]
    async with asyncio.timeout(20):
        first = asyncio.create_task(door.post(orjson.dumps(waiting)))
        await has_begun.wait()
        _, refused = await door.post(orjson.dumps([read]))
        is_let_go.set()
        answers = orjson.loads((await first)[1])
        _, later = await door.post(orjson.dumps([read]))
    assert ["result" in one for one in answers] == [True, True]
    assert orjson.loads(refused)[0]["error"]["data"]["reason"] == "too_many_requests"
    assert "result" in orjson.loads(later)[0]
