"""The protocol as a page for people: every transaction with its fields, every event, and where their bytes stand.

Owns the page's form; its content derives from the declarations, so a new transaction appears by itself.
``docs/protocol.md`` is this page, and a test holds it to that.
"""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Annotated, Final, Union, get_args, get_origin

from ledger.fields import Bounds, Length, get_field_types
from ledger.transaction import SIGNING_TAG, TransactionTable

_HEAD: Final = """# The protocol: transactions and events

Made by `wattprint tx types --markdown` from the declarations in `contracts_native/`; a test fails when it is stale.

A transaction on the wire is canonical msgpack (`ledger/encoding.py`): `[body, [[public key, signature], …]]`, where
the body is the bytes of `[1, chain id, type, sender, [cosigner, …], valid until, salt, [field, …]]`. Each signer signs
`{tag}` followed by the body; the id is the SHA-256 of the same bytes. A field stands at its place in the
list; a field that may be missing is nil. Sizes are in bytes of UTF-8 for text, in items for lists.
"""


def make_protocol_page(table: TransactionTable) -> str:
    """The page, in Markdown."""
    parts = [_HEAD.format(tag=ascii(SIGNING_TAG.decode()).strip("'"))]
    families: dict[str, list[str]] = {}
    for tag in sorted(table.payloads):
        families.setdefault(tag.split(".")[0], []).append(tag)
    for family, tags in families.items():
        parts.append(f"## {family}\n")
        for tag in tags:
            kind = table.payloads[tag]
            roles = ", ".join(sorted(kind.declaration.roles)) or "any registered participant"
            since = kind.declaration.since_version
            parts.append(
                f"### `{tag}`\n\n{_get_summary(kind)}\n\nSigned by: {roles}. Since protocol version {since}.\n"
            )
            parts.append(_make_table(kind))
    parts.append("## Events\n")
    for name in sorted(table.events):
        parts.append(f"### `{name}`\n\n{_get_summary(table.events[name])}\n")
        parts.append(_make_table(table.events[name]))
    return "\n".join(parts)


def show_type(kind: object) -> str:
    """A field's type in words: its kind and its limits."""
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        limits = [_show_limit(note) for note in notes if isinstance(note, Bounds | Length)]
        return " ".join([show_type(base), *limits])
    if get_origin(kind) in (Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not types.NoneType]
        return f"{show_type(inner[0])}, or nothing"
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if len(parts) == 2 and parts[1] is Ellipsis:
            return f"list of {show_type(parts[0])}"
        return f"({', '.join(map(show_type, parts))})"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(f"`{member.value}`" for member in kind)
    if isinstance(kind, type) and is_dataclass(kind):
        fields = ", ".join(f"{name}: {show_type(field)}" for name, field in get_field_types(kind).items())
        return f"{kind.__name__} [{fields}]"
    return getattr(kind, "__name__", str(kind))


def _make_table(kind: type) -> str:
    fields = get_field_types(kind)
    if not fields:
        return "No fields.\n"
    rows = [f"| `{name}` | {_escape(show_type(field))} |" for name, field in fields.items()]
    return "\n".join(["| field | type |", "|---|---|", *rows, ""])


def _get_summary(kind: type) -> str:
    return " ".join(_split_lines(inspect.getdoc(kind) or ""))


def _split_lines(text: str) -> Iterable[str]:
    return (line.strip().replace("``", "`") for line in text.splitlines() if line.strip())


def _show_limit(note: Bounds | Length) -> str:
    if isinstance(note, Bounds):
        return f"({note.least} … {note.most})"
    return f"({note.least} … {note.most} long)" if note.least != note.most else f"({note.most} long)"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
