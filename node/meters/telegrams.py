"""Telegrams out of a stream that never ends: framing that finds its way again after whatever was lost.

Owns the cut between one telegram and the next. What a telegram says is meter_files/dsmr.py's; a telegram that is
damaged is left out and told of, since the next one has the same counters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from node.meter_files.dsmr import TELEGRAM_BYTES_MAX, Telegram, iterate_telegrams
from node.meter_files.model import MeterFileError, make_meter_file

STARTS_TRIED: Final = 3  # a text in a telegram may look like a start, too
_START: Final = re.compile(rb"/[A-Za-z0-9]{3}[^\r\n]{1,120}\r?\n")
_END: Final = re.compile(rb"^![0-9A-Fa-f]{0,4}[ \t]*\r?\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A telegram that could not be read; ``reason`` is that of ``MeterFileError``."""

    reason: str


@dataclass(slots=True)
class TelegramFeed:
    """Bytes in, whole telegrams out. It holds less than two of the longest telegrams."""

    source: str
    _rest: bytes = field(default=b"", repr=False)

    def feed(self, data: bytes) -> list[Telegram | Damaged]:
        """The telegrams that end within these bytes."""
        found: list[Telegram | Damaged] = []
        for first in range(0, len(data), TELEGRAM_BYTES_MAX):
            self._rest += data[first : first + TELEGRAM_BYTES_MAX]
            while end := _END.search(self._rest):
                raw, self._rest = self._rest[: end.end()], self._rest[end.end() :]
                found += self._read(raw)
            if len(self._rest) > TELEGRAM_BYTES_MAX:
                self._rest = self._rest[-TELEGRAM_BYTES_MAX // 2 :]
                found.append(Damaged("telegram_too_long"))
        return found

    def finish(self) -> list[Telegram | Damaged]:
        """The telegram that the stream ends with, if its last line lacks only its end."""
        return self.feed(b"\n") if self._rest else []

    def _read(self, raw: bytes) -> list[Telegram | Damaged]:
        """What ends here. A telegram may begin within the line in which the one before it broke off."""
        starts = [match.start() for match in _START.finditer(raw)]
        reason = ""
        for start in reversed(starts[-STARTS_TRIED:]):
            try:
                return list(iterate_telegrams(make_meter_file(self.source, raw[start:])))
            except MeterFileError as error:
                reason = error.reason
        return [Damaged(reason)] if reason else []  # without a start we came in the middle of it
