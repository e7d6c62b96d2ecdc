"""Real networks on the loopback: peers find each other, and a stranger, rubbish or a flood harms nobody.

Every wait is for an event, with a limit; no test sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

import aiohttp
import pytest

from ledger.errors import RuleViolated
from ledger.primitives import PublicKey
from p2p.messages import (
    FRAME_BYTES_MAX,
    MESSAGE_TYPES,
    BlockRequest,
    ConsensusMessage,
    Disconnect,
    HeightStatus,
    PeerMessage,
    ProposalMessage,
    QueueClass,
    Transactions,
    decode_frame,
    encode_frame,
)
from p2p.network import HANDSHAKES_MAX, Network
from p2p.outbox import QUEUE_LIMITS
from p2p.peers import PeerAddress
from p2p.session import FrameToSend, LocalNode, Role, Session
from tests.p2p.dialogue import make_local

WAIT_SECONDS = 10
ENDINGS = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
NODES = [make_local(seed) for seed in (1, 2, 3)]
KEYS = [node.public_key for node in NODES]
STRANGER = make_local(9)


def read_clock_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Recorder:
    """A handler that keeps what it hears and lets a test wait until it has heard enough."""

    def __init__(self) -> None:
        self.ups: list[tuple[PublicKey, int]] = []
        self.downs: list[tuple[PublicKey, str]] = []
        self.messages: list[tuple[PublicKey, PeerMessage]] = []
        self.judge: Callable[[PeerMessage], None] = lambda _message: None
        self.greet: Callable[[PublicKey], object] = lambda _key: None
        self._heard = asyncio.Event()

    def on_peer_up(self, key: PublicKey, height: int) -> None:
        self.ups.append((key, height))
        self.greet(key)
        self._heard.set()

    def on_peer_down(self, key: PublicKey, reason: str) -> None:
        self.downs.append((key, reason))
        self._heard.set()

    def on_message(self, key: PublicKey, message: PeerMessage) -> None:
        self.judge(message)
        self.messages.append((key, message))
        self._heard.set()

    @property
    def connected(self) -> set[PublicKey]:
        """Whoever came up more often than it went down."""
        ups, downs = [key for key, _ in self.ups], [key for key, _ in self.downs]
        return {key for key in ups if ups.count(key) > downs.count(key)}

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                self._heard.clear()
                await self._heard.wait()

    async def wait_for_peers(self, *keys: PublicKey) -> None:
        await self.wait_until(lambda: self.connected == set(keys))


def make_network(
    local: LocalNode,
    handler: Recorder,
    *,
    known: Sequence[PeerAddress] = (),
    port: int = 0,
    allowed: Sequence[PublicKey] = KEYS,
    clock_ms: Callable[[], int] = read_clock_ms,
    handshake_timeout_ms: int = 5_000,
) -> Network:
    return Network(
        local=local,
        listen_port=port,
        addresses=known,
        is_allowed=lambda key: key in allowed,
        handler=handler,
        get_height=lambda: 42,
        clock_ms=clock_ms,
        random=Random(1),
        handshake_timeout_ms=handshake_timeout_ms,
    )


def get_address(network: Network, key: PublicKey) -> PeerAddress:
    return PeerAddress(key, "127.0.0.1", network.port)


@asynccontextmanager
async def running(*networks: Network) -> AsyncIterator[None]:
    try:
        for network in networks:
            await network.start()
        yield
    finally:
        await asyncio.gather(*(network.stop() for network in networks))


@asynccontextmanager
async def consortium() -> AsyncIterator[tuple[list[Network], list[Recorder]]]:
    """Three networks, each connected to both others; each dials those that started before it."""
    handlers = [Recorder() for _ in NODES]
    networks: list[Network] = []
    try:
        for node, handler in zip(NODES, handlers, strict=True):
            known = [get_address(network, key) for network, key in zip(networks, KEYS, strict=False)]
            networks.append(make_network(node, handler, known=known))
            await networks[-1].start()
        for i, handler in enumerate(handlers):
            await handler.wait_for_peers(*(key for key in KEYS if key != KEYS[i]))
        yield networks, handlers
    finally:
        await asyncio.gather(*(network.stop() for network in networks))


class RawPeer:
    """A peer driven by hand: it makes a true handshake as ``local``, then sends whatever it is told to."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, local: LocalNode) -> None:
        self.ws = ws
        self._session = Session(
            local,
            role=Role.DIALLER,
            nonce=b"r" * 32,
            height=0,
            listen_port=0,
            find_refusal=lambda _key: None,
            started_ms=0,
        )

    async def shake_hands(self) -> None:
        await self.ws.send_bytes(self._session.start(0).frame)
        while not self._session.is_established:
            for event in self._session.receive(await self.ws.receive_bytes(timeout=WAIT_SECONDS), 0):
                assert not hasattr(event, "reason"), event
                if isinstance(event, FrameToSend):
                    await self.ws.send_bytes(event.frame)

    async def read_farewell(self) -> str:
        """The reason of the Disconnect with which the node ends the connection."""
        while True:
            message = decode_frame(await self.ws.receive_bytes(timeout=WAIT_SECONDS))
            if isinstance(message, Disconnect):
                return message.reason


@asynccontextmanager
async def raw_peer(network: Network, local: LocalNode) -> AsyncIterator[RawPeer]:
    url = f"http://127.0.0.1:{network.port}/p2p"
    async with aiohttp.ClientSession() as client, client.ws_connect(url, max_msg_size=0) as ws:
        yield RawPeer(ws, local)


# ---- among friends -------------------------------------------------------------------------------------------------


async def test_three_nodes_find_each_other_and_learn_heights_and_names() -> None:
    async with consortium() as (networks, handlers):
        assert set(handlers[0].ups) == {(KEYS[1], 42), (KEYS[2], 42)}
        infos = {info.public_key: info for info in networks[0].peers()}
        assert infos[KEYS[1]].moniker == "node-2"
        assert infos[KEYS[2]].listen_port == networks[2].port
        assert not infos[KEYS[1]].is_dialled_by_us
        assert [standing.is_connected for standing in networks[2].standings()] == [True, True]


async def test_a_broadcast_reaches_all_but_the_excepted_and_is_counted() -> None:
    async with consortium() as (networks, handlers):
        vote, batch = ConsensusMessage(b"vote"), Transactions((b"a", b"b"))
        assert networks[0].broadcast(vote) == 2
        assert networks[0].broadcast(batch, except_=KEYS[1]) == 1
        await handlers[2].wait_until(lambda: len(handlers[2].messages) == 2)
        await handlers[1].wait_until(lambda: len(handlers[1].messages) == 1)
        assert {message for _, message in handlers[2].messages} == {vote, batch}
        assert handlers[1].messages == [(KEYS[0], vote)]
        sent = {info.public_key: info.sent for info in networks[0].peers()}
        assert sent[KEYS[2]]["Transactions"].count == 1
        assert "Transactions" not in sent[KEYS[1]]
        assert sent[KEYS[1]]["ConsensusMessage"].size_bytes == len(encode_frame(vote))


async def test_a_large_proposal_and_many_small_messages_arrive_whole_and_in_order() -> None:
    async with consortium() as (networks, handlers):
        proposal = ProposalMessage(b"p", bytes(range(256)) * 4 * 4096)  # 4 MiB
        votes = [ConsensusMessage(b"%d" % n) for n in range(2_000)]
        assert networks[0].send(KEYS[1], proposal)
        assert all(networks[0].send(KEYS[1], vote) for vote in votes)
        await handlers[1].wait_until(lambda: len(handlers[1].messages) == 2_001)
        assert [message for _, message in handlers[1].messages] == [proposal, *votes]


async def test_sending_to_a_peer_that_is_not_connected_says_so() -> None:
    network = make_network(NODES[0], Recorder())
    async with running(network):
        assert not network.send(KEYS[1], HeightStatus(1))
        assert network.broadcast(HeightStatus(1)) == 0


async def test_two_nodes_that_dial_each_other_end_with_one_connection_that_works_both_ways() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    first, second = Recorder(), Recorder()
    earlier = make_network(NODES[0], first, known=[PeerAddress(KEYS[1], "127.0.0.1", port)])
    async with running(earlier):
        later = make_network(NODES[1], second, port=port, known=[get_address(earlier, KEYS[0])])
        # What was queued on a connection that lost to its twin is gone: a node speaks again whenever a peer comes up.
        first.greet = lambda key: earlier.send(key, HeightStatus(1))
        second.greet = lambda key: later.send(key, HeightStatus(2))
        async with running(later):
            await first.wait_until(lambda: (KEYS[1], HeightStatus(2)) in first.messages)
            await second.wait_until(lambda: (KEYS[0], HeightStatus(1)) in second.messages)
            await first.wait_for_peers(KEYS[1])
            await second.wait_for_peers(KEYS[0])


async def test_a_second_connection_of_the_same_dialler_replaces_the_first() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    async with running(network), raw_peer(network, NODES[1]) as old, raw_peer(network, NODES[1]) as new:
        await old.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        await new.shake_hands()
        assert await old.read_farewell() == "duplicate_connection"
        assert handler.ups == [(KEYS[1], 0), (KEYS[1], 0)]
        assert handler.downs == [(KEYS[1], "duplicate_connection")]
        await new.ws.send_bytes(encode_frame(HeightStatus(1)))
        await handler.wait_until(lambda: handler.messages == [(KEYS[1], HeightStatus(1))])


async def test_a_node_that_restarts_is_found_again_without_help() -> None:
    async with consortium() as (networks, handlers):
        port = networks[0].port
        await networks[0].stop()
        await handlers[1].wait_for_peers(KEYS[2])
        await handlers[2].wait_for_peers(KEYS[1])
        assert (KEYS[0], "shutting_down") in handlers[1].downs
        reborn_handler = Recorder()
        reborn = make_network(NODES[0], reborn_handler, port=port)  # it knows nobody: the others redial
        async with running(reborn):
            await reborn_handler.wait_for_peers(KEYS[1], KEYS[2])
            await handlers[1].wait_for_peers(KEYS[0], KEYS[2])
            assert reborn.broadcast(HeightStatus(5)) == 2
            await handlers[2].wait_until(lambda: (KEYS[0], HeightStatus(5)) in handlers[2].messages)


async def test_a_port_in_use_is_an_error_at_start() -> None:
    first = make_network(NODES[0], Recorder())
    async with running(first):
        second = make_network(NODES[1], Recorder(), port=first.port)
        with pytest.raises(OSError, match="address already in use"):
            await second.start()


async def test_a_key_that_is_no_longer_allowed_is_disconnected_and_stays_out() -> None:
    allowed = list(KEYS)
    handler, guest_handler = Recorder(), Recorder()
    network = make_network(NODES[0], handler, allowed=allowed)
    async with running(network):
        guest = make_network(NODES[1], guest_handler, known=[get_address(network, KEYS[0])])
        async with running(guest):
            await handler.wait_for_peers(KEYS[1])
            allowed.remove(KEYS[1])
            network.recheck_allowed()
            await guest_handler.wait_until(lambda: (KEYS[0], "stranger") in guest_handler.downs)
            async with raw_peer(network, NODES[1]) as raw:
                with pytest.raises(AssertionError, match="stranger"):
                    await raw.shake_hands()


# ---- bad input -----------------------------------------------------------------------------------------------------


async def test_a_stranger_is_refused_with_a_reason_and_the_others_go_on() -> None:
    async with consortium() as (networks, handlers):
        async with raw_peer(networks[0], STRANGER) as raw:
            with pytest.raises(AssertionError, match="stranger"):
                await raw.shake_hands()
        assert networks[0].refusals["stranger"] == 1
        assert len(networks[0].peers()) == 2
        networks[0].broadcast(HeightStatus(1))
        await handlers[1].wait_until(lambda: len(handlers[1].messages) == 1)


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
    frame = encode_frame(BlockRequest(from_height=1, count=64))
    async with running(network):
        async with raw_peer(network, NODES[2]) as other, raw_peer(network, NODES[1]) as raw:
            await other.shake_hands()
            await raw.shake_hands()
            await handler.wait_for_peers(KEYS[1], KEYS[2])
            # Two budgets in a row: more than one minute's limit, wherever the minute turns.
            for _ in range(2 * MESSAGE_TYPES[BlockRequest].count_per_minute_max + 1):
                if raw.ws.closed:
                    break
                await raw.ws.send_bytes(frame)
            assert await raw.read_farewell() == "message_rate_exceeded"
            await handler.wait_until(lambda: (KEYS[1], "message_rate_exceeded") in handler.downs)
            await other.ws.send_bytes(encode_frame(HeightStatus(3)))
            await handler.wait_until(lambda: (KEYS[2], HeightStatus(3)) in handler.messages)
        assert network.standings()[0].banned_until_ms > 0 or network.standings()[1].banned_until_ms > 0


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


async def test_requests_that_are_no_websocket_get_a_clean_answer() -> None:
    network = make_network(NODES[0], Recorder())
    async with running(network), aiohttp.ClientSession() as client:
        base = f"http://127.0.0.1:{network.port}"
        for method, path, status in (("GET", "/p2p", 426), ("POST", "/p2p", 405), ("GET", "/other", 404)):
            async with client.request(method, base + path) as answer:
                assert answer.status == status
                assert "Traceback" not in await answer.text()


async def test_bytes_that_are_no_http_get_a_400_and_one_line_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    network = make_network(NODES[0], Recorder())
    async with running(network):
        for rubbish in (b"\x16\x03\x01\x00rubbish\r\n\r\n", b"GET /p2p HTTP/1.1\r\nbroken header\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
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
        url = f"http://127.0.0.1:{network.port}/p2p"
        async with aiohttp.ClientSession() as client:
            silent = [await client.ws_connect(url) for _ in range(HANDSHAKES_MAX)]
            for ws in silent:
                await ws.receive_bytes(timeout=WAIT_SECONDS)  # the node's hello: it now waits for ours
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await client.ws_connect(url)
            assert len(network.peers()) == 1
            for ws in silent:
                await ws.close()


async def test_a_peer_or_a_socket_that_stays_silent_is_let_go() -> None:
    network = make_network(NODES[0], Recorder(), handshake_timeout_ms=100)
    async with running(network):
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        async with raw_peer(network, NODES[1]) as raw:
            assert await raw.read_farewell() == "handshake_timeout"
        assert await asyncio.wait_for(reader.read(), WAIT_SECONDS) == b""
        writer.close()
        await writer.wait_closed()


async def test_a_proven_peer_outlives_the_handshake_timeout() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler, handshake_timeout_ms=200)
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        async with raw_peer(network, NODES[2]) as silent:
            assert await silent.read_farewell() == "handshake_timeout"  # began later, so the first timer has rung
        await raw.ws.send_bytes(encode_frame(HeightStatus(1)))
        await handler.wait_until(lambda: handler.messages == [(KEYS[1], HeightStatus(1))])


async def test_a_peer_that_vanishes_without_a_word_goes_down() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        with socket.socket(fileno=os.dup(raw.ws.get_extra_info("socket").fileno())) as connected:
            connected.shutdown(socket.SHUT_RDWR)
        await handler.wait_until(lambda: handler.downs == [(KEYS[1], "connection_lost")])
