"""The embedded store: blocks as files in Kubo's flatfs layout, pins as files beside them; no daemon, no database.

A document is there once its pin is: blocks are synced, then named, their directories synced, then the pin is written.
A power cut leaves files that nobody pinned, which garbage collection removes. Every block is hashed when it is read.
"""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ledger.errors import Malformed, RuleViolated
from node.documents.chunking import build_blocks
from node.documents.cid import BLOCK_BYTES_MAX, DIGEST_BYTES, MULTIHASH_PREFIX, Block, Cid, Digest, is_named, parse_cid
from node.documents.disk import TEMPORARY_PREFIX, Disk
from node.documents.reading import TREE_BYTES_MAX, check_block, find_digests, read_verified, walk
from node.documents.store import ABSENT, DOCUMENT_BYTES_MAX, PINS_MAX, Readable, StoreFailed, StoreHealth, check_root
from node.errors import get_disk_reason

VERSION: Final = "flatfs/1"
_SHARDING: Final = b"/repo/flatfs/shard/v1/next-to-last/2\n"  # how Kubo names the layout, in the file SHARDING
_SHARDING_NAME: Final = "SHARDING"
_OWN_NAMES: Final = frozenset({"blocks", "pins", "lock"})
_SUFFIX: Final = ".data"
_MULTIHASH_LETTERS: Final = 55  # 34 bytes in base32


class EmbeddedStore:
    """A ``DocumentStore`` in a directory of this machine. Threads and processes may share the directory."""

    def __init__(self, root: Path, *, disk: Disk | None = None) -> None:
        self._root = root.absolute()
        self._blocks = self._root / "blocks"
        self._pins = self._root / "pins"
        self._lock = self._root / "lock"
        self._disk = disk or Disk()
        with _own_disk(self._root):
            self._make_root()
            self._check_own()
            for directory in (self._blocks, self._pins):
                self._disk.make_directory(directory)
            if not (self._blocks / _SHARDING_NAME).exists():
                self._write(self._blocks / _SHARDING_NAME, _SHARDING)
            self._disk.sync_directory(self._blocks)
            self._disk.sync_directory(self._root)

    def put(self, stream: Readable, *, size_max: int) -> Cid:
        with self._locked(fcntl.LOCK_SH):
            root = None
            touched: set[Path] = set()
            for block in build_blocks(stream, size_max=size_max):
                touched.add(self._write_block(block))
                root = block.cid
            assert root is not None, "an empty stream is one empty block"
            self._sync(touched)
            self._write_pin(root)
        return root

    def put_blocks(self, root: Cid, blocks: Iterable[Block], *, size_max: int = DOCUMENT_BYTES_MAX) -> None:
        check_root(root)
        with self._locked(fcntl.LOCK_SH):
            touched: set[Path] = set()
            total = 0
            for block in blocks:
                total += len(block.data)
                if total > size_max + TREE_BYTES_MAX:
                    raise RuleViolated("document_too_large", f"more than {size_max} bytes")
                touched.add(self._write_block(check_block(block.cid, block.data)))
            self._sync(touched)
            self._check_whole(root, size_max=size_max)
            self._write_pin(root)

    def open(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[bytes]:
        return (visit.content for visit in walk(self._read_block, cid, size_max=size_max) if visit.content)

    def open_blocks(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[Block]:
        return (visit.block for visit in walk(self._read_block, cid, size_max=size_max))

    def has(self, cid: Cid) -> bool:
        try:
            read_verified(self._read_block, cid)
        except StoreFailed as error:
            if error.reason in ABSENT:
                return False
            raise
        return True

    def pin(self, cid: Cid) -> None:
        check_root(cid)
        with self._locked(fcntl.LOCK_SH):
            self._check_whole(cid, size_max=DOCUMENT_BYTES_MAX)
            # Its blocks may have been named without a sync by a put that a power cut ended.
            self._sync({self._get_path(digest).parent for digest in find_digests(self._read_block, cid)})
            self._write_pin(cid)

    def unpin(self, cid: Cid) -> None:
        with self._locked(fcntl.LOCK_SH), _own_disk(self._pins):
            try:
                self._disk.unlink(self._pins / str(cid))
            except FileNotFoundError:
                raise StoreFailed("pin_absent", f"{cid} is not kept in {self._root}") from None
            self._disk.sync_directory(self._pins)

    def list_pins(self) -> list[Cid]:
        with _own_disk(self._pins):
            names = [path.name for path in self._pins.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)]
        try:
            return sorted(parse_cid(name) for name in names)
        except Malformed as error:
            # A pin that cannot be read may be of a document that must not be lost: nobody guesses here.
            raise StoreFailed("disk_failed", f"{self._pins}: {error.item} is no pin") from None

    def collect_garbage(self) -> int:
        with self._locked(fcntl.LOCK_EX):
            needed: set[Digest] = set()
            for pin in self.list_pins():
                needed.update(find_digests(self._read_block, pin))
            removed = 0
            with _own_disk(self._blocks):
                for path in self._list_files():
                    if path.name.startswith(TEMPORARY_PREFIX):  # no put is under way: left by a crash
                        self._disk.unlink(path)
                    elif (digest := _find_digest(path)) is not None and digest not in needed:
                        self._disk.unlink(path)
                        removed += 1
        return removed

    def health(self) -> StoreHealth:
        pins = len(self.list_pins())
        with _own_disk(self._blocks):
            if not os.access(self._blocks, os.R_OK | os.W_OK | os.X_OK):
                raise StoreFailed("permission_missing", self._blocks)
            size = sum(path.stat().st_size for path in self._list_files())
        return StoreHealth("embedded", VERSION, pins, size)

    def close(self) -> None:
        """Nothing is held between calls."""

    def _make_root(self) -> None:
        """The directory of the store, and whichever above it are missing, each with a durable name."""
        missing = [path for path in (self._root, *self._root.parents) if not path.exists()]
        for path in reversed(missing):
            self._disk.make_directory(path)
            self._disk.sync_directory(path.parent)

    def _check_own(self) -> None:
        """That nobody else's files are here: a daemon's own repository would be garbage to us, for want of our pins."""
        if not self._root.is_dir():
            raise StoreFailed("store_directory_foreign", f"{self._root} is a file")
        if not self._pins.is_dir() and not _OWN_NAMES.issuperset(path.name for path in self._root.iterdir()):
            raise StoreFailed("store_directory_foreign", f"{self._root} has other things in it")
        sharding = self._blocks / _SHARDING_NAME
        if sharding.exists() and sharding.read_bytes() != _SHARDING:
            raise StoreFailed("store_directory_foreign", f"{sharding} names another layout")

    def _check_whole(self, cid: Cid, *, size_max: int) -> None:
        for _ in walk(self._read_block, cid, size_max=size_max):
            pass

    def _get_path(self, digest: Digest) -> Path:
        name = base64.b32encode(MULTIHASH_PREFIX + digest).decode().rstrip("=")
        return self._blocks / name[-3:-1] / f"{name}{_SUFFIX}"

    def _read_block(self, cid: Cid) -> bytes:
        path = self._get_path(cid.digest)
        with _own_disk(path):
            try:
                with path.open("rb") as file:
                    return file.read(BLOCK_BYTES_MAX + 1)
            except FileNotFoundError:
                raise StoreFailed("block_absent", f"{cid} is not in {self._root}") from None

    def _write_block(self, block: Block) -> Path:
        """Names a block; gives its directory, which is to be synced. A damaged file of this name is replaced."""
        path = self._get_path(block.cid.digest)
        with _own_disk(path):
            self._disk.make_directory(path.parent)
            if not path.exists() or not is_named(block.cid, path.read_bytes()):
                self._write(path, block.data)
        return path.parent

    def _write_pin(self, cid: Cid) -> None:
        if len(self.list_pins()) >= PINS_MAX:
            raise StoreFailed("store_full", f"{PINS_MAX} documents")
        with _own_disk(self._pins):
            self._write(self._pins / str(cid), b"")
            self._disk.sync_directory(self._pins)

    def _write(self, path: Path, data: bytes) -> None:
        beside = self._disk.write_temporary(path, data)
        self._disk.sync_file(beside)
        self._disk.rename(beside, path)

    def _sync(self, directories: set[Path]) -> None:
        with _own_disk(self._blocks):
            for directory in sorted(directories):
                self._disk.sync_directory(directory)
            self._disk.sync_directory(self._blocks)

    def _list_files(self) -> Iterator[Path]:
        for directory in sorted(self._blocks.iterdir()):
            if directory.is_dir():
                yield from sorted(directory.iterdir())
        yield from (path for path in sorted(self._pins.iterdir()) if path.name.startswith(TEMPORARY_PREFIX))

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        """Puts share the store with each other; garbage collection has it alone, and waits for neither."""
        with _own_disk(self._lock):
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, operation | (fcntl.LOCK_NB if operation == fcntl.LOCK_EX else 0))
            except BlockingIOError:
                raise StoreFailed("store_busy", "documents are being stored; collect garbage later") from None
            yield
        finally:
            os.close(descriptor)


def _find_digest(path: Path) -> Digest | None:
    """The digest that a block's file is named by; None for a file that is no block of ours, and stays."""
    name = path.name.removesuffix(_SUFFIX)
    if len(name) != _MULTIHASH_LETTERS or not path.name.endswith(_SUFFIX):
        return None
    try:
        multihash = base64.b32decode(name + "=")
    except ValueError:
        return None
    return multihash[-DIGEST_BYTES:] if multihash.startswith(MULTIHASH_PREFIX) else None


@contextmanager
def _own_disk(item: Path) -> Iterator[None]:
    """Turns what the operating system says into an error of the store."""
    try:
        yield
    except OSError as error:
        raise StoreFailed(get_disk_reason(error, otherwise="disk_failed"), f"{item}: {error.strerror}") from error
