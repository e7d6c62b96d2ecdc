"""The store on disk: LevelDB behind the ``Store`` port of ledger/storage.py, one atomic batch per block.

Owns how the database is opened, tuned and locked, and turns what LevelDB says into a clear word. Every read checks
the checksum of the block it came from, so that a damaged disk stops the node instead of changing a balance.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

if sys.version_info >= (3, 13):  # plyvel has no wheels for it; this fork of the same code has
    import plyvel_next as plyvel
else:
    import plyvel

from ledger.errors import CorruptStore
from ledger.storage import Changes
from node.errors import LocalError, get_disk_reason

WRITE_BUFFER_BYTES: Final = 8 * 1024 * 1024  # LevelDB holds at most two of these
CACHE_BYTES: Final = 16 * 1024 * 1024
BLOCK_BYTES: Final = 4 * 1024
OPEN_FILES_MAX: Final = 200  # each open table keeps its index and filter in memory
BLOOM_FILTER_BITS: Final = 10  # one miss in a hundred reads the disk
_LOCK_NAME: Final = "IN_USE"

# LevelDB reports an operating system's error as text only.
_REASONS_BY_TEXT: Final = (
    ("already held by process", "store_locked"),
    ("Resource temporarily unavailable", "store_locked"),
    ("No space left", "disk_full"),
    ("Disk quota exceeded", "disk_full"),
    ("Permission denied", "permission_missing"),
    ("Operation not permitted", "permission_missing"),
    ("Read-only file system", "permission_missing"),
)


class StoreError(LocalError):
    """The database cannot be opened or written.

    Reasons: ``store_locked``, ``store_corrupt``, ``disk_full``, ``permission_missing``, ``store_not_usable``.
    """


class LevelDbStore:
    """A ``Store`` in a directory of its own, which is created if missing. One process at a time may hold it.

    A write that was torn by a power cut was never acknowledged: LevelDB drops it when it opens, and the chain
    goes on from the block before. That is why ``paranoid_checks`` stays off.
    """

    def __init__(self, path: Path) -> None:
        """Opens the database at ``path``. Raises ``StoreError``."""
        self.path = path
        self._lock = _take_lock(path)
        try:
            self._db = plyvel.DB(
                str(path),
                create_if_missing=True,
                paranoid_checks=False,
                write_buffer_size=WRITE_BUFFER_BYTES,
                lru_cache_size=CACHE_BYTES,
                block_size=BLOCK_BYTES,
                max_open_files=OPEN_FILES_MAX,
                bloom_filter_bits=BLOOM_FILTER_BITS,
            )
        except plyvel.Error as error:
            os.close(self._lock)
            raise _explain(error, path) from error

    def get(self, key: bytes) -> bytes | None:
        """The committed value of a key. Raises ``CorruptStore``, or ``StoreError`` if the disk cannot be read."""
        try:
            return self._db.get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _explain_reading(error, self.path) from error

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start`` ≤ key < ``stop``, in key order or reversed, as they were when this was called."""
        if start >= stop:
            return iter(())
        return _iterate(self._db.iterator(start=start, stop=stop, reverse=reverse, verify_checksums=True), self.path)

    def freeze(self) -> FrozenReader:
        """The store as it is now; to be closed before the store is."""
        return FrozenReader(self._db.snapshot(), self.path)

    def write(self, changes: Changes, *, sync: bool = True) -> None:
        """One atomic batch, durable on return when ``sync`` is true. Raises ``StoreError``; then nothing applied."""
        try:
            with self._db.write_batch(transaction=True, sync=sync) as batch:
                for key, value in changes.items():
                    if value is None:
                        batch.delete(key)
                    else:
                        batch.put(key, value)
        except plyvel.Error as error:
            raise _explain(error, self.path) from error

    def compact(self) -> None:
        """Rewrites all tables without the values that were replaced; takes as long as the disk needs."""
        # LevelDB looks which levels hold tables before it writes out what is in memory, and leaves those alone that
        # appear meanwhile: all is first brought to disk, by compacting a range without keys. Keys begin with a letter.
        self._db.compact_range(start=b"\x00", stop=b"\x00")
        # Without bounds plyvel names the empty range.
        self._db.compact_range(start=b"\x00", stop=b"\xff")

    def size_bytes(self) -> int:
        """What the files of the database take on disk now."""
        total = 0
        for file in self.path.iterdir():
            try:
                total += file.stat().st_size
            except FileNotFoundError:  # LevelDB's own thread removed it meanwhile
                continue
        return total

    def memory_bytes(self) -> int:
        """What LevelDB says that it holds: blocks that were read, and what is written and in no table yet."""
        said = self._db.get_property(b"leveldb.approximate-memory-usage")
        assert said is not None, "every LevelDB since 1.19 knows"
        return int(said)

    def close(self) -> None:
        """Lets go of the files and of the lock; calling it again does nothing."""
        if not self._db.closed:
            self._db.close()
            os.close(self._lock)


class FrozenReader:
    """The store as it was when it was frozen, for another thread to read while the node goes on. ``close`` it."""

    def __init__(self, snapshot: plyvel.Snapshot, path: Path) -> None:
        self._snapshot = snapshot
        self._path = path

    def get(self, key: bytes) -> bytes | None:
        """The value of a key then. Raises ``CorruptStore``, ``StoreError``."""
        try:
            return self._snapshot.get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _explain_reading(error, self._path) from error

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """As the store's."""
        if start >= stop:
            return iter(())
        entries = self._snapshot.iterator(
            start=start, stop=stop, reverse=reverse, verify_checksums=True, fill_cache=False
        )
        return _iterate(entries, self._path)

    def close(self) -> None:
        """Let the database forget what it kept for this."""
        self._snapshot.close()


def _iterate(entries: plyvel.EntryIterator, path: Path) -> Iterator[tuple[bytes, bytes]]:
    try:
        yield from entries
    except plyvel.Error as error:
        raise _explain_reading(error, path) from error
    finally:
        entries.close()


def _explain_reading(error: plyvel.Error, path: Path) -> Exception:
    explained = _explain(error, path)
    return CorruptStore(str(explained)) if isinstance(error, plyvel.CorruptionError) else explained


def _take_lock(path: Path) -> int:
    """A file descriptor that holds the directory's lock.

    LevelDB has a lock of its own, but a second attempt from the same process releases it unnoticed.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(get_disk_reason(error, otherwise="store_not_usable"), f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreError("store_locked", f"{path}: another process holds it") from error
    return lock


def _explain(error: plyvel.Error, path: Path) -> StoreError:
    said = error.args[0] if error.args else b""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(error)
    if isinstance(error, plyvel.CorruptionError):
        return StoreError("store_corrupt", f"{path}: {text}")
    reason = next((reason for words, reason in _REASONS_BY_TEXT if words in text), "store_not_usable")
    return StoreError(reason, f"{path}: {text}")
