"""Other bytes out of good ones: changes of bytes, and of what the bytes say where their form is known.

Owns the choice. A canonical value or a JSON document is changed as a tree and written again, so that a change gets
past the first check; a tree inside a byte string is found as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Final

from ledger.encoding import Plain, decode, encode
from ledger.errors import Malformed
from ledger.fields import Json

INTEGERS: Final = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 127, 128, 255, 256, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS: Final = (
    "",
    "0",
    "-1",
    "wp1",
    "\u202e",
    "é" * 40,
    "a" * 300,
    "\n",
    "1e9",
    "NaN",
    "٣",
    "\x00",
    "2016-06-06T00:00:00Z",
)
SPLICES: Final = (
    *(b"", b"\0", b"\xff", b"\x80", b"\n", b"\r\n", b",", b"'", b"+", b"?", b":", b'"', b"\\", b"[", b"{", b"}", b"]"),
    *(b"<a>", b"</a>", b"<!DOCTYPE a>", b"&a;", b"-", b".", b"9" * 30, b"0x", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc1"),
    *(
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xd4\xff\0",
        b"\xca\0\0\0\0",
        b"\xc0",
    ),
)
# What Python's reader of JSON takes, and its writer does not write like this.
RAW_JSON: Final = (
    *("NaN", "-Infinity", "1e999", "1.0", "-0", '"\\ud800"', "1" + "0" * 60, "9" * 5_000, "null", "true", '""'),
    *("[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900, "[]", "{}", '{"a":1,"a":2}'),
)
_MARK: Final = "\u0001raw\u0001"
_DEEPER: Final[tuple[Json, ...]] = ([], {}, [_MARK], {"a": _MARK})
_OTHER_JSON: Final[tuple[Json, ...]] = (*_DEEPER, *INTEGERS, *TEXTS, _MARK, _MARK, None, True)
_CHANGES_MAX: Final = 4


def mutate(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """``data`` with one to four changes."""
    for _ in range(random.randint(1, _CHANGES_MAX)):
        data = _mutate_once(data, random, others)
    return data


def _mutate_once(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    if random.random() < 0.6:
        changed = _change_tree(data, random)
        if changed is not None:
            return changed
    if others and random.random() < 0.1:
        other = random.choice(others)
        return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]
    if random.random() < 0.3:
        return _change_lines(data, random)
    return _change_bytes(data, random)


def _change_bytes(data: bytes, random: Random) -> bytes:
    start = random.randint(0, len(data))
    end = min(len(data), start + random.choice((0, 1, 1, 1, 2, 4, 8, 33)))
    match random.randrange(4):
        case 0:
            middle = random.randbytes(end - start)
        case 1:
            middle = random.choice(SPLICES)
        case 2:
            middle = data[start:end] * random.choice((0, 2, 3))
        case _:
            middle = bytes((data[start] ^ 1 << random.randrange(8),)) if start < len(data) else b"\0"
            end = start + 1
    return data[:start] + middle + data[end:]


def _change_lines(data: bytes, random: Random) -> bytes:
    """A line, or a field of it, away, twice or elsewhere."""
    mark = random.choice((b"\n", b",", b"'", b"\0", b">"))
    parts = data.split(mark)
    one = random.randrange(len(parts))
    match random.randrange(3):
        case 0:
            parts.insert(random.randrange(len(parts)), parts[one])
        case 1:
            parts.insert(random.randrange(len(parts)), parts.pop(one))
        case _:
            parts[one] = random.choice((*SPLICES, b"0", b"-1", b"99999999999999999999"))
    return mark.join(parts)


def _change_tree(data: bytes, random: Random) -> bytes | None:
    """``data`` changed as the value that it is, or None if it is no JSON and nothing canonical."""
    for head in (0, 1):  # a frame has a tag in front
        if len(data) > head + 1 and (data[head] >= 0x90 and data[head] <= 0xDD):
            try:
                return data[:head] + encode(_change_plain(decode(data[head:]), random))
            except (Malformed, OverflowError, ValueError):
                continue
    for head in (0, 1):
        if data[head : head + 1] in (b"{", b"["):
            try:
                document: Json = json.loads(data[head:])
            except (ValueError, RecursionError):
                continue
            return data[:head] + _write_json(_change_json(document, random), random)
    return None


def _change_plain(value: Plain, random: Random) -> Plain:
    if isinstance(value, bytes) and len(value) > 3 and random.random() < 0.7:
        inner = _change_tree(value, random)
        if inner is not None:
            return inner
    if isinstance(value, tuple) and value and random.random() < 0.85:
        place = random.randrange(len(value))
        kept, rest = value[:place], value[place + 1 :]
        match random.randrange(12):
            case 0:
                return (*kept, *rest)
            case 1:
                return (*kept, value[place], value[place], *rest)
            case 2:
                return (*rest, value[place], *kept)
            case _:
                return (*kept, _change_plain(value[place], random), *rest)
    if isinstance(value, bytes) and random.random() < 0.8:
        return _change_bytes(value, random)
    if isinstance(value, int) and random.random() < 0.6:
        return value + random.choice((-1, 1, 2, -1000, 1000))
    return random.choice((*INTEGERS, *TEXTS, None, True, False, (), b"", bytes(32), bytes(64), (0,) * 40, b"\xff" * 33))


def _change_json(value: Json, random: Random) -> Json:
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(list(value))
        match random.randrange(10):
            case 0:
                return {key: part for key, part in value.items() if key != name}
            case 1:
                return {**value, random.choice(TEXTS): value[name]}
            case _:
                return {**value, name: _change_json(value[name], random)}
    if isinstance(value, list) and value and random.random() < 0.9:
        place = random.randrange(len(value))
        match random.randrange(8):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return [*value, value[place]]
            case _:
                return [*value[:place], _change_json(value[place], random), *value[place + 1 :]]
    if isinstance(value, str) and value and random.random() < 0.6:
        return _change_bytes(value.encode(errors="surrogatepass"), random).decode("latin-1")
    if isinstance(value, int) and random.random() < 0.5:
        return value + random.choice((-1, 1, 1000))
    return random.choice(_OTHER_JSON)


def _write_json(document: Json, random: Random) -> bytes:
    text = json.dumps(document, ensure_ascii=random.random() < 0.5, indent=random.choice((None, None, 1)))
    return text.replace(json.dumps(_MARK), random.choice(RAW_JSON)).encode(errors="surrogatepass")
