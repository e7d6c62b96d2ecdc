"""Questions about documents: which versions are anchored, who was given the key, to which key one is sealed.

Owns the answers of ``document_get``, ``document_list`` and ``participant_encryption_key``. Content is not here: a CID
says where it is, and only a reader's own key opens it.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from contracts_native.documents import (
    DOCUMENTS,
    ENCRYPTION_KEYS,
    GRANTS,
    VERSIONS,
    Document,
    DocumentKind,
    DocumentStatus,
    DocumentVersion,
    EncryptionKey,
    Grant,
    Version,
    can_read,
)
from ledger.fields import AddressText, Shown, to_json
from ledger.primitives import Address, format_address, parse_address
from node.answers import Merged, Named, merge
from node.documents.cid import decode_cid, format_cid
from node.queries.errors import NotFound
from node.queries.participants import ParticipantKey, get_known_participant
from node.queries.view import (
    LIMIT_DEFAULT,
    Limit,
    ObjectId,
    Paged,
    View,
    make_page,
    read_id,
    read_optional_address,
    scan_objects,
)


class DocumentKey(TypedDict):
    """Which document it is."""

    document: ObjectId


class CidText(TypedDict):
    """Where the content is, as IPFS writes it."""

    cid: str


class GrantKey(TypedDict):
    """Who can read."""

    reader: AddressText


class VersionKey(TypedDict):
    """Which version it is."""

    version: DocumentVersion


class Versions(TypedDict):
    """Which version is shown, and which is the latest."""

    latest: DocumentVersion
    version: DocumentVersion


VersionShown = Annotated[Merged[Shown[Version], CidText], Named("VersionShown")]
GrantRow = Annotated[Merged[GrantKey, Shown[Grant]], Named("GrantRow")]
VersionRow = Annotated[Merged[VersionKey, VersionShown], Named("VersionRow")]
DocumentShown = Annotated[Merged[DocumentKey, Shown[Document]], Named("DocumentShown")]
DocumentRow = Annotated[Merged[DocumentShown, VersionShown], Named("DocumentRow")]
EncryptionKeyAnswer = Annotated[Merged[ParticipantKey, Shown[EncryptionKey]], Named("EncryptionKeyAnswer")]


class DocumentReaders(TypedDict):
    """Who can read the version, and all that there are."""

    grants: list[GrantRow]
    versions: list[VersionRow]


class DocumentList(Paged):
    """Documents with their latest version."""

    documents: list[DocumentRow]


DocumentAnswer = Annotated[
    Merged[Merged[DocumentShown, Versions], Merged[VersionShown, DocumentReaders]], Named("DocumentAnswer")
]


def document_get(view: View, *, document: str, version: DocumentVersion | None = None) -> DocumentAnswer:
    """A document: a version of it, by default the latest, with its readers' wrapped keys; and all its versions.

    Raises ``NotFound`` (``document_not_found``, ``document_version_not_found``).
    """
    document_id = read_id(document, name="document")
    found = DOCUMENTS.find(view.state, document_id)
    if found is None:
        raise NotFound("document_not_found", document)
    number = found.version if version is None else version
    shown = VERSIONS.find(view.state, document_id, number)
    if shown is None:
        raise NotFound("document_version_not_found", f"{document} has {found.version}")
    cut = len(GRANTS.key(document_id, number))
    grants: list[GrantRow] = [
        merge({"reader": format_address(Address(key[cut:]))}, to_json(grant))
        for key, grant in GRANTS.scan(view.state, document_id, number)
    ]
    versions: list[VersionRow] = [
        merge({"version": one}, _show_version(VERSIONS.get(view.state, document_id, one)))
        for one in range(1, found.version + 1)
    ]
    which: Versions = {"latest": found.version, "version": number}
    readers: DocumentReaders = {"grants": grants, "versions": versions}
    return merge(merge(_show((document_id, found)), which), merge(_show_version(shown), readers))


def document_list(
    view: View,
    *,
    owner: str | None = None,
    subject: str | None = None,
    site: str | None = None,
    reader: str | None = None,
    kind: DocumentKind | None = None,
    status: DocumentStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> DocumentList:
    """Documents with their latest version, by id; perhaps only those of an owner, about someone, for a reader."""
    of_owner, of_subject, of_reader = map(read_optional_address, (owner, subject, reader))
    of_site = None if site is None else read_id(site, name="site")

    def keep(row: tuple[bytes, Document]) -> bool:
        document_id, one = row
        return (
            of_owner in (None, one.owner)
            and of_subject in (None, one.subject)
            and of_site in (None, one.site)
            and kind in (None, one.kind)
            and status in (None, one.status)
            and (of_reader is None or can_read(view.state, document_id, one.version, of_reader))
        )

    def show(row: tuple[bytes, Document]) -> DocumentRow:
        return merge(_show(row), _show_version(VERSIONS.get(view.state, row[0], row[1].version)))

    page = make_page(scan_objects(view, DOCUMENTS, (), cursor), limit, show, keep=keep)
    return {"documents": page.items, "next_cursor": page.next_cursor}


def participant_encryption_key(view: View, *, participant: str) -> EncryptionKeyAnswer:
    """The key that document keys of a participant are sealed to.

    Raises ``NotFound`` (``participant_not_found``, ``encryption_key_not_found``).
    """
    address = parse_address(participant)
    get_known_participant(view, address)
    found = ENCRYPTION_KEYS.find(view.state, address)
    if found is None:
        raise NotFound("encryption_key_not_found", participant)
    return merge({"participant": participant}, to_json(found))


def _show(row: tuple[bytes, Document]) -> DocumentShown:
    return merge({"document": row[0].hex()}, to_json(row[1]))


def _show_version(version: Version) -> VersionShown:
    return merge(to_json(version), {"cid": format_cid(decode_cid(version.cid))})
