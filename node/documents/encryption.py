"""Encryption of documents: the content to a key of its own in the age format, and that key to each reader.

Streams of any size pass in constant memory. What is decrypted becomes visible only when the last byte has verified:
until then it is a file without a name that anyone looks for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

import pyrage

from ledger.errors import Malformed, RuleViolated
from node.documents.files import make_file
from node.documents.grants import KEY_BYTES, Commitment, DocumentKey, derive_salt, format_identity
from node.documents.store import Readable

PIECE_BYTES: Final = 64 * 1024
HEADER_BYTES_MAX: Final = 4 * 1024  # one reader takes 200; the library takes n² steps and more to read n
_HEADER_END: Final = b"\n--- "


class Writable(Protocol):
    """Where bytes go: a file, or a wrapper that counts."""

    def write(self, data: bytes, /) -> int: ...


def make_key() -> DocumentKey:
    """A new key, for one version of one document."""
    return DocumentKey(secrets.token_bytes(KEY_BYTES))


def encrypt(source: Readable, target: Writable, key: DocumentKey) -> bytes:
    """Encrypts a stream; gives the commitment to the plain content, 32 bytes.

    Raises what ``source`` or ``target`` raised: a target that failed is never taken for whole.
    """
    commitment = Commitment(derive_salt(key))
    reader, writer = _Source(source, commitment), _Target(target)
    recipient = pyrage.x25519.Identity.from_str(format_identity(key)).to_public()
    failed: Exception | None = None
    try:
        pyrage.encrypt_io(reader, writer, [recipient])
    except (pyrage.EncryptError, OSError) as error:
        failed = error
    # The library swallows an error of the writer that comes with the last bytes: what was recorded counts.
    _raise_first(reader.failed, writer.failed, failed)
    return commitment.compute()


def encrypt_to(path: Path, source: Readable, key: DocumentKey) -> bytes:
    """Encrypts a stream into a new file, whole or not at all; gives the commitment to the plain content.

    Raises ``FileFailed``, and what ``source`` raises.
    """
    with make_file(path) as file:
        return encrypt(source, file, key)


def decrypt_to(path: Path, source: Readable, key: DocumentKey, *, size_max: int, commitment: bytes | None) -> None:
    """Decrypts a stream into a new file, which is there only when the whole has verified.

    Raises ``Malformed`` (``content_not_decrypted``: altered, cut short, or another key; ``content_not_committed``:
    whole, but not what ``commitment`` was made to), ``RuleViolated`` (``document_too_large``), ``FileFailed``, and what
    ``source`` raises.
    """
    with make_file(path) as file:
        _decrypt(source, file, key, size_max=size_max, commitment=commitment)


def check_content(source: Readable, key: DocumentKey, *, size_max: int, commitment: bytes) -> None:
    """That a stream decrypts to what was committed to; the plain content goes nowhere. Raises as ``decrypt_to``."""
    _decrypt(source, _Nowhere(), key, size_max=size_max, commitment=commitment)


def _decrypt(source: Readable, target: Writable, key: DocumentKey, *, size_max: int, commitment: bytes | None) -> None:
    found = Commitment(derive_salt(key))
    head = _read_head(source)
    reader, writer = _Source(PieceReader(_iterate_pieces(head, source))), _Target(target, found, size_max=size_max)
    failed: Exception | None = None
    try:
        pyrage.decrypt_io(reader, writer, [pyrage.x25519.Identity.from_str(format_identity(key))])
    except (pyrage.DecryptError, OSError) as error:
        failed = error
    _raise_first(reader.failed, writer.failed)
    if failed is not None:
        raise Malformed("content_not_decrypted", "altered, cut short, or encrypted to another key") from failed
    if commitment is not None and found.compute() != commitment:
        raise Malformed("content_not_committed", "not the content that the ledger was told of")


def _read_head(source: Readable) -> bytes:
    """The first bytes of a stream, in which the header has to end."""
    head = b""
    while _HEADER_END not in head and len(head) < HEADER_BYTES_MAX and (piece := source.read(HEADER_BYTES_MAX)):
        head += piece
    if _HEADER_END not in head[:HEADER_BYTES_MAX]:
        raise Malformed("content_not_decrypted", f"no header of at most {HEADER_BYTES_MAX} bytes")
    return head


def _iterate_pieces(head: bytes, source: Readable) -> Iterator[bytes]:
    yield head
    while piece := source.read(PIECE_BYTES):
        yield piece


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


class _Nowhere:
    """Takes everything and keeps nothing."""

    def write(self, data: bytes, /) -> int:
        return len(data)


class _Source:
    """Hashes what is read, and records what the stream raised: the library turns every error into one of its own."""

    def __init__(self, source: Readable, commitment: Commitment | None = None) -> None:
        self._source = source
        self._commitment = commitment
        self.failed: Exception | None = None

    def read(self, size: int, /) -> bytes:
        try:
            piece = self._source.read(size)
        except Exception as error:
            self.failed = self.failed or error
            raise
        if self._commitment is not None:
            self._commitment.update(piece)
        return piece


class _Target:
    """Hashes what is written, stops at a limit, and records what the stream raised."""

    def __init__(self, target: Writable, commitment: Commitment | None = None, *, size_max: int | None = None) -> None:
        self._target = target
        self._commitment = commitment
        self._size_left = size_max
        self.failed: Exception | None = None

    def write(self, data: bytes, /) -> int:
        try:
            self._write(data)
        except Exception as error:
            self.failed = self.failed or error
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back here."""

    def _write(self, data: bytes) -> None:
        if self._size_left is not None:
            self._size_left -= len(data)
            if self._size_left < 0:
                raise RuleViolated("document_too_large", f"{-self._size_left} bytes or more over the limit")
        if self._commitment is not None:
            self._commitment.update(data)
        if (written := self._target.write(data)) != len(data):
            raise OSError(f"{written} of {len(data)} bytes were written")


def _raise_first(*failed: Exception | None) -> None:
    for error in failed:
        if error is not None:
            raise error
