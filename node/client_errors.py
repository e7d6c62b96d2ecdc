"""How a call to a node can fail, as its caller sees it.

ClientError
├── NodeUnreachable     no node answered, or what answered is none
└── RpcError            the node answered with an error: code, message, data
    ├── Refused         −32000: the ledger refuses; reason and item
    ├── UnknownItem     −32001: what the question names is not there
    └── NotYetCommitted −32002: admitted, and not committed within the time given; tx_id
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.jsonrpc import MESSAGES, NOT_FOUND, REJECTED, TIMED_OUT


class ClientError(Exception):
    """A call that did not do what it was for."""


class NodeUnreachable(ClientError):
    """No node answered at ``url``; ``reason`` says in a few words why."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"no node answers at {url}: {reason}")


class RpcError(ClientError):
    """A node's answer was an error. ``reason`` and ``item`` are those of its data, or empty."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        fields: dict[str, object] = data if isinstance(data, dict) else {}
        self.code = code
        self.message = message
        self.data = data
        self.reason = str(fields.get("reason", ""))
        self.item = str(fields.get("item", ""))
        super().__init__(": ".join(part for part in (self.reason or message, self.item) if part))

    @property
    def tx_id(self) -> str | None:
        """The transaction that the error is about, if it names one."""
        found = self.data.get("tx_id") if isinstance(self.data, dict) else None
        return found if isinstance(found, str) else None


class Refused(RpcError):
    """The ledger refuses a transaction: the stable ``reason``, and the ``item`` at fault."""

    def __init__(self, reason: str, item: str = "", data: object = None) -> None:
        super().__init__(REJECTED, MESSAGES[REJECTED], {"reason": reason, "item": item} if data is None else data)


class UnknownItem(RpcError):
    """What the question names is not on this chain."""


class NotYetCommitted(RpcError):
    """The transaction is admitted, and was not committed within the time given."""


def make_error(error: Mapping[str, Any]) -> RpcError:
    """The exception of the ``error`` member of an answer."""
    code, message, data = error.get("code"), str(error.get("message", "")), error.get("data")
    if code == REJECTED and isinstance(data, dict):
        return Refused(str(data.get("reason", "")), str(data.get("item", "")), data)
    kind = {NOT_FOUND: UnknownItem, TIMED_OUT: NotYetCommitted}.get(code, RpcError) if type(code) is int else RpcError
    return kind(code if type(code) is int else 0, message, data)
