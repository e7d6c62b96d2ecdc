"""Small inputs that would cost much: deep, wide, and long ones, for every decoder whatever its form.

Owns the list. Each has about ``SIZE`` bytes, and what is known to have hurt some reader of its form.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

SIZE: Final = 20_000
_AGE: Final = b"age-encryption.org/v1\n"
_XML: Final = b'<?xml version="1.0"?><feed xmlns="http://naesb.org/espi">'
_BOMB: Final = (
    b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%b">' % (98 + at, b"&%c;" % (97 + at) * 10) for at in range(9))
    + b"]><feed>&j;</feed>"
)

SHAPES: Final[tuple[tuple[str, bytes], ...]] = (
    ("nested arrays of JSON", b"[" * SIZE),
    ("nested objects of JSON", b'{"a":' * (SIZE // 5)),
    ("empty objects of JSON", b"[" + b"{}," * (SIZE // 3) + b"{}]"),
    ("a number of many digits", b"9" * SIZE),
    ("an exponent", b"1e" + b"9" * 300),
    ("a document with a long number", b'{"height": ' + b"9" * SIZE + b"}"),
    ("names of an object", json.dumps({str(at): at for at in range(SIZE // 12)}).encode()),
    ("nested arrays", b"\x91" * SIZE),
    ("arrays that claim more", b"\xdd\0\0\x4e\x20" * 1_000 + bytes(SIZE - 5_000)),
    ("small arrays", b"\xdd" + (SIZE // 2).to_bytes(4, "big") + b"\x91\xc0" * (SIZE // 2)),
    ("maps", b"\x81\x00" * (SIZE // 2)),
    ("zeros", bytes(SIZE)),
    ("high bytes", b"\xff" * SIZE),
    ("letters", b"a" * SIZE),
    ("an address", b"wp1" + b"q" * SIZE),
    ("line feeds", b"\n" * SIZE),
    ("commas", b"start_utc,a\n" + b"," * SIZE),
    ("quotation marks", b"start_utc,a\n" + b'"' * SIZE),
    ("quoted line feeds", b'start_utc,a\n"' + b'\n",a,"' * (SIZE // 6)),
    ("release characters", b"UNA:+.? '" + b"?" * SIZE),
    ("released terminators", b"UNA:+.? '" + b"?'" * (SIZE // 2)),
    ("terminators", b"UNB+" + b"'" * SIZE),
    ("elements", b"UNB+'UNH+1+MSCONS'" + b"QTY" + b"+" * (SIZE // 2) + b"'"),
    ("records", b"100,NEM12\n" + b"400,1,48,A\n" * (SIZE // 11)),
    ("telegram lines", b"/ABC5x\r\n" + b"1-0:1.8.0(\r\n" * (SIZE // 12)),
    ("telegram heads", b"/ABC5x\r\n" * (SIZE // 8)),
    ("parentheses", b"/ABC5x\r\n1-0:1.8.0(" + b"(" * SIZE),
    ("entities of XML", _BOMB),
    ("nested elements", _XML + b"<a>" * (SIZE // 3)),
    ("one long token", _XML + b"<a b='" + b"x" * SIZE),
    ("attributes", _XML + b"<a " + b"".join(b"b%d='' " % at for at in range(SIZE // 9)) + b"/>"),
    ("namespaces", _XML + b"<a " + b"".join(b"xmlns:b%d='c%d' " % (at, at) for at in range(SIZE // 20)) + b"/>"),
    ("a dotted key", b"a" + b".a" * (SIZE // 2) + b" = 1"),
    ("a dotted table", b"[a" + b".a" * (SIZE // 2) + b"]"),
    ("nested tables in line", b"a = " + b"{a = " * (SIZE // 5)),
    ("many tables", b"".join(b"[a%d]\n" % at for at in range(SIZE // 8))),
    ("a hexadecimal number", b"moniker = 0x" + b"f" * SIZE),
    ("stanzas", _AGE + b"-> g a\n\n" * (SIZE // 8)),
    ("one long stanza", _AGE + b"-> g\n" + (b"A" * 64 + b"\n") * (SIZE // 65)),
    ("numbers of a protobuf", b"\x20\x01" * (SIZE // 2)),
    ("links of a protobuf", b"\x12\x00" * (SIZE // 2)),
    ("a length without an end", b"\x80" * SIZE),
    ("sections of an archive", b"\x01\x00" * (SIZE // 2)),
    ("a journal of heads", b"wpjrnl1\n" + b"\0\0\0\1\1" * (SIZE // 5)),
    ("snapshot records", b"\0\0\0\0" * (SIZE // 4)),
)


def iterate_hostile(seeds: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Every shape by itself, behind the first byte of a seed, and inside a seed."""
    first = seeds[0]
    for name, shape in SHAPES:
        yield name, shape
        yield f"{name}, behind a tag", first[:1] + shape
        yield f"{name}, in the middle", first[: len(first) // 2] + shape + first[len(first) // 2 :]
