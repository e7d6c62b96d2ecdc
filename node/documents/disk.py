"""The steps by which the embedded store changes its disk, each of which a power cut may be the last of.

Owns nothing but their names: tests put another disk in its place, which forgets what was not synced.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from node.files import sync_directory

TEMPORARY_PREFIX = "."  # no block and no pin is called so


class Disk:
    """The operating system's disk. All steps raise ``OSError``."""

    def make_directory(self, path: Path) -> None:
        """Makes a directory unless it is there; its name is durable only when its parent was synced."""
        path.mkdir(mode=0o700, exist_ok=True)

    def write_temporary(self, path: Path, data: bytes) -> Path:
        """A new file, not yet synced, beside ``path`` under a name of its own."""
        beside = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        return beside

    def sync_file(self, path: Path) -> None:
        """Makes the content of a file durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file its name, in one step; durable when the directory was synced."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Removes a file's name; durable when the directory was synced."""
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        """Makes the names in a directory durable."""
        sync_directory(path)
