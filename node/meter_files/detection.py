"""Which format a file has, from its first bytes.

Owns the names of the formats, as the command line has them, and their readers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from node.meter_files.csv_file import START_COLUMN, read_csv
from node.meter_files.dsmr import read_dsmr
from node.meter_files.green_button import read_green_button
from node.meter_files.lines import UTF8_MARK
from node.meter_files.model import Event, MeterFile, Spot
from node.meter_files.mscons import read_mscons
from node.meter_files.nem12 import read_nem12

HEAD_BYTES: Final = 8 * 1024
READERS: Final[dict[str, Callable[[MeterFile], Iterator[Event]]]] = {
    "csv": read_csv,
    "dsmr": read_dsmr,
    "greenbutton": read_green_button,
    "mscons": read_mscons,
    "nem12": read_nem12,
}
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_NEM12: Final = re.compile(rb"100,NEM1[23]\b|200,[^,\n]{10},|300,[0-9]{8},|250,[^,\n]{10},")
_DSMR: Final = re.compile(
    rb"^(?:/[A-Za-z0-9]{3}[^\r\n]{1,120}\r?$|[0-9]-[0-9]{1,2}:[0-9]{1,3}\.[0-9]{1,3}\.)", re.MULTILINE
)


def detect_format(file: MeterFile) -> str:
    """The name of the format that a file begins like. Raises ``MeterFileError`` (``file_not_recognised``)."""
    head = b""
    for chunk in file.chunks():
        head += chunk[: HEAD_BYTES - len(head)]
        if len(head) >= HEAD_BYTES:
            break
    text = head.removeprefix(UTF8_MARK).lstrip()
    if text.startswith(b"<") or head.startswith(_UTF16_MARKS):
        return "greenbutton"
    if text.startswith((b"UNA", b"UNB+")):
        return "mscons"
    if _NEM12.match(text):
        return "nem12"
    if START_COLUMN.encode() in text.partition(b"\n")[0]:
        return "csv"
    if _DSMR.search(text):
        return "dsmr"
    raise Spot(file.name, 1).error("file_not_recognised", f"none of {', '.join(READERS)}")


def read_meter_file(file: MeterFile, form: str | None = None) -> Iterator[Event]:
    """The values of a file of the named format, or of the one it begins like. Raises ``MeterFileError``."""
    return READERS[form or detect_format(file)](file)
