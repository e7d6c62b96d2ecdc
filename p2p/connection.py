"""One live connection: a socket, its session and its outbox, served by a reading and a writing task.

Touches the world (the socket). It moves frames and nothing else: every event goes to the network that owns it, and
the first reason to close is the one that counts. However it ends, the socket is cut, not left to be closed: a peer that
still sends must cost nothing from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from ledger.primitives import PublicKey
from p2p.budgets import TimeBudget
from p2p.messages import MESSAGE_TYPES, PeerMessage, QueueClass, compute_cost_us
from p2p.outbox import Held, Outbox
from p2p.session import HANDSHAKE_TIMEOUT_MS, FrameToSend, Role, Session, SessionEvent, Traffic
from p2p.silence import TICK_MS, Silence, Verdict
from p2p.wire import WebSocket, Wire

FAREWELL_TIMEOUT_MS: Final = 500
LAST_MESSAGES_MAX: Final = 256  # looked at after the end, for the one by which the peer closes
CLOSE_NORMALLY: Final = aiohttp.WSCloseCode.OK.to_bytes(2, "big")
TURN_US_MAX: Final = 1_000  # a peer's messages taken in before anything else gets a turn

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One connected peer. The traffic tables go by message type; waiting and dropped frames by queue."""

    public_key: PublicKey
    moniker: str
    host: str
    listen_port: int
    height_at_handshake: int
    is_dialled_by_us: bool
    connected_ms: int
    received: Mapping[str, Traffic]
    sent: Mapping[str, Traffic]
    waiting: Mapping[QueueClass, int]
    dropped: Mapping[QueueClass, int]
    used_ms: int  # of our processor time, by the costs of p2p/messages.py, for taking in what it sent
    paused_ms: int  # it was left unread for that long, since it had used more than its share


class Connection:
    """One socket, its session and its outbox. The first reason to close is the one that counts."""

    def __init__(
        self,
        ws: WebSocket,
        wire: Wire,
        session: Session,
        *,
        role: Role,
        host: str,
        clock_ms: Callable[[], int],
        on_event: Callable[[Connection, SessionEvent], None],
        held: Held,
        handshake_timeout_ms: int = HANDSHAKE_TIMEOUT_MS,
        tick_ms: int = TICK_MS,
    ) -> None:
        self._ws = ws
        self._wire = wire
        self._session = session
        self._host = host
        self._clock_ms = clock_ms
        self._on_event = on_event
        self._handshake_timeout_ms = handshake_timeout_ms
        self._tick_ms = tick_ms
        self._silence = Silence()
        self._taken = 0  # messages
        self._is_left_unread = False
        self._ping: bytes | None = None  # to be sent,
        self._pong: bytes | None = None  # and the newest that is owed
        self._outbox = Outbox(held)
        self.times: Sequence[TimeBudget] = ()  # what it uses is charged to each, once its key is proven
        self._turn_us = self._used_us = self._paused_ms = 0
        self._has_output = asyncio.Event()
        self._started_ms = clock_ms()
        self._is_closing = asyncio.Event()
        self._farewell = b""
        self._writer: asyncio.Task[None] | None = None
        self.is_dialled_by_us: Final = role is Role.DIALLER
        self.is_proven = False  # the network has admitted it
        self.reason = ""
        self.ended: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()

    @property
    def key(self) -> PublicKey:
        assert self._session.peer is not None, "asked only once the peer has said its key"
        return self._session.peer.public_key

    @property
    def is_closing(self) -> bool:
        return self._session.is_closed

    @property
    def name(self) -> str:
        """For logs: the key as far as it is known, and the host."""
        peer = self._session.peer
        return f"{peer.public_key.hex()[:16] if peer else 'unknown'} at {self._host}"

    def describe(self, now_ms: int) -> PeerInfo:
        hello = self._session.peer
        assert hello is not None, "only proven peers are described"
        return PeerInfo(
            public_key=hello.public_key,
            moniker=hello.moniker,
            host=self._host,
            listen_port=hello.listen_port,
            height_at_handshake=hello.height,
            is_dialled_by_us=self.is_dialled_by_us,
            connected_ms=now_ms - self._started_ms,
            received=self._session.received.get_rows(now_ms),
            sent=self._session.sent.get_rows(now_ms),
            waiting=self._outbox.get_waiting(),
            dropped=self._outbox.get_dropped(),
            used_ms=self._used_us // 1000,
            paused_ms=self._paused_ms,
        )

    @property
    def held_bytes(self) -> int:
        """What waits to be sent to this peer and to no other."""
        return self._outbox.held_bytes

    def enqueue(self, kind: type[PeerMessage], frame: bytes, *, is_shared: bool = False) -> bool:
        """Queue a frame of a proven peer. A full consensus queue ends the connection, others drop the frame."""
        if self._session.is_closed:
            return False
        queue = MESSAGE_TYPES[kind].queue
        if not self._outbox.offer(queue, frame, is_shared=is_shared):
            if queue is QueueClass.CONSENSUS:
                self.refuse("consensus_queue_full")
            return False
        self._session.count_sent(kind, frame, self._clock_ms())
        self._has_output.set()
        return True

    def enqueue_handshake(self, frame: bytes) -> None:
        is_queued = self._outbox.offer(QueueClass.CONSENSUS, frame)
        assert is_queued, "the handshake's two frames come first in an empty queue"
        self._has_output.set()

    def refuse(self, reason: str, item: str = "") -> None:
        self._handle(self._session.refuse(reason, item))

    def close(self, reason: str, farewell: bytes = b"") -> None:
        if not self._is_closing.is_set():
            self.reason, self._farewell = reason, farewell
            self._outbox.clear()
            self._wire.hang_up()  # at once: until the tasks have had their turns, megabytes may arrive
            self._is_closing.set()
            self._has_output.set()

    async def serve(self) -> None:
        """Read and write until either side ends the connection; ``reason`` then says why."""
        self._handle([self._session.start(self._started_ms)])
        timer = asyncio.get_running_loop().call_later(self._handshake_timeout_ms / 1000, self._check_handshake)
        self._plan_tick()
        self._writer = asyncio.create_task(self._write())
        readers = [asyncio.create_task(self._read()), asyncio.create_task(self._is_closing.wait())]
        try:
            await asyncio.wait([*readers, self._writer], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            self._ticker.cancel()
            for task in readers:
                task.cancel()
            self._log_failures(await asyncio.gather(*readers, return_exceptions=True))
            self.close("connection_lost")
            self._session.refuse(self.reason)  # from here on nothing is queued

    async def end(self) -> None:
        """Tell the peer why, give it half a second to close as well, and cut.

        Whom we have nothing to tell has ended it itself: there is nothing to wait for but our last frame's way out.
        """
        assert self._writer is not None, "ended after serving"
        parting = asyncio.create_task(self._hear_farewell()) if self._farewell else self._writer
        await asyncio.wait([parting], timeout=FAREWELL_TIMEOUT_MS / 1000)
        self.cut()
        parting.cancel()
        self._log_failures(await asyncio.gather(parting, self._writer, return_exceptions=True))
        await self._ws.close()  # aiohttp lets go of it; nothing can be sent or read any more

    def cut(self) -> None:
        """Nothing of it costs anything from now on: what is under way is lost, and whoever waits for it fails."""
        self._wire.cut()
        if self._writer is not None:
            self._writer.cancel()

    async def _hear_farewell(self) -> None:
        """Until the peer has closed as well; one that goes on sending, or sends rubbish, is left unread."""
        for _ in range(LAST_MESSAGES_MAX):
            match (await self._ws.receive()).type:
                case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSED:
                    return
                case aiohttp.WSMsgType.ERROR:
                    break
        await self._wire.lost

    def _log_failures(self, outcomes: Sequence[object]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
                _logger.error("serving %s failed", self.name, exc_info=outcome)
                self.close("internal_error")

    def _check_handshake(self) -> None:
        if not self._session.is_established:
            self.refuse("handshake_timeout")

    def _plan_tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(self._tick_ms / 1000, self._tick)

    def _tick(self) -> None:
        heard = self._wire.arrived_bytes + self._taken
        match self._silence.tick(heard=heard, is_listening=not self._is_left_unread):
            case Verdict.PING:
                self._ping = b""
                self._has_output.set()
            case Verdict.DEAD:
                self.refuse("peer_silent")
                return
            case Verdict.NOTHING:
                pass
        self._plan_tick()

    def _handle(self, events: list[SessionEvent] | list[FrameToSend]) -> None:
        for event in events:
            self._on_event(self, event)

    async def _read(self) -> None:
        # Callbacks run here, one after the other: a slow one stops the reading, and TCP slows the peer.
        while not self._session.is_closed:
            message = await self._ws.receive()
            self._taken += 1
            if not self._take(message):
                return
            await self._pace(compute_cost_us(message.data) if message.type is aiohttp.WSMsgType.BINARY else 0)

    def _take(self, message: aiohttp.WSMessage) -> bool:
        """Act on what the socket gave; whether more can come."""
        now_ms = self._clock_ms()
        match message.type:
            case aiohttp.WSMsgType.BINARY:
                self._handle(self._session.receive(message.data, now_ms))
            case aiohttp.WSMsgType.PING | aiohttp.WSMsgType.PONG:
                self._handle(self._session.receive_ping(len(message.data), now_ms))
                if message.type is aiohttp.WSMsgType.PING:
                    # By the writer: who reads while it waits for room to write would no longer hear the peer.
                    self._pong = message.data
                    self._has_output.set()
            case aiohttp.WSMsgType.TEXT:
                self.refuse("message_malformed", "text, not binary")
            case aiohttp.WSMsgType.ERROR:
                self._handle_broken_frame(message.data)
                return False
            case _:
                return False
        return True

    async def _pace(self, used_us: int) -> None:
        """Let others have their turn, and let a peer wait that has used more than its share of our time.

        What waits is the peer's own next message, in its socket; nothing is dropped for it, and nobody is banned.
        """
        self._turn_us += used_us
        self._used_us += used_us
        now_ms = self._clock_ms()
        pause_ms = max((time.charge(used_us, now_ms) for time in self.times), default=0)
        if pause_ms or self._turn_us >= TURN_US_MAX:
            self._turn_us = 0
            self._paused_ms += pause_ms
            self._is_left_unread = pause_ms > 0
            await asyncio.sleep(pause_ms / 1000)
            self._is_left_unread = False

    def _handle_broken_frame(self, error: object) -> None:
        if isinstance(error, aiohttp.WebSocketError):
            is_large = error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            self.refuse("message_too_large" if is_large else "message_malformed", str(error))

    async def _write(self) -> None:
        while not self._is_closing.is_set():
            await self._has_output.wait()
            self._has_output.clear()
            await self._write_waiting()
        if self._farewell:
            await self._ws.send_bytes(self._farewell)
        # Not by close(), which reads on without a limit until the peer has closed as well.
        await self._ws.send_frame(CLOSE_NORMALLY, aiohttp.WSMsgType.CLOSE)

    async def _write_waiting(self) -> None:
        """Write until nothing waits, the transport's own frames first."""
        while not self._is_closing.is_set():
            if self._pong is not None:
                pong, self._pong = self._pong, None
                await self._ws.pong(pong)
            elif self._ping is not None:
                ping, self._ping = self._ping, None
                await self._ws.ping(ping)
            elif (frame := self._outbox.take()) is not None:
                await self._ws.send_bytes(frame)
            else:
                return
