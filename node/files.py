"""How a file of this node reaches the disk: written beside its place, synced, then named, and the name synced.

Owns the two steps that are easy to forget; whether the name may replace an older file is the caller's affair.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_beside(path: Path, data: bytes, *, mode: int) -> Path:
    """A synced file with ``data`` under a name of its own in the directory of ``path``. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return beside


def write_replacing(path: Path, data: bytes, *, mode: int) -> None:
    """Puts ``data`` in the place of ``path``: after a crash there is the old file or the new. Raises ``OSError``."""
    beside = write_beside(path, data, mode=mode)
    try:
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Puts ``data`` at ``path``, whole or not at all. Raises ``FileExistsError`` rather than replace, ``OSError``."""
    beside = write_beside(path, data, mode=mode)
    try:
        os.link(beside, path)  # unlike a rename, it refuses to replace
    finally:
        beside.unlink()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable: a file made or renamed is still there after a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(directory: Path) -> None:
    """Makes every file in a directory durable, whoever wrote it, and their names. Raises ``OSError``."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_directory(directory)
