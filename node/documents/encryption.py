"""Encryption of documents: the content to a key of its own in the age format, and that key to each reader.

Streams of any size pass in constant memory. What is decrypted becomes visible only when the last byte has verified:
until then it is a file without a name that anyone looks for.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import pyrage

from ledger.errors import Malformed, RuleViolated
from node.documents.grants import DocumentKey, format_identity
from node.documents.store import Readable
from node.files import sync_directory

OVERHEAD_PER_CHUNK_BYTES: Final = 16
CHUNK_BYTES: Final = 64 * 1024  # of the age format
HEADER_BYTES: Final = 200  # one reader; measured, and a test says so


class Writable(Protocol):
    """Where bytes go: a file, or a wrapper that counts."""

    def write(self, data: bytes, /) -> int: ...


def make_key() -> DocumentKey:
    """A new key, for one version of one document."""
    return DocumentKey(secrets.token_bytes(32))


def compute_encrypted_size(size: int) -> int:
    """How long the ciphertext of ``size`` bytes is."""
    chunks = max(1, -(-size // CHUNK_BYTES))
    return HEADER_BYTES + size + chunks * OVERHEAD_PER_CHUNK_BYTES


def encrypt(source: Readable, target: Writable, key: DocumentKey) -> None:
    """Encrypts a stream. Raises what ``source`` or ``target`` raised; a target that failed is never taken for whole."""
    reader, writer = _Source(source), _Target(target)
    recipient = pyrage.x25519.Identity.from_str(format_identity(key)).to_public()
    failed: Exception | None = None
    try:
        pyrage.encrypt_io(reader, writer, [recipient])
    except (pyrage.EncryptError, OSError) as error:
        failed = error
    # The library swallows an error of the writer that comes with the last bytes: what was recorded counts.
    for cause in (reader.failed, writer.failed, failed):
        if cause is not None:
            raise cause


def encrypt_to(path: Path, source: Readable, key: DocumentKey) -> None:
    """Encrypts a stream into a new file, whole or not at all. Raises ``OSError``, and what ``source`` raises."""
    with _new_file(path) as file:
        encrypt(source, file, key)


def decrypt_to(path: Path, source: Readable, key: DocumentKey, *, size_max: int) -> None:
    """Decrypts a stream into a new file, which is there only when the whole has verified.

    Raises ``Malformed`` (``content_not_decrypted``: altered, cut short, or another key), ``RuleViolated``
    (``document_too_large``), ``FileExistsError``, ``OSError``, and what ``source`` raises.
    """
    with _new_file(path) as file:
        reader, writer = _Source(source), _Target(file, size_max=size_max)
        failed: Exception | None = None
        try:
            pyrage.decrypt_io(reader, writer, [pyrage.x25519.Identity.from_str(format_identity(key))])
        except (pyrage.DecryptError, OSError) as error:
            failed = error
        for cause in (reader.failed, writer.failed):
            if cause is not None:
                raise cause
        if failed is not None:
            raise Malformed("content_not_decrypted", "altered, cut short, or encrypted to another key") from failed


class PieceReader:
    """What a store gives piece by piece, as a stream to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        given, self._rest = self._rest[:size], self._rest[size:]
        return given


class ProgressReader:
    """A stream that reports how many bytes it gave so far; for a progress bar."""

    def __init__(self, source: Readable, report: Callable[[int], None]) -> None:
        self._source = source
        self._report = report
        self._given = 0

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        self._given += len(piece)
        self._report(self._given)
        return piece


class _Source:
    """Records what its stream raised: the library turns every error into one of its own."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.failed: Exception | None = None

    def read(self, size: int, /) -> bytes:
        try:
            return self._source.read(size)
        except Exception as error:
            self.failed = self.failed or error
            raise


class _Target:
    """Records what its stream raised, and stops at a limit."""

    def __init__(self, target: Writable, *, size_max: int | None = None) -> None:
        self._target = target
        self._size_max = size_max
        self._size = 0
        self.failed: Exception | None = None

    def write(self, data: bytes, /) -> int:
        try:
            self._size += len(data)
            if self._size_max is not None and self._size > self._size_max:
                raise RuleViolated("document_too_large", f"more than {self._size_max} bytes")
            written = self._target.write(data)
        except Exception as error:
            self.failed = self.failed or error
            raise
        if written != len(data):
            self.failed = self.failed or OSError(f"{written} of {len(data)} bytes were written")
            raise self.failed
        return written

    def flush(self) -> None:
        """Nothing is kept back here."""


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when the block ends well, and is removed when it does not; never replaces another."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.link(beside, path)  # unlike a rename, it refuses to replace
    finally:
        beside.unlink()
    sync_directory(path.parent)
