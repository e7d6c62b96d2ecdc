"""The journal: what this node signed and is locked on, on disk before anything is sent.

Owns one append-only file of opaque frames. What a frame says is the engine's affair; that a frame is still there
after a crash at any point, and that a damaged file is never taken for a whole one, is ours.

File: 8 bytes of magic, then records. All integers are big-endian.

| field    | bytes | meaning                                                                     |
|----------|-------|-----------------------------------------------------------------------------|
| length   | 4     | of the body                                                                 |
| kind     | 1     | 1: these frames follow; 2: a restart, every frame before is obsolete        |
| body sum | 4     | CRC-32 of the body                                                          |
| head sum | 4     | CRC-32 of the nine bytes before, so that a length is trusted or not at all  |
| body     |       | frames, each as 4 bytes of length and its bytes                             |
| end      | 1     | 0xA5: never zero, so that an end that never reached the disk shows          |

**One sync writes one record**, and the next record is written only after that sync returned. So only the last
record can be torn, and a torn record was never acknowledged: nothing that depends on it was sent. When a record
does not check, the rule is

1. the file ends before the record does: torn by a killed process. Cut off.
2. else, if a whole valid record stands anywhere behind it: damaged in the middle. ``JournalCorrupt``.
3. else, if a disk sector of the record is all zero (of its head, when the head does not check): the file grew but
   the sector never arrived, which is what a power cut leaves. Torn, cut off.
4. else a byte of a record that was perhaps acknowledged has changed. ``JournalCorrupt``: to forget it could mean to
   sign twice.

A restart is one appended record, so it costs one sync and is safe at any cut: either it is whole, or the frames
before it still count. When the file is over ``JOURNAL_BYTES_MAX``, a restart writes a new file beside it, syncs it,
renames it over the old and syncs the directory.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from node.errors import LocalError, get_disk_reason
from node.files import sync_directory

JOURNAL_BYTES_MAX: Final = 16 * 1024 * 1024  # then the next restart begins a new file; read whole when opened
FRAME_BYTES_MAX: Final = 32 * 1024 * 1024  # a block body and its polka certificate, with room to spare
SECTOR_BYTES: Final = 512  # the least that a disk writes whole

MAGIC: Final = b"wpjrnl1\n"
_HEAD: Final = struct.Struct(">IBII")
_HEAD_SUMMED: Final = struct.Struct(">IBI")
_FRAME_LENGTH: Final = struct.Struct(">I")
_END: Final = b"\xa5"
_KIND_FRAMES: Final = 1
_KIND_RESTART: Final = 2


class JournalError(LocalError):
    """The journal cannot be opened or written.

    Reasons: ``disk_full``, ``permission_missing``, ``journal_locked``, ``journal_not_usable``.
    """


class JournalCorrupt(JournalError):
    """The journal cannot be believed; the node must not sign.

    Reasons: ``journal_not_recognised``, ``journal_record_malformed``, ``journal_damaged_in_middle``,
    ``journal_damaged_at_end``.
    The item names the file and the offset.
    """


class Journal:
    """An open journal. ``append`` gathers, ``sync`` makes durable; made by ``Journal.open``.

    After a ``JournalError`` from ``sync`` or ``reset`` it is not known what the disk holds: the journal takes
    nothing more, and the node must stop.
    """

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = size
        self._pending: list[bytes] = []
        self._usable = True

    @classmethod
    def open(cls, path: Path) -> tuple[Journal, list[bytes]]:
        """The journal at ``path``, created if missing, and its frames since the last restart, oldest first.

        A torn last record is cut off and the cut is synced. Raises ``JournalError``, ``JournalCorrupt``.
        """
        try:
            if not path.exists():
                os.close(_create_file(path, MAGIC))
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _explain(error, path) from error
        try:
            _lock(descriptor, path)
            data = _read_all(descriptor)
            frames, end = parse_journal(data, name=str(path))
            if end < len(data):
                os.ftruncate(descriptor, end)
                os.fsync(descriptor)
            os.lseek(descriptor, end, os.SEEK_SET)
        except OSError as error:
            os.close(descriptor)
            raise _explain(error, path) from error
        except JournalError:
            os.close(descriptor)
            raise
        return cls(path, descriptor, end), frames

    def append(self, frame: bytes) -> None:
        """Gathers a frame; it is durable when the next ``sync`` returns."""
        assert self._usable, "the journal failed or is closed"
        assert len(frame) <= FRAME_BYTES_MAX
        self._pending.append(frame)

    def sync(self) -> None:
        """Makes every gathered frame durable, as one record: after a crash all of them are there, or none."""
        assert self._usable, "the journal failed or is closed"
        if self._pending:
            self._write(format_record(self._pending, is_restart=False))
            self._pending.clear()

    def reset(self, frames: Sequence[bytes] = ()) -> None:
        """Starts over with ``frames`` alone, durable on return; gathered frames that were not synced are dropped.

        After a crash at any point there are either the frames from before, or these.
        """
        assert self._usable, "the journal failed or is closed"
        assert all(len(frame) <= FRAME_BYTES_MAX for frame in frames)
        self._pending.clear()
        record = format_record(frames, is_restart=True)
        if self._size <= JOURNAL_BYTES_MAX:
            self._write(record)
        else:
            self._begin_file(MAGIC + record)

    def size_bytes(self) -> int:
        """What the file takes on disk."""
        return self._size

    def close(self) -> None:
        """Lets go of the file; frames that were not synced are dropped. Calling it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._usable = False

    def _write(self, record: bytes) -> None:
        try:
            _write_all(self._descriptor, record)
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._usable = False
            raise _explain(error, self.path) from error
        self._size += len(record)

    def _begin_file(self, data: bytes) -> None:
        try:
            descriptor = _create_file(self.path, data)
        except OSError as error:
            self._usable = False
            raise _explain(error, self.path) from error
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._size = len(data)


def parse_journal(data: bytes, *, name: str) -> tuple[list[bytes], int]:
    """The frames since the last restart in a journal's bytes, and where the last whole record ends.

    Raises ``JournalCorrupt`` by the rule in this file's docstring; ``name`` goes into its item.
    """
    if not data.startswith(MAGIC):
        raise JournalCorrupt("journal_not_recognised", f"{name}: it does not begin as a journal of this version does")
    frames: list[bytes] = []
    start = len(MAGIC)
    while start < len(data):
        end = _find_record_end(data, start)
        if end is None:
            if not _is_torn(data, start, name=name):
                raise JournalCorrupt("journal_damaged_at_end", f"{name} at byte {start}")
            break
        if data[start + _FRAME_LENGTH.size] == _KIND_RESTART:
            frames.clear()
        record = _split_frames(data[start + _HEAD.size : end - len(_END)])
        if record is None:  # its sums are right, so it is no fault of a disk
            raise JournalCorrupt("journal_record_malformed", f"{name} at byte {start}")
        frames += record
        start = end
    return frames, start


def _is_torn(data: bytes, start: int, *, name: str) -> bool:
    """Whether the record at ``start``, which does not check, is one that never fully reached the disk."""
    length = _find_body_length(data, start)
    if len(data) - start < _HEAD.size:
        return True
    if length is not None and start + _HEAD.size + length + len(_END) > len(data):
        return True
    if any(_find_record_end(data, later) is not None for later in _find_heads(data, start + 1)):
        raise JournalCorrupt("journal_damaged_in_middle", f"{name} at byte {start}")
    suspect = start + _HEAD.size if length is None else start + _HEAD.size + length + len(_END)
    return _has_zero_sector(data, start, suspect)


def _find_body_length(data: bytes, start: int) -> int | None:
    """The length of the body of the record at ``start``, or None if there is no head that checks."""
    if len(data) - start < _HEAD.size:
        return None
    length, kind, _, head_sum = _HEAD.unpack_from(data, start)
    checked = data[start : start + _HEAD_SUMMED.size]
    if kind not in (_KIND_FRAMES, _KIND_RESTART) or zlib.crc32(checked) != head_sum:
        return None
    return int(length)


def _find_record_end(data: bytes, start: int) -> int | None:
    """Where the record that begins at ``start`` ends, or None if no whole valid record begins there."""
    length = _find_body_length(data, start)
    if length is None:
        return None
    body = start + _HEAD.size
    end = body + length + len(_END)
    if end > len(data) or data[end - len(_END) : end] != _END:
        return None
    body_sum = _HEAD.unpack_from(data, start)[2]
    return end if zlib.crc32(data[body : body + length]) == body_sum else None


def _find_heads(data: bytes, start: int) -> Iterator[int]:
    """Every place from ``start`` on where a head could begin: its kind is a known one."""
    for place in range(start, len(data) - _HEAD.size + 1):
        if data[place + _FRAME_LENGTH.size] in (_KIND_FRAMES, _KIND_RESTART):
            yield place


def _has_zero_sector(data: bytes, start: int, stop: int) -> bool:
    """Whether a disk sector holds nothing but zeros for all of its part of the file from ``start`` on.

    Only sectors that the bytes from ``start`` to ``stop`` touch count.
    """
    first = start - start % SECTOR_BYTES
    for sector in range(first, stop, SECTOR_BYTES):
        part = data[max(sector, start) : sector + SECTOR_BYTES]
        if not any(part):
            return True
    return False


def _split_frames(body: bytes) -> list[bytes] | None:
    """The frames of a record's body, or None where their lengths do not fill it."""
    frames: list[bytes] = []
    place = 0
    while len(body) - place >= _FRAME_LENGTH.size:
        (length,) = _FRAME_LENGTH.unpack_from(body, place)
        place += _FRAME_LENGTH.size + length
        frames.append(body[place - length : place])
    return frames if place == len(body) else None


def format_record(frames: Iterable[bytes], *, is_restart: bool) -> bytes:
    """The bytes of one record: what one sync writes."""
    kind = _KIND_RESTART if is_restart else _KIND_FRAMES
    body = b"".join(_FRAME_LENGTH.pack(len(frame)) + frame for frame in frames)
    summed = _HEAD_SUMMED.pack(len(body), kind, zlib.crc32(body))
    return b"".join((summed, zlib.crc32(summed).to_bytes(4, "big"), body, _END))


def _create_file(path: Path, data: bytes) -> int:
    """A locked descriptor of a new file at ``path`` that holds ``data``, at its end. It is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, beside)
        _write_all(descriptor, data)
        os.fsync(descriptor)
        beside.rename(path)
        sync_directory(path.parent)
    except (OSError, JournalError):
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JournalError("journal_locked", f"{path}: another process holds it") from error


def _read_all(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    parts: list[bytes] = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _explain(error: OSError, path: Path) -> JournalError:
    return JournalError(get_disk_reason(error, otherwise="journal_not_usable"), f"{path}: {error.strerror}")
