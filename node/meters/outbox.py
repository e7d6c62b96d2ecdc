"""The relay's outbox on disk: what the ledger is not known to have yet, through kills and power cuts.

Owns one SQLite file of one meter. Each order of the relay is one transaction, synced before it returns; a second
relay that opens the file is turned away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from contracts_native.meters import Channel
from contracts_native.readings import Report
from ledger.encoding import decode, encode
from ledger.errors import Malformed
from ledger.fields import from_plain, to_plain
from node.meters.relay import Contents, Edge, Forget, Interval, SaveEdge, SaveSealed, Sealed, Unseal
from node.meters.reports import MeterError

FORMAT: Final = 1
WAITING, SEALED, ASIDE = "waiting", "sealed", "aside"
_SCHEMA: Final = """
CREATE TABLE outbox (format INTEGER NOT NULL, chain_id TEXT NOT NULL, meter BLOB NOT NULL);
CREATE TABLE edges (channel TEXT PRIMARY KEY, time_ms INTEGER NOT NULL, counter_wh INTEGER NOT NULL);
CREATE TABLE intervals (
    channel TEXT NOT NULL, start_ms INTEGER NOT NULL, interval_s INTEGER NOT NULL,
    counter_start_wh INTEGER NOT NULL, counter_end_wh INTEGER NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (channel, start_ms)
);
CREATE TABLE sealed (report BLOB NOT NULL);
"""


class Outbox:
    """An open outbox. Every method raises ``MeterError`` (``outbox_not_usable``) when the disk fails."""

    def __init__(self, path: Path, *, chain_id: str, meter: bytes) -> None:
        """Opens the file, making it if it is not there.

        Raises ``MeterError``: ``outbox_in_use``, ``outbox_not_usable``, ``outbox_of_another_meter``.
        """
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
        except sqlite3.Error as error:
            raise _explain(error, path) from error
        try:
            self._open(chain_id, meter)
        except sqlite3.Error as error:
            self._db.close()
            raise _explain(error, path) from error
        except MeterError:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def read(self) -> Contents:
        """All that is in it."""
        try:
            edges = {
                Channel(name): Edge(time_ms, counter_wh)
                for name, time_ms, counter_wh in self._db.execute("SELECT channel, time_ms, counter_wh FROM edges")
            }
            reports = [raw for (raw,) in self._db.execute("SELECT report FROM sealed")]
            waiting, sealed, aside = (self._list(state) for state in (WAITING, SEALED, ASIDE))
        except sqlite3.Error as error:
            raise _explain(error, self.path) from error
        if len(reports) > 1 or bool(reports) != bool(sealed):
            raise MeterError("outbox_not_usable", f"{self.path}: a report without its intervals")
        return Contents(edges, waiting, self._read_sealed(reports[0], sealed) if reports else None, aside)

    def save(self, order: SaveEdge | SaveSealed | Forget | Unseal) -> None:
        """Carry out an order, whole or not at all; it is on the disk when this returns."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._write(order)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _explain(error, self.path) from error

    def _open(self, chain_id: str, meter: bytes) -> None:
        # Exclusive: the lock of the first write is kept until the file is closed. Full: a commit is synced.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = TRUNCATE")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("BEGIN EXCLUSIVE")
        if not self._db.execute("SELECT name FROM sqlite_master").fetchall():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)
            self._db.execute("INSERT INTO outbox VALUES (?, ?, ?)", (FORMAT, chain_id, meter))
        found = self._db.execute("SELECT format, chain_id, meter FROM outbox").fetchall()
        self._db.execute("COMMIT")
        if found != [(FORMAT, chain_id, meter)]:
            raise MeterError("outbox_of_another_meter", self.path)

    def _write(self, order: SaveEdge | SaveSealed | Forget | Unseal) -> None:
        match order:
            case SaveEdge(channel, edge, interval):
                row = (channel.value, edge.time_ms, edge.counter_wh)
                self._db.execute("INSERT OR REPLACE INTO edges VALUES (?, ?, ?)", row)
                if interval is not None:
                    self._put([interval], WAITING)
            case SaveSealed(sealed):
                self._put(sealed.intervals, SEALED)
                self._db.execute("INSERT INTO sealed VALUES (?)", (encode(to_plain(sealed.report)),))
            case Forget(intervals):
                keys = [(one.channel.value, one.start_ms) for one in intervals]
                self._db.executemany("DELETE FROM intervals WHERE channel = ? AND start_ms = ?", keys)
                self._unseal()
            case Unseal(intervals, is_aside):
                self._unseal()
                self._put(intervals, ASIDE if is_aside else WAITING)

    def _unseal(self) -> None:
        self._db.execute("DELETE FROM sealed")
        self._db.execute("UPDATE intervals SET state = ? WHERE state = ?", (WAITING, SEALED))

    def _put(self, intervals: Iterable[Interval], state: str) -> None:
        rows = [
            (one.channel.value, one.start_ms, one.interval_s, one.counter_start_wh, one.counter_end_wh, state)
            for one in intervals
        ]
        self._db.executemany("INSERT OR REPLACE INTO intervals VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _list(self, state: str) -> tuple[Interval, ...]:
        rows = self._db.execute(
            "SELECT start_ms, channel, interval_s, counter_start_wh, counter_end_wh FROM intervals"
            " WHERE state = ? ORDER BY start_ms, channel",
            (state,),
        )
        return tuple(Interval(start_ms, Channel(name), *rest) for start_ms, name, *rest in rows)

    def _read_sealed(self, raw: bytes, intervals: tuple[Interval, ...]) -> Sealed:
        try:
            return Sealed(from_plain(Report, decode(raw)), intervals)
        except Malformed as error:
            raise MeterError("outbox_not_usable", f"{self.path}: {error}") from error


def _explain(error: sqlite3.Error, path: Path) -> MeterError:
    reason = "outbox_in_use" if "locked" in str(error) else "outbox_not_usable"
    return MeterError(reason, f"{path}: {error}")
