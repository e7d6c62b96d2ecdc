"""Targets of the ledger's own forms: the canonical bytes, transactions, blocks, the genesis file, proofs, addresses."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Final, cast

import orjson

from contracts_native.table import load_table
from ledger.block import Header, check_header, decode_block, decode_stored_header, encode_block
from ledger.encoding import Plain, decode, decode_first, encode
from ledger.errors import Malformed, Rejected
from ledger.fields import Codec, Json, get_codec
from ledger.genesis import GenesisDocument, compute_genesis_changes, write_genesis
from ledger.merkle import (
    check_consistency,
    check_inclusion,
    compute_consistency_proof,
    compute_inclusion_proof,
    compute_root,
)
from ledger.primitives import Hash, format_address, is_valid_ed25519, is_valid_p256, parse_address
from ledger.state_root import StateProof, check_state_proof
from ledger.storage import BLOCKS, compute_prefix_end
from ledger.transaction import (
    check_signatures,
    decode_transaction,
    make_body,
    make_envelope,
    transaction_to_json,
)
from node.certificates.format import Certificate
from node.chain_store import get_header
from node.launch import LaunchError, read_genesis_file
from tests.contracts_native.harness import ALICE, BOB
from tests.fuzz.target import Target
from tests.node.certificate_chain import make_market

LEAVES: Final = [b"leaf %d" % number for number in range(7)]


@cache
def list_blocks() -> tuple[bytes, ...]:
    """The blocks of the market of the certificates' tests."""
    return tuple(raw for _, raw in make_market().chain.store.scan(BLOCKS, compute_prefix_end(BLOCKS)))


@cache
def list_transactions() -> tuple[bytes, ...]:
    """One transaction of each type in those blocks."""
    table = load_table()
    found: dict[str, bytes] = {}
    for block in list_blocks():
        for raw in decode_block(block).transactions:
            found.setdefault(decode_transaction(raw, table).tag, raw)
    return tuple(found.values())


def take_encoding(data: bytes) -> None:
    value = decode(data)
    assert encode(value) == data
    if isinstance(value, tuple) and value:
        assert decode_first(data) == value[0]


@cache
def list_codecs() -> tuple[Codec, ...]:
    """Of every payload, every event, and the larger documents; the last is a header's."""
    table = load_table()
    events = [get_codec(kind) for _, kind in sorted(table.events.items())]
    return (
        *(table.codecs[tag] for tag in sorted(table.codecs)),
        *events,
        *map(get_codec, (GenesisDocument, Certificate, Header)),
    )


def take_fields(data: bytes) -> None:
    """The first byte says which type; what follows is its JSON, or its plain form."""
    codecs = list_codecs()
    codec = codecs[data[0] % len(codecs)] if data else codecs[0]
    try:
        document: Json = json.loads(data[1:])
    except (ValueError, RecursionError):
        value = codec.from_plain(decode(data[1:]))
        assert codec.to_plain(value) == decode(data[1:])
    else:
        value = codec.from_json(document)
    plain = codec.to_plain(value)
    assert codec.from_plain(decode(encode(plain))) == value
    assert codec.from_json(codec.to_json(value)) == value
    orjson.dumps(codec.to_json(value))


def list_field_seeds() -> list[bytes]:
    table = load_table()
    tags = sorted(table.codecs)
    seeds = []
    for raw in list_transactions():
        tx = decode_transaction(raw, table)
        head = bytes((tags.index(tx.tag),))
        seeds.append(head + json.dumps(table.codecs[tx.tag].to_json(tx.payload)).encode())
        seeds.append(head + encode(table.codecs[tx.tag].to_plain(tx.payload)))
    last = len(list_codecs()) - 1
    header = get_header(make_market().chain.store, 1)
    return [*seeds, bytes((last,)) + json.dumps(get_codec(Header).to_json(header)).encode()]


def take_transaction(data: bytes) -> None:
    tx = decode_transaction(data, load_table())
    body = make_body(
        chain_id=tx.chain_id,
        payload=tx.payload,
        sender=tx.sender,
        valid_until=tx.valid_until,
        salt=tx.salt,
        cosigners=tx.cosigners,
    )
    assert body == tx.body
    assert make_envelope(body, tx.signatures) == data
    orjson.dumps(transaction_to_json(tx))
    check_signatures(tx)


def take_block(data: bytes) -> None:
    block = decode_block(data)
    assert encode_block(block) == data
    assert decode_stored_header(data) == block.header
    check_header(block.header, get_header(make_market().chain.store, 0))


@cache
def make_directory() -> Path:
    """Where files of strangers lie while they are read."""
    return Path(tempfile.mkdtemp(prefix="wattprint-fuzz-"))


def write_file(name: str, data: bytes) -> Path:
    """A file for decoders that read one."""
    path = make_directory() / name
    path.write_bytes(data)
    return path


def take_genesis(data: bytes) -> None:
    document = read_genesis_file(write_file("genesis.json", data))
    compute_genesis_changes(document, load_table())


def list_genesis_seeds() -> list[bytes]:
    document = make_market().chain.document
    small = dataclasses.replace(document, participants=document.participants[:2], validators=document.validators[:1])
    return [json.dumps(write_genesis(one)).encode() for one in (document, small)]


def take_address(data: bytes) -> None:
    text = data.decode(errors="replace")
    assert format_address(parse_address(text)) == text


def take_signature(data: bytes) -> None:
    """No error at all: whatever the key and the signature are, the answer is yes or no."""
    key, signature, message = data[1:34], data[34:98], data[98:]
    is_valid_ed25519(key[:32], message, signature)
    is_valid_p256(key, message, signature)


def list_signature_seeds() -> list[bytes]:
    return [b"\0" + ALICE.public_key + b"\0" + ALICE.sign(b"message") + b"message", b"\0" + b"\x02" * 33 + bytes(64)]


def take_merkle(data: bytes) -> None:
    """An inclusion proof, or a consistency proof, with all that it speaks of."""
    match decode(data):
        case (bytes() as leaf, int() as index, int() as size, tuple() as proof, bytes() as root):
            check_inclusion(leaf, index=index, size=size, proof=_read_hashes(proof), root=root)
        case (int() as old_size, bytes() as old_root, int() as size, tuple() as proof, bytes() as root):
            hashes = _read_hashes(proof)
            check_consistency(old_size=old_size, old_root=old_root, size=size, root=root, proof=hashes)


def _read_hashes(proof: tuple[Plain, ...]) -> list[bytes]:
    return [one for one in proof if isinstance(one, bytes)]


def list_merkle_seeds() -> list[bytes]:
    root = compute_root(LEAVES)
    inclusions: list[Plain] = [
        (LEAVES[at], at, len(LEAVES), compute_inclusion_proof(LEAVES, at), root) for at in (0, 3, 6)
    ]
    consistencies: list[Plain] = [
        (size, compute_root(LEAVES[:size]), len(LEAVES), compute_consistency_proof(LEAVES, size), root)
        for size in (1, 4, 6, 7)
    ]
    return [encode(one) for one in (*inclusions, *consistencies)]


def take_state_proof(data: bytes) -> None:
    match decode(data):
        case (bytes() as root, bytes() as key, (bytes() | None) as value, proof):
            read = StateProof.from_plain(proof)
            assert StateProof.from_plain(decode(encode(read.to_plain()))) == read
            check_state_proof(Hash(root), key=key, value=value, proof=read)
        case _:
            raise Malformed("state_proof_malformed")


def list_state_proof_seeds() -> list[bytes]:
    chain = make_market().chain
    seeds = []
    for key, value in [*chain.store.scan(b"s", b"t")][::25]:
        seeds.append(encode((chain.tree.root, key, value, chain.tree.prove(key).to_plain())))
    return [*seeds, encode((chain.tree.root, b"s nobody", None, chain.tree.prove(b"s nobody").to_plain()))]


def list_address_seeds() -> list[bytes]:
    return [format_address(one.address).encode() for one in (ALICE, BOB)]


def list_encoding_seeds() -> list[bytes]:
    values = (None, True, -1, 2**63, "text", b"bytes", (), (1, (2, (b"3", ("4",)))), tuple(range(40)), ("é" * 40,) * 20)
    return [*(encode(cast(Plain, value)) for value in values), list_blocks()[1]]


LEDGER_TARGETS: Final = (
    Target("encoding", take_encoding, (Malformed,), list_encoding_seeds),
    Target("fields", take_fields, (Malformed,), list_field_seeds),
    Target("transaction", take_transaction, (Rejected,), list_transactions),
    Target("block", take_block, (Rejected,), lambda: list_blocks()[:12]),
    Target("genesis", take_genesis, (LaunchError, Rejected), list_genesis_seeds),
    Target("address", take_address, (Malformed,), list_address_seeds),
    Target("signature", take_signature, (), list_signature_seeds),
    Target("merkle-proof", take_merkle, (Rejected,), list_merkle_seeds),
    Target("state-proof", take_state_proof, (Rejected,), list_state_proof_seeds),
)
