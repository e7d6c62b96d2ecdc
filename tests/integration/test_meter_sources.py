"""Streams of telegrams from real pipes, terminals, ports and a broker: they come back, and lose nothing that counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest

from node.meters.reports import MeterError
from node.meters.sources import Chunk, open_source
from tests.integration.serving import serving

TIMEOUT_S: Final = 20


def open_quietly(source: str, said: list[str] | None = None) -> Any:
    say = (lambda _text: None) if said is None else said.append
    return aclosing(cast(Any, open_source(source, client_id="wattprint-test", say=say)))


async def read(chunks: AsyncIterator[Chunk], count: int) -> bytes:
    """So many bytes."""
    data = b""
    async with asyncio.timeout(TIMEOUT_S):
        while len(data) < count:
            chunk = await anext(chunks)
            data += chunk.data
            chunk.acknowledge()
    return data


async def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "p1.txt").write_bytes(b"x" * 10_000)
    async with open_quietly(str(tmp_path / "p1.txt")) as chunks:
        found = [chunk async for chunk in chunks]
    assert (b"".join(one.data for one in found), found[-1].is_whole) == (b"x" * 10_000, True)


async def test_a_pipe_does_not_end_when_its_writer_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    async with open_quietly(str(path)) as chunks:
        for text in (b"first", b"second"):
            reading = asyncio.create_task(read(chunks, len(text)))
            await asyncio.sleep(0)  # it opens the pipe
            writer = os.open(path, os.O_WRONLY)
            os.write(writer, text)
            os.close(writer)
            assert await reading == text


async def test_a_serial_line_gives_bytes_as_they_are() -> None:
    ours, theirs = os.openpty()
    try:
        async with open_quietly(os.ttyname(theirs)) as chunks:
            reading = asyncio.create_task(read(chunks, 7))
            await asyncio.sleep(0)  # it sets the line up
            os.write(ours, b"/a\r\n\x03!\n")
            assert await reading == b"/a\r\n\x03!\n"
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_port_that_breaks_is_connected_to_again() -> None:
    served = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        writer.write(f"{served}".encode())

    said: list[str] = []
    async with serving(serve) as port, open_quietly(f"tcp://127.0.0.1:{port}", said) as chunks:
        assert await read(chunks, 2) == b"12"
    assert "the connection ended; again in 1 s" in said[0]


@pytest.mark.parametrize("source", ["tcp://host", "tcp://host:99999", "mqtt://host", "ftp://host/x", "nowhere", "."])
def test_what_is_no_source_is_refused(source: str) -> None:
    with pytest.raises(MeterError, match="source_not_usable"):
        open_source(source, client_id="x", say=lambda _text: None)


class Broker:
    """The little of an MQTT 3.1.1 broker that one subscriber needs: it repeats what was not acknowledged."""

    def __init__(self) -> None:
        self.waiting: dict[int, bytes] = {}
        self.acknowledged: list[int] = []
        self.has_acknowledged = asyncio.Event()
        self.topics: list[str] = []
        self.is_clean: list[bool] = []
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readexactly(1))[0]
                length = (await reader.readexactly(1))[0]
                assert length < 128
                self._take(head, await reader.readexactly(length), writer)

    def _take(self, head: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        match head >> 4:
            case 1:  # CONNECT → CONNACK
                self.is_clean.append(bool(body[7] & 2))
                writer.write(b"\x20\x02\x00\x00")
            case 8:  # SUBSCRIBE → SUBACK
                (size,) = struct.unpack_from(">H", body, 2)
                self.topics.append(body[4 : 4 + size].decode())
                writer.write(b"\x90\x03" + body[:2] + b"\x01")
                self._writer = writer
                for number, data in self.waiting.items():
                    self._send(number, data)
            case 4:  # PUBACK
                (number,) = struct.unpack(">H", body)
                self.acknowledged.append(number)
                self.waiting.pop(number, None)
                self.has_acknowledged.set()

    def publish(self, number: int, data: bytes) -> None:
        self.waiting[number] = data
        if self._writer is not None:
            self._send(number, data)

    def _send(self, number: int, data: bytes) -> None:
        assert self._writer is not None
        body = struct.pack(">H", 2) + b"p1" + struct.pack(">H", number) + data
        self._writer.write(bytes([0x32, len(body)]) + body)


@asynccontextmanager
async def open_broker() -> AsyncIterator[tuple[Broker, str]]:
    broker = Broker()
    async with serving(broker.serve) as port:
        yield broker, f"mqtt://127.0.0.1:{port}/p1"


async def test_a_broker_keeps_a_message_until_it_was_saved() -> None:
    async with open_broker() as (broker, url):
        broker.publish(1, b"one")
        broker.publish(2, b"two")
        async with open_quietly(url) as chunks:
            async with asyncio.timeout(TIMEOUT_S):
                first, second = await anext(chunks), await anext(chunks)
                assert (first.data, second.data, first.is_whole) == (b"one", b"two", True)
                assert broker.acknowledged == []
                first.acknowledge()
                await broker.has_acknowledged.wait()
        assert broker.acknowledged == [1]
        async with open_quietly(url) as chunks:  # the relay was killed before it saved the second
            assert await read(chunks, 3) == b"two"
        assert (broker.topics, broker.is_clean) == (["p1", "p1"], [False, False])
