"""The node's door: JSON-RPC over HTTP and WebSocket, health, metrics, and a page for people.

Touches the world (sockets, the explorer's files). It listens on loopback unless told otherwise, answers only pages of
its own origin, and has a limit for everything that a stranger can make it keep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, cast

from aiohttp import HttpVersion11, web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler
from prometheus_client import ProcessCollector

from node.chain_store import read_validators
from node.jsonrpc import OVERLOADED, TOO_LARGE, dump, encode_error, make_fault
from node.metrics import CONTENT_TYPE as METRICS_TYPE
from node.metrics import NodeMetrics
from node.rpc_dispatch import Dispatcher
from node.rpc_methods import METHODS, rpc_discover
from node.rpc_socket import Hub
from node.service import CommittedBlock, NodeService

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8600
BODY_BYTES_MAX: Final = 8 * 1024 * 1024
BODIES_BYTES_MAX: Final = 64 * 1024 * 1024  # of all requests at once
BODY_SECONDS_MAX: Final = 20  # for a body to arrive
REQUESTS_MAX: Final = 2_048  # at once; most of them wait for a block
KEEP_ALIVE_SECONDS: Final = 75  # more than clients keep an idle connection, so that it is they who let go
SHUTDOWN_SECONDS: Final = 2
JSON_TYPE: Final = "application/json"
PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_EXPLORER: Final = Path(__file__).with_name("explorer")
_EXPLORER_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/explorer.js": ("explorer.js", "text/javascript"),
    "/explorer.css": ("explorer.css", "text/css"),
}

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_logger = logging.getLogger(__name__)
