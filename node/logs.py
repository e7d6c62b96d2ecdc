"""Logs: structured records on stderr, as lines for a person or as JSON for a machine.

Owns the two forms and the one call that sets them up. A record is an event in words and fields; a field whose name
says that it is secret is never written, whoever passes it.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal, TextIO, TypeAlias

LogFormat: TypeAlias = Literal["human", "json"]

FIELD_LENGTH_MAX: Final = 500  # what a peer sent may stand in a field
ROOT_NAME: Final = "wattprint"
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SECRET_WORDS: Final = ("passphrase", "password", "secret", "seed", "private", "signing_key")
_NOISY: Final = ("aiohttp", "asyncio")


class Log:
    """A named log: ``log.info("block committed", height=5)``. The event is fixed words, the fields say which."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{ROOT_NAME}.{name}")

    def debug(self, event: str, **fields: object) -> None:
        """What helps to follow one node's steps."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What an operator wants to have on record."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What goes on, but an operator should look at."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What failed."""
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """What failed, with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, fields, with_traceback=True)

    def _write(self, level: int, event: str, fields: dict[str, object], *, with_traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", event, exc_info=with_traceback, extra={"fields": fields})


def configure(level: str = "info", fmt: str = "human", *, stream: TextIO | None = None) -> None:
    """Sends records of ``level`` and above to ``stream`` (stderr unless given); calling it again replaces that.

    ``level``: debug, info, warning, error. ``fmt``: human, json. Anything else is the caller's mistake.
    """
    assert level in _LEVELS, level
    assert fmt in ("human", "json"), fmt
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonFormatter() if fmt == "json" else _HumanFormatter())
    for name in (ROOT_NAME, *_NOISY):
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(_LEVELS[level] if name == ROOT_NAME else max(logging.WARNING, _LEVELS[level]))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _format_time(record),
            "level": record.levelname.lower(),
            "log": _format_name(record),
            "event": record.getMessage(),
        }
        # What a record is made of comes first: a field cannot pass for it.
        line |= {f"field_{name}" if name in line else name: text for name, text in _get_fields(record).items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _HumanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f"  {name}={_show(value)}" for name, value in _get_fields(record).items())
        level = record.levelname.lower()
        text = f"{_format_time(record)} {level:<7} {_format_name(record)}: {_show(record.getMessage())}{fields}"
        trace = self.formatException(record.exc_info).splitlines() if record.exc_info else []
        return "\n".join([text, *map(_show, trace)])


def _get_fields(record: logging.LogRecord) -> dict[str, bool | int | str | None]:
    fields = getattr(record, "fields", {})
    return {name: _plain(name, value) for name, value in fields.items()}


def _plain(name: str, value: object) -> bool | int | str | None:
    if any(word in name.lower() for word in _SECRET_WORDS):
        return "(hidden)"
    if value is None or isinstance(value, bool | int):
        return value
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= FIELD_LENGTH_MAX else text[:FIELD_LENGTH_MAX] + "…"


def _show(value: bool | int | str | None) -> str:
    """One line whatever a stranger put into it: control characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def _format_name(record: logging.LogRecord) -> str:
    return record.name.removeprefix(ROOT_NAME + ".")


def _format_time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
