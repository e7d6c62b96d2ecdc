"""What a client signs, sends and reads, without the sending.

Owns the signing of a payload by its participants' keys and the reading of a node's answers, so that the client
itself only has connections to mind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import orjson

from ledger.fields import Json
from ledger.primitives import Address, PublicKey, Signature
from ledger.transaction import Payload, compute_tx_id, make_body, sign_transaction
from node.client_errors import NodeUnreachable, RpcError, make_error
from node.client_methods import Answer
from node.jsonrpc import dump


class Signer(Protocol):
    """A participant's key: ``node.keystore.SigningKey``, or anything that signs for an address."""

    @property
    def address(self) -> Address:
        """The participant that this key signs for."""

    @property
    def public_key(self) -> PublicKey:
        """The participant's key in force."""

    def sign(self, message: bytes) -> Signature:
        """The Ed25519 signature of a message."""


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A signed envelope and its id (hex), ready to be submitted."""

    tx_id: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submitted transaction. ``status``: ``pending``, or ``committed`` with place and events."""

    tx_id: str
    status: str
    height: int | None
    index: int | None
    events: tuple[Answer, ...]


def sign_payload(
    payload: Payload,
    *,
    chain_id: str,
    valid_until: int,
    salt: bytes,
    signer: Signer,
    cosigners: Sequence[Signer] = (),
) -> SignedTransaction:
    """Sign a payload: the sender first, then each cosigner. ``salt``: 8 bytes that the signer never used before."""
    body = make_body(
        chain_id=chain_id,
        payload=payload,
        sender=signer.address,
        valid_until=valid_until,
        salt=salt,
        cosigners=[one.address for one in cosigners],
    )
    raw = sign_transaction(body, [(one.public_key, one.sign) for one in (signer, *cosigners)])
    return SignedTransaction(compute_tx_id(body).hex(), raw)


def encode_call(method: str, params: dict[str, Json], request_id: int) -> bytes:
    """The bytes of a request; parameters that are None are left out."""
    given = {name: value for name, value in params.items() if value is not None}
    return dump({"jsonrpc": "2.0", "method": method, "params": given, "id": request_id})


def read_answer(raw: bytes, url: str) -> object:
    """The result in an answer. Raises ``RpcError`` for an error, ``NodeUnreachable`` for what is no answer at all."""
    try:
        answer: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise NodeUnreachable(url, "what answers is not a node") from None
    if not isinstance(answer, dict):
        raise NodeUnreachable(url, "what answers is not a node")
    if isinstance(answer.get("error"), dict):
        raise make_error(answer["error"])
    if "result" not in answer:
        raise NodeUnreachable(url, "what answers is not a node")
    result: object = answer["result"]
    return result


def read_submitted(answer: object) -> Submitted:
    """What became of one transaction, from the result of ``tx_submit``."""
    one = cast(Answer, answer)
    return Submitted(one["tx_id"], one["status"], one["height"], one["index"], tuple(one["events"]))


def read_outcomes(answer: object) -> list[Submitted | RpcError]:
    """What became of each transaction, from the result of ``tx_submit_many``."""
    each = cast("list[Answer]", answer)
    return [make_error(one["error"]) if "error" in one else read_submitted(one) for one in each]
