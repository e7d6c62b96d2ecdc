"""The authenticated map: one root for all keys and values, with proofs of inclusion and of absence.

Owns a 16-ary trie over SHA-256(key) whose leaves are buckets of many entries. The root depends on the content only,
never on its history. Inner nodes live in memory, buckets in the store (docs/decisions/0001-state-root.md).

    entry    SHA-256(key) ‖ SHA-256(02 ‖ value)
    bucket   the sorted entries of a subtree of at most BUCKET_ENTRIES_MAX keys: SHA-256(00 ‖ entries)
    node     a subtree of more keys, split by the next four bits:                SHA-256(01 ‖ 16 child hashes)
    empty    a subtree without keys, and so the root of the empty map:           32 zero bytes

A path is the common hex digits of a subtree's key hashes, as ASCII: ``b""`` is the root, ``b"3f"`` two levels down.
"""

from __future__ import annotations

from binascii import hexlify, unhexlify
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol, TypeAlias

from ledger.encoding import Plain
from ledger.errors import CorruptStore, Malformed, Rejected
from ledger.primitives import HASH_BYTES, ZERO_HASH, Hash

BUCKET_ENTRIES_MAX: Final = 32  # protocol: it shapes the tree, so a change of it changes every root
ENTRY_BYTES: Final = 2 * HASH_BYTES
DEPTH_MAX: Final = 2 * HASH_BYTES  # a path has at most one digit for each four bits of a key hash
CHILDREN: Final = 16

_BUCKET_BYTES_MAX: Final = BUCKET_ENTRIES_MAX * ENTRY_BYTES
_SPLICED_CHANGES_MAX: Final = 4  # more changes of one bucket are merged through a dict, which is then faster
_EMPTY_NODE: Final = b"\x01" + bytes(CHILDREN * HASH_BYTES)  # a node is kept as the very bytes that are hashed
_DIGITS: Final = [b"%x" % child for child in range(CHILDREN)]
_CHILD_OF_DIGIT: Final = {digit[0]: child for child, digit in enumerate(_DIGITS)}
_SLOTS: Final = {  # last digit of a child's path → where its parent keeps its hash
    digit: slice(1 + child * HASH_BYTES, 1 + (child + 1) * HASH_BYTES) for digit, child in _CHILD_OF_DIGIT.items()
}

Changes: TypeAlias = Mapping[bytes, bytes | None]  # key → new value, or None to delete
_EntryChange: TypeAlias = tuple[bytes, bytes]  # key hash, value hash or b"" to delete


class BucketSource(Protocol):
    """Where the buckets of the applied state are read from."""

    def get_bucket(self, path: bytes) -> bytes | None:
        """The entries of the bucket at ``path``, or None when there is none."""


@dataclass(frozen=True, slots=True)
class StateUpdate:
    """The effect of some changes on one base: what to write to the store, then to hand to ``StateTree.apply``."""

    base_root: Hash
    root: Hash
    bucket_writes: Mapping[bytes, bytes | None]  # path → entries, or None to delete
    node_writes: Mapping[bytes, bytes | None]
    key_count_writes: Mapping[bytes, int]  # of nodes, where they changed


@dataclass(frozen=True, slots=True)
class StateProof:
    """What joins one key to the root: the siblings at each level, from the root down, and the bucket at the end.

    A level is a bitmap of the children that are not empty (2 bytes, the highest bit is child 0; the key's own child
    is never marked), then their hashes. An empty bucket says that the key's subtree is empty.
    """

    levels: tuple[bytes, ...]
    bucket: bytes

    def to_plain(self) -> Plain:
        """The proof for ``ledger.encoding``."""
        return (self.levels, self.bucket)

    @classmethod
    def from_plain(cls, plain: Plain) -> StateProof:
        """The proof of a decoded value. Raises ``Malformed``: ``state_proof_malformed``."""
        match plain:
            case (tuple() as levels, bytes() as bucket) if len(levels) <= DEPTH_MAX:
                known = tuple(level for level in levels if isinstance(level, bytes))
                if len(known) == len(levels):
                    return cls(levels=known, bucket=bucket)
        raise Malformed("state_proof_malformed")


class StateTree:
    """The inner nodes of the applied state, in memory, over the buckets in ``source``.

    ``prepare`` and ``prove`` read buckets: between writing an update's buckets and ``apply``, call neither.
    """

    __slots__ = ("_key_counts", "_nodes", "_root", "_source")

    def __init__(
        self, source: BucketSource, *, nodes: dict[bytes, bytes], key_counts: dict[bytes, int], root: Hash
    ) -> None:
        self._source = source
        self._nodes = nodes  # path → 01 ‖ 16 child hashes
        self._key_counts = key_counts  # path of a node → keys of its subtree; tells when it becomes a bucket again
        self._root = root

    @classmethod
    def load(cls, buckets: Iterable[tuple[bytes, bytes]], source: BucketSource) -> StateTree:
        """The tree over all ``buckets`` (path, entries), in any order; the caller compares its root with the header's.

        Raises ``CorruptStore`` for buckets that no tree has.
        """
        levels: list[dict[bytes, bytearray]] = [{} for _ in range(DEPTH_MAX)]
        key_counts: dict[bytes, int] = {}
        root = ZERO_HASH

        def place(path: bytes, subtree_hash: Hash, key_count: int) -> None:
            nonlocal root
            if not path:
                root = subtree_hash
                return
            parent = path[:-1]
            levels[len(parent)].setdefault(parent, bytearray(_EMPTY_NODE))[_SLOTS[path[-1]]] = subtree_hash
            key_counts[parent] = key_counts.get(parent, 0) + key_count

        bucket_paths = set()
        for path, content in buckets:
            _check_stored_bucket(path, content)
            bucket_paths.add(path)
            place(path, _hash_bucket(content), len(content) // ENTRY_BYTES)
        nodes: dict[bytes, bytes] = {}
        for level in reversed(levels):
            for path, node in level.items():
                if key_counts[path] <= BUCKET_ENTRIES_MAX or path in bucket_paths:
                    raise CorruptStore(f"state buckets below {path!r}")
                nodes[path] = bytes(node)
                place(path, Hash(sha256(node).digest()), key_counts[path])
        return cls(source, nodes=nodes, key_counts=key_counts, root=root)

    @property
    def root(self) -> Hash:
        """The root of the applied state; 32 zero bytes for the empty map."""
        return self._root

    def prepare(self, changes: Changes) -> StateUpdate:
        """The update that ``changes`` make to the applied state. The tree stays as it is.

        Raises ``CorruptStore`` when the source lacks a bucket that the tree knows.
        """
        draft = _Draft(self._nodes, self._key_counts, self._source, root=self._root)
        draft.change_buckets(self._group_by_bucket(changes))
        draft.change_nodes()
        return StateUpdate(
            base_root=self._root,
            root=draft.root,
            bucket_writes=draft.bucket_writes,
            node_writes=draft.node_writes,
            key_count_writes=draft.key_counts,
        )

    def apply(self, update: StateUpdate) -> None:
        """Make an update the applied state. From here on the source must return the update's buckets."""
        assert update.base_root == self._root, "the update was prepared on another state"
        self._key_counts.update(update.key_count_writes)
        for path, node in update.node_writes.items():
            if node is None:
                del self._nodes[path], self._key_counts[path]
            else:
                self._nodes[path] = node
        self._root = update.root

    def prove(self, key: bytes) -> StateProof:
        """What proves to ``check_state_proof`` the key's value, or its absence, under the present root."""
        digits = hexlify(sha256(key).digest())
        path = self._find_bucket_path(digits)
        levels = []
        for depth in range(len(path)):
            node = bytearray(self._nodes[path[:depth]])
            node[_SLOTS[path[depth]]] = ZERO_HASH
            children = [bytes(node[_SLOTS[digit[0]]]) for digit in _DIGITS]
            bitmap = sum((child != ZERO_HASH) << CHILDREN - 1 - i for i, child in enumerate(children))
            levels.append(bitmap.to_bytes(2, "big") + b"".join(child for child in children if child != ZERO_HASH))
        bucket = self._source.get_bucket(path) or b""
        proof = StateProof(levels=tuple(levels), bucket=bucket)
        if _compute_proof_root(digits, proof) != self._root:
            raise CorruptStore(f"state bucket {path!r}")
        return proof

    def _group_by_bucket(self, changes: Changes) -> dict[bytes, list[_EntryChange]]:
        nodes = self._nodes
        groups: dict[bytes, list[_EntryChange]] = {}
        depth = 0
        for key, value in changes.items():
            key_hash = sha256(key).digest()
            value_hash = b"" if value is None else sha256(b"\x02" + value).digest()
            digits = hexlify(key_hash)
            path = digits[:depth]
            if path in nodes or path[:-1] not in nodes:  # most buckets lie at one depth, so seldom
                path = self._find_bucket_path(digits)
                depth = len(path)
            if path in groups:
                groups[path].append((key_hash, value_hash))
            else:
                groups[path] = [(key_hash, value_hash)]
        return groups

    def _find_bucket_path(self, digits: bytes) -> bytes:
        """The path at which the way along ``digits`` leaves the nodes."""
        depth = 0
        while digits[:depth] in self._nodes:
            depth += 1
        return digits[:depth]


class _Draft:
    """An update in the making: buckets first, then the nodes above them, deepest first and each once."""

    __slots__ = (
        "_base_key_counts",
        "_base_nodes",
        "_levels",
        "_source",
        "bucket_writes",
        "key_counts",
        "node_writes",
        "root",
    )

    def __init__(
        self, nodes: Mapping[bytes, bytes], key_counts: Mapping[bytes, int], source: BucketSource, *, root: Hash
    ) -> None:
        self._base_nodes = nodes
        self._base_key_counts = key_counts
        self._source = source
        self._levels: list[dict[bytes, bytearray]] = [{} for _ in range(DEPTH_MAX)]  # changed nodes by depth
        self.root = root
        self.bucket_writes: dict[bytes, bytes | None] = {}
        self.node_writes: dict[bytes, bytes | None] = {}
        self.key_counts: dict[bytes, int] = {}

    def change_buckets(self, groups: Mapping[bytes, list[_EntryChange]]) -> None:
        get_bucket, bucket_writes, place = self._source.get_bucket, self.bucket_writes, self._place
        for path, changes in groups.items():
            old = get_bucket(path)
            if old is None:
                old = self._get_missing_bucket(path)
            new = _splice_entry(old, *changes[0]) if len(changes) == 1 else _change_entries(old, changes)
            if new == old:
                continue
            if len(new) > _BUCKET_BYTES_MAX:
                new_hash = self._split(path, old, new)
            else:
                bucket_writes[path] = new or None
                new_hash = _hash_bucket(new)
            place(path, new_hash, (len(new) - len(old)) // ENTRY_BYTES)

    def change_nodes(self) -> None:
        for level in reversed(self._levels):
            for path, node in level.items():
                added = 0
                if path in self.key_counts:
                    added = self.key_counts[path] - self._base_key_counts[path]
                    if self.key_counts[path] <= BUCKET_ENTRIES_MAX:
                        self._place(path, self._merge(path, node), added)
                        continue
                self.node_writes[path] = frozen = bytes(node)
                self._place(path, Hash(sha256(frozen).digest()), added)

    def _place(self, path: bytes, new_hash: Hash, added: int) -> None:
        """Hand a subtree's new hash, and the number of keys it gained, to its parent."""
        if not path:
            self.root = new_hash
            return
        parent = path[:-1]
        level = self._levels[len(parent)]
        node = level.get(parent)
        if node is None:
            node = level[parent] = bytearray(self._base_nodes[parent])
        node[_SLOTS[path[-1]]] = new_hash
        if added:
            self.key_counts[parent] = self.key_counts.get(parent, self._base_key_counts[parent]) + added

    def _merge(self, path: bytes, node: bytearray) -> Hash:
        """Join the children of a node that has become small enough; each of them is a bucket by now."""
        del self.key_counts[path]
        self.node_writes[path] = None
        parts = []
        for digit in _DIGITS:
            child = path + digit
            if not any(node[_SLOTS[digit[0]]]):
                continue
            parts.append(
                self.bucket_writes.get(child) or self._source.get_bucket(child) or self._get_missing_bucket(child)
            )
            self.bucket_writes[child] = None
        content = b"".join(parts)
        if content:
            self.bucket_writes[path] = content
        return _hash_bucket(content)

    def _split(self, path: bytes, old: bytes, new: bytes) -> Hash:
        """Replace a bucket by the subtree of its entries, now too many."""
        if old:
            self.bucket_writes[path] = None
        return self._build(path, [new[start : start + ENTRY_BYTES] for start in range(0, len(new), ENTRY_BYTES)])

    def _build(self, path: bytes, entries: list[bytes]) -> Hash:
        """Write the subtree of sorted entries, however many, and return its hash."""
        if len(entries) <= BUCKET_ENTRIES_MAX:
            content = b"".join(entries)
            if content:
                self.bucket_writes[path] = content
            return _hash_bucket(content)
        node, start = bytearray(_EMPTY_NODE), 0
        for digit in _DIGITS:
            child = path + digit
            last = unhexlify(child.ljust(2 * ENTRY_BYTES, b"f"))
            end = bisect_right(entries, last, lo=start)
            node[_SLOTS[digit[0]]] = self._build(child, entries[start:end])
            start = end
        self.node_writes[path] = bytes(node)
        self.key_counts[path] = len(entries)
        return Hash(sha256(node).digest())

    def _get_missing_bucket(self, path: bytes) -> bytes:
        """No entries, if that is what the tree has at ``path``; else the store has lost a bucket."""
        known = self._base_nodes[path[:-1]][_SLOTS[path[-1]]] if path else self.root
        if known != ZERO_HASH:
            raise CorruptStore(f"state bucket {path!r}")
        return b""


def check_state_proof(root: Hash, *, key: bytes, value: bytes | None, proof: StateProof) -> None:
    """Check that under ``root`` the key has this value, or with None that it is absent.

    Raises ``Rejected``: ``state_proof_malformed``, ``state_proof_root_differs``, ``state_proof_key_present``,
    ``state_proof_key_absent``, ``state_proof_value_differs``.
    """
    key_hash = sha256(key).digest()
    if _compute_proof_root(hexlify(key_hash), proof) != root:
        raise Rejected("state_proof_root_differs", root.hex())
    at = _find_entry(proof.bucket, key_hash)
    if at < 0:
        if value is not None:
            raise Rejected("state_proof_key_absent", key.hex())
        return
    if value is None:
        raise Rejected("state_proof_key_present", key.hex())
    if proof.bucket[at + HASH_BYTES : at + ENTRY_BYTES] != sha256(b"\x02" + value).digest():
        raise Rejected("state_proof_value_differs", key.hex())


def _compute_proof_root(digits: bytes, proof: StateProof) -> Hash:
    """The root that a proof leads to. No two proofs of one key lead to the same root."""
    if len(proof.levels) > DEPTH_MAX or len(proof.bucket) > _BUCKET_BYTES_MAX or len(proof.bucket) % ENTRY_BYTES:
        raise Malformed("state_proof_malformed", "bucket or depth")
    node_hash = _hash_bucket(proof.bucket)
    for depth in range(len(proof.levels) - 1, -1, -1):
        level = proof.levels[depth]
        own = _CHILD_OF_DIGIT[digits[depth]]
        bitmap = int.from_bytes(level[:2], "big") if len(level) >= 2 else -1
        if bitmap < 0 or bitmap >> CHILDREN - 1 - own & 1 or len(level) != 2 + bitmap.bit_count() * HASH_BYTES:
            raise Malformed("state_proof_malformed", f"level {depth}")
        given = iter([Hash(level[start : start + HASH_BYTES]) for start in range(2, len(level), HASH_BYTES)])
        children = [next(given) if bitmap >> CHILDREN - 1 - child & 1 else ZERO_HASH for child in range(CHILDREN)]
        if children.count(ZERO_HASH) != CHILDREN - bitmap.bit_count():
            raise Malformed("state_proof_malformed", f"level {depth}")
        children[own] = node_hash
        node_hash = Hash(sha256(b"\x01" + b"".join(children)).digest())
    return node_hash


def _hash_bucket(content: bytes) -> Hash:
    return Hash(sha256(b"\x00" + content).digest()) if content else ZERO_HASH


def _find_entry(content: bytes, key_hash: bytes) -> int:
    """Where the key's entry starts, or -1."""
    at = content.find(key_hash)
    while at >= 0 and at % ENTRY_BYTES:
        at = content.find(key_hash, at + 1)
    return at


def _change_entries(content: bytes, changes: list[_EntryChange]) -> bytes:
    if len(changes) <= _SPLICED_CHANGES_MAX:
        for key_hash, value_hash in changes:
            content = _splice_entry(content, key_hash, value_hash)
        return content
    values = {
        content[start : start + HASH_BYTES]: content[start + HASH_BYTES : start + ENTRY_BYTES]
        for start in range(0, len(content), ENTRY_BYTES)
    }
    values.update(changes)
    return b"".join(sorted([key_hash + value_hash for key_hash, value_hash in values.items() if value_hash]))


def _splice_entry(content: bytes, key_hash: bytes, value_hash: bytes) -> bytes:
    at = content.find(key_hash)
    if at % ENTRY_BYTES:  # none, or, which nobody can bring about, one across two entries
        at = _find_entry(content, key_hash)
    if at >= 0 and value_hash:
        return content[: at + HASH_BYTES] + value_hash + content[at + ENTRY_BYTES :]
    if at >= 0:
        return content[:at] + content[at + ENTRY_BYTES :]
    if not value_hash:
        return content
    starts = range(0, len(content), ENTRY_BYTES)
    index = bisect_left(starts, key_hash, key=lambda start: content[start : start + HASH_BYTES])
    at = index * ENTRY_BYTES
    return content[:at] + key_hash + value_hash + content[at:]


def _check_stored_bucket(path: bytes, content: bytes) -> None:
    """A bucket must be able to stand where it stands; the root decides whether it is the right one."""
    digits_known = len(path) <= DEPTH_MAX and all(digit in _SLOTS for digit in path)
    if not digits_known or not content or len(content) > _BUCKET_BYTES_MAX or len(content) % ENTRY_BYTES:
        raise CorruptStore(f"state bucket {path!r}")
