"""Merkle trees of lists, as in RFC 6962: of a block's transactions and of its events.

Owns their roots, inclusion proofs (this leaf stands at that place) and consistency proofs (a list was only appended
to). The algorithms that check are those of RFC 9162, section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from ledger.errors import Rejected
from ledger.primitives import HASH_BYTES, Hash

PROOF_HASHES_MAX: Final = 64  # one for each level, and one more for consistency: a tree of 2⁶³ leaves

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"
_EMPTY_ROOT: Final = Hash(sha256(b"").digest())


def compute_leaf_hash(leaf: bytes) -> Hash:
    """The hash of one item of the list."""
    return Hash(sha256(_LEAF + leaf).digest())


def compute_root(leaves: Sequence[bytes]) -> Hash:
    """The root of a list of items; of no item, the SHA-256 of no byte."""
    return _compute_levels(leaves)[-1][0] if leaves else _EMPTY_ROOT


def compute_inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[Hash, ...]:
    """The siblings on the way from ``leaves[index]`` up to the root."""
    assert 0 <= index < len(leaves), "the leaf is in the list"
    proof = []
    for level in _compute_levels(leaves)[:-1]:
        if index ^ 1 < len(level):
            proof.append(level[index ^ 1])
        index >>= 1
    return tuple(proof)


def compute_consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[Hash, ...]:
    """What shows that the tree of ``leaves`` continues the tree of its first ``old_size`` items."""
    assert 0 < old_size <= len(leaves), "the old list is a beginning of the new, and not empty"
    if old_size == len(leaves):
        return ()
    # The old tree's last complete subtree, unless it is the whole old tree, then all that joins it to the new root.
    whole = old_size & (old_size - 1) == 0
    index, proof = old_size - 1, []
    levels = _compute_levels(leaves)
    depth = 0
    while index & 1:
        index, depth = index >> 1, depth + 1
    if not whole:
        proof.append(levels[depth][index])
    for level in levels[depth:-1]:
        if index ^ 1 < len(level):
            proof.append(level[index ^ 1])
        index >>= 1
    return tuple(proof)


def check_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` is item ``index`` of the ``size`` items under ``root``.

    Raises ``Rejected``: ``inclusion_proof_malformed``, ``inclusion_proof_root_differs``.
    """
    check_inclusion_of_hash(compute_leaf_hash(leaf), index=index, size=size, proof=proof, root=root)


def check_inclusion_of_hash(leaf_hash: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """As ``check_inclusion``, of an item that is known by its leaf hash."""
    _check_hashes("inclusion_proof_malformed", [leaf_hash, root, *proof])
    if not 0 <= index < size:
        raise Rejected("inclusion_proof_malformed", f"item {index} of {size}")
    running, last = leaf_hash, size - 1
    for sibling in proof:
        if last == 0:
            raise Rejected("inclusion_proof_malformed", "too long")
        if index & 1 or index == last:
            running = _join(sibling, running)
            while index & 1 == 0 and index:
                index, last = index >> 1, last >> 1
        else:
            running = _join(running, sibling)
        index, last = index >> 1, last >> 1
    if last or running != root:
        raise Rejected("inclusion_proof_root_differs", root.hex())


def check_consistency(*, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the list under ``root`` begins with the whole list under ``old_root``; the old one is not empty.

    Raises ``Rejected``: ``consistency_proof_malformed``, ``consistency_proof_root_differs``.
    """
    _check_hashes("consistency_proof_malformed", proof)
    if not 0 < old_size <= size or (old_size == size) != (not proof):
        raise Rejected("consistency_proof_malformed", f"from {old_size} to {size} with {len(proof)} hashes")
    if old_size == size:
        if old_root != root:
            raise Rejected("consistency_proof_root_differs", root.hex())
        return
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else proof
    index, last = old_size - 1, size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old_running = running = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Rejected("consistency_proof_malformed", "too long")
        if index & 1 or index == last:
            old_running, running = _join(sibling, old_running), _join(sibling, running)
            while index & 1 == 0 and index:
                index, last = index >> 1, last >> 1
        else:
            running = _join(running, sibling)
        index, last = index >> 1, last >> 1
    if last or old_running != old_root or running != root:
        raise Rejected("consistency_proof_root_differs", root.hex())


def _compute_levels(leaves: Sequence[bytes]) -> list[list[Hash]]:
    """All hashes, leaves first. A node without a sibling is its own parent, which gives the splits of the RFC."""
    level = [Hash(sha256(_LEAF + leaf).digest()) for leaf in leaves]
    levels = [level]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        parents = [Hash(sha256(_NODE + left + right).digest()) for left, right in pairs]
        if len(level) & 1:
            parents.append(level[-1])
        level = parents
        levels.append(level)
    return levels


def _join(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()


def _check_hashes(reason: str, given: Sequence[bytes]) -> None:
    if len(given) > PROOF_HASHES_MAX + 2 or any(len(each) != HASH_BYTES for each in given):
        raise Rejected(reason, "hashes of 32 bytes, one for each level")
