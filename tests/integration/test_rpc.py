"""The node's door over real sockets, driven by a JSON-RPC client library that nobody here wrote.

``jsonrpcclient`` builds the requests and reads the answers; the bytes travel over plain HTTP and WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jsonrpcclient
import orjson
import pytest
import pytest_asyncio

from ledger.primitives import format_address
from node import http_server, rpc, rpc_dispatch, rpc_methods, rpc_socket
from node.jsonrpc import BATCH_MAX
from node.rpc_gate import is_same_origin
from tests.integration.rpc_door import ISSUE, Door, ask_socket, check_is_discreet, open_door
from tests.integration.serving import close
from tests.node.fake_service import ALICE, BOB, UTILITY, make_issue, make_transfer, sign_fake


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door() as opened:
        yield opened


async def test_a_foreign_client_calls_by_position_and_by_name(door: Door) -> None:
    status = await door.ask("chain_status")
    assert isinstance(status, jsonrpcclient.Ok)
    assert status.result["height"] == 0
    for params in ([ISSUE.raw.hex(), "committed"], {"transaction": sign_fake(make_issue("p2"), UTILITY).raw.hex()}):
        submitted = await door.ask("tx_submit", params)
        assert isinstance(submitted, jsonrpcclient.Ok)
    found = await door.ask("tx_get", [ISSUE.tx_id])
    assert found.result["status"] == "committed"


async def test_a_foreign_client_sends_a_batch(door: Door) -> None:
    batch = [
        jsonrpcclient.request("tx_submit", params=(ISSUE.raw.hex(), "committed"), id="a"),
        jsonrpcclient.notification("chain_status"),
        jsonrpcclient.request("no_such_method", id="b"),
        jsonrpcclient.request("tx_get", params=(ISSUE.tx_id,), id="b"),
        jsonrpcclient.request("tx_submit", params=(sign_fake(make_transfer(3), ALICE).raw.hex(),), id="c"),
    ]
    status, body = await door.post(orjson.dumps(batch))
    assert status == 200
    answers: Any = jsonrpcclient.parse(orjson.loads(body))
    first, unknown, found, transferred = answers
    assert (first.id, first.result["height"]) == ("a", 1)
    assert (unknown.id, unknown.code) == ("b", -32601)
    assert (found.id, found.result["status"]) == ("b", "committed")
    assert transferred.id == "c"


async def test_a_notification_is_carried_out_and_not_answered(door: Door) -> None:
    body = jsonrpcclient.notification_json("tx_submit", params=(ISSUE.raw.hex(),))
    assert await door.post(body) == (204, b"")
    assert door.service.submissions == 1
    for nothing in ('{"jsonrpc":"2.0","method":"no_such_method"}', f"[{body},{body}]"):
        assert await door.post(nothing) == (204, b"")


@pytest.mark.parametrize(
    ("body", "code", "answered_id"),
    [
        (b"", -32700, None),
        (b"{", -32700, None),
        (b"\xff\xfe\x00", -32700, None),
        (b'{"jsonrpc":"2.0","method":"chain_status","params":[NaN],"id":1}', -32700, None),
        (b"[" * 100_000, -32005, None),
        (b"[" * 900 + b"]" * 900, -32700, None),
        (b"[]", -32600, None),
        (b"1", -32600, None),
        (b'{"jsonrpc":"2.0","method":1,"id":1}', -32600, 1),
        (b'{"jsonrpc":"2.0","method":"chain_status","params":7,"id":1}', -32600, 1),
        (b'{"jsonrpc":"2.0","method":"chain_statu","id":1}', -32601, 1),
        (b'{"jsonrpc":"2.0","method":"__init__","id":1}', -32601, 1),
        (b'{"jsonrpc":"2.0","method":"subscribe","params":["blocks"],"id":1}', -32601, 1),
        (b'{"jsonrpc":"2.0","method":"chain_status","params":[1],"id":1}', -32602, 1),
        (b'{"jsonrpc":"2.0","method":"chain_block","params":{"hight":1},"id":1}', -32602, 1),
        (b'{"jsonrpc":"2.0","method":"chain_block","params":{"height":"1"},"id":1}', -32602, 1),
        (b'{"jsonrpc":"2.0","method":"chain_block","params":[123456789012345678901234567890],"id":1}', -32602, 1),
        (b'{"jsonrpc":"2.0","method":"tx_submit","params":["zz"],"id":1}', -32602, 1),
        (b'{"jsonrpc":"2.0","method":"tx_submit","params":["00"],"id":1}', -32000, 1),
        (b'{"jsonrpc":"2.0","method":"chain_block","params":[99],"id":1}', -32001, 1),
    ],
)
async def test_bad_input_is_answered_with_its_error_and_the_node_goes_on(
    door: Door, body: bytes, code: int, answered_id: int | None
) -> None:
    assert await door.error_of(body) == (code, answered_id)
    assert isinstance(await door.ask("chain_status"), jsonrpcclient.Ok)


async def test_a_refusal_carries_reason_and_item(door: Door) -> None:
    refused = await door.ask("tx_submit", [sign_fake(make_transfer(3), ALICE).raw.hex()])
    assert isinstance(refused, jsonrpcclient.Error)
    assert (refused.code, refused.message) == (-32000, "rejected")
    assert refused.data["reason"] == "credits_not_sufficient"
    assert format_address(ALICE.address) in refused.data["item"]


async def test_what_takes_too_long_is_timed_out_and_what_is_too_much_overloaded(door: Door) -> None:
    door.service.commits = False
    late = await door.ask("tx_submit", [ISSUE.raw.hex(), "committed", 1])
    assert (late.code, late.data["tx_id"]) == (-32002, ISSUE.tx_id)
    for number in range(2):
        await door.ask("tx_submit", [sign_fake(make_issue(f"q{number}"), UTILITY).raw.hex()])
    full = await door.ask("tx_submit", [sign_fake(make_issue("r"), UTILITY).raw.hex()])
    assert (full.code, full.data["reason"]) == (-32003, "mempool_full")


async def test_our_own_mistake_is_an_internal_error_without_a_word_more(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.service.refusal = KeyError("/home/somebody/secret.py")
    body = jsonrpcclient.request_json("tx_submit", params=(ISSUE.raw.hex(),))
    status, answer = await door.post(body)
    assert status == 200
    check_is_discreet(answer)
    assert orjson.loads(answer)["error"] == {"code": -32603, "message": "Internal error"}
    assert "a call failed: tx_submit" in caplog.text


async def test_a_body_or_batch_past_its_limit_is_too_large(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "BODY_BYTES_MAX", 100_000)
    status, answer = await door.post(b" " * 100_001)
    assert (status, orjson.loads(answer)["error"]["code"]) == (413, -32005)
    assert await door.error_of(b"[" + b",".join([b"1"] * (BATCH_MAX + 1)) + b"]") == (-32005, None)


async def test_a_body_without_a_length_has_the_same_limit(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc":"2.0","method":"chain_status",'
        yield b'"id":1}'

    async with door.session.post(f"{door.url}/rpc", data=drip()) as response:
        assert orjson.loads(await response.read())["id"] == 1
    monkeypatch.setattr(rpc, "BODIES_BYTES_MAX", rpc.BODY_BYTES_MAX - 1)
    async with door.session.post(f"{door.url}/rpc", data=drip()) as response:
        assert response.status == 503
        assert orjson.loads(await response.read())["error"]["code"] == -32003


async def test_too_many_requests_at_once_are_overloaded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "REQUESTS_MAX", 0)
    status, answer = await door.post(jsonrpcclient.request_json("chain_status"))
    assert (status, orjson.loads(answer)["error"]["code"]) == (503, -32003)


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
        b"\n\n\n\n",
    ],
)
async def test_what_is_no_http_at_all_is_turned_away(door: Door, bytes_sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
    try:
        writer.write(bytes_sent)
        writer.write_eof()
        answer = await reader.read(65_536)
        assert b" 500 " not in answer
        check_is_discreet(answer)
    except ConnectionError:
        pass  # cut off while we still spoke
    finally:
        await close(writer)
    assert isinstance(await door.ask("chain_status"), jsonrpcclient.Ok)


async def test_a_packed_body_is_refused_by_name(door: Door) -> None:
    assert (await door.post(b"\x1f\x8b", **{"Content-Encoding": "gzip"}))[0] == 415


async def test_what_is_no_http_leaves_no_traceback_in_the_log(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
    writer.write(b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n")
    assert b" 400 " in await reader.read()
    writer.close()
    assert caplog.records == []


async def test_connections_that_say_nothing_have_a_limit_and_give_way(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 2)
    idle = [await asyncio.open_connection("127.0.0.1", door.server.port) for _ in range(3)]
    assert (await idle[2][0].read()).startswith(b"HTTP/1.1 503 ")
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    assert isinstance(await door.ask("chain_status"), jsonrpcclient.Ok)
    assert 'wattprint_refusals_total{reason="too_many_connections"} 1.0' in (await door.get("/metrics"))[1]


@pytest.mark.parametrize("limit", ["CONNECTIONS_OF_ADDRESS_MAX", "CONNECTIONS_FAR_MAX"])
async def test_connections_of_other_machines_have_lower_limits(
    door: Door, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(http_server, limit, 1)
    monkeypatch.setattr(http_server, "is_loopback_host", lambda _host: False)
    first = await asyncio.open_connection("127.0.0.1", door.server.port)
    second = await asyncio.open_connection("127.0.0.1", door.server.port)
    assert (await second[0].read()).startswith(b"HTTP/1.1 503 ")
    first[1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await first[0].read()).startswith(b"HTTP/1.1 200 ")
    for _, writer in (first, second):
        writer.close()
        await writer.wait_closed()


async def test_pages_of_another_origin_are_not_answered(door: Door) -> None:
    body = jsonrpcclient.request_json("chain_status")
    assert (await door.post(body, Origin="http://evil.example"))[0] == 403
    assert (await door.get("/ws", Origin="http://evil.example"))[0] == 403
    assert (await door.post(body, Origin=door.url))[0] == 200
    assert not is_same_origin("null", "127.0.0.1:8600")


async def test_unknown_paths_and_wrong_verbs_are_told_apart(door: Door) -> None:
    assert (await door.get("/nothing"))[0] == 404
    assert await door.get("/rpc") == (405, "/rpc takes POST, OPTIONS")
    async with door.session.delete(f"{door.url}/metrics") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
    async with door.session.head(f"{door.url}/healthz") as response:
        assert (response.status, await response.read()) == (200, b"")
        assert response.headers["Server"] == "wattprint"
    assert (await door.get("/explorer/../rpc.py"))[0] == 404
    async with door.session.options(f"{door.url}/rpc") as response:
        assert response.status == 405
        assert "Access-Control-Allow-Origin" not in response.headers
    assert (await door.get("/ws"))[0] == 400


async def test_the_document_is_the_same_as_a_page_and_as_a_call(door: Door) -> None:
    status, page = await door.get("/openrpc.json")
    discovered = await door.ask("rpc.discover")
    assert status == 200
    assert orjson.loads(page) == discovered.result


async def test_health_readiness_and_metrics(door: Door) -> None:
    assert (await door.get("/healthz"))[0] == 200
    assert (await door.get("/readyz"))[0] == 200
    door.service.is_syncing = True
    status, answer = await door.get("/readyz")
    assert (status, orjson.loads(answer)["reason"]) == (503, "node_is_syncing")
    await door.ask("tx_submit", [ISSUE.raw.hex(), "committed"])
    door.service.commit()
    await door.ask("tx_submit", ["00"])
    metrics = (await door.get("/metrics"))[1].splitlines()
    for line in (
        "wattprint_height 2.0",
        "wattprint_syncing 1.0",
        "wattprint_clock_skew_ms -3.0",
        "wattprint_committed_transactions_total 1.0",
        'wattprint_refusals_total{reason="envelope_malformed"} 1.0',
        'wattprint_rpc_seconds_count{method="tx_submit"} 2.0',
        "wattprint_block_interval_seconds_count 1.0",
    ):
        assert line in metrics


async def test_the_explorer_needs_nothing_from_elsewhere(door: Door) -> None:
    async with door.session.get(door.url) as response:
        page = await response.text()
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "/explorer.css" in page
    assert "/explorer.js" in page
    for name in ("explorer.css", "explorer.js", "explorer-pages.js", "explorer-parts.js"):
        status, text = await door.get(f"/{name}")
        assert status == 200
        page += text
    assert set(re.findall(r'from "(.+)"', page)) == {"/explorer-pages.js", "/explorer-parts.js"}
    assert "http://" not in page
    assert "https://" not in page
    assert "innerHTML" not in page


async def test_the_explorer_asks_only_what_a_node_answers(door: Door) -> None:
    pages = (await door.get("/explorer-pages.js"))[1] + (await door.get("/explorer-parts.js"))[1]
    asked = set(
        re.findall(r'(?:call\(|\[|, )"([a-z]+_(?:get|list|balance|source|holder|lot|audit|block|status))"', pages)
    )
    assert len(asked) > 15
    assert asked <= set(rpc_methods.METHODS)


async def test_a_websocket_answers_the_same_methods(door: Door) -> None:
    async with door.session.ws_connect(f"{door.url}/ws") as ws:
        assert (await ask_socket(ws, "chain_status", None)).result["height"] == 0
        await ws.send_str("[]")
        assert (await ws.receive_json(timeout=5))["error"]["code"] == -32600
        await ws.send_bytes(b"\xff")
        assert (await ws.receive_json(timeout=5))["error"]["code"] == -32700


async def test_a_subscription_hears_what_its_filter_lets_through(door: Door) -> None:
    door.service.commits = False
    async with door.session.ws_connect(f"{door.url}/ws") as ws:
        await ask_socket(ws, "subscribe", ["blocks"])
        await ask_socket(ws, "subscribe", {"topic": "transactions", "filter": {"type": "credit.issue"}})
        wanted = {"event": "credit.moved", "participant": format_address(BOB.address)}
        third = await ask_socket(ws, "subscribe", ["events", wanted])
        assert third.result == {"subscription": 3}
        await door.ask("tx_submit", [ISSUE.raw.hex()])
        door.service.commit()
        await door.ask("tx_submit", [sign_fake(make_transfer(3), ALICE).raw.hex()])
        door.service.commit()
        heard = [(await ws.receive_json(timeout=5))["params"] for _ in range(4)]
        assert [one["topic"] for one in heard] == ["blocks", "transactions", "blocks", "events"]
        assert heard[1]["item"]["tx_id"] == ISSUE.tx_id
        assert (heard[2]["item"]["height"], heard[2]["item"]["transactions"]) == (2, 1)
        assert heard[3]["item"]["cents"] == 3
        assert (await ask_socket(ws, "unsubscribe", [1])).result is True
        assert (await ask_socket(ws, "unsubscribe", [1])).result is False


@pytest.mark.parametrize(
    "params",
    [
        ["weather"],
        ["blocks", 7],
        ["blocks", {"a": []}],
        ["blocks", {"a": None}],
        ["blocks", {"participant": 1}],
        ["blocks", {str(n): n for n in range(9)}],
        ["blocks", {"a": "x" * 300}],
    ],
)
async def test_a_wrong_subscription_is_refused(door: Door, params: list[Any]) -> None:
    async with door.session.ws_connect(f"{door.url}/ws") as ws:
        assert (await ask_socket(ws, "subscribe", params)).code == -32602


async def test_subscriptions_of_a_connection_have_a_limit(door: Door) -> None:
    async with door.session.ws_connect(f"{door.url}/ws") as ws:
        for _ in range(rpc_socket.SUBSCRIPTIONS_MAX):
            assert isinstance(await ask_socket(ws, "subscribe", ["blocks"]), jsonrpcclient.Ok)
        assert (await ask_socket(ws, "subscribe", ["blocks"])).code == -32005


async def test_connections_have_a_limit(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_socket, "SOCKETS_MAX", 0)
    assert (await door.get("/ws"))[0] == 503


async def test_calls_at_once_on_a_connection_have_a_limit(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_socket, "CALLS_MAX", 0)
    async with door.session.ws_connect(f"{door.url}/ws") as ws:
        await ws.send_str(jsonrpcclient.request_json("chain_status"))
        assert (await ws.receive_json(timeout=5))["error"]["code"] == -32003


async def test_a_message_past_its_limit_ends_the_connection(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_socket, "MESSAGE_BYTES_MAX", 1_000)
    async with door.session.ws_connect(f"{door.url}/ws") as ws:
        await ws.send_bytes(b" " * 1_001)
        message = await ws.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1009)
    assert isinstance(await door.ask("chain_status"), jsonrpcclient.Ok)


async def test_a_reader_that_is_too_slow_is_told_so_and_costs_nobody_else(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door.session.ws_connect(f"{door.url}/ws") as slow, door.session.ws_connect(f"{door.url}/ws") as quick:
        await ask_socket(slow, "subscribe", ["transactions"])
        await ask_socket(quick, "subscribe", ["blocks"])
        monkeypatch.setattr(rpc_socket, "QUEUE_BYTES_MAX", 600)  # a block fits, a transaction does not
        await door.ask("tx_submit", [ISSUE.raw.hex()])
        message = await slow.receive(timeout=5)
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 1013, "reader_too_slow")
        assert (await quick.receive_json(timeout=5))["params"]["item"]["height"] == 1
    assert isinstance(await door.ask("chain_status"), jsonrpcclient.Ok)


async def test_a_stopping_node_tells_its_connections(door: Door) -> None:
    async with door.session.ws_connect(f"{door.url}/ws") as ws:
        await ask_socket(ws, "subscribe", ["blocks"])
        stopping = asyncio.create_task(door.server.stop())
        message = await ws.receive(timeout=5)
        assert (message.data, message.extra) == (1001, "node_stops")
        await stopping
    assert door.service.subscribers == []


async def test_a_large_answer_that_nobody_takes_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "LARGE_SECONDS_MAX", 0.1)
    size = len((await door.get("/openrpc.json"))[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port, limit=1_024)
    writer.write(b"GET /openrpc.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)  # more than the sockets' buffers hold
    while "reader_too_slow" not in (await door.get("/metrics"))[1]:
        pass
    taken = 0
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1_000_000):
            taken += len(data)
    assert taken < 200 * size
    writer.close()
    assert isinstance(await door.ask("chain_status"), jsonrpcclient.Ok)


async def test_large_answers_at_once_have_a_limit(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await door.get("/openrpc.json"))[0] == 200
    monkeypatch.setattr(rpc, "BODIES_BYTES_MAX", 100_000)
    status, answer = await door.get("/openrpc.json")
    assert (status, orjson.loads(answer)["error"]["data"]["reason"]) == (503, "too_many_requests")


async def test_a_batch_whose_answers_are_too_large_is_refused_from_there_on(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_dispatch, "ANSWERS_BYTES_MAX", 1_000)
    requests = [jsonrpcclient.request("chain_status", id=number) for number in range(20)]
    _, body = await door.post(orjson.dumps(requests))
    answers = orjson.loads(body)
    assert [one["id"] for one in answers] == list(range(20))
    kinds = ["result" in one for one in answers]
    assert kinds == sorted(kinds, reverse=True)
    assert 1 < sum(kinds) < 10
    assert answers[-1]["error"]["data"]["reason"] == "answers_too_large"
