"""Documents: encrypted content in IPFS, which version of it there is, and who was given the key.

Owns the anchoring of versions by CID, the wrapped keys of their readers and how they go, and the encryption keys that
keys are wrapped to. Nothing of the content or its name is here; a KYC decision looks at ``check_kyc_version``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native.participants import Role, check_not_frozen, get_participant, has_role
from contracts_native.sites import SiteId, get_site
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Bounds, Length
from ledger.primitives import Address, Hash, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, make_object_id, transaction

READERS_MAX: Final = 64  # of one version
VERSIONS_MAX: Final = 64  # so that retiring a document deletes 4,096 keys at most
DOCUMENT_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024  # of ciphertext
WRAPPED_KEY_BYTES: Final = 80  # HPKE: 32 of a one-time public key, 32 sealed, 16 of a tag

CID_BYTES: Final = 36
CHUNK_BYTES: Final = 262_144  # what is longer is a tree
CODEC_RAW: Final = 0x55
CODEC_DAG_PB: Final = 0x70
_CID_VERSION: Final = 1
_SHA_256: Final = bytes((0x12, 32))

_CURVE_PRIME: Final = 2**255 - 19
# The u-coordinates of small order on Curve25519: whatever is sealed to one of them, anyone can open.
_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _CURVE_PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)

DocumentId = Annotated[bytes, Length(16, 16)]
DocumentVersion = Annotated[int, Bounds(1, VERSIONS_MAX)]
Cid = Annotated[bytes, Length(CID_BYTES, CID_BYTES)]
EncryptionPublicKey = Annotated[bytes, Length(32, 32)]  # X25519
Size = Annotated[int, Bounds(1, DOCUMENT_BYTES_MAX)]


class DocumentKind(enum.StrEnum):
    """What a document is about: ``kyc`` a participant, ``site_design`` a site, ``other`` either."""

    KYC = "kyc"
    SITE_DESIGN = "site_design"
    OTHER = "other"


class DocumentStatus(enum.StrEnum):
    """Where a document stands; nothing leaves ``retired``."""

    ACTIVE = "active"
    RETIRED = "retired"


# (status, transaction) → the status that follows. What is not here is refused.
DOCUMENT_TRANSITIONS: Final[Mapping[tuple[DocumentStatus, str], DocumentStatus]] = {
    (DocumentStatus.ACTIVE, "document.anchor"): DocumentStatus.ACTIVE,  # the next version
    (DocumentStatus.ACTIVE, "document.grant"): DocumentStatus.ACTIVE,
    (DocumentStatus.ACTIVE, "document.revoke"): DocumentStatus.ACTIVE,
    (DocumentStatus.ACTIVE, "document.retire"): DocumentStatus.RETIRED,
}


@dataclass(frozen=True, slots=True)
class Document:
    """A document through all its versions. Either ``subject``, a participant, or ``site`` is what it is about."""

    owner: Address
    kind: DocumentKind
    subject: Address | None
    site: SiteId | None
    status: DocumentStatus
    version: DocumentVersion  # the latest


@dataclass(frozen=True, slots=True)
class Version:
    """One version: what is stored, and what it was made to.

    ``commitment``: salted, to the plain content. ``recipient``: the public half of the key that this version, and
    nothing else, is encrypted to; it lets a reader check what a grant gave.
    """

    cid: Cid
    size_bytes: Size
    commitment: Hash
    recipient: EncryptionPublicKey
    anchored_ms: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A reader's wrapped key of one version, and the encryption key of the reader that it was sealed to."""

    reader_key: EncryptionPublicKey
    sealed: Annotated[bytes, Length(WRAPPED_KEY_BYTES, WRAPPED_KEY_BYTES)]
    granted_ms: int


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A version's key for a reader, as a transaction brings it."""

    reader: Address
    reader_key: EncryptionPublicKey
    sealed: Annotated[bytes, Length(WRAPPED_KEY_BYTES, WRAPPED_KEY_BYTES)]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The one version that a document key of an owner is for."""

    document: DocumentId
    version: DocumentVersion


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """The X25519 key of a participant that document keys are sealed to."""

    public_key: EncryptionPublicKey
    set_ms: int


WrappedKeys = Annotated[tuple[WrappedKey, ...], Length(READERS_MAX, 1)]

DOCUMENTS: Table[Document] = Table("do", Document, missing="document_unknown")
VERSIONS: Table[Version] = Table("dv", Version, missing="document_version_unknown")  # document, version
GRANTS: Table[Grant] = Table("dg", Grant, missing="reader_not_granted")  # document, version, reader
KEY_USES: Table[KeyUse] = Table("dk", KeyUse, missing="document_key_unknown")  # owner, recipient
ENCRYPTION_KEYS: Table[EncryptionKey] = Table("ek", EncryptionKey, missing="encryption_key_missing")  # participant


@event("participant.encryption_key_set")
@dataclass(frozen=True, slots=True)
class EncryptionKeySet(Event):
    """Document keys are sealed to this key of a participant from now on."""

    participant: Address
    public_key: EncryptionPublicKey


@event("document.anchored")
@dataclass(frozen=True, slots=True)
class DocumentAnchored(Event):
    """A version of a document exists, and these participants have its key."""

    document: DocumentId
    version: DocumentVersion
    owner: Address
    kind: DocumentKind
    subject: Address | None
    site: SiteId | None
    cid: Cid
    size_bytes: Size
    readers: tuple[Address, ...]


@event("document.granted")
@dataclass(frozen=True, slots=True)
class DocumentGranted(Event):
    """More participants have the key of a version."""

    document: DocumentId
    version: DocumentVersion
    readers: tuple[Address, ...]


@event("document.revoked")
@dataclass(frozen=True, slots=True)
class DocumentRevoked(Event):
    """A reader's wrapped keys are gone. What it has read it may have kept: the next version has another key."""

    document: DocumentId
    reader: Address
    versions: tuple[DocumentVersion, ...]
    revoked_by: Address


@event("document.retired")
@dataclass(frozen=True, slots=True)
class DocumentRetired(Event):
    """Every wrapped key is gone; there will be no further version."""

    document: DocumentId
    retired_by: Address


def compute_document_id(owner: Address, recipient: bytes) -> bytes:
    """The id of the document whose first version is encrypted to ``recipient``: known before keys are sealed to it."""
    return make_object_id("document", owner, recipient)


def get_document(state: State, document: bytes) -> Document:
    """A document. Raises ``RuleViolated`` (``document_unknown``)."""
    return DOCUMENTS.get(state, document)


def get_version(state: State, document: bytes, version: int) -> Version:
    """One version. Raises ``RuleViolated`` (``document_version_unknown``). Stays readable after retirement."""
    return VERSIONS.get(state, document, version)


def can_read(state: State, document: bytes, version: int, reader: Address) -> bool:
    """Whether a participant has the wrapped key of a version."""
    return GRANTS.find(state, document, version, reader) is not None


def list_readers(state: State, document: bytes, version: int) -> list[Address]:
    """Who has the wrapped key of a version, by address."""
    cut = len(GRANTS.key(document, version))
    return [Address(key[cut:]) for key, _ in GRANTS.scan(state, document, version)]


def check_kyc_version(state: State, document: bytes, version: int, *, subject: Address, decider: Address) -> None:
    """That a decision on a participant's papers can be made on this version: the latest, and the decider could read it.

    Raises ``RuleViolated`` or ``NotPermitted``.
    """
    record = get_document(state, document)
    if record.kind is not DocumentKind.KYC or record.subject != subject:
        raise RuleViolated("document_is_no_paper_of_participant", f"{document.hex()}: {format_address(subject)}")
    if record.status is not DocumentStatus.ACTIVE:
        raise RuleViolated("document_not_open_to_this", f"{document.hex()} is {record.status}: no decision")
    get_version(state, document, version)
    if version != record.version:
        raise RuleViolated("document_version_superseded", f"{document.hex()}: {record.version} is the latest")
    if not can_read(state, document, version, decider):
        raise NotPermitted("reader_not_granted", format_address(decider))


@transaction("participant.set_encryption_key", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class SetEncryptionKey(Payload):
    """Say to which X25519 key the sender's document keys are sealed; keys sealed to an earlier one stay as they are."""

    public_key: EncryptionPublicKey

    def apply(self, state: State, tx: TxContext) -> None:
        check_encryption_key(self.public_key)
        before = ENCRYPTION_KEYS.find(state, tx.sender)
        if before is not None and before.public_key == self.public_key:
            raise RuleViolated("encryption_key_already_set", self.public_key.hex())
        ENCRYPTION_KEYS.put(state, tx.sender, value=EncryptionKey(self.public_key, tx.time_ms))
        state.emit(EncryptionKeySet(tx.sender, self.public_key))


@transaction("document.anchor", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class AnchorDocument(Payload):
    """Record a document that is encrypted and stored, or with ``supersedes`` its next version, and give out its key.

    About a participant: by itself, or by the utility that registered it. About a site: by its owner or its utility.
    The next version: by whoever anchored the first. The id of a new one: ``compute_document_id(sender, recipient)``.
    """

    cid: Cid
    size_bytes: Size
    commitment: Hash
    recipient: EncryptionPublicKey
    kind: DocumentKind
    grants: WrappedKeys
    subject: Address | None = None
    site: SiteId | None = None
    supersedes: DocumentId | None = None

    def apply(self, state: State, tx: TxContext) -> None:
        check_cid(self.cid, size_bytes=self.size_bytes)
        check_encryption_key(self.recipient)
        self._check_subject()
        # Who was revoked may have kept the key: no key comes back, in whichever version.
        used = KEY_USES.find(state, tx.sender, self.recipient)
        if used is not None:
            raise RuleViolated("document_key_already_used", f"{used.document.hex()} version {used.version}")
        document_id, document = self._begin(state, tx) if self.supersedes is None else self._supersede(state, tx)
        DOCUMENTS.put(state, document_id, value=document)
        VERSIONS.put(
            state,
            document_id,
            document.version,
            value=Version(self.cid, self.size_bytes, self.commitment, self.recipient, tx.time_ms),
        )
        KEY_USES.put(state, tx.sender, self.recipient, value=KeyUse(document_id, document.version))
        readers = _give(state, document_id, document.version, self.grants, tx)
        state.emit(
            DocumentAnchored(
                document_id,
                document.version,
                tx.sender,
                self.kind,
                self.subject,
                self.site,
                self.cid,
                self.size_bytes,
                readers,
            )
        )

    def _check_subject(self) -> None:
        if (self.subject is None) == (self.site is None):
            raise RuleViolated("document_needs_one_subject", "a participant or a site")
        if self.kind is DocumentKind.KYC and self.subject is None:
            raise RuleViolated("document_subject_of_wrong_kind", "kyc is about a participant")
        if self.kind is DocumentKind.SITE_DESIGN and self.site is None:
            raise RuleViolated("document_subject_of_wrong_kind", "site_design is about a site")

    def _begin(self, state: State, tx: TxContext) -> tuple[bytes, Document]:
        if self.subject is not None:
            _check_speaks_for(state, self.subject, tx.sender)
        if self.site is not None:
            site = get_site(state, self.site)
            if tx.sender not in (site.owner, site.utility):
                raise NotPermitted("site_of_another", format_address(site.owner))
        document = Document(tx.sender, self.kind, self.subject, self.site, DocumentStatus.ACTIVE, version=1)
        return compute_document_id(tx.sender, self.recipient), document

    def _supersede(self, state: State, tx: TxContext) -> tuple[bytes, Document]:
        assert self.supersedes is not None
        before = _get_own(state, self.supersedes, tx, "document.anchor")
        if (before.kind, before.subject, before.site) != (self.kind, self.subject, self.site):
            raise RuleViolated("document_subject_changed", self.supersedes.hex())
        if before.version == VERSIONS_MAX:
            raise RuleViolated("document_has_too_many_versions", f"{VERSIONS_MAX} are allowed")
        if get_version(state, self.supersedes, before.version).cid == self.cid:
            raise RuleViolated("document_version_changes_nothing", self.supersedes.hex())
        return self.supersedes, replace(before, version=before.version + 1)


@transaction("document.grant", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class GrantDocument(Payload):
    """Give more readers the key of a version; by whoever anchored it. A key sealed to an older key is replaced."""

    document: DocumentId
    version: DocumentVersion
    grants: WrappedKeys

    def apply(self, state: State, tx: TxContext) -> None:
        _get_own(state, self.document, tx, "document.grant")
        get_version(state, self.document, self.version)
        readers = _give(state, self.document, self.version, self.grants, tx)
        state.emit(DocumentGranted(self.document, self.version, readers))


@transaction("document.revoke", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class RevokeDocument(Payload):
    """Take back the keys of a reader, of every version; by whoever anchored it, whom it is about, or the reader."""

    document: DocumentId
    reader: Address

    def apply(self, state: State, tx: TxContext) -> None:
        document = get_document(state, self.document)
        if tx.sender != self.reader:
            _check_concerned(state, document, tx.sender)
        _check_allowed(document, self.document, "document.revoke")
        versions = [
            version
            for version in range(1, document.version + 1)
            if can_read(state, self.document, version, self.reader)
        ]
        if not versions:
            raise RuleViolated("reader_not_granted", format_address(self.reader))
        for version in versions:
            GRANTS.delete(state, self.document, version, self.reader)
        state.emit(DocumentRevoked(self.document, self.reader, tuple(versions), tx.sender))


@transaction("document.retire", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class RetireDocument(Payload):
    """Destroy every wrapped key of a document; by whoever anchored it, or whom it is about. What it was made on stays.

    Of a site's document, whom it is about is the site's owner.
    """

    document: DocumentId

    def apply(self, state: State, tx: TxContext) -> None:
        document = get_document(state, self.document)
        _check_concerned(state, document, tx.sender)
        status = _check_allowed(document, self.document, "document.retire")
        for version in range(1, document.version + 1):
            for reader in list_readers(state, self.document, version):
                GRANTS.delete(state, self.document, version, reader)
        DOCUMENTS.put(state, self.document, value=replace(document, status=status))
        state.emit(DocumentRetired(self.document, tx.sender))


def check_cid(cid: bytes, *, size_bytes: int) -> None:
    """A CIDv1 of 36 bytes, raw or dag-pb, SHA-256, as content of this size has it. Raises ``RuleViolated``."""
    if len(cid) != CID_BYTES or cid[0] != _CID_VERSION or cid[2:4] != _SHA_256:
        raise RuleViolated("cid_invalid", cid.hex())
    if cid[1] not in (CODEC_RAW, CODEC_DAG_PB):
        raise RuleViolated("cid_invalid", cid.hex())
    if (cid[1] == CODEC_RAW) != (size_bytes <= CHUNK_BYTES):
        raise RuleViolated("cid_contradicts_size", f"{cid.hex()}: {size_bytes} bytes")


def check_encryption_key(key: bytes) -> None:
    """An X25519 public key in its one form, and of full order. Raises ``RuleViolated`` (``encryption_key_invalid``)."""
    coordinate = int.from_bytes(key, "little")
    if coordinate >= _CURVE_PRIME or coordinate in _SMALL_ORDER:
        raise RuleViolated("encryption_key_invalid", key.hex())


def _give(
    state: State, document: bytes, version: int, wrapped: Iterable[WrappedKey], tx: TxContext
) -> tuple[Address, ...]:
    """Record wrapped keys, each sealed to its reader's key in force; the readers."""
    readers: list[Address] = []
    for one in wrapped:
        if one.reader in readers:
            raise RuleViolated("reader_named_twice", format_address(one.reader))
        check_not_frozen(state, one.reader)
        key = ENCRYPTION_KEYS.find(state, one.reader)
        if key is None:
            raise RuleViolated("encryption_key_missing", format_address(one.reader))
        if key.public_key != one.reader_key:
            raise RuleViolated("encryption_key_not_in_force", format_address(one.reader))
        before = GRANTS.find(state, document, version, one.reader)
        if before is not None and before.reader_key == one.reader_key:
            raise RuleViolated("reader_already_granted", format_address(one.reader))
        GRANTS.put(state, document, version, one.reader, value=Grant(one.reader_key, one.sealed, tx.time_ms))
        readers.append(one.reader)
    if len(list_readers(state, document, version)) > READERS_MAX:
        raise RuleViolated("document_has_too_many_readers", f"{READERS_MAX} are allowed")
    return tuple(readers)


def _check_speaks_for(state: State, subject: Address, sender: Address) -> None:
    participant = get_participant(state, subject)
    is_registrar = participant.registrar == sender and has_role(state, sender, [Role.UTILITY])
    if sender != subject and not is_registrar:
        raise NotPermitted("subject_of_another", format_address(subject))


def _check_concerned(state: State, document: Document, sender: Address) -> None:
    about = get_site(state, document.site).owner if document.site is not None else document.subject
    if sender not in (document.owner, about):
        raise NotPermitted("document_of_another", format_address(document.owner))


def _get_own(state: State, document_id: bytes, tx: TxContext, tag: str) -> Document:
    document = get_document(state, document_id)
    if tx.sender != document.owner:
        raise NotPermitted("document_of_another", format_address(document.owner))
    _check_allowed(document, document_id, tag)
    return document


def _check_allowed(document: Document, document_id: bytes, tag: str) -> DocumentStatus:
    status = DOCUMENT_TRANSITIONS.get((document.status, tag))
    if status is None:
        raise RuleViolated("document_not_open_to_this", f"{document_id.hex()} is {document.status}: no {tag}")
    return status
