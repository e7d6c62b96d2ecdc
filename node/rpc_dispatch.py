"""From the bytes of a body to the bytes of its answer, whichever way they came.

Touches the world (a clock for latencies, tasks for the calls of a batch). A refusal becomes an error of JSON-RPC; our
own mistake is logged and becomes −32603 without a word more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from typing import Final, cast

from ledger.errors import Rejected
from node.jsonrpc import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    OVERLOADED,
    TOO_LARGE,
    Fault,
    Item,
    Request,
    encode_batch,
    encode_error,
    encode_result,
    make_fault,
    parse,
)
from node.methods import Handler, explain
from node.metrics import NodeMetrics
from node.rpc_gate import Gate, Visitor, make_rate_fault
from node.rpc_long_reads import LONG_READS, LongReads
from node.rpc_methods import METHODS
from node.service import NodeService

ANSWERS_BYTES_MAX: Final = 16 * 1024 * 1024  # of one batch, and then the last of them
BATCHES_BYTES_MAX: Final = 64 * 1024 * 1024  # answers that wait for the rest of their batch, of all, and then the last

_logger = logging.getLogger(__name__)

_NO_HANDLERS: Final[Mapping[str, Handler]] = {}


class Dispatcher:
    """Answers bodies on behalf of one node."""

    def __init__(self, service: NodeService, metrics: NodeMetrics, gate: Gate) -> None:
        self.service = service
        self.metrics = metrics
        self.gate = gate
        self._long_reads = LongReads(service)
        self._batches_bytes = 0

    async def answer(
        self, raw: bytes, visitor: Visitor, handlers: Mapping[str, Handler] = _NO_HANDLERS
    ) -> bytes | None:
        """The answer to a body; None when nobody waits for one. ``handlers`` stand in for those of the table."""
        try:
            parsed = parse(raw)
            self.check_rate(visitor, len(parsed) if type(parsed) is list else 1)
        except Fault as fault:
            return self._refuse(None, fault)
        if type(parsed) is list:
            return await self._answer_batch(parsed, visitor, handlers)
        return await self._answer_item(cast(Item, parsed), visitor, handlers)

    async def stop(self) -> None:
        """Let go of the store; nothing is answered from it after that."""
        await self._long_reads.stop()

    def check_rate(self, visitor: Visitor, requests: int) -> None:
        """Count requests against the rate of their address; 0 asks whether one more would be within it.

        Raises ``Fault`` (``request_rate_exceeded``).
        """
        if not self.gate.is_within_rate(visitor, time.monotonic_ns() // 1_000_000, requests):
            raise make_rate_fault()

    async def _answer_batch(self, items: list[Item], visitor: Visitor, handlers: Mapping[str, Handler]) -> bytes | None:
        """Calls that wait run side by side, each begun in its order; reads let others have a turn in between.

        Once the answers fill ``ANSWERS_BYTES_MAX``, or those of all batches ``BATCHES_BYTES_MAX``, what is left is
        refused unasked.
        """
        answers: list[asyncio.Task[bytes | None] | bytes | None] = []
        size_bytes = 0
        try:
            for item in items:
                fault = self._find_lack_of_room(size_bytes)
                if fault is not None:
                    answers.append(self._refuse_unasked(item, fault))
                    continue
                method = METHODS.get(item.method) if isinstance(item, Request) else None
                if method is not None and method.is_waiting:
                    answers.append(asyncio.create_task(self._answer_item(item, visitor, handlers)))
                else:
                    await asyncio.sleep(0)
                    answer = await self._answer_item(item, visitor, handlers)
                    size_bytes += len(answer or b"")
                    self._batches_bytes += len(answer or b"")
                    answers.append(answer)
            done = [await one if isinstance(one, asyncio.Task) else one for one in answers]
        finally:
            self._batches_bytes -= size_bytes
        said = [one for one in done if one is not None]
        return encode_batch(said) if said else None

    def _find_lack_of_room(self, size_bytes: int) -> Fault | None:
        if size_bytes > ANSWERS_BYTES_MAX:
            return make_fault(TOO_LARGE, "answers_too_large", f"those before it have {ANSWERS_BYTES_MAX} bytes")
        if self._batches_bytes > BATCHES_BYTES_MAX:
            return make_fault(OVERLOADED, "too_many_requests", f"answers to batches have {BATCHES_BYTES_MAX} bytes")
        return None

    async def _answer_item(self, item: Item, visitor: Visitor, handlers: Mapping[str, Handler]) -> bytes | None:
        if not isinstance(item, Request):
            return self._refuse(item.id, item.fault)
        try:
            self.gate.check_method(visitor, item.method)
            result = await self._call(item, handlers)
            return None if item.is_notification else encode_result(item.id, result)
        except Fault as fault:
            answer = self._refuse(item.id, fault)
        except Rejected as error:
            answer = self._refuse(item.id, explain(error))
        except Exception:  # whatever our own mistake is, it ends this call only: logged whole, and told as an error
            _logger.exception("a call failed: %s", item.method)
            answer = self._refuse(item.id, Fault(INTERNAL_ERROR))
        return None if item.is_notification else answer

    async def _call(self, request: Request, handlers: Mapping[str, Handler]) -> object:
        method = METHODS.get(request.method)
        if method is None:
            raise make_fault(METHOD_NOT_FOUND, "method_unknown", ascii(request.method))
        began = time.perf_counter()
        try:
            arguments = method.bind(request.params)
            if request.method in LONG_READS:
                return await self._long_reads.answer(method, arguments)
            handle = handlers.get(request.method, method.handle)
            result = handle(self.service, **arguments)
            return await cast("Awaitable[object]", result) if method.is_waiting else result
        finally:
            self.metrics.observe_call(request.method, time.perf_counter() - began)

    def _refuse_unasked(self, item: Item, fault: Fault) -> bytes | None:
        answer = self._refuse(item.id, fault)
        return None if isinstance(item, Request) and item.is_notification else answer

    def _refuse(self, request_id: str | float | None, fault: Fault) -> bytes:
        reason = fault.data.get("reason") if isinstance(fault.data, dict) else None
        self.metrics.count_refusal(str(reason or fault.code))
        return encode_error(request_id, fault)
