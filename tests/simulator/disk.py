"""The journal of a simulated node on a disk that loses what was not synced, and tears the record under way.

Owns no format: records are written and read by the very functions of `node/journal.py`. What a power cut leaves of the
last record is one of what real disks leave: nothing, a part, all of it, or its length with a sector that never arrived.
"""

from __future__ import annotations

from random import Random
from typing import Final

from node.journal import MAGIC, SECTOR_BYTES, format_record, parse_journal

FILE_BYTES_MAX: Final = 32 * 1024  # then a restart begins a new file, as in `node/journal.py` at a larger size


class SimulatedDisk:
    """One journal. Frames that are appended in a row become one record with the next ``sync``."""

    __slots__ = ("_file", "_is_reset_due", "_pending", "_random", "_restarted_at", "cuts_torn")

    def __init__(self, random: Random) -> None:
        self.cuts_torn = 0  # power cuts that left a part of a record
        self._random = random
        self._file = bytearray(MAGIC)
        self._pending: list[bytes] = []
        self._is_reset_due = False
        self._restarted_at = 0  # nothing before this place counts any more

    def append(self, frame: bytes, *, reset: bool) -> None:
        """Gather a frame; ``reset``: what the journal held before it is obsolete once both are durable."""
        if reset:
            self._pending.clear()
            self._is_reset_due = True
        self._pending.append(frame)

    def sync(self) -> tuple[bytes, ...]:
        """Make what was gathered durable; returns it."""
        if not self._pending:
            return ()
        record = format_record(self._pending, is_restart=self._is_reset_due)
        if self._is_reset_due:
            if len(self._file) > FILE_BYTES_MAX:
                self._file = bytearray(MAGIC)
            self._restarted_at = len(self._file)
        self._file += record
        synced = tuple(self._pending)
        self._forget_pending()
        return synced

    def cut_power(self) -> None:
        """Lose what was not synced, or keep what happened to arrive of it."""
        if not self._pending:
            return
        is_new_file = self._is_reset_due and len(self._file) > FILE_BYTES_MAX
        record = format_record(self._pending, is_restart=self._is_reset_due)
        self._forget_pending()
        if is_new_file:
            if self._random.randrange(2):
                self._file = bytearray(MAGIC + record)  # a file takes the place of another as a whole
            return
        start = len(self._file)
        self._file += record[: self._draw_length(len(record))]
        if len(self._file) == start + len(record) and self._random.randrange(2):
            self._lose_sector(start)
        self.cuts_torn += len(self._file) > start

    def read(self) -> list[bytes]:
        """What a restarted node finds. Raises ``JournalCorrupt`` if it cannot be believed."""
        frames, end = parse_journal(bytes(self._file), name="a simulated journal")
        del self._file[end:]
        self._restarted_at = 0
        return frames

    def holds(self, data: bytes) -> bool:
        """Whether these bytes are durable in what the journal says now."""
        return self._file.find(data, self._restarted_at) >= 0

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._is_reset_due = False

    def _draw_length(self, length: int) -> int:
        return self._random.choice((0, length, self._random.randrange(length)))

    def _lose_sector(self, start: int) -> None:
        first, last = start // SECTOR_BYTES, (len(self._file) - 1) // SECTOR_BYTES
        place = self._random.randint(first, last) * SECTOR_BYTES
        lost = range(max(place, start), min(place + SECTOR_BYTES, len(self._file)))
        self._file[lost.start : lost.stop] = bytes(len(lost))
