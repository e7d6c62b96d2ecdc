"""Real networks on the loopback: a stranger, rubbish, a flood or a silent peer harms nobody.

Every wait is for an event, with a limit; no test sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from contextlib import AsyncExitStack
from functools import partial

import aiohttp
import pytest

from ledger.errors import RuleViolated
from p2p.budgets import TIME_BURST_MS
from p2p.messages import (
    FRAME_BYTES_MAX,
    MESSAGE_TYPES,
    BlockRequest,
    ConsensusMessage,
    HeightStatus,
    PeerMessage,
    QueueClass,
    Transactions,
    compute_cost_us,
    encode_frame,
)
from p2p.network import HANDSHAKES_MAX, SOCKETS_BURST
from p2p.outbox import QUEUE_LIMITS
from tests.integration.loopback import (
    ENDINGS,
    KEYS,
    NODES,
    STRANGER,
    WAIT_SECONDS,
    Recorder,
    consortium,
    get_url,
    make_network,
    make_tls,
    raw_peer,
    read_clock_ms,
    running,
)
from tests.integration.serving import close


async def test_a_stranger_does_not_get_past_tls_and_the_others_go_on() -> None:
    async with consortium() as (networks, handlers):
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            async with raw_peer(networks[0], STRANGER):
                pass
        assert set(networks[0].refusals) == {"stranger"}
        assert len(networks[0].peers()) == 2
        networks[0].broadcast(HeightStatus(1))
        await handlers[1].wait_until(lambda: len(handlers[1].messages) == 1)


async def test_a_certificate_lets_nobody_speak_for_another_key() -> None:
    network = make_network(NODES[0], Recorder())
    async with running(network):
        for local, reason in ((STRANGER, "stranger"), (NODES[2], "certificate_of_another_key")):
            async with raw_peer(network, local, certified=NODES[1]) as raw:
                with pytest.raises(AssertionError, match=reason):
                    await raw.shake_hands()
            assert network.refusals[reason] == 1


async def test_a_node_without_a_certificate_is_refused() -> None:
    network = make_network(NODES[0], Recorder())
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    old = make_tls(NODES[1]).dialling
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    async with running(network), aiohttp.ClientSession() as client:
        for context in (bare, old):
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await client.ws_connect(get_url(network), ssl=context)
        assert set(network.refusals) == {"tls_handshake_failed"}


@pytest.mark.parametrize(
    ("rubbish", "reason"),
    [
        (b"\x00rubbish", "message_unknown"),
        (bytes((MESSAGE_TYPES[BlockRequest].tag,)) + b"\xc1", "message_malformed"),
        (bytes((MESSAGE_TYPES[ConsensusMessage].tag,)) + bytes(70_000), "message_too_large"),
        (bytes(FRAME_BYTES_MAX + 2), "message_too_large"),
        ("text", "message_malformed"),
    ],
    ids=["unknown", "malformed", "above_its_type", "above_any_type", "text"],
)
async def test_a_proven_peer_that_sends_rubbish_is_disconnected_with_a_reason_and_banned(
    rubbish: bytes | str, reason: str
) -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    async with running(network):
        async with raw_peer(network, NODES[1]) as raw:
            await raw.shake_hands()
            await handler.wait_for_peers(KEYS[1])
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # it may be cut off while it sends
                await (raw.ws.send_str(rubbish) if isinstance(rubbish, str) else raw.ws.send_bytes(rubbish))
            await handler.wait_until(lambda: handler.downs == [(KEYS[1], reason)])
        (standing,) = network.standings()
        assert standing.last_misbehaviour == reason
        async with raw_peer(network, NODES[1]) as raw:
            with pytest.raises(AssertionError, match="peer_banned"):
                await raw.shake_hands()
        async with raw_peer(network, NODES[2]) as other:
            await other.shake_hands()
            await handler.wait_for_peers(KEYS[2])


async def test_a_ban_ends_by_the_clock() -> None:
    handler = Recorder()
    skew_ms = [0]
    network = make_network(NODES[0], handler, clock_ms=lambda: read_clock_ms() + skew_ms[0])
    async with running(network):
        async with raw_peer(network, NODES[1]) as raw:
            await raw.shake_hands()
            await raw.ws.send_bytes(b"\x00")
            assert await raw.read_farewell() == "message_unknown"
        skew_ms[0] = network.standings()[0].banned_until_ms
        async with raw_peer(network, NODES[1]) as raw:
            await raw.shake_hands()
            await handler.wait_for_peers(KEYS[1])


async def test_rubbish_instead_of_a_handshake_is_refused_and_bans_nobody() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    async with running(network):
        async with raw_peer(network, NODES[1]) as raw:
            await raw.ws.send_bytes(b"\xffrubbish")
            assert await raw.read_farewell() == "message_unknown"
        assert handler.ups == []
        async with raw_peer(network, NODES[1]) as raw:
            await raw.shake_hands()
            await handler.wait_for_peers(KEYS[1])


async def test_a_flooder_is_disconnected_with_a_reason_and_the_others_go_on() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    frame = encode_frame(HeightStatus(1))
    async with running(network):
        async with raw_peer(network, NODES[2]) as other, raw_peer(network, NODES[1]) as raw:
            await other.shake_hands()
            await raw.shake_hands()
            await handler.wait_for_peers(KEYS[1], KEYS[2])
            # Two budgets in a row: more than one minute's limit, wherever the minute turns.
            for _ in range(2 * MESSAGE_TYPES[HeightStatus].count_per_minute_max + 1):
                if raw.ws.closed:
                    break
                await raw.ws.send_bytes(frame)
            assert await raw.read_farewell() == "message_rate_exceeded"
            await handler.wait_until(lambda: (KEYS[1], "message_rate_exceeded") in handler.downs)
            await other.ws.send_bytes(encode_frame(HeightStatus(3)))
            await handler.wait_until(lambda: (KEYS[2], HeightStatus(3)) in handler.messages)
        assert network.standings()[0].banned_until_ms > 0 or network.standings()[1].banned_until_ms > 0


async def test_a_peer_that_uses_more_than_its_share_waits_and_the_others_go_on() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    request = BlockRequest(from_height=1, count=64)
    affordable = 1000 * TIME_BURST_MS // compute_cost_us(encode_frame(request))
    async with running(network), raw_peer(network, NODES[2]) as other, raw_peer(network, NODES[1]) as raw:
        await other.shake_hands()
        await raw.shake_hands()
        await handler.wait_for_peers(KEYS[1], KEYS[2])
        for _ in range(3 * affordable):
            await raw.ws.send_bytes(encode_frame(request))
        await handler.wait_until(lambda: handler.messages.count((KEYS[1], request)) == affordable)
        await other.ws.send_bytes(encode_frame(HeightStatus(3)))
        await handler.wait_until(lambda: (KEYS[2], HeightStatus(3)) in handler.messages)
        assert handler.messages.count((KEYS[1], request)) < 2 * affordable
        assert {info.public_key: info.paused_ms > 0 for info in network.peers()} == {KEYS[1]: True, KEYS[2]: False}
        assert network.refusals == {}


async def test_what_ended_connections_leave_is_collected_after_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    handler, collected = Recorder(), asyncio.Event()
    monkeypatch.setattr("p2p.network.COLLECT_AFTER_CONNECTIONS", 3)
    monkeypatch.setattr("p2p.network.gc.collect", collected.set)
    network = make_network(NODES[0], handler)
    async with running(network):
        for ended in range(3):
            assert not collected.is_set()
            async with raw_peer(network, NODES[1]) as raw:
                await raw.shake_hands()
            await handler.wait_until(partial(has_lost, handler, ended + 1))
        await asyncio.wait_for(collected.wait(), WAIT_SECONDS)


def has_lost(handler: Recorder, count: int) -> bool:
    return len(handler.downs) == count


async def test_guests_share_one_part_of_our_time_and_a_validator_has_its_own() -> None:
    handler, allowed = Recorder(), [*KEYS, STRANGER.public_key]
    network = make_network(NODES[0], handler, allowed=allowed, validators=KEYS[:2], clock_ms=lambda: 0)
    request = encode_frame(BlockRequest(1, 1))
    burst = TIME_BURST_MS * 1000 // compute_cost_us(request)
    async with running(network), AsyncExitStack() as stack:
        for local, count in ((NODES[1], burst - 1), (STRANGER, burst // 2), (NODES[2], burst // 2 + 1)):
            raw = await stack.enter_async_context(raw_peer(network, local))
            await raw.shake_hands()
            before = len(handler.messages)
            for _ in range(count):
                await raw.ws.send_bytes(request)
            await handler.wait_until(partial(has_heard, handler, before + count))
        paused = {info.public_key for info in network.peers() if info.paused_ms > 0}
        assert paused == {NODES[2].public_key}  # who came when the others had used it up


async def test_whoever_comes_anew_has_no_new_share() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler, clock_ms=lambda: 0)  # so that no time is given back
    request = encode_frame(BlockRequest(1, 1))
    burst = TIME_BURST_MS * 1000 // compute_cost_us(request)
    async with running(network):
        for count, heard, is_over in ((burst - 1, burst - 1, False), (2, burst + 1, True)):
            async with raw_peer(network, NODES[1]) as raw:
                await raw.shake_hands()
                for _ in range(count):
                    await raw.ws.send_bytes(request)
                await handler.wait_until(partial(has_heard, handler, heard))
                assert [info.paused_ms > 0 for info in network.peers()] == [is_over]
            await handler.wait_until(lambda: handler.connected == set())


def has_heard(handler: Recorder, count: int) -> bool:
    return len(handler.messages) == count


async def test_sockets_of_one_address_have_a_rate() -> None:
    network = make_network(NODES[0], Recorder(), clock_ms=lambda: 0)
    async with running(network):
        for _ in range(SOCKETS_BURST + 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
            await close(writer)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), WAIT_SECONDS) == b""
        assert network.refusals["too_many_sockets"] > 0


async def test_a_message_that_the_node_rejects_costs_the_peer_its_connection_and_score() -> None:
    handler = Recorder()

    def refuse(_message: PeerMessage) -> None:
        raise RuleViolated("vote_signature_invalid", "height 3")

    handler.judge = refuse
    network = make_network(NODES[0], handler)
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        await raw.ws.send_bytes(encode_frame(ConsensusMessage(b"bad vote")))
        assert await raw.read_farewell() == "vote_signature_invalid"
        (standing,) = network.standings()
        assert (standing.score < 0, standing.banned_until_ms) == (True, 0)


async def test_our_own_mistake_in_a_callback_ends_one_connection_with_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = Recorder()

    def fail(_message: PeerMessage) -> None:
        raise AssertionError("ours")

    handler.judge = fail
    network = make_network(NODES[0], handler)
    async with running(network):
        async with raw_peer(network, NODES[1]) as raw:
            await raw.shake_hands()
            await raw.ws.send_bytes(encode_frame(HeightStatus(1)))
            await handler.wait_until(lambda: handler.downs == [(KEYS[1], "internal_error")])
        assert "ours" in caplog.text
        async with raw_peer(network, NODES[1]) as raw:
            await raw.shake_hands()


async def test_a_peer_that_stops_reading_loses_transactions_first_and_then_its_connection() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    limits = QUEUE_LIMITS
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        batch = Transactions((bytes(1024 * 1024),))
        queued = [network.send(KEYS[1], batch) for _ in range(limits[QueueClass.TRANSACTIONS].bytes_max // 2**20 + 1)]
        assert not queued[-1]
        assert network.peers()[0].dropped[QueueClass.TRANSACTIONS] > 0
        vote = ConsensusMessage(b"vote")
        while network.send(KEYS[1], vote):
            pass
        await handler.wait_until(lambda: handler.downs == [(KEYS[1], "consensus_queue_full")])
        assert network.refusals["consensus_queue_full"] == 1
        async with asyncio.timeout(WAIT_SECONDS):
            await network.stop()  # the peer still does not read: the socket is shut by force
            while (message := await raw.ws.receive()).type not in ENDINGS:
                assert message.type is aiohttp.WSMsgType.BINARY


async def test_when_too_much_waits_for_single_peers_the_one_for_whom_most_waits_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("p2p.network.HELD_BYTES_MAX", 8 * 2**20)
    handler = Recorder()
    network = make_network(NODES[0], handler)
    batch = Transactions((bytes(2**20 - 100),))
    async with running(network), raw_peer(network, NODES[1]) as first, raw_peer(network, NODES[2]) as second:
        await first.shake_hands()
        await second.shake_hands()
        await handler.wait_for_peers(KEYS[1], KEYS[2])
        # No task has a turn in between: all that is sent waits.
        assert [network.broadcast(batch) for _ in range(5)] == [2] * 5  # one copy for all, so it does not count
        assert [network.send(KEYS[1], batch) for _ in range(5)] == [True] * 5
        assert [network.send(KEYS[2], batch) for _ in range(3)] == [True] * 3
        assert network.refusals["peer_too_slow"] == 0
        assert network.send(KEYS[2], batch)
        assert network.refusals == {"peer_too_slow": 1}
        assert [network.send(KEYS[2], batch) for _ in range(4)] == [True] * 4  # what waited for the first is forgotten
        assert await first.read_farewell() == "peer_too_slow"
        await handler.wait_until(lambda: handler.downs == [(KEYS[1], "peer_too_slow")])
        assert all(one.score == 0 for one in network.standings())
        assert network.refusals == {"peer_too_slow": 1}


async def test_requests_that_are_no_websocket_get_a_clean_answer() -> None:
    network = make_network(NODES[0], Recorder())
    async with running(network), aiohttp.ClientSession() as client:
        base, tls = get_url(network).removesuffix("/p2p"), make_tls(NODES[1]).dialling
        for method, path, status in (("GET", "/p2p", 426), ("POST", "/p2p", 405), ("GET", "/other", 404)):
            async with client.request(method, base + path, ssl=tls) as answer:
                assert answer.status == status
                assert "Traceback" not in await answer.text()


async def test_bytes_that_are_no_tls_get_no_answer() -> None:
    network = make_network(NODES[0], Recorder())
    async with running(network):
        for rubbish in (b"GET /p2p HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00rubbish", b"\0" * 70_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
            writer.write(rubbish)
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in await asyncio.wait_for(reader.read(), WAIT_SECONDS)
            await close(writer)
        assert network.refusals == {"tls_handshake_failed": 3}


async def test_bytes_that_are_no_http_get_a_400_and_one_line_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    network = make_network(NODES[0], Recorder())
    async with running(network):
        for rubbish in (b"\x16\x03\x01\x00rubbish\r\n\r\n", b"GET /p2p HTTP/1.1\r\nbroken header\r\n\r\n"):
            tls = make_tls(NODES[1]).dialling
            reader, writer = await asyncio.open_connection("127.0.0.1", network.port, ssl=tls)
            writer.write(rubbish)
            answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
            assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
            writer.close()
            await writer.wait_closed()
    assert "Traceback" not in caplog.text


async def test_silent_handshakes_take_few_places_and_no_place_of_a_proven_peer() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        url = get_url(network)
        tls = make_tls(NODES[2]).dialling
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as client:
            silent = [await client.ws_connect(url) for _ in range(HANDSHAKES_MAX)]
            for ws in silent:
                await ws.receive_bytes(timeout=WAIT_SECONDS)  # the node's hello: it now waits for ours
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await client.ws_connect(url)
            assert len(network.peers()) == 1
            for ws in silent:
                await ws.close()


async def test_a_peer_or_a_socket_that_stays_silent_is_let_go() -> None:
    network = make_network(NODES[0], Recorder(), handshake_timeout_ms=500)
    async with running(network):
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        async with raw_peer(network, NODES[1]) as raw:
            assert await raw.read_farewell() == "handshake_timeout"
        assert await asyncio.wait_for(reader.read(), WAIT_SECONDS) == b""
        writer.close()
        await writer.wait_closed()


async def test_a_proven_peer_outlives_the_handshake_timeout() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler, handshake_timeout_ms=500)
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        async with raw_peer(network, NODES[2]) as silent:
            assert await silent.read_farewell() == "handshake_timeout"  # began later, so the first timer has rung
        await raw.ws.send_bytes(encode_frame(HeightStatus(1)))
        await handler.wait_until(lambda: handler.messages == [(KEYS[1], HeightStatus(1))])
