"""A snapshot as a file: written beside its place and then named, read chunk by chunk, never whole.

Owns the file's form: 8 bytes of magic, the chunks, the manifest, the manifest's SHA-256 and its length (4 bytes), and
the magic again, so that a file which was cut off shows at once. Touches the world.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from ledger.errors import Rejected
from ledger.primitives import HASH_BYTES, Hash
from ledger.storage import Reader
from node.errors import LocalError, get_disk_reason
from node.files import sync_directory
from node.snapshots import (
    CHUNK_BYTES,
    MANIFEST_BYTES_MAX,
    Manifest,
    decode_manifest,
    encode_manifest,
    iterate_chunks,
    make_manifest,
)

MAGIC: Final = b"wpsnap1\n"
_TAIL_BYTES: Final = HASH_BYTES + 4 + len(MAGIC)


class SnapshotFileError(LocalError):
    """The file cannot be written or read.

    Reasons: ``snapshot_missing``, ``snapshot_file_exists``, ``snapshot_not_usable``, ``disk_full``,
    ``permission_missing``.
    """


def write_snapshot_file(path: Path, reader: Reader, *, replace: bool = False) -> Manifest:
    """Write the head's snapshot; ``reader`` must not move meanwhile. Raises ``SnapshotFileError``, ``Rejected``."""
    beside = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not replace:
            raise SnapshotFileError("snapshot_file_exists", path)
        with beside.open("wb") as stream:
            manifest = _write_all(stream, reader)
        beside.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise _explain(error, path) from error
    finally:
        beside.unlink(missing_ok=True)
    return manifest


class SpoolFile:
    """A snapshot whose chunks come in any order; ``finish`` makes it one that `SnapshotFile` reads."""

    def __init__(self, path: Path) -> None:
        """Begins the file anew. Raises ``SnapshotFileError``."""
        self._path = path
        try:
            self._stream = path.open("w+b")
        except OSError as error:
            raise _explain(error, path) from error

    def put(self, index: int, chunk: bytes) -> None:
        """Keep a chunk. Raises ``SnapshotFileError``."""
        self._write_at(len(MAGIC) + index * CHUNK_BYTES, chunk)

    def finish(self, manifest: Manifest) -> None:
        """All chunks are here. Raises ``SnapshotFileError``."""
        self._write_at(0, MAGIC)
        self._write_at(len(MAGIC) + manifest.size_bytes, b"")
        try:
            self._stream.truncate()
            _write_end(self._stream, manifest)
        except OSError as error:
            raise _explain(error, self._path) from error
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()

    def _write_at(self, start: int, data: bytes) -> None:
        try:
            self._stream.seek(start)
            self._stream.write(data)
        except OSError as error:
            raise _explain(error, self._path) from error


class SnapshotFile:
    """An open snapshot. Its manifest is decoded, not believed: `snapshot_verifier.py` does that. ``close`` it."""

    def __init__(self, path: Path) -> None:
        """Raises ``SnapshotFileError``, and ``Rejected`` for a manifest that is none."""
        try:
            self._stream = path.open("rb")
        except FileNotFoundError:
            raise SnapshotFileError("snapshot_missing", path) from None
        except OSError as error:
            raise SnapshotFileError("snapshot_not_usable", f"{path}: {error.strerror}") from error
        try:
            self._chunks_end = 0
            self.manifest_bytes = self._read_manifest(path)
            self.manifest = decode_manifest(self.manifest_bytes)
        except (LocalError, Rejected):
            self._stream.close()
            raise

    def read_chunk(self, index: int) -> bytes:
        """A chunk, unchecked; empty past the end. Raises ``SnapshotFileError``."""
        start = len(MAGIC) + index * CHUNK_BYTES
        return self._read_at(start, max(0, min(CHUNK_BYTES, self._chunks_end - start)))

    def iterate_chunks(self, note: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        """All chunks in order; ``note`` is called after each."""
        for index in range(len(self.manifest.chunk_hashes)):
            yield self.read_chunk(index)
            note()

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()

    def _read_manifest(self, path: Path) -> bytes:
        size = os.fstat(self._stream.fileno()).st_size
        tail = self._read_at(max(0, size - _TAIL_BYTES), _TAIL_BYTES)
        if self._read_at(0, len(MAGIC)) != MAGIC or not tail.endswith(MAGIC) or len(tail) != _TAIL_BYTES:
            raise SnapshotFileError("snapshot_not_usable", f"{path}: no snapshot, or cut off")
        length = int.from_bytes(tail[HASH_BYTES : HASH_BYTES + 4], "big")
        self._chunks_end = size - _TAIL_BYTES - length
        if length > MANIFEST_BYTES_MAX or self._chunks_end < len(MAGIC):
            raise SnapshotFileError("snapshot_not_usable", f"{path}: a manifest of {length} bytes")
        data = self._read_at(self._chunks_end, length)
        if sha256(data).digest() != tail[:HASH_BYTES]:
            raise SnapshotFileError("snapshot_not_usable", f"{path}: the manifest is damaged")
        return data

    def _read_at(self, start: int, length: int) -> bytes:
        try:
            self._stream.seek(start)
            return self._stream.read(length)
        except OSError as error:
            raise SnapshotFileError("snapshot_not_usable", f"{error.strerror}") from error


def _explain(error: OSError, path: Path) -> SnapshotFileError:
    return SnapshotFileError(get_disk_reason(error, otherwise="snapshot_not_usable"), f"{path}: {error.strerror}")


def _write_all(stream: BinaryIO, reader: Reader) -> Manifest:
    stream.write(MAGIC)
    hashes: list[Hash] = []
    size = 0
    for chunk in iterate_chunks(reader):
        stream.write(chunk)
        hashes.append(Hash(sha256(chunk).digest()))
        size += len(chunk)
    manifest = make_manifest(reader, size_bytes=size, chunk_hashes=hashes)
    _write_end(stream, manifest)
    return manifest


def _write_end(stream: BinaryIO, manifest: Manifest) -> None:
    data = encode_manifest(manifest)
    stream.write(data + sha256(data).digest() + len(data).to_bytes(4, "big") + MAGIC)
    stream.flush()
    os.fsync(stream.fileno())
