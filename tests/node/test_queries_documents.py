"""What a node answers about documents is what the ledger has, and nothing of their content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from contracts_native.documents import (
    AnchorDocument,
    DocumentAnchored,
    DocumentKind,
    DocumentStatus,
    RetireDocument,
    SetEncryptionKey,
    WrappedKey,
)
from ledger.errors import Malformed
from ledger.fields import Json
from ledger.primitives import Hash, sha256
from node.documents.cid import RAW, Cid
from node.queries import documents
from node.queries.errors import NotFound
from node.queries.view import JsonObject
from tests.contracts_native.harness import ALICE, BOB, STRANGER, UTILITY, Person
from tests.node.query_answers import Answer, read_all, rows, text
from tests.node.query_chain import QueryChain


def make_key(name: str) -> bytes:
    return sha256(name.encode())[:31] + b"\x10"


def make_paper(name: str, *readers: Person) -> AnchorDocument:
    return AnchorDocument(
        cid=bytes(Cid(RAW, sha256(name.encode()))),
        size_bytes=300,
        commitment=Hash(bytes(32)),
        recipient=make_key(name),
        kind=DocumentKind.KYC,
        grants=tuple(WrappedKey(one.address, make_key(one.name), bytes(80)) for one in readers),
        subject=BOB.address,
    )


@pytest.fixture
def world() -> QueryChain:
    """Bob and the utility have encryption keys."""
    one = QueryChain()
    for person in (BOB, UTILITY):
        one.apply(SetEncryptionKey(make_key(person.name)), by=person)
    return one


def test_a_document_is_told_with_its_versions_and_wrapped_keys(world: QueryChain) -> None:
    first = make_paper("1", BOB, UTILITY)
    document = world.apply(first, by=BOB).one(DocumentAnchored).document
    world.apply(replace(make_paper("2", BOB), supersedes=document), by=BOB)
    latest = documents.document_get(world.view, document=document.hex())
    assert (latest["version"], latest["latest"], latest["owner"], latest["subject"]) == (2, 2, text(BOB), text(BOB))
    assert [row["reader"] for row in rows(latest, "grants")] == [text(BOB)]
    assert [row["version"] for row in rows(latest, "versions")] == [1, 2]
    before = documents.document_get(world.view, document=document.hex(), version=1)
    assert before["cid"] == str(Cid(RAW, sha256(b"1")))
    assert {row["reader"] for row in rows(before, "grants")} == {text(BOB), text(UTILITY)}
    (mine,) = (row for row in rows(before, "grants") if row["reader"] == text(UTILITY))
    assert (mine["sealed"], mine["reader_key"]) == (bytes(80).hex(), make_key("utility").hex())


def test_documents_are_found_by_owner_subject_reader_kind_and_status(world: QueryChain) -> None:
    site = world.register_site(ALICE)
    design = replace(make_paper("d", BOB), kind=DocumentKind.SITE_DESIGN, subject=None, site=site)
    ids = [
        world.apply(payload, by=by).one(DocumentAnchored).document.hex()
        for payload, by in ((make_paper("1", BOB), BOB), (make_paper("2", UTILITY), BOB), (design, ALICE))
    ]
    world.apply(RetireDocument(bytes.fromhex(ids[0])), by=BOB)

    def find(**filters: object) -> set[Json]:
        ask = cast("Callable[..., JsonObject]", documents.document_list)
        return {row["document"] for row in rows(ask(world.view, **filters), "documents")}

    assert find() == set(ids)
    assert find(owner=text(BOB)) == find(subject=text(BOB)) == find(kind=DocumentKind.KYC) == {ids[0], ids[1]}
    assert find(site=site.hex()) == find(owner=text(ALICE)) == {ids[2]}
    assert find(reader=text(UTILITY)) == find(status=DocumentStatus.ACTIVE, subject=text(BOB)) == {ids[1]}
    assert find(reader=text(BOB)) == {ids[2]}, "a retired document has no readers"

    def ask(cursor: str | None) -> Answer:
        return documents.document_list(world.view, limit=1, cursor=cursor)

    assert [row["document"] for row in read_all(ask, "documents")] == sorted(ids)


def test_an_encryption_key_is_told(world: QueryChain) -> None:
    answer = documents.participant_encryption_key(world.view, participant=text(BOB))
    assert answer == {"participant": text(BOB), "public_key": make_key("bob").hex(), "set_ms": answer["set_ms"]}


def test_what_is_not_there_is_not_found(world: QueryChain) -> None:
    document = world.apply(make_paper("1", BOB), by=BOB).one(DocumentAnchored).document.hex()
    questions: dict[str, Callable[[], JsonObject]] = {
        "document_not_found": lambda: documents.document_get(world.view, document=bytes(16).hex()),
        "document_version_not_found": lambda: documents.document_get(world.view, document=document, version=2),
        "participant_not_found": lambda: documents.participant_encryption_key(world.view, participant=text(STRANGER)),
        "encryption_key_not_found": lambda: documents.participant_encryption_key(world.view, participant=text(ALICE)),
    }
    for reason, ask in questions.items():
        with pytest.raises(NotFound) as caught:
            ask()
        assert caught.value.reason == reason
    with pytest.raises(Malformed, match="hex_invalid"):
        documents.document_get(world.view, document="../etc/passwd")
