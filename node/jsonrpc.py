"""JSON-RPC 2.0 and nothing else: bytes to requests, results and errors to bytes.

Owns every rule of that specification, and the limits that keep a stranger's JSON small and shallow. It knows no
method: what a request means is decided in rpc_methods.py, and sockets are in rpc.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NotRequired, TypeAlias, TypedDict, cast

import orjson

from ledger.fields import HashText, Json

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REJECTED: Final = -32000
NOT_FOUND: Final = -32001
TIMED_OUT: Final = -32002
OVERLOADED: Final = -32003
SYNCING: Final = -32004
TOO_LARGE: Final = -32005
NOT_PERMITTED: Final = -32006

MESSAGES: Final[Mapping[int, str]] = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
    REJECTED: "rejected",
    NOT_FOUND: "not_found",
    TIMED_OUT: "timed_out",
    OVERLOADED: "overloaded",
    SYNCING: "syncing",
    TOO_LARGE: "too_large",
    NOT_PERMITTED: "not_permitted",
}

BATCH_MAX: Final = 1_000  # requests in one array
DEPTH_MAX: Final = 16  # levels of arrays and objects; the deepest honest request has five
STRUCTURES_MAX: Final = 20_000  # arrays and objects in one body, counted by their opening brackets
COLONS_MAX: Final = 20_000
ID_LENGTH_MAX: Final = 256
METHOD_LENGTH_MAX: Final = 100
EXACT_NUMBER_MAX: Final = 2**53  # a larger number in an id would not come back as it was sent
ITEM_LENGTH_MAX: Final = 300  # what an error repeats of its cause

Id: TypeAlias = str | int | float | None
Params: TypeAlias = dict[str, Json] | list[Json]


class ErrorData(TypedDict):
    """What an error is about. With ``tx_id``, the transaction that it is about."""

    reason: str
    item: str
    tx_id: NotRequired[HashText]


class Error(TypedDict):
    """An error, as in an answer that is one."""

    code: int
    message: str
    data: NotRequired[ErrorData]


class Fault(Exception):
    """An error that JSON-RPC answers with: a code of this file, and data (a reason and an item, mostly)."""

    def __init__(self, code: int, data: ErrorData | None = None) -> None:
        self.code = code
        self.data = data
        super().__init__(MESSAGES[code])

    def to_json(self) -> Error:
        """The ``error`` member of an answer."""
        error: Error = {"code": self.code, "message": MESSAGES[self.code]}
        if self.data is not None:
            error["data"] = self.data
        return error


def make_fault(code: int, reason: str, item: object = "") -> Fault:
    """A fault with the data that all of ours carry."""
    return Fault(code, {"reason": reason, "item": str(item)[:ITEM_LENGTH_MAX]})


@dataclass(frozen=True, slots=True)
class Request:
    """One call. Nobody waits for the answer of a notification."""

    method: str
    params: Params
    id: Id
    is_notification: bool = False


@dataclass(frozen=True, slots=True)
class InvalidRequest:
    """An item that is no request; ``id`` is what could be made out of its id."""

    id: Id
    fault: Fault


Item: TypeAlias = Request | InvalidRequest


def parse(raw: bytes) -> Item | list[Item]:
    """The request, or the batch, in a body.

    Raises ``Fault``, to be answered under the id null: −32700 for what is no JSON, nests too deep, has a name twice or
    holds NaN, −32600 for an empty batch, −32005 for one that is too long or holds too many arrays and objects.
    """
    # Each level opens with a bracket: few brackets cannot nest deep, and that is the way of most requests.
    brackets = raw.count(b"[") + raw.count(b"{")
    if brackets > STRUCTURES_MAX:
        raise make_fault(TOO_LARGE, "json_too_complex", f"at most {STRUCTURES_MAX} arrays and objects")
    colons = raw.count(b":")
    if colons > COLONS_MAX:
        raise make_fault(TOO_LARGE, "json_too_complex", f"at most {COLONS_MAX} names, and colons in texts")
    try:
        document: Json = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise make_fault(PARSE_ERROR, "json_invalid", error.msg.partition(":")[0]) from error
    if brackets > DEPTH_MAX and not _is_shallow(document, DEPTH_MAX):
        raise make_fault(PARSE_ERROR, "json_too_deep", f"at most {DEPTH_MAX} levels")
    # Each name is followed by a colon: no more colons than names, and none of the names was read over another.
    if colons != _count_names(document):
        _check_names(raw)
    if type(document) is not list:
        return read_request(document)
    if not document:
        raise make_fault(INVALID_REQUEST, "batch_empty")
    if len(document) > BATCH_MAX:
        raise make_fault(TOO_LARGE, "batch_too_long", f"{len(document)} requests, at most {BATCH_MAX}")
    return [read_request(item) for item in document]


def read_request(document: Json) -> Item:
    """One item of a body: a request, or why it is none."""
    if type(document) is not dict:
        return InvalidRequest(None, make_fault(INVALID_REQUEST, "request_not_an_object"))
    request_id = document.get("id")
    if not _is_valid_id(request_id):
        return InvalidRequest(None, make_fault(INVALID_REQUEST, "request_id_invalid"))
    valid_id = cast(Id, request_id)
    if document.get("jsonrpc") != "2.0":
        return InvalidRequest(valid_id, make_fault(INVALID_REQUEST, "request_version_wrong", 'jsonrpc is not "2.0"'))
    method = document.get("method")
    if type(method) is not str or len(method) > METHOD_LENGTH_MAX:
        return InvalidRequest(valid_id, make_fault(INVALID_REQUEST, "request_method_invalid"))
    params = document.get("params", _NO_PARAMS)
    if type(params) is not dict and type(params) is not list:
        return InvalidRequest(valid_id, make_fault(INVALID_REQUEST, "request_params_invalid", "not array or object"))
    return Request(method, params, valid_id, "id" not in document)


def encode_result(request_id: Id, result: object) -> bytes:
    """The bytes of an answer."""
    return dump({"jsonrpc": "2.0", "result": result, "id": request_id})


def encode_error(request_id: Id, fault: Fault) -> bytes:
    """The bytes of an error."""
    return dump({"jsonrpc": "2.0", "error": fault.to_json(), "id": request_id})


def encode_notification(method: str, params: object) -> bytes:
    """The bytes of a message that expects no answer."""
    return dump({"jsonrpc": "2.0", "method": method, "params": params})


def encode_batch(answers: list[bytes]) -> bytes:
    """The bytes of the answers of a batch."""
    return b"[" + b",".join(answers) + b"]"


def dump(document: object) -> bytes:
    """JSON bytes. A sum may pass 64 bits, which only the slower encoder can write."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


_STRUCTURES: Final = (dict, list)
_NO_PARAMS: Final[dict[str, Json]] = {}


def _is_valid_id(value: Json | float) -> bool:
    kind = type(value)
    if kind is str:
        return len(cast(str, value)) <= ID_LENGTH_MAX
    if kind is int or kind is float:
        return -EXACT_NUMBER_MAX <= cast(float, value) <= EXACT_NUMBER_MAX
    return value is None


def _count_names(value: Json) -> int:
    """How many members all objects in a document have together."""
    if type(value) is dict:
        return len(value) + sum(_count_names(part) for part in value.values() if type(part) in _STRUCTURES)
    if type(value) is list:
        return sum(_count_names(part) for part in value if type(part) in _STRUCTURES)
    return 0


def _check_names(raw: bytes) -> None:
    """Raises ``Fault`` (``json_name_repeated``): which of two values counts is for its writer to say."""

    def check(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            raise make_fault(PARSE_ERROR, "json_name_repeated", ascii(next(n for n in names if names.count(n) > 1)))
        return found

    json.loads(raw, object_pairs_hook=check)


def _is_shallow(value: Json, levels_left: int) -> bool:
    if type(value) is dict:
        return levels_left > 0 and all(_is_shallow(part, levels_left - 1) for part in value.values())
    if type(value) is list:
        return levels_left > 0 and all(_is_shallow(part, levels_left - 1) for part in value)
    return True
