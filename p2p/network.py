"""The node's connections: listens, dials, redials for ever, and moves frames between sockets and sessions.

Touches the world (sockets, timers, random nonces). What a frame means is decided in session.py, whom to dial in
peers.py, and connection.py serves one socket; no task is ever made for a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from random import Random
from typing import Final, Protocol

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from yarl import URL

from ledger.errors import Rejected
from ledger.primitives import PublicKey
from p2p.budgets import DEFAULT_LIMITS, PeerLimits, TimeBudget, TokenBuckets
from p2p.connection import Connection, PeerInfo
from p2p.messages import FRAME_BYTES_MAX, NONCE_BYTES, PeerMessage, encode_frame
from p2p.outbox import Held
from p2p.peers import PROTOCOL_BREACHES, PeerAddress, PeerBook, PeerStanding, is_newcomer_kept
from p2p.session import (
    HANDSHAKE_TIMEOUT_MS,
    FrameToSend,
    LocalNode,
    MessageReceived,
    PeerAuthenticated,
    PeerLeft,
    PeerRefused,
    Role,
    Session,
    SessionEvent,
)
from p2p.silence import TICK_MS
from p2p.tls import PeerTls
from p2p.wire import DialledWebSocket, ListeningWebSocket, WebSocket, Wire

PATH: Final = "/p2p"
DIAL_TIMEOUT_MS: Final = 5_000
DIAL_CHECK_MS_MAX: Final = 10_000
HELD_BYTES_MAX: Final = 128 * 1024 * 1024  # waiting for single peers: the answers of ten that catch up at once
SOCKETS_MAX: Final = 128  # open inbound sockets, proven or not; a consortium has at most 40 authorities
TLS_HANDSHAKES_MAX: Final = 32  # inbound, under way
SOCKETS_PER_SECOND: Final = 5  # from one address, after a burst; each costs two milliseconds of TLS
SOCKETS_BURST: Final = 100
ADDRESSES_MAX: Final = 4_096  # whose rate is remembered
ACCEPT_PAUSE_SECONDS: Final = 1  # after the system had no socket to give
# For the other side to confirm the end of TLS: meanwhile TLS reads whatever it sends. Only sockets that never became a
# connection end this way, connections are cut.
TLS_CLOSE_SECONDS: Final = 0.01
# An ended connection is left by aiohttp and ssl as a cycle, with up to 200 KB of what it had sent.
COLLECT_AFTER_CONNECTIONS: Final = 64
HANDSHAKES_MAX: Final = 8  # inbound, unproven; each may hold one frame of FRAME_BYTES_MAX

_logger = logging.getLogger(__name__)


class NetworkHandler(Protocol):
    """Who hears of peers and messages. Called from the event loop, one call at a time, and must not block.

    Up and down strictly alternate for a key. What was queued on a connection that went down, also on one that its
    twin replaced, may be lost: whoever needs it heard says it again when the peer comes up.

    ``on_message`` may raise ``Rejected``: the peer is then disconnected with that reason and loses score. Any other
    exception is our mistake: it is logged and ends that connection.
    """

    def on_peer_up(self, key: PublicKey, height: int) -> None: ...

    def on_peer_down(self, key: PublicKey, reason: str) -> None: ...

    def on_message(self, key: PublicKey, message: PeerMessage) -> None: ...


class Network:
    """All connections of one node.

    ``clock_ms`` should be monotonic. ``list_allowed`` is asked at every handshake, so the set may change;
    ``recheck_allowed`` applies a change to those already connected. Who is not of ``list_validators`` shares one
    validator's share of our time with all others who are not, so that finality does not wait for guests, however many.
    ``random`` only spreads redials.
    """

    def __init__(
        self,
        *,
        local: LocalNode,
        listen_port: int,
        addresses: Sequence[PeerAddress],
        list_allowed: Callable[[], Collection[PublicKey]],
        handler: NetworkHandler,
        get_height: Callable[[], int],
        clock_ms: Callable[[], int],
        random: Random,
        listen_host: str = "127.0.0.1",
        make_nonce: Callable[[], bytes] = lambda: secrets.token_bytes(NONCE_BYTES),
        limits: PeerLimits = DEFAULT_LIMITS,
        handshake_timeout_ms: int = HANDSHAKE_TIMEOUT_MS,
        list_validators: Callable[[], Collection[PublicKey]] | None = None,
        tick_ms: int = TICK_MS,
    ) -> None:
        self._local = local
        self._limits = limits
        self._listen_host, self._listen_port = listen_host, listen_port
        self._list_allowed = list_allowed
        self._list_validators = list_validators
        self._guests_time = TimeBudget(limits.time_share_percent, clock_ms())
        self._times: dict[PublicKey, TimeBudget] = {}  # of every allowed key that came, since it may come anew
        self._tls = PeerTls(local)
        self._handler = handler
        self._get_height = get_height
        self._clock_ms = clock_ms
        self._make_nonce = make_nonce
        self._handshake_timeout_ms = handshake_timeout_ms
        self._tick_ms = tick_ms
        self._book = PeerBook(local.public_key, addresses, random, limits)
        self._peers: dict[PublicKey, Connection] = {}
        self._connections: set[Connection] = set()
        self._held = Held()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake_dialler = asyncio.Event()
        self._is_stopping = False
        self._ended = 0  # connections, since the start
        self.refusals: Final[Counter[str]] = Counter()  # reason → connections that we ended for it
        app = web.Application(middlewares=[_close_after])
        app.router.add_get(PATH, self._serve)
        http_logger = logging.getLogger(f"{__name__}.http")
        http_logger.addFilter(_drop_traceback)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_logger,
            keepalive_timeout=5,
            lingering_time=0,  # nobody has anything to send in the body of a request
            shutdown_timeout=1,
        )
        self._serving: set[asyncio.BaseProtocol] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tls_handshakes = 0
        self._sockets = TokenBuckets(per_second=SOCKETS_PER_SECOND, burst=SOCKETS_BURST, keys_max=ADDRESSES_MAX)
        self._client: aiohttp.ClientSession | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; after ``start`` a configured 0 has become the real one."""
        return self._listen_port

    async def start(self) -> None:
        """Listen and begin to dial. Raises ``OSError`` when the address cannot be bound."""
        self._listener = _listen(self._listen_host, self._listen_port)
        self._listen_port = self._listener.getsockname()[1]
        await self._runner.setup()
        self._accepting = asyncio.create_task(self._accept_forever(self._listener))
        connector = aiohttp.TCPConnector(ssl=self._tls.dialling)
        self._client = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), ws_response_class=DialledWebSocket
        )
        self._start_task(self._dial_forever(self._client))

    async def stop(self) -> None:
        """Say farewell to every peer and close everything; takes about a second at most. Each peer goes down."""
        self._is_stopping = True
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.refuse("shutting_down")
        if self._connections:
            await asyncio.wait([connection.ended for connection in self._connections])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    def send(self, peer_key: PublicKey, message: PeerMessage) -> bool:
        """Queue a message for one peer. False when it is not connected or its queue is full.

        When too much waits for single peers, the one for whom most waits is too slow, and disconnected.
        """
        connection = self._peers.get(peer_key)
        is_queued = connection is not None and connection.enqueue(type(message), encode_frame(message))
        if self._held.size_bytes > HELD_BYTES_MAX:
            max(self._peers.values(), key=_get_held_bytes).refuse("peer_too_slow")
        return is_queued

    def broadcast(self, message: PeerMessage, *, except_: PublicKey | None = None) -> int:
        """Queue a message, encoded once, for every connected peer but ``except_``; for how many it was queued."""
        if not self._peers:
            return 0
        kind, frame = type(message), encode_frame(message)
        connections = [connection for key, connection in self._peers.items() if key != except_]
        return sum(connection.enqueue(kind, frame, is_shared=True) for connection in connections)

    def report(self, peer_key: PublicKey, reason: str) -> None:
        """Lower the score of a peer for what it did; at the limit it is banned for a while and disconnected."""
        is_banned = self._book.penalise(peer_key, reason, self._clock_ms())
        connection = self._peers.get(peer_key)
        if is_banned and connection is not None:
            connection.refuse("peer_banned")

    def disconnect(self, peer_key: PublicKey, reason: str) -> None:
        """End the connection to a peer, without a mark against it. A configured peer is redialled later."""
        connection = self._peers.get(peer_key)
        if connection is not None:
            connection.refuse(reason)

    def recheck_allowed(self) -> None:
        """Disconnect the peers that are no longer allowed; to be called when the allowed set has changed."""
        allowed = self._list_allowed()
        for key in [key for key in self._peers if key not in allowed]:
            self.disconnect(key, "stranger")
        for key, connection in self._peers.items():
            connection.times = self._list_times(key)
        self._times = {key: time for key, time in self._times.items() if key in allowed}

    def peers(self) -> list[PeerInfo]:
        """The connected peers, by key."""
        now_ms = self._clock_ms()
        return [connection.describe(now_ms) for _, connection in sorted(self._peers.items())]

    def standings(self) -> list[PeerStanding]:
        """Every known peer, connected or not, with its score, ban and next dial."""
        return self._book.list_standings(self._clock_ms())

    def _handle_event(self, connection: Connection, event: SessionEvent) -> None:
        """Act on what a connection's session found."""
        match event:
            case MessageReceived(message):
                self._deliver(connection, message)
            case FrameToSend(_, frame):
                connection.enqueue_handshake(frame)
            case PeerAuthenticated(hello):
                self._add_peer(connection, hello.height)
            case PeerRefused(reason, item, farewell):
                self.refusals[reason] += 1
                _logger.info("refused %s: %s %s", connection.name, reason, item)
                if reason in PROTOCOL_BREACHES and connection.is_proven:
                    self._book.penalise(connection.key, reason, self._clock_ms())
                connection.close(reason, farewell)
            case PeerLeft(reason):
                connection.close(reason)

    def _deliver(self, connection: Connection, message: PeerMessage) -> None:
        try:
            self._handler.on_message(connection.key, message)
        except Rejected as error:
            if error.reason not in PROTOCOL_BREACHES:  # those are marked where every breach is
                self._book.penalise(connection.key, error.reason, self._clock_ms())
            connection.refuse(error.reason, error.item)

    def _add_peer(self, connection: Connection, height: int) -> None:
        key = connection.key
        existing = self._peers.get(key)
        if existing is not None:
            if not existing.is_closing and not is_newcomer_kept(
                own_key=self._local.public_key,
                peer_key=key,
                is_existing_dialled_by_us=existing.is_dialled_by_us,
                is_newcomer_dialled_by_us=connection.is_dialled_by_us,
            ):
                connection.refuse("duplicate_connection")
                return
            self._remove_peer(existing, "duplicate_connection")
            existing.refuse("duplicate_connection")
        self._peers[key] = connection
        connection.is_proven = True
        connection.times = self._list_times(key)
        self._book.note_connected(key, self._clock_ms())
        _logger.info("peer up: %s", connection.name)
        self._handler.on_peer_up(key, height)

    def _remove_peer(self, connection: Connection, reason: str) -> None:
        key = connection.key
        if self._peers.get(key) is not connection:
            return
        del self._peers[key]
        self._book.note_disconnected(key, self._clock_ms())
        self._wake_dialler.set()
        _logger.info("peer down: %s %s", connection.name, reason)
        self._handler.on_peer_down(key, reason)

    def _list_times(self, key: PublicKey) -> list[TimeBudget]:
        """What a peer may use of our time: its own share, and a guest also of what all guests have."""
        own = self._times.setdefault(key, TimeBudget(self._limits.time_share_percent, self._clock_ms()))
        is_guest = self._list_validators is not None and key not in self._list_validators()
        return [own, self._guests_time] if is_guest else [own]

    def _find_refusal(self, key: PublicKey) -> str | None:
        if key not in self._list_allowed():
            return "stranger"
        return "peer_banned" if self._book.is_banned(key, self._clock_ms()) else None

    async def _run_connection(
        self, ws: WebSocket, wire: Wire, role: Role, host: str, expected_key: PublicKey | None
    ) -> None:
        if self._is_stopping:  # since it was accepted or dialled
            wire.cut()
            await ws.close()
            return
        channel = self._tls.read_channel(ws.get_extra_info("ssl_object"))
        session = Session(
            self._local,
            role=role,
            channel=channel,
            nonce=self._make_nonce(),
            height=self._get_height(),
            listen_port=self._listen_port,
            find_refusal=self._find_refusal,
            started_ms=self._clock_ms(),
            expected_key=expected_key,
            budget_percent=self._limits.budget_percent,
            handshake_timeout_ms=self._handshake_timeout_ms,
        )
        connection = Connection(
            ws,
            wire,
            session,
            role=role,
            host=host,
            clock_ms=self._clock_ms,
            on_event=self._handle_event,
            held=self._held,
            handshake_timeout_ms=self._handshake_timeout_ms,
            tick_ms=self._tick_ms,
        )
        self._connections.add(connection)
        try:
            await connection.serve()
            if connection.is_proven:
                self._remove_peer(connection, connection.reason)  # before the farewell, which may take a while
            await connection.end()
        finally:
            connection.cut()
            if connection.is_proven:
                self._remove_peer(connection, connection.reason)
            self._connections.discard(connection)
            connection.ended.set_result(None)
            self._ended += 1
            if self._ended % COLLECT_AFTER_CONNECTIONS == 0:
                gc.collect()

    async def _accept_forever(self, listener: socket.socket) -> None:
        server = self._runner.server
        assert server is not None, "the runner is set up before we listen"
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError as error:
                _logger.warning("no socket for a peer that dials us: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            host = str(address[0])
            is_full = len(server.connections) + self._tls_handshakes >= SOCKETS_MAX
            if is_full or self._tls_handshakes >= TLS_HANDSHAKES_MAX or not self._sockets.take(host, self._clock_ms()):
                self.refusals["too_many_sockets"] += 1
                accepted.close()
                continue
            self._tls_handshakes += 1
            self._start_task(self._greet(server, accepted, host))

    async def _greet(self, server: web.Server, accepted: socket.socket, host: str) -> None:
        """TLS comes first: of a stranger, and of what is no TLS, not a byte gets further."""
        self._tls.trust(self._list_allowed())
        loop = asyncio.get_running_loop()
        timeout_seconds = self._handshake_timeout_ms / 1000
        protocol = server()
        try:
            await loop.connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=self._tls.listening,
                ssl_handshake_timeout=timeout_seconds,
                ssl_shutdown_timeout=TLS_CLOSE_SECONDS,
            )
        except OSError as error:  # of TLS, of the socket, of the time
            reason = "stranger" if isinstance(error, ssl.SSLCertVerificationError) else "tls_handshake_failed"
            self.refusals[reason] += 1
            _logger.info("refused a socket of %s: %s %s", host, reason, error)
        else:
            # A socket that asks for nothing must not hold one of the places for ever.
            loop.call_later(timeout_seconds, self._close_idle, protocol)
        finally:
            self._tls_handshakes -= 1

    def _close_idle(self, protocol: web.RequestHandler) -> None:
        if protocol not in self._serving:
            protocol.force_close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        ws = ListeningWebSocket(compress=False, max_msg_size=FRAME_BYTES_MAX + 1, autoclose=False, autoping=False)
        if not ws.can_prepare(request).ok:
            return web.Response(status=426, text="only WebSocket connections of peers are served here\n")
        unproven = sum(not (connection.is_proven or connection.is_dialled_by_us) for connection in self._connections)
        if self._is_stopping or unproven >= HANDSHAKES_MAX:
            return web.Response(status=503, text="too many handshakes are under way\n")
        protocol = request.protocol
        self._serving.add(protocol)
        try:
            await ws.prepare(request)
            await self._run_connection(ws, Wire(ws.transport), Role.LISTENER, request.remote or "", None)
        except ConnectionError:
            _logger.debug("a socket closed during its upgrade")
        finally:
            self._serving.discard(protocol)
        return ws

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap_task)

    def _reap_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("a network task failed", exc_info=error)

    async def _dial_forever(self, client: aiohttp.ClientSession) -> None:
        while True:
            self._wake_dialler.clear()
            now_ms = self._clock_ms()
            for address in self._book.list_due(now_ms):
                self._book.note_dialling(address.public_key)
                self._start_task(self._dial(client, address))
            due_ms = self._book.find_next_due_ms()
            wait_ms = DIAL_CHECK_MS_MAX if due_ms is None else min(max(due_ms - now_ms, 1), DIAL_CHECK_MS_MAX)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    await self._wake_dialler.wait()

    async def _dial(self, client: aiohttp.ClientSession, address: PeerAddress) -> None:
        self._tls.trust(self._list_allowed())
        try:
            url = URL.build(scheme="https", host=address.host, port=address.port, path=PATH)
            async with asyncio.timeout(DIAL_TIMEOUT_MS / 1000):
                ws = await client.ws_connect(
                    url, compress=0, max_msg_size=FRAME_BYTES_MAX + 1, autoclose=False, autoping=False
                )
            assert isinstance(ws, DialledWebSocket), "the client makes no others"
            await self._run_connection(ws, Wire(ws.transport), Role.DIALLER, address.host, address.public_key)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, Rejected) as error:
            _logger.debug("dialling %s:%d failed: %s", address.host, address.port, error)
        finally:
            self._book.note_dial_ended(address.public_key, self._clock_ms())
            self._wake_dialler.set()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=SOCKETS_MAX)
    listener.setblocking(False)
    return listener


def _get_held_bytes(connection: Connection) -> int:
    return connection.held_bytes


@web.middleware
async def _close_after(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A socket is for one connection or for one answer, else it could ask without a limit."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.force_close()
        raise
    response.force_close()
    return response


def _drop_traceback(record: logging.LogRecord) -> bool:
    # Bytes that are not HTTP are a stranger's mistake: one line without a traceback. Ours keep theirs.
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.exc_info, record.levelno, record.levelname = None, logging.INFO, "INFO"
    return True
