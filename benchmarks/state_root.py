"""What the state root costs: time a changed key, buckets written, proof size, load time, memory.

Buckets lie in LevelDB, as in a node; "hashing" is the same work with the buckets in a dict. The table in
docs/decisions/0001-state-root.md comes from here: python -m benchmarks.state_root [--keys 1000,1000000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from random import Random
from statistics import median
from typing import Final

import plyvel

from ledger import encoding
from ledger.state_root import StateTree, StateUpdate, check_state_proof

ROUNDS: Final = 9  # blocks measured for each size; the median is shown
PROOFS: Final = 300
BUILD_KEYS_MAX: Final = 200_000  # keys a batch while the map is filled, to bound memory
CACHE_BYTES: Final = 64 << 20
COLUMNS: Final = (
    "keys",
    "hashing µs/key",
    "with reads µs/key",
    "write ms/block",
    "write MB/block",
    "build µs/key",
    "load s",
    "nodes MB",
    "proof B",
    "check µs",
)


class DictBuckets:
    """Buckets in memory."""

    def __init__(self, content: Mapping[bytes, bytes]) -> None:
        self._content = content

    def get_bucket(self, path: bytes) -> bytes | None:
        return self._content.get(path)


class LevelDbBuckets:
    """Buckets in LevelDB, with a cache that holds them all up to a million keys."""

    def __init__(self, directory: str) -> None:
        self._database = plyvel.DB(
            directory, create_if_missing=True, write_buffer_size=CACHE_BYTES, lru_cache_size=CACHE_BYTES
        )

    def get_bucket(self, path: bytes) -> bytes | None:
        content: bytes | None = self._database.get(path)
        return content

    def write(self, update: StateUpdate, *, sync: bool) -> None:
        with self._database.write_batch(sync=sync) as batch:
            for path, content in update.bucket_writes.items():
                if content is None:
                    batch.delete(path)
                else:
                    batch.put(path, content)

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self._database.iterator()

    def close(self) -> None:
        self._database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the state root.")
    parser.add_argument("--keys", default="1000,10000,100000,1000000", help="sizes of the map; try 10000000 as well")
    parser.add_argument("--changes", type=int, default=4000, help="changed keys a block")
    arguments = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for count in arguments.keys.split(","):
        with tempfile.TemporaryDirectory() as directory:
            store = LevelDbBuckets(directory)
            cells = measure(store, key_count=int(count), change_count=arguments.changes)
            store.close()
        print("| " + " | ".join(cells) + " |", flush=True)


def measure(store: LevelDbBuckets, *, key_count: int, change_count: int) -> list[str]:
    """One row of the table."""
    tree, build_s = build(store, key_count)
    started = time.perf_counter()
    tree = StateTree.load(store.scan(), store)
    load_s = time.perf_counter() - started
    proof_bytes, check_s = measure_proofs(tree, key_count)
    hashing, reading, writing, written = measure_blocks(store, tree, key_count=key_count, change_count=change_count)
    return [
        f"{key_count:,}",
        f"{hashing * 1e6:.1f}",
        f"{reading * 1e6:.1f}",
        f"{writing * 1e3:.1f}",
        f"{written / 1e6:.1f}",
        f"{build_s / key_count * 1e6:.1f}",
        f"{load_s:.2f}",
        f"{measure_memory(store) / 1e6:.1f}",
        f"{proof_bytes:.0f}",
        f"{check_s * 1e6:.0f}",
    ]


def build(store: LevelDbBuckets, key_count: int) -> tuple[StateTree, float]:
    """A map of so many keys, and the seconds that hashing it took."""
    tree, seconds = StateTree.load([], store), 0.0
    for start in range(0, key_count, BUILD_KEYS_MAX):
        content = {name(i): b"v" * 100 for i in range(start, min(start + BUILD_KEYS_MAX, key_count))}
        started = time.perf_counter()
        update = tree.prepare(content)
        seconds += time.perf_counter() - started
        store.write(update, sync=False)
        tree.apply(update)
    return tree, seconds


def measure_blocks(
    store: LevelDbBuckets, tree: StateTree, *, key_count: int, change_count: int
) -> tuple[float, float, float, float]:
    """Seconds a changed key without and with reading LevelDB, seconds and bytes that a block writes."""
    random = Random(key_count)
    content = dict(store.scan())
    in_memory = StateTree.load(content.items(), DictBuckets(content))
    hashing, reading, writing, written = [], [], [], []
    for block in range(ROUNDS):
        value = b"%d" % block * 100
        changes = {name(i): value for i in random.sample(range(key_count), min(change_count, key_count))}
        started = time.perf_counter()
        update = tree.prepare(changes)
        read = time.perf_counter()
        same = in_memory.prepare(changes)
        hashed = time.perf_counter()
        store.write(update, sync=True)
        writing.append(time.perf_counter() - hashed)
        reading.append((read - started) / len(changes))
        hashing.append((hashed - read) / len(changes))
        written.append(sum(len(bucket or b"") for bucket in update.bucket_writes.values()))
        content.update({path: bucket for path, bucket in update.bucket_writes.items() if bucket is not None})
        tree.apply(update)
        in_memory.apply(same)
    return median(hashing), median(reading), median(writing), median(written)


def measure_proofs(tree: StateTree, key_count: int) -> tuple[float, float]:
    """The mean bytes of a proof as it is sent, and the seconds that checking it takes."""
    random = Random(key_count)
    size, seconds = 0, 0.0
    for i in random.choices(range(key_count), k=PROOFS):
        proof = tree.prove(name(i))
        size += len(encoding.encode(proof.to_plain()))
        started = time.perf_counter()
        check_state_proof(tree.root, key=name(i), value=b"v" * 100, proof=proof)
        seconds += time.perf_counter() - started
    return size / PROOFS, seconds / PROOFS


def measure_memory(store: LevelDbBuckets) -> int:
    """Bytes that the tree itself keeps in memory."""
    tracemalloc.start()
    tree = StateTree.load(store.scan(), store)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tree.root
    return size


def name(i: int) -> bytes:
    return b"key %d" % i


if __name__ == "__main__":
    main()
