"""The authenticated map against a naive model of it: history does not matter, and no forged proof holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import encoding
from ledger.errors import CorruptStore, Rejected
from ledger.primitives import ZERO_HASH
from ledger.state_root import BUCKET_ENTRIES_MAX, Changes, StateProof, StateTree, StateUpdate, check_state_proof


class Buckets:
    """The store's part, in memory."""

    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}

    def get_bucket(self, path: bytes) -> bytes | None:
        return self.content.get(path)

    def write(self, update: StateUpdate) -> None:
        for path, content in update.bucket_writes.items():
            if content is None:
                self.content.pop(path, None)
            else:
                self.content[path] = content


def new_tree() -> tuple[StateTree, Buckets]:
    buckets = Buckets()
    return StateTree.load([], buckets), buckets


def change(tree: StateTree, buckets: Buckets, changes: Changes) -> None:
    update = tree.prepare(changes)
    buckets.write(update)
    tree.apply(update)


def tree_of(content: Changes) -> tuple[StateTree, Buckets]:
    tree, buckets = new_tree()
    change(tree, buckets, content)
    return tree, buckets


def naive_root(content: Changes) -> bytes:
    """The definition, word for word."""

    def subtree(entries: list[bytes], depth: int) -> bytes:
        if not entries:
            return bytes(32)
        if len(entries) <= 32:
            return sha256(b"\x00" + b"".join(entries)).digest()
        children = [[e for e in entries if e.hex()[depth] == digit] for digit in "0123456789abcdef"]
        return sha256(b"\x01" + b"".join(subtree(child, depth + 1) for child in children)).digest()

    entries = [sha256(k).digest() + sha256(b"\x02" + v).digest() for k, v in content.items() if v is not None]
    return subtree(sorted(entries), 0)


def numbered(count: int, *, start: int = 0) -> dict[bytes, bytes | None]:
    return {b"key %d" % i: b"value %d" % i for i in range(start, start + count)}


def forgeries_of(proof: StateProof) -> Iterator[StateProof]:
    """Each way to add, drop or move a piece of a proof."""
    levels, bucket = proof.levels, proof.bucket
    yield StateProof(levels=(*levels, bytes(2)), bucket=bucket)
    yield StateProof(levels=(bytes(2), *levels), bucket=bucket)
    yield StateProof(levels=levels, bucket=bucket + bytes(64))
    yield StateProof(levels=levels, bucket=bucket + b"\x00")
    if bucket:
        yield StateProof(levels=levels, bucket=b"")
        yield StateProof(levels=levels, bucket=bucket[:-64])
        yield StateProof(levels=levels, bucket=bucket[:-1])
    if len(bucket) > 64:
        yield StateProof(levels=levels, bucket=bucket[64:] + bucket[:64])
    if levels:
        yield StateProof(levels=levels[1:], bucket=bucket)
        yield StateProof(levels=levels[:-1], bucket=bucket)
        yield StateProof(levels=(*levels[:-1], levels[-1] + bytes(32)), bucket=bucket)
        yield StateProof(levels=(*levels[:-1], levels[-1][:-32]), bucket=bucket)
        yield StateProof(levels=(*levels[:-1], levels[-1][:1]), bucket=bucket)
    if len(levels) > 1:
        yield StateProof(levels=levels[::-1], bucket=bucket)
    for depth, level in enumerate(levels):
        for child, child_hash in itertools.product(range(16), (bytes(32), b"\x01" * 32)):
            more = with_one_more_child(level, child, child_hash)
            yield StateProof(levels=(*levels[:depth], more, *levels[depth + 1 :]), bucket=bucket)


def with_one_more_child(level: bytes, child: int, child_hash: bytes) -> bytes:
    """The same siblings, but one that is empty, or the key's own, is marked and given as well."""
    bitmap = int.from_bytes(level[:2], "big")
    at = 2 + 32 * (bitmap >> 16 - child).bit_count()
    return (bitmap | 1 << 15 - child).to_bytes(2, "big") + level[2:at] + child_hash + level[at:]


def flip(data: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8 if i == bit // 8 else 0) for i, byte in enumerate(data))


@st.composite
def change_batches(draw: st.DrawFn) -> list[dict[bytes, bytes | None]]:
    """Batches over a few hundred keys, some large: the trees grow two levels and shrink again."""
    batches = []
    for _ in range(draw(st.integers(1, 6))):
        start, count = draw(st.integers(0, 400)), draw(st.sampled_from([0, 1, 2, 5, 33, 150, 600]))
        value = draw(st.sampled_from([None, b"", b"a", b"b"]))
        batch: dict[bytes, bytes | None] = {b"%d" % i: value for i in range(start, start + count)}
        keys = st.integers(0, 1000).map(lambda i: b"%d" % i)
        batch.update(draw(st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=20)))
        batches.append(batch)
    return batches


def test_the_empty_map_has_the_zero_root() -> None:
    tree, _ = new_tree()
    assert tree.root == ZERO_HASH


def test_the_root_of_a_fixed_map_never_changes() -> None:
    """Protocol: a new value here means that every chain forks."""
    assert tree_of(numbered(1))[0].root.hex() == "e89bc064bee30cba624c74aa1f6ae372595ec583e01c87831536cc5d13430f1a"
    assert tree_of(numbered(1000))[0].root.hex() == "9c0af6b414276a792ae3c1c72886b55373652541e2b6b85bbb5981df13473469"


@settings(max_examples=60, deadline=None)
@given(change_batches())
def test_the_root_depends_on_the_content_and_not_on_its_history(batches: list[dict[bytes, bytes | None]]) -> None:
    tree, buckets = new_tree()
    content: dict[bytes, bytes | None] = {}
    for batch in batches:
        change(tree, buckets, batch)
        content = {key: value for key, value in {**content, **batch}.items() if value is not None}
        assert tree.root == naive_root(content)
    rebuilt, rebuilt_buckets = tree_of(content)
    assert rebuilt.root == tree.root
    assert rebuilt_buckets.content == buckets.content
    assert StateTree.load(buckets.content.items(), buckets).root == tree.root


@pytest.mark.parametrize("count", [BUCKET_ENTRIES_MAX, BUCKET_ENTRIES_MAX + 1, 500, 3000])
def test_deleting_all_keys_one_batch_after_another_leaves_the_empty_map(count: int) -> None:
    tree, buckets = tree_of(numbered(count))
    for start in range(0, count, 7):
        change(tree, buckets, dict.fromkeys(numbered(min(7, count - start), start=start)))
        left = numbered(count - min(start + 7, count), start=min(start + 7, count))
        assert start % 70 or tree.root == naive_root(left)
    assert tree.root == ZERO_HASH
    assert buckets.content == {}


def test_a_bucket_splits_above_its_limit_and_merges_back() -> None:
    tree, buckets = tree_of(numbered(BUCKET_ENTRIES_MAX))
    full = tree.root
    assert list(buckets.content) == [b""]
    change(tree, buckets, {b"one more": b""})
    assert len(buckets.content) > 1
    change(tree, buckets, {b"one more": None})
    assert list(buckets.content) == [b""]
    assert tree.root == full


def test_changes_that_change_nothing_write_nothing() -> None:
    tree, _ = tree_of(numbered(100))
    update = tree.prepare({**numbered(50), b"never there": None})
    assert update.root == tree.root
    assert not update.bucket_writes
    assert not update.node_writes


def test_several_updates_are_prepared_on_one_base_and_one_is_applied() -> None:
    tree, buckets = tree_of(numbered(1000))
    base = tree.root
    one, other = tree.prepare({b"key 1": b"x", b"new": b""}), tree.prepare(dict.fromkeys(numbered(990)))
    assert tree.root == base == one.base_root == other.base_root
    buckets.write(other)
    tree.apply(other)
    assert tree.root == naive_root(numbered(10, start=990))
    with pytest.raises(AssertionError, match="prepared on another state"):
        tree.apply(one)


def test_the_order_of_changes_does_not_matter() -> None:
    content = numbered(300)
    backwards = dict(reversed(content.items()))
    assert tree_of(content)[0].root == tree_of(backwards)[0].root


def test_an_empty_value_is_not_absence() -> None:
    tree, _ = tree_of({b"key": b""})
    assert tree.root != ZERO_HASH
    check_state_proof(tree.root, key=b"key", value=b"", proof=tree.prove(b"key"))
    with pytest.raises(Rejected, match="state_proof_key_present"):
        check_state_proof(tree.root, key=b"key", value=None, proof=tree.prove(b"key"))


@pytest.mark.parametrize("count", [0, 1, BUCKET_ENTRIES_MAX, 33, 300, 2000])
def test_presence_and_absence_are_proven(count: int) -> None:
    tree, _ = tree_of(numbered(count))
    for i in range(count + 20):
        key, value = b"key %d" % i, b"value %d" % i
        proof = tree.prove(key)
        told, lie, reason = (value, None, "present") if i < count else (None, value, "absent")
        check_state_proof(tree.root, key=key, value=told, proof=proof)
        with pytest.raises(Rejected, match=f"state_proof_key_{reason}"):
            check_state_proof(tree.root, key=key, value=lie, proof=proof)


def test_absence_is_proven_in_an_empty_map_an_empty_child_and_a_bucket() -> None:
    empty, _ = new_tree()
    check_state_proof(ZERO_HASH, key=b"absent", value=None, proof=StateProof(levels=(), bucket=b""))
    assert empty.prove(b"absent") == StateProof(levels=(), bucket=b"")
    tree, _ = tree_of(numbered(33))
    proofs = [tree.prove(b"absent %d" % i) for i in range(100)]
    for i, proof in enumerate(proofs):
        check_state_proof(tree.root, key=b"absent %d" % i, value=None, proof=proof)
    assert any(proof.bucket for proof in proofs)
    assert any(proof.levels and not proof.bucket for proof in proofs)


def test_a_value_other_than_the_map_has_is_refused() -> None:
    tree, _ = tree_of(numbered(100))
    with pytest.raises(Rejected, match="state_proof_value_differs"):
        check_state_proof(tree.root, key=b"key 7", value=b"value 8", proof=tree.prove(b"key 7"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_flipped_bit_of_a_proof_is_noticed(data: st.DataObject) -> None:
    tree, _ = TREES[data.draw(st.sampled_from(sorted(TREES)))]
    i = data.draw(st.integers(0, 2200))
    key, proof = b"key %d" % i, tree.prove(b"key %d" % i)
    value = b"value %d" % i if has_entry(proof, key) else None
    check_state_proof(tree.root, key=key, value=value, proof=proof)
    parts = [*proof.levels, proof.bucket]
    part = data.draw(st.sampled_from([at for at, each in enumerate(parts) if each] or [-1]))
    if part < 0:  # the empty map's proof has no bit
        return
    parts[part] = flip(parts[part], data.draw(st.integers(0, 8 * len(parts[part]) - 1)))
    forged = StateProof(levels=tuple(parts[:-1]), bucket=parts[-1])
    for claim in (value, None, b"value 1"):
        with pytest.raises(Rejected, match=r"malformed|root_differs"):
            check_state_proof(tree.root, key=key, value=claim, proof=forged)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_added_dropped_or_moved_piece_of_a_proof_is_noticed(data: st.DataObject) -> None:
    tree, _ = TREES[data.draw(st.sampled_from(sorted(TREES)))]
    key = b"key %d" % data.draw(st.integers(0, 2200))
    for forged in forgeries_of(tree.prove(key)):
        with pytest.raises(Rejected, match=r"malformed|root_differs"):
            check_state_proof(tree.root, key=key, value=None, proof=forged)


def test_a_proof_of_one_key_tells_nothing_false_of_another() -> None:
    tree, _ = TREES[2000]
    proof = tree.prove(b"key 1")
    for i in range(2, 2000):
        with pytest.raises(Rejected):
            check_state_proof(tree.root, key=b"key %d" % i, value=None, proof=proof)


def test_a_proof_does_not_hold_under_another_root() -> None:
    tree, buckets = tree_of(numbered(100))
    old_root, old_proof = tree.root, tree.prove(b"key 7")
    change(tree, buckets, {b"key 8": b"changed"})
    check_state_proof(old_root, key=b"key 7", value=b"value 7", proof=old_proof)
    with pytest.raises(Rejected, match="state_proof_root_differs"):
        check_state_proof(tree.root, key=b"key 7", value=b"value 7", proof=old_proof)


def test_a_proof_survives_its_encoding() -> None:
    tree, _ = TREES[2000]
    proof = tree.prove(b"key 7")
    assert StateProof.from_plain(encoding.decode(encoding.encode(proof.to_plain()))) == proof


@given(
    st.binary(max_size=40) | st.just(encoding.encode(((b"", 1), b""))) | st.just(encoding.encode(((b"",) * 65, b"")))
)
def test_garbage_is_no_proof(garbage: bytes) -> None:
    with pytest.raises(Rejected):
        check_state_proof(ZERO_HASH, key=b"", value=b"", proof=StateProof.from_plain(encoding.decode(garbage)))


def test_a_lost_or_altered_bucket_stops_the_node() -> None:
    tree, buckets = tree_of(numbered(100))
    path, content = next(iter(buckets.content.items()))
    keys = [key for key in numbered(100) if sha256(key).hexdigest().encode().startswith(path)]
    buckets.content[path] = flip(content, 500)
    with pytest.raises(CorruptStore):
        tree.prove(keys[0])
    del buckets.content[path]
    with pytest.raises(CorruptStore):
        tree.prepare({keys[0]: b"changed"})
    with pytest.raises(CorruptStore):
        tree.prepare(dict.fromkeys(key for key in numbered(100) if key not in keys))


@pytest.mark.parametrize(
    "stored",
    [
        {b"": b""},
        {b"": bytes(63)},
        {b"": bytes(64 * 33)},
        {b"g": bytes(64)},
        {b"0" * 65: bytes(64)},
        {b"0": bytes(64)},
        {b"": bytes(64), b"0": bytes(64 * 32), b"1": bytes(64)},
    ],
)
def test_buckets_that_no_tree_has_are_refused_at_start(stored: dict[bytes, bytes]) -> None:
    with pytest.raises(CorruptStore):
        StateTree.load(stored.items(), Buckets())


def test_a_tree_loaded_from_its_buckets_goes_on_as_before() -> None:
    tree, buckets = tree_of(numbered(2000))
    loaded = StateTree.load(sorted(buckets.content.items(), reverse=True), buckets)
    changes = {**dict.fromkeys(numbered(1500)), **numbered(40, start=5000)}
    assert loaded.prepare(changes) == tree.prepare(changes)
    change(loaded, buckets, changes)
    assert loaded.root == naive_root({**numbered(500, start=1500), **numbered(40, start=5000)})


def has_entry(proof: StateProof, key: bytes) -> bool:
    return sha256(key).digest() in [proof.bucket[at : at + 32] for at in range(0, len(proof.bucket), 64)]


TREES = {count: tree_of(numbered(count)) for count in (0, 1, 33, 2000)}
