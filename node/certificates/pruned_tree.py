"""A state trie cut down to the branches that a certificate needs: each inner node and each bucket once.

Owns both ways: from the proofs of single keys to the pruned tree, and from the pruned tree to "this key has this value
under this root". Parts are found by their hash, so a changed one is not found, and one too many is noticed.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Iterable, Sequence
from typing import Final

from ledger.errors import Malformed, Rejected
from ledger.primitives import HASH_BYTES, ZERO_HASH, Hash, sha256
from ledger.state_root import CHILDREN, ENTRY_BYTES, StateProof

_BITMAP_BYTES: Final = 2


class PrunedTree:
    """What is left of a state trie under ``root``. A node is a bitmap (2 bytes, highest bit: child 0) and hashes."""

    def __init__(self, root: Hash, *, nodes: Sequence[bytes], buckets: Sequence[bytes]) -> None:
        """Raises ``Malformed`` (``state_proof_malformed``)."""
        self._root = root
        self._nodes: dict[Hash, list[Hash]] = {}
        for node in nodes:
            children = _read_node(node)
            self._nodes[_hash_node(children)] = children
        self._buckets = {_hash_bucket(bucket): bucket for bucket in buckets}
        self._unused = {*self._nodes, *self._buckets}

    def check(self, key: bytes, value: bytes | None) -> None:
        """Check that under the root the key has this value, or with None that it is absent.

        Raises ``Rejected``: ``state_proof_incomplete``, ``state_proof_key_absent``, ``state_proof_key_present``,
        ``state_proof_value_differs``.
        """
        key_hash = sha256(key)
        found = self._find_value_hash(key_hash, key)
        if found is None and value is not None:
            raise Rejected("state_proof_key_absent", key.hex())
        if found is not None and value is None:
            raise Rejected("state_proof_key_present", key.hex())
        if value is not None and found != sha256(b"\x02" + value):
            raise Rejected("state_proof_value_differs", key.hex())

    def check_nothing_unused(self) -> None:
        """Every part lay on the way to a key that was asked for. Raises ``Rejected``."""
        if self._unused:
            raise Rejected("certificate_has_more_than_it_needs", f"{len(self._unused)} parts of the state")

    def _find_value_hash(self, key_hash: Hash, key: bytes) -> bytes | None:
        part = self._root
        for digit in hexlify(key_hash).decode():
            children = self._nodes.get(part)
            if children is None:
                break
            self._unused.discard(part)
            part = children[int(digit, CHILDREN)]
        if part == ZERO_HASH:
            return None
        bucket = self._buckets.get(part)
        if bucket is None:
            raise Rejected("state_proof_incomplete", key.hex())
        self._unused.discard(part)
        for start in range(0, len(bucket), ENTRY_BYTES):
            if bucket[start : start + HASH_BYTES] == key_hash:
                return bucket[start + HASH_BYTES : start + ENTRY_BYTES]
        return None


def prune(proofs: Iterable[tuple[bytes, StateProof]]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The nodes and the buckets that (key, proof) pairs of one root are made of, each once, sorted."""
    nodes: set[bytes] = set()
    buckets: set[bytes] = set()
    for key, proof in proofs:
        if proof.bucket:
            buckets.add(proof.bucket)
        part = _hash_bucket(proof.bucket) if proof.bucket else ZERO_HASH
        digits = hexlify(sha256(key)).decode()
        for depth in range(len(proof.levels) - 1, -1, -1):
            children = _read_children(proof.levels[depth])
            children[int(digits[depth], CHILDREN)] = part
            nodes.add(_write_node(children))
            part = _hash_node(children)
    return tuple(sorted(nodes)), tuple(sorted(buckets))


def _read_node(raw: bytes) -> list[Hash]:
    children = _read_children(raw)
    if (
        len(raw) % HASH_BYTES != _BITMAP_BYTES or _write_node(children) != raw
    ):  # a hash too many or too few, or a child that is marked and empty
        raise Malformed("state_proof_malformed", raw[:_BITMAP_BYTES].hex())
    return children


def _read_children(raw: bytes) -> list[Hash]:
    bitmap = int.from_bytes(raw[:_BITMAP_BYTES], "big")
    given = iter([Hash(raw[at : at + HASH_BYTES]) for at in range(_BITMAP_BYTES, len(raw), HASH_BYTES)])
    marked = [bitmap >> CHILDREN - 1 - child & 1 for child in range(CHILDREN)]
    return [next(given, ZERO_HASH) if one else ZERO_HASH for one in marked]


def _write_node(children: Sequence[Hash]) -> bytes:
    bitmap = sum((child != ZERO_HASH) << CHILDREN - 1 - index for index, child in enumerate(children))
    return bitmap.to_bytes(_BITMAP_BYTES, "big") + b"".join(child for child in children if child != ZERO_HASH)


def _hash_node(children: Sequence[Hash]) -> Hash:
    return sha256(b"\x01" + b"".join(children))


def _hash_bucket(bucket: bytes) -> Hash:
    return sha256(b"\x00" + bucket)
