"""However a connection ends, a peer that goes on sending costs nothing from then on; and who is silent is let go.

What TLS reads is counted where it is decrypted, so that no test measures a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

import aiohttp
import pytest

from ledger.primitives import PublicKey
from p2p.budgets import TIME_BURST_MS, PeerLimits
from p2p.connection import CLOSE_NORMALLY
from p2p.messages import (
    FRAME_BYTES_MAX,
    BlockRequest,
    Disconnect,
    HeightStatus,
    PeerMessage,
    ProposalMessage,
    compute_cost_us,
    encode_frame,
)
from p2p.network import Network
from p2p.silence import DEAD_AFTER_TICKS
from p2p.wire import LAST_BYTES_MAX
from tests.integration.loopback import (
    KEYS,
    NODES,
    WAIT_SECONDS,
    RawPeer,
    Recorder,
    consortium,
    get_address,
    make_network,
    make_tls,
    raw_peer,
    running,
)

READ_BYTES_MAX: Final = LAST_BYTES_MAX + 2**20  # and what was under way in TLS when the connection ended
ANSWERED_BYTES_MAX: Final = 64 * 2**20  # TLS may read on for ten milliseconds
FLOOD: Final = bytes(2**20)
TICK_MS: Final = 50


class Decrypted(ssl.SSLObject):
    """Counts what TLS has read, by whether the side that reads it was dialled."""

    bytes_by_side: ClassVar[dict[bool, int]] = {}

    def read(self, *arguments: Any) -> Any:
        got = super().read(*arguments)
        self.bytes_by_side[bool(self.server_side)] += got if isinstance(got, int) else len(got)
        return got


class Bookkeeper(Recorder):
    """Notes how much TLS had read when a peer went down."""

    def __init__(self) -> None:
        super().__init__()
        self.read_at_down: dict[bool, int] = {}

    def on_peer_down(self, key: PublicKey, reason: str) -> None:
        self.read_at_down = dict(Decrypted.bytes_by_side)
        super().on_peer_down(key, reason)

    def count_read_since(self, *, dialled: bool) -> int:
        return Decrypted.bytes_by_side[dialled] - self.read_at_down[dialled]


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    Decrypted.bytes_by_side.update({True: 0, False: 0})
    monkeypatch.setattr(ssl.SSLContext, "sslobject_class", Decrypted)


async def flood(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Send for ever, and end when the connection does."""
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        while True:
            await ws.send_bytes(FLOOD)
            await asyncio.sleep(0)  # a transport that is about to close takes it without a pause


async def breach(_network: Network, raw: RawPeer) -> None:
    await raw.ws.send_bytes(b"\x00rubbish")


async def send_too_much(_network: Network, raw: RawPeer) -> None:
    await raw.ws.send_bytes(bytes(FRAME_BYTES_MAX + 2))


async def say_farewell(_network: Network, raw: RawPeer) -> None:
    await raw.ws.send_bytes(encode_frame(Disconnect("shutting_down")))


async def send_close(_network: Network, raw: RawPeer) -> None:
    await raw.ws.send_frame(CLOSE_NORMALLY, aiohttp.WSMsgType.CLOSE)


async def be_sent_away(network: Network, _raw: RawPeer) -> None:
    network.disconnect(KEYS[1], "stranger")


async def be_banned(network: Network, _raw: RawPeer) -> None:
    for _ in range(PeerLimits().faults_before_ban):
        network.report(KEYS[1], "block_invalid")


ENDS: Final[Mapping[str, Callable[[Network, RawPeer], Awaitable[None]]]] = {
    "message_unknown": breach,
    "message_too_large": send_too_much,
    "shutting_down": say_farewell,
    "connection_lost": send_close,
    "stranger": be_sent_away,
    "peer_banned": be_banned,
}


@pytest.mark.parametrize("reason", ENDS)
async def test_a_peer_that_goes_on_sending_after_the_end_is_not_read(reason: str) -> None:
    handler = Bookkeeper()
    network = make_network(NODES[0], handler)
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        await ENDS[reason](network, raw)
        await asyncio.wait_for(flood(raw.ws), WAIT_SECONDS)
        await handler.wait_until(lambda: handler.downs == [(KEYS[1], reason)])
        assert handler.count_read_since(dialled=True) <= READ_BYTES_MAX


async def test_a_peer_that_floods_a_node_that_stops_does_not_keep_it() -> None:
    handler = Bookkeeper()
    network = make_network(NODES[0], handler)
    async with raw_peer_of_started(network) as raw:
        await handler.wait_for_peers(KEYS[1])
        stopping = asyncio.create_task(network.stop())
        flooding = asyncio.create_task(flood(raw.ws))
        await asyncio.wait_for(stopping, WAIT_SECONDS)
        await asyncio.wait_for(flooding, WAIT_SECONDS)
        assert handler.downs == [(KEYS[1], "shutting_down")]
        assert handler.count_read_since(dialled=True) <= READ_BYTES_MAX


@asynccontextmanager
async def raw_peer_of_started(network: Network) -> AsyncIterator[RawPeer]:
    await network.start()
    async with raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        yield raw


async def test_a_peer_that_we_dialled_is_not_read_after_the_end_either() -> None:
    sender, receiver = Recorder(), Bookkeeper()
    listening = make_network(NODES[0], sender)
    proposal = ProposalMessage(b"proposal", FLOOD)
    async with running(listening):
        dialling = make_network(NODES[1], receiver, known=[get_address(listening, KEYS[0])])
        sender.greet = lambda key: [listening.send(key, proposal) for _ in range(30)]
        receiver.judge = lambda _message: dialling.disconnect(KEYS[0], "stranger")
        async with running(dialling):
            await receiver.wait_until(lambda: (KEYS[0], "stranger") in receiver.downs)
            await sender.wait_until(lambda: len(sender.downs) > 0)
            assert receiver.count_read_since(dialled=False) <= READ_BYTES_MAX


async def test_whoever_replaces_its_connection_and_floods_the_old_one_is_not_read_there() -> None:
    handler = Bookkeeper()
    network = make_network(NODES[0], handler)
    async with running(network), raw_peer(network, NODES[1]) as old, raw_peer(network, NODES[1]) as new:
        await old.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        await new.shake_hands()
        await asyncio.wait_for(flood(old.ws), WAIT_SECONDS)
        assert handler.downs == [(KEYS[1], "duplicate_connection")]
        assert handler.count_read_since(dialled=True) <= READ_BYTES_MAX
        await new.ws.send_bytes(encode_frame(HeightStatus(1)))
        await handler.wait_until(lambda: handler.messages == [(KEYS[1], HeightStatus(1))])


async def test_two_that_end_at_once_and_one_that_is_told_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2p.connection.FAREWELL_TIMEOUT_MS", 1000 * 60)
    async with asyncio.timeout(WAIT_SECONDS), consortium() as (networks, handlers):
        await networks[0].stop()
        await handlers[1].wait_until(lambda: handlers[1].downs == [(KEYS[0], "shutting_down")])
        await asyncio.gather(networks[1].stop(), networks[2].stop())


async def test_a_silent_peer_is_pinged_and_stays_while_it_answers() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler, tick_ms=TICK_MS)
    async with running(network), raw_peer(network, NODES[1], autoping=False) as raw:
        await raw.shake_hands()
        for _ in range(3):
            ping = await raw.ws.receive(timeout=WAIT_SECONDS)
            assert ping.type is aiohttp.WSMsgType.PING
            assert handler.downs == []
            await raw.ws.pong(ping.data)
        assert (await raw.ws.receive(timeout=WAIT_SECONDS)).type is aiohttp.WSMsgType.PING
        assert await raw.read_farewell() == "peer_silent"  # this one it has not answered
        await handler.wait_until(lambda: handler.downs == [(KEYS[1], "peer_silent")])
        assert network.refusals == {"peer_silent": 1}
        (standing,) = network.standings()
        assert (standing.score, standing.bans) == (0, 0)  # no mark against it


async def test_a_ping_is_answered() -> None:
    network = make_network(NODES[0], Recorder())
    async with running(network), raw_peer(network, NODES[1], autoping=False) as raw:
        await raw.shake_hands()
        await raw.ws.ping(b"are you there")
        pong = await raw.ws.receive(timeout=WAIT_SECONDS)
        assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"are you there")


async def test_a_peer_that_we_leave_unread_is_not_taken_for_dead() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler, tick_ms=TICK_MS, clock_ms=lambda: 0)  # so that no time is given back
    request, proposal = BlockRequest(from_height=1, count=64), ProposalMessage(b"proposal", 12 * FLOOD)
    affordable = 1000 * TIME_BURST_MS // compute_cost_us(encode_frame(request))
    sent: list[PeerMessage] = [*[request] * affordable, proposal, request]
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        for message in sent:
            await raw.ws.send_bytes(encode_frame(message))
        await handler.wait_until(lambda: len(handler.messages) == len(sent))  # the last one after a long pause
        (info,) = network.peers()
        assert info.paused_ms > DEAD_AFTER_TICKS * TICK_MS
        assert handler.downs == []


def ask_and_flood(port: int) -> None:
    """A request whose body never ends, by a client that does not read what TLS tells it."""
    context = make_tls(NODES[1]).dialling
    with (
        socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as connected,
        context.wrap_socket(connected) as tls,
        contextlib.suppress(ConnectionError, ssl.SSLError),
    ):
        tls.sendall(b"POST /p2p HTTP/1.1\r\nHost: node\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            tls.sendall(FLOOD)


async def test_a_socket_is_for_one_answer_and_hardly_read_after_it() -> None:
    network = make_network(NODES[0], Recorder())
    async with running(network):
        await asyncio.wait_for(asyncio.to_thread(ask_and_flood, network.port), WAIT_SECONDS)
        assert Decrypted.bytes_by_side[True] <= ANSWERED_BYTES_MAX
