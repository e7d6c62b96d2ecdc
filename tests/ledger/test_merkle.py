"""RFC 6962 trees: against published vectors, and against the RFC's own recursive definition."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import merkle
from ledger.errors import Rejected
from ledger.primitives import Hash

DATA = Path(__file__).parents[3] / "shared" / "data"


class InclusionCase(TypedDict):
    case: str
    leafIdx: int
    treeSize: int
    root: str | None
    leafHash: str | None
    proof: list[str] | None
    wantErr: bool


class ConsistencyCase(TypedDict):
    case: str
    size1: int
    size2: int
    root1: str | None
    root2: str | None
    proof: list[str] | None
    wantErr: bool


def read_data(path: str) -> str:
    file = DATA / path
    if not file.exists():
        pytest.skip(f"needs the shared test data: {path}")
    return file.read_text()


def decode_all(proof: list[str] | None) -> list[bytes]:
    return [b64decode(text) for text in proof or []]


def naive_root(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def numbered_leaves(count: int) -> list[bytes]:
    return [b"leaf %d" % i for i in range(count)]


def test_the_eight_well_known_leaves_give_the_published_roots() -> None:
    vectors = json.loads(read_data("merkle/rfc6962_tree.json"))
    leaves = [bytes.fromhex(leaf) for leaf in vectors["leaf_inputs_hex"]]
    assert len(vectors["roots_by_size_hex"]) == 9
    for size, root in enumerate(vectors["roots_by_size_hex"]):
        assert merkle.compute_root(leaves[:size]).hex() == root


def test_published_inclusion_proofs_hold_or_are_refused() -> None:
    cases: list[InclusionCase] = json.loads(read_data("merkle/inclusion.json"))
    assert len(cases) > 50
    for case in cases:
        refused = False
        try:
            merkle.check_inclusion_of_hash(
                b64decode(case["leafHash"] or ""),
                index=case["leafIdx"],
                size=case["treeSize"],
                proof=decode_all(case["proof"]),
                root=b64decode(case["root"] or ""),
            )
        except Rejected:
            refused = True
        assert refused == case["wantErr"], case["case"]


def test_published_consistency_proofs_hold_or_are_refused() -> None:
    cases: list[ConsistencyCase] = json.loads(read_data("merkle/consistency.json"))
    assert len(cases) > 50
    for case in cases:
        refused = False
        try:
            merkle.check_consistency(
                old_size=case["size1"],
                old_root=b64decode(case["root1"] or ""),
                size=case["size2"],
                root=b64decode(case["root2"] or ""),
                proof=decode_all(case["proof"]),
            )
        except Rejected:
            refused = True
        assert refused == case["wantErr"], case["case"]


def test_a_tree_of_ten_thousand_readings_has_the_published_roots_and_proofs() -> None:
    vectors = json.loads(read_data("merkle/readings_tree.json"))
    leaves = [line.encode() for line in read_data(vectors["file"]).split("\n")[1:]]
    leaves = leaves[: vectors["leaf_count"]]
    for size, root in vectors["roots_by_size_hex"].items():
        assert merkle.compute_root(leaves[: int(size)]).hex() == root
    assert vectors["inclusion"]
    for case in vectors["inclusion"]:
        proof = merkle.compute_inclusion_proof(leaves[: case["size"]], case["index"])
        assert [item.hex() for item in proof] == case["proof"]
    assert vectors["consistency"]
    for case in vectors["consistency"]:
        proof = merkle.compute_consistency_proof(leaves[: case["size2"]], case["size1"])
        assert [item.hex() for item in proof] == case["proof"]


def test_every_leaf_of_every_small_tree_is_proven() -> None:
    for size in range(1, 34):
        leaves = numbered_leaves(size)
        root = merkle.compute_root(leaves)
        assert root == naive_root(leaves)
        for index, leaf in enumerate(leaves):
            proof = merkle.compute_inclusion_proof(leaves, index)
            merkle.check_inclusion(leaf, index=index, size=size, proof=proof, root=root)


def test_every_beginning_of_every_small_tree_is_proven() -> None:
    for size in range(1, 34):
        leaves = numbered_leaves(size)
        root = merkle.compute_root(leaves)
        for old_size in range(1, size + 1):
            old_root = merkle.compute_root(leaves[:old_size])
            proof = merkle.compute_consistency_proof(leaves, old_size)
            merkle.check_consistency(old_size=old_size, old_root=old_root, size=size, root=root, proof=proof)


@given(st.data())
def test_a_tampered_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 40))
    index = data.draw(st.integers(0, size - 1))
    leaves = numbered_leaves(size)
    root, proof = merkle.compute_root(leaves), list(merkle.compute_inclusion_proof(leaves, index))
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    flipped = Hash((int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big"))
    forgeries = [[*proof[:at], flipped, *proof[at + 1 :]], proof[:-1], proof[1:], [*proof, root], [root, *proof]]
    if len(proof) > 1:
        forgeries.append(proof[::-1])
    for forgery in forgeries:
        with pytest.raises(Rejected, match="inclusion_proof"):
            merkle.check_inclusion(leaves[index], index=index, size=size, proof=forgery, root=root)
    other = (index + data.draw(st.integers(1, size - 1))) % size
    with pytest.raises(Rejected, match="inclusion_proof"):
        merkle.check_inclusion(leaves[index], index=other, size=size, proof=proof, root=root)
    with pytest.raises(Rejected, match="inclusion_proof_root_differs"):
        merkle.check_inclusion(leaves[other], index=index, size=size, proof=proof, root=root)


@given(st.data())
def test_a_tampered_consistency_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 40))
    old_size = data.draw(st.integers(1, size - 1))
    leaves = numbered_leaves(size)
    root, old_root = merkle.compute_root(leaves), merkle.compute_root(leaves[:old_size])
    proof = list(merkle.compute_consistency_proof(leaves, old_size))
    at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
    flipped = Hash((int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big"))
    for forgery in ([*proof[:at], flipped, *proof[at + 1 :]], proof[:-1], [*proof, root], []):
        with pytest.raises(Rejected, match="consistency_proof"):
            merkle.check_consistency(old_size=old_size, old_root=old_root, size=size, root=root, proof=forgery)
    with pytest.raises(Rejected, match="consistency_proof"):
        merkle.check_consistency(old_size=old_size, old_root=root, size=size, root=root, proof=proof)


def test_a_proof_of_endless_length_is_refused_before_it_is_hashed() -> None:
    with pytest.raises(Rejected, match="inclusion_proof_malformed"):
        merkle.check_inclusion(b"leaf", index=0, size=2**62, proof=[bytes(32)] * 1000, root=bytes(32))
