"""The model's documents and what was decided on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts_native.documents import AnchorDocument, WrappedKey
from tests.properties.model import Reasons, gather
from tests.properties.model_bills import Bills


@dataclass(eq=False)
class Document:
    """``versions``: the CID of each. ``grants``: (version, reader) → the reader's key that it was sealed to."""

    owner: bytes
    kind: str
    subject: bytes | None
    site: bytes | None
    versions: list[bytes]
    grants: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    is_retired: bool = False
    id: bytes = b""


@dataclass(eq=False)
class Papers(Bills):
    """Documents and decisions."""

    encryption_keys: dict[bytes, bytes] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)
    document_keys: set[tuple[bytes, bytes]] = field(default_factory=set)

    def set_encryption_key(self, sender: bytes, key: bytes) -> Reasons:
        reasons = self.may_sign("participant.set_encryption_key", sender)
        reasons |= gather(
            (self.encryption_keys.get(sender) == key, "encryption_key_already_set"),
            (key == bytes(32), "encryption_key_invalid"),
        )
        if not reasons:
            self.encryption_keys[sender] = key
        return reasons

    def _judge_grants(self, grants: Sequence[WrappedKey], given: dict[bytes, bytes]) -> Reasons:
        reasons = gather((len({one.reader for one in grants}) != len(grants), "reader_named_twice"))
        for one in grants:
            key = self.encryption_keys.get(one.reader)
            reasons |= self.may_be_given(one.reader) | gather(
                (key is None, "encryption_key_missing"),
                (key is not None and key != one.reader_key, "encryption_key_not_in_force"),
                (given.get(one.reader) == one.reader_key, "reader_already_granted"),
            )
        return reasons

    def _judge_owner(self, document: Document, sender: bytes) -> Reasons:
        return gather(
            (document.owner != sender, "document_of_another"), (document.is_retired, "document_not_open_to_this")
        )

    def anchor(self, sender: bytes, paper: AnchorDocument, supersedes: Document | None) -> Reasons:
        reasons = self.may_sign("document.anchor", sender) | self._judge_grants(paper.grants, {})
        reasons |= gather(
            ((paper.subject is None) == (paper.site is None), "document_needs_one_subject"),
            (paper.kind == "kyc" and paper.subject is None, "document_subject_of_wrong_kind"),
            (paper.kind == "site_design" and paper.site is None, "document_subject_of_wrong_kind"),
            ((sender, paper.recipient) in self.document_keys, "document_key_already_used"),
        )
        if supersedes is None:
            reasons |= self._judge_speaker(sender, paper)
            document = Document(sender, paper.kind.value, paper.subject, paper.site, [])
        else:
            document = supersedes
            about = (document.kind, document.subject, document.site)
            reasons |= self._judge_owner(document, sender) | gather(
                (about != (paper.kind, paper.subject, paper.site), "document_subject_changed"),
                (document.versions[-1] == paper.cid, "document_version_changes_nothing"),
            )
        if not reasons:
            document.versions.append(paper.cid)
            for one in paper.grants:
                document.grants[len(document.versions), one.reader] = one.reader_key
            self.document_keys.add((sender, paper.recipient))
            if supersedes is None:
                self.documents.append(document)
        return reasons

    def _judge_speaker(self, sender: bytes, paper: AnchorDocument) -> Reasons:
        reasons: Reasons = set()
        if paper.subject is not None:
            member = self.members.get(paper.subject)
            is_registrar = member is not None and member.registrar == sender and self.has_role(sender, "utility")
            reasons |= gather(
                (member is None, "participant_unknown"),
                (sender != paper.subject and not is_registrar, "subject_of_another"),
            )
        if paper.site is not None:
            site = next((one for one in self.sites if one.id == paper.site), None)
            reasons |= gather(
                (site is None, "site_unknown"),
                (site is not None and sender not in (site.owner, site.utility), "site_of_another"),
            )
        return reasons

    def grant(self, sender: bytes, document: Document, version: int, grants: Sequence[WrappedKey]) -> Reasons:
        given = {reader: key for (number, reader), key in document.grants.items() if number == version}
        reasons = self.may_sign("document.grant", sender) | self._judge_owner(document, sender)
        reasons |= self._judge_grants(grants, given)
        reasons |= gather((version > len(document.versions), "document_version_unknown"))
        if not reasons:
            for one in grants:
                document.grants[version, one.reader] = one.reader_key
        return reasons

    def _judge_concerned(self, document: Document, sender: bytes) -> Reasons:
        about = document.subject
        if document.site is not None:
            about = next(site.owner for site in self.sites if site.id == document.site)
        return gather((sender not in (document.owner, about), "document_of_another"))

    def revoke(self, sender: bytes, document: Document, reader: bytes) -> Reasons:
        given = [key for key in document.grants if key[1] == reader]
        reasons = self.may_sign("document.revoke", sender) | gather(
            (document.is_retired, "document_not_open_to_this"), (not given, "reader_not_granted")
        )
        if sender != reader:
            reasons |= self._judge_concerned(document, sender)
        if not reasons:
            for key in given:
                del document.grants[key]
        return reasons

    def retire_document(self, sender: bytes, document: Document) -> Reasons:
        reasons = self.may_sign("document.retire", sender) | self._judge_concerned(document, sender)
        reasons |= gather((document.is_retired, "document_not_open_to_this"))
        if not reasons:
            document.is_retired = True
            document.grants.clear()
        return reasons

    def decide_kyc(self, sender: bytes, who: bytes, decision: str, document: Document, version: int) -> Reasons:
        reasons = self.may_sign("participant.decide_kyc", sender)
        member = self.members.get(who)
        if member is None:
            return reasons | {"participant_unknown"}
        registrar = member.registrar
        is_free = registrar is None or not self.has_role(registrar, "utility")
        reasons |= gather(
            (who == sender, "kyc_of_oneself"),
            (registrar != sender and not is_free, "participant_of_another_registrar"),
            (member.kyc_cites == (decision, document.id, version), "kyc_already_decided"),
            ((document.kind, document.subject) != ("kyc", who), "document_is_no_paper_of_participant"),
            (document.is_retired, "document_not_open_to_this"),
            (version > len(document.versions), "document_version_unknown"),
            (version < len(document.versions), "document_version_superseded"),
            ((version, sender) not in document.grants, "reader_not_granted"),
        )
        if not reasons:
            member.kyc, member.kyc_cites = decision, (decision, document.id, version)
        return reasons
