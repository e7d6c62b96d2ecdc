"""The Python clients against a node's door on a real socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest
import pytest_asyncio
from aiohttp import web

from ledger.errors import NotAdmitted
from ledger.primitives import Hash, format_address
from node.client import (
    Client,
    NodeUnreachable,
    NotYetCommitted,
    Refused,
    RpcError,
    Submitted,
    SyncClient,
    UnknownItem,
)
from node.rpc import RpcServer
from tests.node.fake_service import ALICE, BOB, UTILITY, FakeService, make_issue, make_transfer

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest_asyncio.fixture
async def service() -> FakeService:
    return FakeService()


@pytest_asyncio.fixture
async def client(service: FakeService) -> AsyncIterator[Client]:
    server = RpcServer(service, port=0)
    await server.start()
    salts = count()
    try:
        url = f"http://127.0.0.1:{server.port}/"
        async with Client(url, key=UTILITY, make_salt=lambda: next(salts).to_bytes(8, "big")) as made:
            yield made
    finally:
        await server.stop()


async def test_a_payload_is_signed_submitted_and_committed(client: Client) -> None:
    issued = await client.submit(make_issue("p1"))
    assert (issued.status, issued.height, issued.index) == ("committed", 1, 0)
    moved = await client.submit(make_transfer(3), key=ALICE)
    assert moved.events[0]["event"] == "credit.moved"
    found = await client.tx_get(moved.tx_id)
    assert found["transaction"]["salt"] == "0000000000000001"
    assert found["transaction"]["valid_until"] == 500
    assert (await client.wait(moved.tx_id))["height"] == 2


async def test_a_refusal_raises_with_the_ledgers_reason(client: Client) -> None:
    with pytest.raises(Refused, match="credits_not_sufficient") as caught:
        await client.submit(make_transfer(3), key=ALICE)
    assert caught.value.reason == "credits_not_sufficient"
    assert format_address(ALICE.address) in caught.value.item


async def test_many_are_submitted_at_once_and_each_has_its_outcome(client: Client) -> None:
    first, second, third = await client.submit_many([make_issue("a"), make_issue("b", cents=10**12), make_issue("c")])
    assert isinstance(first, Submitted)
    assert isinstance(second, Refused)
    assert second.reason == "issuer_limit_exceeded"
    assert isinstance(third, Submitted)
    assert await client.submit_many([]) == []


async def test_what_is_not_committed_in_time_can_be_waited_for(client: Client, service: FakeService) -> None:
    service.commits = False
    with pytest.raises(NotYetCommitted) as caught:
        await client.submit(make_issue("p1"), timeout_ms=0)
    tx_id = caught.value.tx_id
    assert tx_id is not None
    with pytest.raises(NotYetCommitted):
        await client.wait(tx_id, timeout_ms=0)
    waiting = asyncio.create_task(client.wait(tx_id))
    service.commit()
    assert (await waiting)["status"] == "committed"


async def test_waiting_for_what_was_dropped_tells_why(client: Client, service: FakeService) -> None:
    service.commits = False
    submitted = await client.submit(make_issue("p1"), wait="admitted")
    service.drop(Hash(bytes.fromhex(submitted.tx_id)), NotAdmitted("transaction_expired", "valid until 3"))
    with pytest.raises(Refused, match="transaction_expired"):
        await client.wait(submitted.tx_id)


async def test_questions_have_methods_and_their_errors_kinds(client: Client) -> None:
    assert (await client.chain_status())["chain_id"] == "fake-1"
    assert (await client.participant_get(format_address(BOB.address)))["label"] == "Bob"
    assert (await client.rpc_discover())["openrpc"] == "1.3.2"
    with pytest.raises(UnknownItem, match="transaction_not_found"):
        await client.tx_get("00" * 32)
    with pytest.raises(RpcError, match="hex_invalid") as caught:
        await client.tx_get("zz")
    assert caught.value.code == -32602
    with pytest.raises(RpcError, match="method_unknown"):
        await client.call("no_such_method")


async def test_a_subscription_is_iterated(client: Client) -> None:
    async with client.subscribe("events", {"event": "credit.issued"}) as events:
        await client.submit(make_issue("p1"))
        async for event in events:
            assert event["cents"] == 1_000
            break


async def test_a_subscription_ends_with_the_reason_that_the_node_gives(service: FakeService) -> None:
    server = RpcServer(service, port=0)
    await server.start()
    async with Client(f"http://127.0.0.1:{server.port}") as client, client.subscribe("blocks") as blocks:
        service.commit()
        assert (await anext(blocks))["height"] == 1
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(NodeUnreachable, match="node_stops"):
            await anext(blocks)
        await stopping


async def test_a_wrong_subscription_raises(client: Client) -> None:
    with pytest.raises(RpcError, match="choice_unknown"):
        await anext(client.subscribe("weather"))


async def test_without_a_key_nothing_is_signed(client: Client) -> None:
    client.key = None
    with pytest.raises(ValueError, match="no key"):
        await client.submit(make_issue("p1"))


@pytest.mark.parametrize("url", [NOBODY, "http://no.such.host.invalid", "not a url", "ftp://127.0.0.1"])
async def test_a_node_that_is_not_there_is_unreachable(url: str) -> None:
    async with Client(url, attempts_max=1) as client:
        with pytest.raises(NodeUnreachable):
            await client.chain_status()
        with pytest.raises(NodeUnreachable):
            await anext(client.subscribe("blocks"))


class Flaky:
    """A server that breaks the connection a number of times before it answers."""

    def __init__(self, breaks: int) -> None:
        self.breaks = breaks
        self.calls = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.calls += 1
        await request.read()
        if self.calls <= self.breaks:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"jsonrpc": "2.0", "result": {"calls": self.calls}, "id": 1})

    async def start(self) -> tuple[str, web.ServerRunner]:
        runner = web.ServerRunner(web.Server(self.answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}", runner


@pytest.mark.parametrize(("breaks", "attempts_max", "calls"), [(1, 2, 2), (2, 2, 2)])
async def test_a_question_is_repeated_when_the_connection_breaks(breaks: int, attempts_max: int, calls: int) -> None:
    flaky = Flaky(breaks)
    url, runner = await flaky.start()
    async with Client(url, attempts_max=attempts_max) as client:
        if breaks < attempts_max:
            assert await client.chain_status() == {"calls": calls}
        else:
            with pytest.raises(NodeUnreachable, match="the connection broke"):
                await client.chain_status()
    assert flaky.calls == calls
    await runner.cleanup()


async def test_a_submission_is_not_repeated_when_the_connection_breaks() -> None:
    flaky = Flaky(1)
    url, runner = await flaky.start()
    async with Client(url) as client:
        with pytest.raises(NodeUnreachable):
            await client.call("tx_submit", transaction="00")
    assert flaky.calls == 1
    await runner.cleanup()


@pytest.fixture
def served() -> Iterator[tuple[str, FakeService]]:
    """A node in a thread of its own, as a blocking program meets it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    service = FakeService()
    server = RpcServer(service, port=0)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    yield f"http://127.0.0.1:{server.port}", service
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_the_blocking_client_does_the_same(served: tuple[str, FakeService]) -> None:
    url, _ = served
    with SyncClient(url, key=UTILITY) as client:
        assert client.chain_status()["height"] == 0
        issued = client.submit(make_issue("p1"))
        assert client.wait(issued.tx_id)["height"] == 1
        signed = client.sign(make_transfer(1), key=ALICE)
        assert client.submit_signed(signed).tx_id == signed.tx_id
        outcomes = client.submit_many([make_issue("p1"), make_issue("p2")])
        assert [type(one) for one in outcomes] == [Refused, Submitted]
        third = client.sign(make_issue("p3"))
        (outcome,) = client.submit_many_signed([third])
        assert isinstance(outcome, Submitted)
        raw = client.sign(make_issue("p4")).raw.hex()
        assert client.tx_submit(raw, wait="committed", timeout_ms=1_000)["status"] == "committed"
        assert [one["status"] for one in client.tx_submit_many([raw, "00"])] == ["refused", "refused"]
        with pytest.raises(Refused, match="payment_reference_already_used"):
            client.submit(make_issue("p1"))
    client.close()  # twice is fine


def test_the_blocking_client_hears_subscriptions(served: tuple[str, FakeService]) -> None:
    url, _ = served
    with SyncClient(url, key=UTILITY) as client:
        blocks = client.subscribe("blocks")
        client.submit(make_issue("p1"))
        assert next(blocks)["height"] == 1
        client.submit(make_issue("p2"))
        assert next(blocks)["height"] == 2
        assert client.unsubscribe(blocks)
        assert not client.unsubscribe(blocks)
        with client.subscribe("blocks") as never_read:
            pass
        assert not never_read.close()
