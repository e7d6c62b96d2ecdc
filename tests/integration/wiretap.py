"""Taps on the wires of a test network: proxies on loopback that pass everything on and keep what they saw.

WebSocket frames from a client are masked with a random key each, so what was captured is unmasked before anyone
searches it: a search of the raw bytes would find nothing, whatever is in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from tests.integration.serving import HOST, close, serving

READ_BYTES: Final = 65_536


class Tap:
    """One proxy: ``port`` leads to ``target``; ``streams`` has each direction of each connection."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.streams: list[bytearray] = []

    @property
    def seen(self) -> bytes:
        """Everything that passed, unmasked where it was masked."""
        return b"\n".join(read_stream(bytes(stream)) for stream in self.streams)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass both directions on until one side goes away."""
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        except OSError:  # the node is not up yet; its peer tries again
            return
        self.streams += (bytearray(), bytearray())
        out, back = self.streams[-2:]
        await asyncio.gather(_pass_on(reader, far_writer, out), _pass_on(far_reader, writer, back))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: bytearray) -> None:
    try:
        while data := await reader.read(READ_BYTES):
            stream += data
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        await close(writer)


@asynccontextmanager
async def open_taps(targets: list[int]) -> AsyncIterator[list[Tap]]:
    """A tap before each of these ports."""
    async with AsyncExitStack() as stack:
        taps = [Tap(target) for target in targets]
        for tap in taps:
            tap.port = await stack.enter_async_context(serving(tap.serve))
        yield taps


def read_stream(stream: bytes) -> bytes:
    """What one direction of a connection said: HTTP as it came; after an upgrade the payloads of its frames."""
    head, end, rest = stream.partition(b"\r\n\r\n")
    if b"upgrade: websocket" not in head.lower():
        return stream
    payloads = bytearray()
    while len(rest) >= 2:
        is_masked, length, position = rest[1] >> 7, rest[1] & 127, 2
        if length > 125:
            width = 2 if length == 126 else 8
            length = int.from_bytes(rest[position : position + width], "big")
            position += width
        mask = rest[position : position + 4] if is_masked else bytes(4)
        position += 4 * is_masked
        payload = rest[position : position + length]
        keys = (mask * (len(payload) // 4 + 1))[: len(payload)]
        payloads += (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(len(payload), "big")
        rest = rest[position + length :]
    return head + end + bytes(payloads)
