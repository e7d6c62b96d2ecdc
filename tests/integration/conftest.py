"""On which event loops these tests run: asyncio's, and those of connections on uvloop as well.

A node runs on uvloop, whose TLS is another one. Tests that start nodes as processes meet it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

CONNECTIONS = frozenset({"test_cut.py", "test_network.py", "test_network_intruders.py"})


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    asyncios: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return asyncios | {"uvloop": uvloop.new_event_loop} if item.path.name in CONNECTIONS else asyncios
