"""What a fuzz target is: a decoder that a stranger can reach, and what it may answer to any bytes whatever.

Owns the promise: a decoder returns, or raises one of the errors it names, with a stable reason. What it returns goes
back to the very same bytes, where the form is canonical; each target asserts that itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.errors import CorruptStore
from node.jsonrpc import Fault

DATA_BYTES_MAX: Final = 64 * 1024  # of one input
REASON: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")


@dataclass(frozen=True, slots=True)
class Target:
    """``decode`` takes a stranger's bytes, and asserts what must hold of what it made of them.

    ``seeds`` are bytes that it takes: where mutation starts from.
    """

    name: str
    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]


def take(target: Target, data: bytes) -> str:
    """The reason why the target refuses ``data``, or the empty text. Anything else that it raises is a finding."""
    try:
        target.decode(data)
    except target.refusals as error:
        reason = get_reason(error)
    else:
        return ""
    assert REASON.fullmatch(reason), f"no stable reason: {reason!a}"
    return reason


def get_reason(error: Exception) -> str:
    """The reason of a refusal. That of a corrupt store is the beginning of its one text."""
    if isinstance(error, CorruptStore):
        return str(error).partition(":")[0]
    if isinstance(error, Fault):
        data = error.data
        return str(data.get("reason")) if isinstance(data, dict) else ""
    return str(getattr(error, "reason", ""))
