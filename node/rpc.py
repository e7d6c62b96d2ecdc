"""The node's door: JSON-RPC over HTTP and WebSocket, health, metrics, and a page for people.

Touches the world (sockets, the explorer's files). It listens on loopback unless told otherwise, answers only
pages of its own origin and those that are named, and has a limit for everything that a stranger can make it keep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import ProcessCollector

from node.chain_store import read_validators
from node.forks import FORK_SEEN, list_fork_heights
from node.http_server import HttpServer
from node.jsonrpc import OVERLOADED, TOO_LARGE, Fault, dump, encode_error, make_fault
from node.logs import Log
from node.metrics import CONTENT_TYPE as METRICS_TYPE
from node.metrics import NodeMetrics
from node.rpc_dispatch import Dispatcher
from node.rpc_gate import DEFAULT_GATE, Gate, GateSettings, Visitor, is_loopback_host
from node.rpc_methods import METHODS, rpc_discover
from node.rpc_socket import READER_TOO_SLOW, Hub
from node.service import CommittedBlock, NodeService

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8600
BODY_BYTES_MAX: Final = 8 * 1024 * 1024
BODIES_BYTES_MAX: Final = 64 * 1024 * 1024  # of all requests and large answers at once
BODY_SECONDS_MAX: Final = 20  # for a body to arrive
LARGE_BYTES: Final = 64 * 1024  # an answer below it is off our hands when it is written
LARGE_SECONDS_MAX: Final = 60  # for a large one to be taken
REQUESTS_MAX: Final = 2_048  # at once; most of them wait for a block
SHUTDOWN_SECONDS: Final = 2
SERVER: Final = "wattprint"  # and not which versions of what it stands on
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
    "/explorer-pages.js": ("explorer-pages.js", "text/javascript"),
    "/explorer-parts.js": ("explorer-parts.js", "text/javascript"),
    "/explorer.css": ("explorer.css", "text/css"),
}

ALWAYS_OPEN: Final = frozenset({"/healthz", "/readyz"})  # whoever watches over the node must not be turned away
NEED_TOKEN: Final = frozenset({"/metrics", "/ws"})  # when reading needs one; the explorer's files say nothing

Page = Callable[[web.BaseRequest, Visitor], Awaitable[web.StreamResponse]]
_log = Log("rpc")


class RpcServer:
    """The door of one node. ``port`` 0 is any free one; after ``start`` it is the real one."""

    def __init__(
        self,
        service: NodeService,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        settings: GateSettings = DEFAULT_GATE,
    ) -> None:
        self._gate = Gate(settings)
        self._settings = settings
        self.host = host
        self.port = port
        self.metrics = NodeMetrics(service, METHODS)
        ProcessCollector(namespace="wattprint", registry=self.metrics.registry)
        self._service = service
        self._dispatcher = Dispatcher(service, self.metrics, self._gate)
        self._hub = Hub()
        self._requests = 0
        self._bodies_bytes = 0
        self._files = {path: ((_EXPLORER / name).read_bytes(), kind) for path, (name, kind) in _EXPLORER_FILES.items()}
        self._pages: dict[tuple[str, str], Page] = {
            ("GET", "/ws"): self._serve_socket,
            ("GET", "/openrpc.json"): self._serve_document,
            ("GET", "/metrics"): self._serve_metrics,
            ("GET", "/healthz"): self._serve_health,
            ("GET", "/readyz"): self._serve_readiness,
            **{("GET", path): self._serve_file for path in self._files},
        }
        self._verbs = {"/rpc": "POST, OPTIONS", **{path: "GET, HEAD" for _, path in self._pages}}
        self._runner: web.ServerRunner | None = None
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self) -> None:
        """Listen. Raises ``OSError`` when the address cannot be bound."""
        loop = asyncio.get_running_loop()

        server = HttpServer(
            self._serve,
            body_bytes_max=BODY_BYTES_MAX,
            count_refusal=self.metrics.count_refusal,
            name_client=lambda address: self._gate.identify(address, None).address,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        self._warn_of_strangers()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._unsubscribe = self._service.subscribe(lambda block: self._on_block(loop, block))

    async def stop(self) -> None:
        """End every connection and stop listening; before ``start``, and twice, is fine."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._hub.close()
        if self._runner is not None:
            stopping = asyncio.create_task(self._dispatcher.stop())  # so that no answer keeps the server waiting
            await self._runner.cleanup()
            await stopping
            self._runner = None

    def _on_block(self, loop: asyncio.AbstractEventLoop, block: CommittedBlock) -> None:
        self.metrics.observe_block(block)
        if len(self._hub):
            loop.call_soon(self._hub.publish, block)  # after the consensus has had its turn

    def _warn_of_strangers(self) -> None:
        if is_loopback_host(self.host):
            return
        if not self._settings.token_hashes:
            _log.warning("JSON-RPC is open to other machines, and nobody needs a token", host=self.host)
        else:
            _log.warning("JSON-RPC is open to other machines: let TLS end in front of it", host=self.host)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if self._gate.is_origin_allowed(origin, request.headers.get("Host")):
            response = await self._route(request, request.path)
        else:
            response = web.Response(status=403, text="a page of another origin, and not one of rpc.origins")
        if not response.prepared:
            response.headers["Server"] = SERVER
            response.headers.update(self._gate.make_origin_headers(origin))
        if isinstance(response, web.Response) and isinstance(response.body, bytes) and len(response.body) > LARGE_BYTES:
            return await self._send_large(request, response, len(response.body))
        return response

    async def _send_large(self, request: web.BaseRequest, response: web.Response, size: int) -> web.Response:
        """Send an answer whose reader may be slow: it counts until it is taken, and then has waited long enough."""
        if self._bodies_bytes + size > BODIES_BYTES_MAX:
            return self._refuse_too_many()
        self._bodies_bytes += size
        try:
            async with asyncio.timeout(LARGE_SECONDS_MAX):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            self.metrics.count_refusal(READER_TOO_SLOW)
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._bodies_bytes -= size
        return response

    def _refuse_too_many(self) -> web.Response:
        self.metrics.count_refusal("too_many_requests")
        return _make_json(encode_error(None, make_fault(OVERLOADED, "too_many_requests")), status=503)

    async def _route(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        visitor = self._gate.identify(request.remote, request.headers.get("Authorization"))
        if path not in ALWAYS_OPEN:
            try:
                self._dispatcher.check_rate(visitor, 0)
            except Fault as fault:
                self.metrics.count_refusal("request_rate_exceeded")
                return _make_json(encode_error(None, fault), status=429)
        if path == "/rpc" and request.method == "POST":
            return await self._serve_rpc(request, visitor)
        if path == "/rpc" and request.method == "OPTIONS":
            headers = self._gate.make_preflight_headers(request.headers.get("Origin"))
            return web.Response(status=204, headers=headers) if headers else self._refuse_verb(path)
        # aiohttp leaves the body out of an answer to HEAD.
        page = self._pages.get(("GET" if request.method == "HEAD" else request.method, path))
        if page is None:
            return self._refuse_verb(path) if path in self._verbs else web.Response(status=404, text="no such page")
        if path in NEED_TOKEN and self._gate.reads_need_token and not visitor.has_token:
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"}, text="a token is needed")
        return await page(request, visitor)

    def _refuse_verb(self, path: str) -> web.Response:
        verbs = self._verbs[path]
        return web.Response(status=405, headers={"Allow": verbs}, text=f"{path} takes {verbs}")

    async def _serve_rpc(self, request: web.BaseRequest, visitor: Visitor) -> web.Response:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            return web.Response(status=415, text="a body as it is, without Content-Encoding")
        length = request.content_length
        if length is not None and length > BODY_BYTES_MAX:
            return _answer_too_large()
        expected = BODY_BYTES_MAX if length is None else length
        if self._requests >= REQUESTS_MAX or self._bodies_bytes + expected > BODIES_BYTES_MAX:
            return self._refuse_too_many()
        self._requests += 1
        self._bodies_bytes += expected
        try:
            answer = await self._dispatcher.answer(await _read_body(request), visitor)
        except web.HTTPRequestEntityTooLarge:
            return _answer_too_large()
        except TimeoutError:
            return web.Response(status=408)
        finally:
            self._requests -= 1
            self._bodies_bytes -= expected
        return web.Response(status=204) if answer is None else _make_json(answer)

    async def _serve_socket(self, request: web.BaseRequest, visitor: Visitor) -> web.StreamResponse:
        return await self._hub.serve(request, self._dispatcher, visitor)

    async def _serve_document(self, _request: web.BaseRequest, _visitor: Visitor) -> web.Response:
        return _make_json(dump(rpc_discover(self._service)))

    async def _serve_metrics(self, _request: web.BaseRequest, _visitor: Visitor) -> web.Response:
        return web.Response(body=self.metrics.render(), headers={"Content-Type": METRICS_TYPE})

    async def _serve_health(self, _request: web.BaseRequest, _visitor: Visitor) -> web.Response:
        return _make_json(dump({"status": "alive"}))

    async def _serve_readiness(self, _request: web.BaseRequest, _visitor: Visitor) -> web.Response:
        reason = find_unreadiness(self._service)
        return _make_json(dump({"ready": not reason, "reason": reason}), status=503 if reason else 200)

    async def _serve_file(self, request: web.BaseRequest, _visitor: Visitor) -> web.Response:
        content, kind = self._files[request.path]
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=PAGE_HEADERS)


def find_unreadiness(service: NodeService) -> str:
    """Why a node should not be sent users; empty if it should.

    It has seen no fork that its operator has not dealt with, has caught up, and sees a quorum of validators.
    """
    if list_fork_heights(service.reader):
        return FORK_SEEN
    status = service.get_status()
    if status.is_syncing:
        return "node_is_syncing"
    validators = read_validators(service.reader)
    present = {status.public_key.hex(), *(peer["public_key"] for peer in status.peers)}
    seen = sum(member.public_key.hex() in present for member in validators.members)
    return "" if seen >= validators.quorum else "quorum_not_connected"


async def _read_body(request: web.BaseRequest) -> bytes:
    if request.content.is_eof():  # it came with the headers, as most do
        return await request.read()
    async with asyncio.timeout(BODY_SECONDS_MAX):
        return await request.read()


def _answer_too_large() -> web.Response:
    fault = make_fault(TOO_LARGE, "body_too_large", f"at most {BODY_BYTES_MAX} bytes")
    return _make_json(encode_error(None, fault), status=413)


def _make_json(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type=JSON_TYPE)
