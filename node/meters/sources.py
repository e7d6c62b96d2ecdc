"""Where telegrams come from: a TCP port, a serial line or pipe, a file, or an MQTT topic, as one stream of bytes.

Owns the connections and their coming back. What has been handled is acknowledged, so that a broker keeps what a relay
that was killed had not yet saved.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import termios
import tty
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from node.meters.reports import MeterError, compute_retry_ms

CHUNK_BYTES: Final = 4 * 1024
CHUNKS_HELD_MAX: Final = 1_000  # of a broker, before it has to wait
MESSAGE_BYTES_MAX: Final = 256 * 1024
CONNECT_TIMEOUT_S: Final = 10
MQTT_PORT: Final = 1_883
MQTT_KEEP_ALIVE_S: Final = 60
BAUD: Final = termios.B115200  # DSMR 4 and later; a port that was set up otherwise keeps its own rate


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes. ``acknowledge`` is called once what they said is saved; ``is_whole``: a telegram ends with them."""

    data: bytes
    acknowledge: Callable[[], None] = lambda: None
    is_whole: bool = False


def open_source(text: str, *, client_id: str, say: Callable[[str], None]) -> AsyncIterator[Chunk]:
    """The stream of ``tcp://HOST:PORT``, ``mqtt://[USER:PASSWORD@]HOST[:PORT]/TOPIC``, or a path.

    A file ends; the others never do: they are opened again whenever they break. Raises ``MeterError``
    (``source_not_usable``).
    """
    url = urlsplit(text)
    if url.scheme == "tcp":
        host, port = url.hostname, _get_port(url, text)
        if not host or port is None:
            raise MeterError("source_not_usable", f"{text}: expected tcp://HOST:PORT")
        return _read_tcp(host, port, say)
    if url.scheme == "mqtt":
        if not url.hostname or not url.path.strip("/"):
            raise MeterError("source_not_usable", f"{text}: expected mqtt://HOST/TOPIC")
        return _read_mqtt(url, _get_port(url, text) or MQTT_PORT, client_id, say)
    if "://" in text:
        raise MeterError("source_not_usable", f"{text}: expected tcp://, mqtt:// or a path")
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise MeterError("source_not_usable", f"{path}: {error.strerror}") from error
    if stat.S_ISREG(mode):
        return _read_file(path)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return _read_line(path)
    raise MeterError("source_not_usable", f"{path}: neither a file, a pipe nor a serial line")


def _get_port(url: SplitResult, text: str) -> int | None:
    try:
        return url.port
    except ValueError:
        raise MeterError("source_not_usable", f"{text}: no such port") from None


async def _read_tcp(host: str, port: int, say: Callable[[str], None]) -> AsyncIterator[Chunk]:
    failures = 0
    while True:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:  # a timeout is one, too
            failures += 1
            say(f"{host}:{port}: {error.strerror or 'no connection'}; again in {compute_retry_ms(failures) // 1000} s")
            await asyncio.sleep(compute_retry_ms(failures) / 1000)
            continue
        try:
            while data := await reader.read(CHUNK_BYTES):
                failures = 0
                yield Chunk(data)
        except OSError as error:
            say(f"{host}:{port}: {error.strerror or 'the connection broke'}")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        failures += 1
        say(f"{host}:{port}: the connection ended; again in {compute_retry_ms(failures) // 1000} s")
        await asyncio.sleep(compute_retry_ms(failures) / 1000)


async def _read_file(path: Path) -> AsyncIterator[Chunk]:
    with path.open("rb") as stream:
        while data := stream.read(CHUNK_BYTES):
            yield Chunk(data)
            await asyncio.sleep(0)  # others have their turn
    yield Chunk(b"", is_whole=True)


async def _read_line(path: Path) -> AsyncIterator[Chunk]:
    """A pipe or a terminal. It is opened for writing as well, so that it does not end when a writer goes away."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        if os.isatty(descriptor):
            _set_up_line(descriptor)
        loop.add_reader(descriptor, readable.set)
        while True:
            await readable.wait()
            readable.clear()
            with contextlib.suppress(BlockingIOError):
                data = os.read(descriptor, CHUNK_BYTES)
                if not data:
                    raise MeterError("source_ended", path)
                yield Chunk(data)
    except OSError as error:  # the adapter was pulled out
        raise MeterError("source_ended", f"{path}: {error.strerror}") from error
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _set_up_line(descriptor: int) -> None:
    tty.setraw(descriptor)
    attributes: list[Any] = termios.tcgetattr(descriptor)
    attributes[4] = attributes[5] = BAUD  # in and out
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


async def _read_mqtt(url: SplitResult, port: int, client_id: str, say: Callable[[str], None]) -> AsyncIterator[Chunk]:
    """Messages of a topic, at least once: the broker keeps the session, and each message until it is acknowledged."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Chunk] = asyncio.Queue()
    topic = unquote(url.path.lstrip("/"))
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, manual_ack=True)
    client.max_inflight_messages_set(CHUNKS_HELD_MAX)
    client.max_queued_messages_set(CHUNKS_HELD_MAX)
    if url.username:
        client.username_pw_set(unquote(url.username), unquote(url.password or ""))

    def hear(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        def acknowledge() -> None:
            client.ack(message.mid, message.qos)

        data = bytes(message.payload)[:MESSAGE_BYTES_MAX]
        loop.call_soon_threadsafe(queue.put_nowait, Chunk(data, acknowledge, is_whole=True))

    def connected(_client: mqtt.Client, _data: object, _flags: object, code: Any, _properties: object) -> None:
        if code.is_failure:
            loop.call_soon_threadsafe(say, f"{url.hostname}:{port}: the broker refuses: {code}")
        else:
            client.subscribe(topic, qos=1)

    def disconnected(_client: mqtt.Client, _data: object, _flags: object, code: Any, _properties: object) -> None:
        if code.is_failure:
            loop.call_soon_threadsafe(say, f"{url.hostname}:{port}: the connection broke: {code}")

    client.on_message, client.on_connect, client.on_disconnect = hear, connected, disconnected
    client.connect_async(url.hostname or "", port, MQTT_KEEP_ALIVE_S)
    client.loop_start()
    try:
        while True:
            yield await queue.get()
    finally:
        client.disconnect()
        client.loop_stop()
