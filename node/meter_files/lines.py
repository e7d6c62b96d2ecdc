"""The bytes of a meter file as lines, one at a time, however the file was cut into chunks.

Owns the limits that keep a reader's memory small: of a file, and of a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from node.meter_files.model import FILE_BYTES_MAX, MeterFile, MeterFileError, Spot

LINE_BYTES_MAX: Final = 64 * 1024  # a NEM12 day of minutes has 1,440 values
UTF8_MARK: Final = b"\xef\xbb\xbf"


def iterate_chunks(file: MeterFile) -> Iterator[bytes]:
    """The chunks of a file. Raises ``MeterFileError`` (``file_too_large``)."""
    total = 0
    for chunk in file.chunks():
        total += len(chunk)
        if total > FILE_BYTES_MAX:
            raise MeterFileError("file_too_large", f"{file.name}: at most {FILE_BYTES_MAX} bytes")
        yield chunk


def iterate_lines(file: MeterFile) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line, with its line feed, without a UTF-8 mark at the start of the file.

    Raises ``MeterFileError``: ``line_too_long``, ``file_too_large``.
    """
    number = 0
    rest = b""
    for chunk in iterate_chunks(file):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            number += 1
            yield number, _check(line, file.name, number) + b"\n"
        _check(rest, file.name, number + 1)
    if rest:
        yield number + 1, _check(rest, file.name, number + 1)


def iterate_text(file: MeterFile, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Number and text of each line, without its end. Raises as ``iterate_lines`` does, and ``text_not_utf8``."""
    for number, line in iterate_lines(file):
        try:
            yield number, line.decode(encoding).rstrip("\r\n")
        except UnicodeDecodeError:
            raise Spot(file.name, number).error("text_not_utf8") from None


def _check(line: bytes, source: str, number: int) -> bytes:
    if len(line) > LINE_BYTES_MAX:
        raise Spot(source, number).error("line_too_long", f"at most {LINE_BYTES_MAX} bytes")
    return line.removeprefix(UTF8_MARK) if number == 1 else line
