"""Whether a node of this machine may be sent users, asked as whoever stands in front of it asks: ``/readyz``.

Touches the world (a connection to loopback, a time limit).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Final

HOST: Final = "127.0.0.1"
READY: Final = "ready"
NO_ANSWER: Final = "no_answer"
ANSWER_SECONDS: Final = 5


async def ask_readiness(port: int) -> str:
    """``READY``, or why not: ``node_is_syncing``, ``quorum_not_connected``, ``fork_seen``; else ``NO_ANSWER``."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            head, _, body = (await _fetch(port)).partition(b"\r\n\r\n")
    except (OSError, TimeoutError):
        return NO_ANSWER
    if b" 200 " in head.partition(b"\r\n")[0]:
        return READY
    try:
        answer = json.loads(body)
    except ValueError:
        return NO_ANSWER
    return str(answer.get("reason", NO_ANSWER)) if isinstance(answer, dict) else NO_ANSWER


async def _fetch(port: int) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(f"GET /readyz HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
