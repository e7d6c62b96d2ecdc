"""The table of JSON-RPC methods: the names of the contract with users.

Owns the methods that submit, follow and simulate transactions and tell how the node stands; every other read is one
of node/queries/catalogue. Server, client and OpenRPC document derive from ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypedDict

from ledger.block import compute_block_id
from ledger.errors import Malformed, Rejected
from ledger.fields import Bounds, HashText, Json, KeyText, Length, get_codec
from ledger.primitives import Hash
from ledger.receipt import Event, Tagged
from ledger.receipt import to_json as event_to_json
from ledger.transaction import TRANSACTION_BYTES_MAX, SignedTransaction, Transaction, transaction_to_json
from node.chain_store import get_header, read_head_height, read_validators
from node.forks import list_fork_heights
from node.jsonrpc import METHOD_NOT_FOUND, TIMED_OUT, Error, Fault, make_fault
from node.methods import Handler, Method, explain, make_method
from node.openrpc import OpenRpc, make_document
from node.parameter_summaries import PARAMETER_SUMMARIES
from node.queries import chain
from node.queries.catalogue import QUERIES
from node.queries.errors import NotFound
from node.queries.view import Paged, TimeMs, View
from node.service import NodeService, Outcome, PeerStatus, Wait
from node.subscriptions import Topic

SUBMIT_MANY_MAX: Final = 1_000  # transactions in one call
PENDING_LIMIT_MAX: Final = 1_000
PENDING_LIMIT_DEFAULT: Final = 100
CURSOR_BYTES: Final = 8  # a number of arrival
TIMEOUT_MS_MAX: Final = 120_000
TIMEOUT_MS_DEFAULT: Final = 10_000

TransactionBytes = Annotated[bytes, Length(TRANSACTION_BYTES_MAX, 1)]
TransactionText = Annotated[str, Length(2 * TRANSACTION_BYTES_MAX)]
TransactionTexts = Annotated[tuple[TransactionText, ...], Length(SUBMIT_MANY_MAX, 1)]
TimeoutMs = Annotated[int, Bounds(0, TIMEOUT_MS_MAX)]
PendingLimit = Annotated[int, Bounds(1, PENDING_LIMIT_MAX)]


class Authority(TypedDict):
    """Who votes on the next block."""

    public_key: KeyText
    moniker: str


class ChainStatus(TypedDict):
    """How a node and its chain stand."""

    chain_id: str
    height: int
    block_id: HashText
    block_time_ms: TimeMs
    state_root: HashText
    syncing: bool
    forks: list[int]
    moniker: str
    public_key: KeyText
    is_validator: bool
    round: int
    peers: list[PeerStatus]
    validators: list[Authority]
    mempool_transactions: int
    mempool_bytes: int
    version: str


class Submission(TypedDict):
    """What became of a transaction that was admitted: ``height`` and ``index`` are null until it is committed."""

    tx_id: HashText
    status: Literal["pending", "committed"]
    height: int | None
    index: int | None
    events: list[Tagged[Event]]


class FailedSubmission(TypedDict):
    """Why a transaction is not where its submitter wanted it; ``tx_id`` is null if it could not be decoded."""

    tx_id: HashText | None
    status: Literal["pending", "refused"]
    error: Error


class Simulation(TypedDict):
    """What a transaction would do."""

    events: list[Tagged[Event]]


class Nowhere(TypedDict):
    """The place of what is in no block."""

    height: None
    index: None
    events: Annotated[list[Tagged[Event]], Length(0)]


class PendingTransaction(Nowhere):
    """A transaction that waits for its block."""

    tx_id: HashText
    status: Literal["pending"]
    transaction: SignedTransaction


class DroppedTransaction(Nowhere):
    """A transaction that was admitted once and will not be committed, and why. Its bytes are forgotten."""

    tx_id: HashText
    status: Literal["dropped", "expired"]
    error: Error


class PendingRow(SignedTransaction, Nowhere):
    """A transaction that waits for its block, in a list."""

    status: Literal["pending"]


class PendingList(Paged):
    """Pending transactions in order of arrival, and how many there are in all."""

    transactions: list[PendingRow]
    mempool_transactions: int


class Subscription(TypedDict):
    """The id of a subscription, for ``unsubscribe``; its news carry it."""

    subscription: int


def chain_status(service: NodeService) -> ChainStatus:
    """How this node and its chain stand: head, state root, peers, validators, pending transactions."""
    status = service.get_status()
    header = get_header(service.reader, read_head_height(service.reader))
    members = read_validators(service.reader).members
    return {
        "chain_id": header.chain_id,
        "height": header.height,
        "block_id": compute_block_id(header).hex(),
        "block_time_ms": header.time_ms,
        "state_root": header.state_root.hex(),
        "syncing": status.is_syncing,
        "forks": list(list_fork_heights(service.reader)),
        "moniker": status.moniker,
        "public_key": status.public_key.hex(),
        "is_validator": status.is_validator,
        "round": status.round,
        "peers": list(status.peers),
        "validators": [{"public_key": one.public_key.hex(), "moniker": one.moniker} for one in members],
        "mempool_transactions": status.mempool_transactions,
        "mempool_bytes": status.mempool_bytes,
        "version": status.version,
    }


async def tx_submit(
    service: NodeService,
    transaction: TransactionBytes,
    wait: Wait = Wait.ADMITTED,
    timeout_ms: TimeoutMs = TIMEOUT_MS_DEFAULT,
) -> Submission:
    """Submit a signed transaction, and perhaps wait until it is committed: its id, status, place and events.

    The status is ``pending`` (admitted) or ``committed``. A refusal is the error −32000; −32002 says that the
    transaction is admitted and not yet committed, and names its id.
    """
    (outcome,) = await service.submit((transaction,), wait=wait, timeout_ms=timeout_ms)
    fault = find_fault(outcome)
    if fault is not None:
        raise fault
    return show_outcome(outcome)


async def tx_submit_many(
    service: NodeService,
    transactions: TransactionTexts,
    wait: Wait = Wait.ADMITTED,
    timeout_ms: TimeoutMs = TIMEOUT_MS_DEFAULT,
) -> list[Submission | FailedSubmission]:
    """Submit transactions in order: one result each, as of ``tx_submit``; a refusal of one does not touch the others.

    A result that is not good has ``error`` (code, message, data) beside ``tx_id`` (null if it could not be decoded).
    """
    read = [_read_transaction(text) for text in transactions]
    raws = [one for one in read if isinstance(one, bytes)]
    outcomes = iter(await service.submit(raws, wait=wait, timeout_ms=timeout_ms) if raws else ())
    return [_show_each(next(outcomes) if isinstance(one, bytes) else Outcome(None, one)) for one in read]


def tx_simulate(service: NodeService, transaction: TransactionBytes) -> Simulation:
    """What a transaction would do after all that is pending: its events, or the refusal as an error. Keeps nothing."""
    try:
        events = service.simulate(transaction)
    except Rejected as error:
        raise explain(error) from error
    return {"events": [event_to_json(one) for one in events]}


def tx_get(service: NodeService, tx_id: Hash) -> PendingTransaction | chain.CommittedTransaction | DroppedTransaction:
    """A transaction by its id. Its status is ``pending``, ``committed``, ``dropped`` or ``expired``.

    With ``committed`` come height, index, block_id, time_ms and events, which are null or empty before; with
    ``dropped`` and ``expired`` the error in place of the transaction, whose bytes are forgotten.
    """
    pending = service.find_pending(tx_id)
    if pending is not None:
        return {"tx_id": tx_id.hex(), "status": "pending", **_NOWHERE, "transaction": transaction_to_json(pending)}
    found = chain.find_transaction(View(service.reader, service.table, service.tree), tx_id=tx_id.hex())
    if found is not None:
        return found
    error = service.find_dropped(tx_id)
    if error is None:
        raise explain(NotFound("transaction_not_found", tx_id.hex()))
    status: Literal["dropped", "expired"] = "expired" if error.reason == "transaction_expired" else "dropped"
    return {"tx_id": tx_id.hex(), "status": status, **_NOWHERE, "error": explain(error).to_json()}


def tx_pending(
    service: NodeService,
    tx_id: Hash | None = None,
    limit: PendingLimit = PENDING_LIMIT_DEFAULT,
    cursor: Annotated[bytes, Length(CURSOR_BYTES)] | None = None,
) -> PendingList:
    """The pending transactions in order of arrival, or the one with this id; and how many there are in all."""
    page: list[tuple[int, Transaction]] = []
    if tx_id is None:
        after = 0 if cursor is None else int.from_bytes(cursor, "big")
        page = service.list_pending(limit + 1, after=after)
    elif (pending := service.find_pending(tx_id)) is not None:
        page = [(0, pending)]
    shown: list[PendingRow] = [{"status": "pending", **_NOWHERE, **transaction_to_json(one)} for _, one in page[:limit]]
    return {
        "transactions": shown,
        "next_cursor": page[limit - 1][0].to_bytes(CURSOR_BYTES, "big").hex() if len(page) > limit else None,
        "mempool_transactions": service.get_status().mempool_transactions,
    }


def subscribe(_service: NodeService, topic: Topic, filter: dict[str, Json] | None = None) -> Subscription:
    """Hear of every block, transaction or event from now on, over a WebSocket only: the id of the subscription.

    Each arrives as the notification ``subscription`` (subscription, topic, item), which the schema ``Notification``
    describes. A filter names fields that an item must have with these values; ``participant`` matches an item that
    mentions this address anywhere.
    """
    item = f"connect to /ws for {topic}" + (" with a filter" if filter else "")
    raise make_fault(METHOD_NOT_FOUND, "method_needs_websocket", item)


def unsubscribe(_service: NodeService, subscription: int) -> bool:
    """End a subscription of this WebSocket: whether there was one."""
    raise make_fault(METHOD_NOT_FOUND, "method_needs_websocket", f"{subscription} can only stand on /ws")


def rpc_discover(service: NodeService) -> OpenRpc:
    """The OpenRPC document of this interface."""
    return make_document(METHODS.values(), service.table, version=service.get_status().version)


def show_outcome(outcome: Outcome) -> Submission:
    """The result of a transaction that was admitted or committed."""
    assert outcome.tx_id is not None, "only what was decoded is admitted"
    return {
        "tx_id": outcome.tx_id.hex(),
        "status": "pending" if outcome.height is None else "committed",
        "height": outcome.height,
        "index": outcome.index,
        "events": [event_to_json(one) for one in outcome.events],
    }


def find_fault(outcome: Outcome) -> Fault | None:
    """Why an outcome is not what its submitter asked for, or None."""
    if outcome.error is not None:
        fault = explain(outcome.error)
    elif outcome.timed_out:
        fault = make_fault(TIMED_OUT, "transaction_not_yet_committed", outcome.tx_id.hex() if outcome.tx_id else "")
    else:
        return None
    if outcome.tx_id is not None and fault.data is not None:
        fault.data["tx_id"] = outcome.tx_id.hex()
    return fault


def _show_each(outcome: Outcome) -> Submission | FailedSubmission:
    fault = find_fault(outcome)
    if fault is None:
        return show_outcome(outcome)
    tx_id = None if outcome.tx_id is None else outcome.tx_id.hex()
    return {"tx_id": tx_id, "status": "pending" if outcome.timed_out else "refused", "error": fault.to_json()}


def _read_transaction(text: str) -> bytes | Malformed:
    try:
        raw = _TRANSACTION_CODEC.from_json(text)
    except Malformed as error:
        return error
    assert isinstance(raw, bytes)
    return raw


_NOWHERE: Final[Nowhere] = {"height": None, "index": None, "events": []}
_TRANSACTION_CODEC: Final = get_codec(TransactionBytes)
_HANDLERS: Final[tuple[Handler, ...]] = (
    chain_status,
    *QUERIES,
    tx_submit,
    tx_submit_many,
    tx_simulate,
    tx_get,
    tx_pending,
    subscribe,
    unsubscribe,
)

METHODS: Final[Mapping[str, Method]] = {
    method.name: method
    for method in (
        *(make_method(handler, PARAMETER_SUMMARIES) for handler in _HANDLERS),
        make_method(rpc_discover, PARAMETER_SUMMARIES, name="rpc.discover"),
    )
}
