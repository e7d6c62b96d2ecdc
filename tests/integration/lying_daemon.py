"""A daemon that misbehaves on purpose: it listens on the loopback, and answers as the test says, byte for byte.

It speaks through plain sockets, because no server library would let it break the protocol.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

WAIT_SECONDS = 20


@dataclass(slots=True)
class Request:
    """What was asked: the command, such as ``block/get``, its first argument, and the connection to answer on."""

    command: str
    argument: str
    connection: socket.socket
    released: threading.Event  # set when the test is over: who stays silent waits for it


Answer: TypeAlias = Callable[[Request], None]


def reply(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> Answer:
    """A whole answer, or one that promises another ``length`` than it has."""
    promised = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Length: {promised}\r\nConnection: close\r\n{headers}\r\n"
    return send(head.encode() + body)


def send(data: bytes) -> Answer:
    """These bytes, and the end of the connection."""
    return lambda request: request.connection.sendall(data)


def stay_silent(request: Request) -> None:
    """No answer, and no end."""
    assert request.released.wait(WAIT_SECONDS)


def wait_for_the_end(request: Request) -> None:
    """No answer for as long as the other side waits for one."""
    request.connection.recv(1)


def send_for_ever(head: bytes, piece: bytes) -> Answer:
    """The head, and then the piece again and again, until the other side has had enough."""

    def answer(request: Request) -> None:
        request.connection.sendall(head)
        while not request.released.is_set():
            request.connection.sendall(piece)

    return answer


@dataclass(slots=True)
class LyingDaemon:
    """Answers each command by what ``answers`` says of it; one that it knows nothing of, like a daemon without it."""

    address: str
    answers: dict[str, Answer]
    asked: list[str] = field(default_factory=list)


@contextmanager
def run_daemon(answers: dict[str, Answer]) -> Iterator[LyingDaemon]:
    """A daemon for as long as the block runs; its threads have ended when the block has."""
    released = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        daemon = LyingDaemon(f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}", answers)
        threads: list[threading.Thread] = []
        accepting = threading.Thread(target=_accept, args=(listener, daemon, released, threads))
        accepting.start()
        try:
            yield daemon
        finally:
            released.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join(WAIT_SECONDS)


def _accept(
    listener: socket.socket, daemon: LyingDaemon, released: threading.Event, threads: list[threading.Thread]
) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.settimeout(WAIT_SECONDS)
        threads.append(threading.Thread(target=_serve, args=(connection, daemon, released)))
        threads[-1].start()


def _serve(connection: socket.socket, daemon: LyingDaemon, released: threading.Event) -> None:
    with connection, suppress(OSError), connection.makefile("rb") as stream:
        asked = stream.readline()
        if not asked:
            return  # who connected had no time left to ask
        url = urlsplit(asked.split()[1].decode())
        chunked = False
        while (line := stream.readline()) not in (b"\r\n", b""):
            chunked = chunked or line.lower().startswith(b"transfer-encoding: chunked")
        while chunked and (size := int(stream.readline() or b"0", 16)):
            stream.read(size + 2)
        command = url.path.removeprefix("/api/v0/")
        daemon.asked.append(command)
        answer = daemon.answers.get(command, reply(b"404 page not found", status="404 Not Found"))
        answer(Request(command, parse_qs(url.query).get("arg", [""])[0], connection, released))
