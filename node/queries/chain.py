"""Questions about the chain itself: blocks, validators, parameters, committed transactions and their proofs.

Owns the answers of ``chain_block``, ``chain_validators``, ``chain_parameters``, ``tx_get`` (its committed part),
``proof_transaction`` and ``proof_state``.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict, cast

from consensus.messages import CommitCertificate
from ledger.block import Block, Header, compute_block_id
from ledger.encoding import DECODE_BYTES_MAX, Plain, decode
from ledger.errors import Malformed
from ledger.fields import AddressText, HashText, JsonOf, KeyText, Length, Shown, SignatureText, to_json
from ledger.merkle import compute_inclusion_proof
from ledger.parameters import Parameters, find_parameters_at
from ledger.primitives import HASH_BYTES, Hash, compute_address, format_address
from ledger.receipt import Event, Receipt, Tagged
from ledger.receipt import to_json as event_to_json
from ledger.storage import RECEIPTS, STATE, format_height
from ledger.transaction import TRANSACTION_BYTES_MAX, SignedTransaction, transaction_to_json
from node import chain_store
from node.certificates.format import BucketBytes, NodeBytes
from node.queries.errors import NotFound
from node.queries.view import HEX_BYTES_MAX, TimeMs, View, read_bytes

EnvelopeText = Annotated[str, JsonOf(Annotated[bytes, Length(TRANSACTION_BYTES_MAX, 1)])]
StateKeyText = Annotated[str, JsonOf(Annotated[bytes, Length(HEX_BYTES_MAX)])]
StateValueText = Annotated[str, JsonOf(Annotated[bytes, Length(DECODE_BYTES_MAX)])]
NodeText = Annotated[str, JsonOf(NodeBytes)]
BucketText = Annotated[str, JsonOf(BucketBytes)]


class CommitSignatureShown(TypedDict):
    """One validator's precommit."""

    voter: KeyText
    signature: SignatureText


class CertificateShown(TypedDict):
    """Why a block is final: a quorum of precommits of one round."""

    chain_hash: HashText
    height: int
    round: int
    block_id: HashText
    signatures: list[CommitSignatureShown]


class BlockPlace(TypedDict):
    """A header with its id and why it is final; genesis needs no certificate."""

    height: int
    block_id: HashText
    header: Shown[Header]
    certificate: CertificateShown | None


class BlockAnswer(BlockPlace):
    """A block: its header, and the ids of its transactions in order."""

    tx_ids: list[HashText]


class ValidatorShown(TypedDict):
    """An authority."""

    public_key: KeyText
    address: AddressText
    moniker: str


class ValidatorsAnswer(TypedDict):
    """The validators that vote on the block after a height, in the order of proposing."""

    height: int
    validators_hash: HashText
    quorum: int
    validators: list[ValidatorShown]


class ParametersAnswer(TypedDict):
    """The parameters in force after a height."""

    height: int
    parameters: Shown[Parameters]


class CommittedTransaction(TypedDict):
    """A transaction in a block, with what it did."""

    tx_id: HashText
    status: Literal["committed"]
    height: int
    index: int
    block_id: HashText
    time_ms: TimeMs
    transaction: SignedTransaction
    events: list[Tagged[Event]]


class TransactionProof(BlockPlace):
    """The RFC 6962 path from a signed envelope, ``leaf``, to the transactions root of its header."""

    tx_id: HashText
    leaf: EnvelopeText
    index: int
    size: int
    proof: list[HashText]


class StatePath(TypedDict):
    """What joins a key to the state root: the siblings of each level, from the root down, and the bucket."""

    levels: list[NodeText]
    bucket: BucketText


class StateProofAnswer(BlockPlace):
    """The value of a key, null if it has none, and what shows it."""

    key: StateKeyText
    value: StateValueText | None
    proof: StatePath


def chain_block(view: View, *, height: int | None = None, block_id: str | None = None) -> BlockAnswer:
    """A block by its height or its id (with neither, the last): header, ids of its transactions, certificate."""
    if height is not None and block_id is not None:
        raise Malformed("parameters_conflict", "height and block_id")
    if block_id is not None:
        height = chain_store.find_height(view.reader, Hash(read_bytes(block_id, name="block_id", length=HASH_BYTES)))
        if height is None:
            raise NotFound("block_not_found", block_id)
    block = _get_block(view, _read_height(view, height))
    tx_ids = [tx_id.hex() for tx_id in _read_tx_ids(view, block.header.height)]
    return {**_show_place(view, block.header), "tx_ids": tx_ids}


def chain_validators(view: View, *, height: int | None = None) -> ValidatorsAnswer:
    """The validators that vote on the block after ``height`` (by default the head), in the order of proposing."""
    header = _get_block(view, _read_height(view, height)).header
    validators = chain_store.read_validators_at(view.reader, header.height + 1)
    return {
        "height": header.height,
        "validators_hash": header.next_validators_hash.hex(),
        "quorum": validators.quorum,
        "validators": [
            {
                "public_key": one.public_key.hex(),
                "address": format_address(compute_address(one.public_key)),
                "moniker": one.moniker,
            }
            for one in validators.members
        ],
    }


def chain_parameters(view: View, *, height: int | None = None) -> ParametersAnswer:
    """The parameters in force after ``height`` (by default the head)."""
    height = _read_height(view, height)
    parameters = find_parameters_at(view.state, height + 1)
    assert parameters is not None, "genesis names the first"
    return {"height": height, "parameters": to_json(parameters)}


def find_transaction(view: View, *, tx_id: str) -> CommittedTransaction | None:
    """A committed transaction: its place, its JSON form, its events. None when it is not committed."""
    place = chain_store.find_transaction_place(view.reader, read_tx_id(tx_id))
    if place is None:
        return None
    header = chain_store.get_header(view.reader, place.height)
    receipt = read_receipt(view, place)
    return {
        "tx_id": tx_id,
        "status": "committed",
        "height": place.height,
        "index": place.index,
        "block_id": compute_block_id(header).hex(),
        "time_ms": header.time_ms,
        "transaction": transaction_to_json(chain_store.get_transaction(view.reader, place, view.table)),
        "events": [event_to_json(one) for one in receipt.events],
    }


def tx_get(view: View, *, tx_id: str) -> CommittedTransaction:
    """As ``find_transaction``. Raises ``NotFound`` (``transaction_not_found``)."""
    found = find_transaction(view, tx_id=tx_id)
    if found is None:
        raise NotFound("transaction_not_found", tx_id)
    return found


def proof_transaction(view: View, *, tx_id: str) -> TransactionProof:
    """What shows that a transaction is in a final block: the RFC 6962 path of its envelope, header, certificate."""
    place = chain_store.find_transaction_place(view.reader, read_tx_id(tx_id))
    if place is None:
        raise NotFound("transaction_not_found", tx_id)
    block = _get_block(view, place.height)
    path = compute_inclusion_proof(block.transactions, place.index)
    return {
        "tx_id": tx_id,
        "leaf": block.transactions[place.index].hex(),
        "index": place.index,
        "size": len(block.transactions),
        "proof": [sibling.hex() for sibling in path],
        **_show_place(view, block.header),
    }


def proof_state(view: View, *, key: str) -> StateProofAnswer:
    """What shows a state key's value, or that it has none (``value`` null), under the root of the last block.

    ``key`` is the full key with its first byte, as ledger/storage.py documents it.
    """
    raw_key = read_bytes(key, name="key")
    if not raw_key.startswith(STATE):
        raise Malformed("state_key_invalid", "a key of the state begins with 73 (s)")
    header = chain_store.get_header(view.reader, chain_store.read_head_height(view.reader))
    tree = view.tree
    if tree is None or tree.root != header.state_root:  # a tree in memory may be a moment behind the store
        tree = chain_store.load_tree(view.reader)
    proof = tree.prove(raw_key)
    value = view.reader.get(raw_key)
    return {
        "key": key,
        "value": None if value is None else value.hex(),
        "proof": {"levels": [level.hex() for level in proof.levels], "bucket": proof.bucket.hex()},
        **_show_place(view, header),
    }


def read_tx_id(text: str) -> Hash:
    """A transaction id from its hex. Raises ``Malformed``."""
    return Hash(read_bytes(text, name="tx_id", length=HASH_BYTES))


def read_receipt(view: View, place: chain_store.TransactionPlace) -> Receipt:
    """The receipt of one committed transaction, without making objects of its whole block's events."""
    return chain_store.get_receipt(view.reader, place, view.table)


def show_certificate(certificate: CommitCertificate) -> CertificateShown:
    """The JSON form of a commit certificate."""
    return {
        "chain_hash": certificate.chain_hash.hex(),
        "height": certificate.height,
        "round": certificate.round,
        "block_id": certificate.block_id.hex(),
        "signatures": [{"voter": one.voter.hex(), "signature": one.signature.hex()} for one in certificate.signatures],
    }


def _read_tx_ids(view: View, height: int) -> list[bytes]:
    """The ids of a block's transactions, as they stand in its receipts."""
    raw = view.reader.get(RECEIPTS + format_height(height))
    assert raw is not None, "a block is written with its receipts"
    return [tx_id for tx_id, _ in cast("tuple[tuple[bytes, Plain], ...]", decode(raw))]


def _read_height(view: View, height: int | None) -> int:
    head = chain_store.read_head_height(view.reader)
    if height is None:
        return head
    if height < 0:
        raise Malformed("number_out_of_range", f"height {height}")
    if height > head:
        raise NotFound("block_not_found", f"height {height}, the last is {head}")
    return height


def _get_block(view: View, height: int) -> Block:
    chain_store.check_kept(view.reader, height)
    block = chain_store.find_block(view.reader, height)
    assert block is not None, "a height up to the head has a block"
    return block


def _show_place(view: View, header: Header) -> BlockPlace:
    certificate = chain_store.find_certificate(view.reader, header.height)
    return {
        "height": header.height,
        "block_id": compute_block_id(header).hex(),
        "header": to_json(header),
        "certificate": None if certificate is None else show_certificate(certificate),
    }
