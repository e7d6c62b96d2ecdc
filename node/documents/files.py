"""Files that people hand in and get back: what is read is a file and nothing that waits, what is written is whole.

Touches the world. Every error names the file as its owner knows it, not the name that it has on its way.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from node.errors import LocalError, get_disk_reason
from node.files import sync_directory

_NAMELESS: Final[int | None] = getattr(os, "O_TMPFILE", None)  # Linux, on most of its file systems
_NOT_HERE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})  # what other file systems answer to it
_OPEN_FILES: Final = Path("/proc/self/fd")


class FileFailed(LocalError):
    """A file could not be read or written; nothing is half-written.

    ``file_exists``, ``file_missing``, ``directory_missing``, ``file_not_regular``, ``disk_full``,
    ``permission_missing``, ``disk_failed``.
    """


class OpenFile:
    """A regular file while it is read; ``size`` is what it had when it was opened."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self._file = file
        self._path = path
        self.size = size

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise _name_failure(error, self._path) from error


@contextmanager
def open_file(path: Path) -> Iterator[OpenFile]:
    """A regular file to read from. A pipe or a device, which may never end, is refused. Raises ``FileFailed``."""
    try:
        # Without O_NONBLOCK a pipe would wait here for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileFailed("file_missing", path) from None
    except OSError as error:
        raise _name_failure(error, path) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise FileFailed("file_not_regular", f"{path}: a directory, a pipe or a device is no document")
    with os.fdopen(descriptor, "rb") as file:
        yield OpenFile(file, path, found.st_size)


def check_new(path: Path) -> None:
    """That a file can be made at ``path``. Raises ``FileFailed``: ``file_exists``, ``directory_missing``."""
    if os.path.lexists(path):
        raise FileFailed("file_exists", f"{path}: it is not replaced")
    if not path.parent.is_dir():
        raise FileFailed("directory_missing", path.parent)


@contextmanager
def make_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when the block ends well, and is removed when it does not; never replaces another.

    Raises ``FileFailed``; so does an ``OSError`` of the block, which is about this file.
    """
    check_new(path)
    try:
        descriptor = _open_nameless(path.parent)
        with _write_beside(path) if descriptor is None else _write_nameless(descriptor, path) as file:
            yield file
        sync_directory(path.parent)
    except FileExistsError:
        raise FileFailed("file_exists", f"{path}: it is not replaced") from None
    except OSError as error:
        raise _name_failure(error, path) from error


def _open_nameless(directory: Path) -> int | None:
    """A new file without a name, of which nothing is left however the process ends; None where there are none such."""
    if _NAMELESS is None or not _OPEN_FILES.is_dir():
        return None
    try:
        return os.open(directory, os.O_WRONLY | _NAMELESS | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return None
        raise


@contextmanager
def _write_nameless(descriptor: int, path: Path) -> Iterator[BinaryIO]:
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(descriptor)
        # Python follows the name of an open file to the file only when it is given a descriptor, whichever that is.
        os.link(_OPEN_FILES / str(descriptor), path, src_dir_fd=descriptor, follow_symlinks=True)


@contextmanager
def _write_beside(path: Path) -> Iterator[BinaryIO]:
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.link(beside, path)  # unlike a rename, it refuses to replace
    finally:
        beside.unlink()


def _name_failure(error: OSError, path: Path) -> FileFailed:
    return FileFailed(get_disk_reason(error, otherwise="disk_failed"), f"{path}: {error.strerror or error}")
