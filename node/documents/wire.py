"""The guard around every call to a daemon: a deadline over the whole call, a cap on every byte received, no redirects.

The HTTP library has timeouts per read, so that a slow drip never ends, and no cap at all. The guard sits where nothing
passes it by: in the socket. A call's budget travels in a context variable, since a call stays in its thread.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from ipfshttpclient import Client
from ipfshttpclient.http_requests import ClientSync
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.response import BaseHTTPResponse

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

API_BASE: Final = "api/v0"
UPLOAD_CHUNK_BYTES: Final = 64 * 1024
CONNECTIONS_MAX: Final = 16


class Connections:
    """The sockets of one client, so that another thread can end what waits for them."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self.are_ended = False

    def add(self, connected: socket.socket) -> None:
        """Counts a new connection in."""
        with self._lock:
            self._sockets.add(connected)

    def end(self) -> None:
        """Ends every connection, whoever waits for it; those that are made later end at their first use."""
        self.are_ended = True
        with self._lock:
            for connected in self._sockets:
                with suppress(OSError):  # the daemon was faster
                    connected.shutdown(socket.SHUT_RDWR)


@dataclass(slots=True)
class Budget:
    """What one call may cost, and what it broke; the reason given here is truer than what the libraries say."""

    now_ms: Callable[[], int]
    deadline_ms: int
    bytes_left: int
    connections: Connections
    broken: str = ""

    def compute_seconds_left(self) -> float:
        """For the next wait. Raises ``TimeoutError`` when there is nothing left, ``ConnectionAbortedError``."""
        if self.connections.are_ended:
            self.broken = self.broken or "work_abandoned"
            raise ConnectionAbortedError("nobody waits for the call any more")
        left_ms = self.deadline_ms - self.now_ms()
        if left_ms <= 0:
            self.broken = self.broken or "store_timed_out"
            raise TimeoutError("the deadline of the call has passed")
        return left_ms / 1_000

    def receive(self, count: int) -> None:
        """Counts received bytes. Raises ``ConnectionAbortedError`` over the cap."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            self.broken = self.broken or "store_answer_too_large"
            raise ConnectionAbortedError("the answer is longer than it may be")


_BUDGET: ContextVar[Budget] = ContextVar("budget of the call to the daemon")


@contextmanager
def spend(budget: Budget) -> Iterator[None]:
    """Whatever this thread sends and receives in here is charged to ``budget``."""
    token = _BUDGET.set(budget)
    try:
        yield
    finally:
        _BUDGET.reset(token)


class _GuardedSocket(socket.socket):
    """A connected socket, every wait of which ends at the deadline of the call under way."""

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        budget = _BUDGET.get()
        self.settimeout(budget.compute_seconds_left())
        try:
            count = super().recv_into(buffer, nbytes, flags)
        except TimeoutError:
            budget.broken = budget.broken or "store_timed_out"
            raise
        if count == 0:
            budget.compute_seconds_left()  # an end that we made ourselves is named so
        budget.receive(count)
        return count

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        budget = _BUDGET.get()
        self.settimeout(budget.compute_seconds_left())
        try:
            super().sendall(data, flags)
        except TimeoutError:
            budget.broken = budget.broken or "store_timed_out"
            raise


class _GuardedConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        connected = _GuardedSocket(fileno=super()._new_conn().detach())
        _BUDGET.get().connections.add(connected)
        return connected


class _GuardedPool(HTTPConnectionPool):
    ConnectionCls = _GuardedConnection


class _GuardedAdapter(HTTPAdapter):
    def build_response(self, req: PreparedRequest, resp: BaseHTTPResponse) -> Response:
        reason = ""
        if 300 <= resp.status < 400:
            reason = "store_redirected"
        elif resp.headers.get("content-encoding", "identity") != "identity":
            reason = "store_answer_malformed"  # a few bytes that unpack to gigabytes
        if reason:
            _BUDGET.get().broken = reason
            resp.close()
            raise RequestException(reason)
        return super().build_response(req, resp)


class _GuardedTransport(ClientSync):
    __slots__ = ()

    def _make_session(self) -> Session:
        session = Session()
        session.trust_env = False  # no proxy and no password from the environment
        session.max_redirects = 0
        session.headers["Accept-Encoding"] = "identity"
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.adapters.clear()
        adapter = _GuardedAdapter(pool_maxsize=CONNECTIONS_MAX)
        adapter.poolmanager.pool_classes_by_scheme = {"http": _GuardedPool}
        session.mount("http://", adapter)
        return session


class GuardedClient(Client):
    """The client of a daemon's API, every call of which must be made inside ``spend``. HTTP only, no TLS.

    Raises ``AddressError`` for an address that is no multiaddress of a host and a port.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address, API_BASE, chunk_size=UPLOAD_CHUNK_BYTES)
        self._client = _GuardedTransport(address, API_BASE)
        self._client.open_session()
