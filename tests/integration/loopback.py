"""Networks on the loopback and a peer that is driven by hand, for the tests of p2p over real sockets.

Every wait is for an event, with a limit; nothing sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

import aiohttp

from ledger.primitives import PublicKey
from p2p.messages import Disconnect, PeerMessage, decode_frame
from p2p.network import Network
from p2p.peers import PeerAddress
from p2p.session import Channel, FrameToSend, LocalNode, Role, Session
from p2p.silence import TICK_MS
from p2p.tls import PeerTls
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
    validators: Sequence[PublicKey] | None = None,
    tick_ms: int = TICK_MS,
) -> Network:
    return Network(
        local=local,
        listen_port=port,
        addresses=known,
        list_allowed=lambda: allowed,
        handler=handler,
        get_height=lambda: 42,
        clock_ms=clock_ms,
        random=Random(1),
        handshake_timeout_ms=handshake_timeout_ms,
        list_validators=None if validators is None else lambda: validators,
        tick_ms=tick_ms,
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

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, local: LocalNode, channel: Channel) -> None:
        self.ws = ws
        self._session = Session(
            local,
            role=Role.DIALLER,
            channel=channel,
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
async def raw_peer(
    network: Network, local: LocalNode, *, certified: LocalNode | None = None, autoping: bool = True
) -> AsyncIterator[RawPeer]:
    """A connection as ``local``, over TLS with the certificate of ``certified`` (``local`` itself, if not given)."""
    tls = make_tls(certified or local)
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(get_url(network), ssl=tls.dialling, max_msg_size=0, autoping=autoping) as ws,
    ):
        yield RawPeer(ws, local, tls.read_channel(ws.get_extra_info("ssl_object")))


def make_tls(local: LocalNode) -> PeerTls:
    """The TLS side of a node that knows all of ``NODES``."""
    tls = PeerTls(local)
    tls.trust(KEYS)
    return tls


def get_url(network: Network) -> str:
    return f"https://127.0.0.1:{network.port}/p2p"
