"""A meter file on disk, as chunks of bytes that may be read again.

The one file of this package that touches the world.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from node.errors import get_disk_reason
from node.meter_files.model import FILE_BYTES_MAX, MeterFile, MeterFileError

CHUNK_BYTES: Final = 64 * 1024


def open_meter_file(path: Path) -> MeterFile:
    """The file at ``path``. Its chunks raise ``MeterFileError``: ``file_not_regular`` for a pipe or a device, which
    cannot be read twice, ``file_too_large``, ``file_not_readable``, ``permission_missing``."""
    return MeterFile(str(path), lambda: _iterate_chunks(path))


def _iterate_chunks(path: Path) -> Iterator[bytes]:
    try:
        if path.exists() and not path.is_file():
            raise MeterFileError("file_not_regular", path)
        with path.open("rb") as stream:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise MeterFileError("file_too_large", f"{path}: at most {FILE_BYTES_MAX} bytes")
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        reason = get_disk_reason(error, otherwise="file_not_readable")
        raise MeterFileError(reason, f"{path}: {error.strerror}") from error
