"""A document as a node tells it: read strictly, since what follows from it is where a secret key is sealed to.

Owns the way from the answers of ``document_get`` and ``participant_encryption_key`` to typed values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from contracts_native.documents import (
    DocumentId,
    DocumentKind,
    DocumentStatus,
    DocumentVersion,
    EncryptionPublicKey,
    Grant,
    Size,
    check_encryption_key,
)
from contracts_native.sites import SiteId
from ledger.errors import Malformed
from ledger.fields import Json, from_json, get_codec
from ledger.primitives import Address, Hash
from node.documents.cid import Cid, parse_cid

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Anchored:
    """One version of a document, and who has its key."""

    document: bytes
    version: int
    latest: int
    owner: Address
    kind: DocumentKind
    subject: Address | None
    site: bytes | None
    status: DocumentStatus
    cid: Cid
    size_bytes: int
    commitment: bytes
    recipient: bytes
    grants: Mapping[Address, Grant]
    cids: tuple[Cid, ...]  # of every version


def read_anchored(answer: dict[str, Any]) -> Anchored:
    """An answer of ``document_get``. Raises ``Malformed``, which names the field."""
    return Anchored(
        document=_read(answer, "document", DocumentId, bytes),
        version=_read(answer, "version", DocumentVersion, int),
        latest=_read(answer, "latest", DocumentVersion, int),
        owner=Address(_read(answer, "owner", Address, bytes)),
        kind=_read(answer, "kind", DocumentKind, DocumentKind),
        subject=None if answer.get("subject") is None else Address(_read(answer, "subject", Address, bytes)),
        site=None if answer.get("site") is None else _read(answer, "site", SiteId, bytes),
        status=_read(answer, "status", DocumentStatus, DocumentStatus),
        cid=_read_cid(answer),
        size_bytes=_read(answer, "size_bytes", Size, int),
        commitment=_read(answer, "commitment", Hash, bytes),
        recipient=_read(answer, "recipient", EncryptionPublicKey, bytes),
        grants=dict(_read_grant(row) for row in _list_rows(answer, "grants")),
        cids=tuple(_read_cid(row) for row in _list_rows(answer, "versions")),
    )


def read_encryption_key(answer: dict[str, Any]) -> bytes:
    """An answer of ``participant_encryption_key``. Raises ``Malformed``, ``RuleViolated``."""
    key = _read(answer, "public_key", EncryptionPublicKey, bytes)
    check_encryption_key(key)
    return key


def _read(answer: dict[str, Any], name: str, kind: object, result: type[T]) -> T:
    try:
        value = get_codec(kind).from_json(cast(Json, answer.get(name)))
    except Malformed as error:
        raise Malformed("answer_malformed", f"{name}: {error}") from error
    assert isinstance(value, result), name
    return value


def _read_cid(answer: dict[str, Any]) -> Cid:
    text = answer.get("cid")
    if not isinstance(text, str):
        raise Malformed("answer_malformed", "cid")
    return parse_cid(text)


def _read_grant(row: dict[str, Any]) -> tuple[Address, Grant]:
    fields = {name: value for name, value in row.items() if name != "reader"}
    return Address(_read(row, "reader", Address, bytes)), from_json(Grant, fields)


def _list_rows(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = answer.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Malformed("answer_malformed", name)
    return rows
