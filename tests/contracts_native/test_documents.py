"""Documents on the ledger: who may anchor, who is given the key, how access ends, and what a decision can stand on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contracts_native.documents import (
    CHUNK_BYTES,
    DOCUMENT_TRANSITIONS,
    DOCUMENTS,
    GRANTS,
    READERS_MAX,
    VERSIONS_MAX,
    AnchorDocument,
    DocumentAnchored,
    DocumentGranted,
    DocumentKind,
    DocumentRetired,
    DocumentRevoked,
    DocumentStatus,
    GrantDocument,
    RetireDocument,
    RevokeDocument,
    SetEncryptionKey,
    WrappedKey,
    can_read,
    check_cid,
    check_encryption_key,
    check_kyc_version,
    compute_document_id,
    get_version,
    list_readers,
)
from contracts_native.participants import PARTICIPANTS, KycStatus, Participant, Role
from ledger.errors import Malformed, Rejected, RuleViolated
from ledger.primitives import Address, Hash, sha256
from ledger.transaction import Payload
from tests.contracts_native.harness import (
    ADMIN,
    ALICE,
    AUDITOR,
    BOB,
    RIVAL,
    STRANGER,
    UTILITY,
    Person,
    World,
    make_person,
)

SMALL = 1_000
DIGEST = sha256(b"content")
RAW_CID = b"\x01\x55\x12\x20" + DIGEST
CLERK = make_person("clerk")  # a consumer that the utility registers


@pytest.fixture
def world() -> World:
    """Everyone but Alice has an encryption key; the clerk was registered by the utility."""
    one = World()
    clerk = Participant(CLERK.public_key, (Role.CONSUMER,), "", UTILITY.address, 0, KycStatus.NONE, is_frozen=False)
    PARTICIPANTS.put(one.state, CLERK.address, value=clerk)
    one.commit()
    for person in (UTILITY, RIVAL, BOB, AUDITOR, CLERK):
        one.apply(SetEncryptionKey(make_x25519(person.name)), by=person)
    return one


def make_x25519(name: str) -> bytes:
    """A key of full order in its one form, the same for the same name."""
    return sha256(b"x25519 " + name.encode())[:31] + b"\x10"


def wrap(*readers: Person) -> tuple[WrappedKey, ...]:
    return tuple(WrappedKey(one.address, make_x25519(one.name), bytes(80)) for one in readers)


def make_paper(key: str = "1", *readers: Person, subject: Person = BOB) -> AnchorDocument:
    """A KYC paper of a participant, encrypted to the document key of this name."""
    return AnchorDocument(
        cid=b"\x01\x55\x12\x20" + sha256(key.encode()),
        size_bytes=SMALL,
        commitment=Hash(DIGEST),
        recipient=make_x25519("document " + key),
        kind=DocumentKind.KYC,
        grants=wrap(*(readers or (BOB,))),
        subject=subject.address,
    )


def make_design(site: bytes, *readers: Person) -> AnchorDocument:
    return replace(make_paper("design", *readers), kind=DocumentKind.SITE_DESIGN, subject=None, site=site)


def anchor(world: World, *readers: Person) -> bytes:
    """A KYC paper of Bob's, anchored by him; its id."""
    return world.apply(make_paper("1", *(readers or (BOB, UTILITY))), by=BOB).one(DocumentAnchored).document


def test_a_paper_is_anchored_with_its_readers_in_one_transaction(world: World) -> None:
    paper = make_paper("1", BOB, UTILITY)
    event = world.apply(paper, by=BOB).one(DocumentAnchored)
    assert event.document == compute_document_id(BOB.address, paper.recipient)
    assert (event.version, event.readers) == (1, (BOB.address, UTILITY.address))
    version = get_version(world.state, event.document, 1)
    assert (version.cid, version.size_bytes, version.commitment) == (paper.cid, SMALL, DIGEST)
    assert version.anchored_ms == world.time_ms
    assert list_readers(world.state, event.document, 1) == sorted([BOB.address, UTILITY.address])
    assert GRANTS.get(world.state, event.document, 1, UTILITY.address).sealed == bytes(80)


def test_a_paper_is_anchored_by_whom_it_is_about_or_the_utility_that_registered_it(world: World) -> None:
    world.apply(make_paper("1", CLERK, subject=CLERK), by=CLERK)
    world.apply(make_paper("2", UTILITY, subject=CLERK), by=UTILITY)
    for other in (RIVAL, BOB, AUDITOR, ADMIN):
        world.refuses(make_paper("3", UTILITY, subject=CLERK), "subject_of_another", by=other)
    world.refuses(make_paper("3", UTILITY, subject=BOB), "subject_of_another", by=UTILITY)
    world.refuses(make_paper("3", UTILITY, subject=STRANGER), "participant_unknown", by=BOB)


def test_a_registrar_that_is_no_utility_any_more_does_not_speak_for_its_customers(world: World) -> None:
    record = PARTICIPANTS.get(world.state, UTILITY.address)
    PARTICIPANTS.put(world.state, UTILITY.address, value=replace(record, roles=(Role.CONSUMER,)))
    world.commit()
    world.refuses(make_paper("1", UTILITY, subject=CLERK), "subject_of_another", by=UTILITY)


def test_a_design_is_anchored_by_the_sites_owner_or_its_utility(world: World) -> None:
    site = world.register_site(BOB)
    world.refuses(make_design(site, AUDITOR), "site_of_another", by=RIVAL)
    world.refuses(make_design(bytes(16), AUDITOR), "site_unknown", by=BOB)
    world.apply(make_design(site, AUDITOR), by=BOB)
    world.apply(make_design(site, AUDITOR), by=UTILITY)


def test_a_document_is_about_one_thing_of_its_kind(world: World) -> None:
    site = world.register_site(BOB)
    paper, design = make_paper(), make_design(site, AUDITOR)
    for nothing_or_both in (replace(paper, subject=None), replace(paper, site=site)):
        world.refuses(nothing_or_both, "document_needs_one_subject", by=BOB)
    world.refuses(replace(design, kind=DocumentKind.KYC), "document_subject_of_wrong_kind", by=BOB)
    world.refuses(replace(paper, kind=DocumentKind.SITE_DESIGN), "document_subject_of_wrong_kind", by=BOB)
    world.apply(replace(paper, kind=DocumentKind.OTHER), by=BOB)
    world.apply(replace(design, kind=DocumentKind.OTHER), by=BOB)


@pytest.mark.parametrize(
    "cid",
    [
        b"\x00" + RAW_CID[1:],
        b"\x02" + RAW_CID[1:],
        b"\x01\x71" + RAW_CID[2:],  # dag-cbor
        b"\x01\x55\x13\x20" + DIGEST,  # SHA-512
        b"\x01\x55\x12\x1f" + DIGEST,
    ],
)
def test_a_cid_in_another_form_is_refused(world: World, cid: bytes) -> None:
    world.refuses(replace(make_paper(), cid=cid), "cid_invalid", by=BOB)


@pytest.mark.parametrize("cid", [b"", b"\x12\x20" + DIGEST, RAW_CID + b"\0", RAW_CID[:35]])
def test_a_cid_of_another_length_is_refused(world: World, cid: bytes) -> None:
    with pytest.raises(Malformed, match="bytes_length_out_of_range"):
        world.apply(replace(make_paper(), cid=cid), by=BOB)
    with pytest.raises(RuleViolated, match="cid_invalid"):
        check_cid(cid, size_bytes=SMALL)


def test_a_cid_is_of_a_chunk_or_a_tree_as_the_size_says(world: World) -> None:
    tree = b"\x01\x70" + RAW_CID[2:]
    world.refuses(replace(make_paper(), size_bytes=CHUNK_BYTES + 1), "cid_contradicts_size", by=BOB)
    world.refuses(replace(make_paper(), cid=tree, size_bytes=CHUNK_BYTES), "cid_contradicts_size", by=BOB)
    world.apply(replace(make_paper("1"), size_bytes=CHUNK_BYTES), by=BOB)
    world.apply(replace(make_paper("2"), cid=tree, size_bytes=CHUNK_BYTES + 1), by=BOB)


@pytest.mark.parametrize(
    "key",
    [
        "00" * 32,
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",  # p − 1
        "ed" + "ff" * 30 + "7f",  # p, which is 0 written otherwise
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "09" + "00" * 30 + "80",  # the top bit, that the curve does not see
    ],
)
def test_nothing_is_sealed_to_a_key_that_anyone_can_open(world: World, key: str) -> None:
    world.refuses(SetEncryptionKey(bytes.fromhex(key)), "encryption_key_invalid", by=ALICE)
    world.refuses(replace(make_paper(), recipient=bytes.fromhex(key)), "encryption_key_invalid", by=BOB)
    check_encryption_key(b"\x09" + bytes(31))


def test_a_key_is_given_to_readers_that_have_one_in_force(world: World) -> None:
    world.refuses(make_paper("1", ALICE), "encryption_key_missing", by=BOB)
    world.refuses(make_paper("1", STRANGER), "participant_unknown", by=BOB)
    world.refuses(make_paper("1", UTILITY, UTILITY), "reader_named_twice", by=BOB)
    world.apply(SetEncryptionKey(make_x25519("new")), by=UTILITY)
    world.refuses(make_paper("1", UTILITY), "encryption_key_not_in_force", by=BOB)
    world.freeze(RIVAL)
    world.refuses(make_paper("1", RIVAL), "participant_frozen", by=BOB)
    world.refuses(SetEncryptionKey(make_x25519("new")), "encryption_key_already_set", by=UTILITY)
    with pytest.raises(Malformed, match="array_length_out_of_range"):
        world.apply(replace(make_paper(), grants=()), by=BOB)


def test_a_key_is_for_one_version_of_one_document(world: World) -> None:
    document = anchor(world)
    world.refuses(make_paper("1"), "document_key_already_used", by=BOB)
    again = replace(make_paper("1"), cid=RAW_CID, supersedes=document)
    world.refuses(again, "document_key_already_used", by=BOB)


def test_nobody_can_take_anothers_key_or_cid_from_it(world: World) -> None:
    seen = make_paper("1", UTILITY)
    world.apply(replace(seen, subject=UTILITY.address), by=UTILITY)
    world.apply(seen, by=BOB)


def test_a_revoked_reader_obliges_a_new_key_for_the_next_version(world: World) -> None:
    document = anchor(world)
    event = world.apply(RevokeDocument(document, UTILITY.address), by=BOB).one(DocumentRevoked)
    assert (event.versions, event.revoked_by) == ((1,), BOB.address)
    assert not can_read(world.state, document, 1, UTILITY.address)
    assert can_read(world.state, document, 1, BOB.address)
    same_key = replace(make_paper("1"), cid=RAW_CID, supersedes=document)
    world.refuses(same_key, "document_key_already_used", by=BOB)
    event_2 = world.apply(replace(make_paper("2"), supersedes=document), by=BOB).one(DocumentAnchored)
    assert (event_2.document, event_2.version, event_2.readers) == (document, 2, (BOB.address,))


def test_a_next_version_is_the_owners_of_the_same_thing_and_of_new_content(world: World) -> None:
    document = anchor(world)
    after = replace(make_paper("2"), supersedes=document)
    world.refuses(after, "document_of_another", by=UTILITY)
    world.refuses(replace(after, supersedes=bytes(16)), "document_unknown", by=BOB)
    world.refuses(replace(after, kind=DocumentKind.OTHER), "document_subject_changed", by=BOB)
    world.refuses(replace(after, subject=ALICE.address), "document_subject_changed", by=BOB)
    unchanged = replace(after, cid=make_paper("1").cid)
    world.refuses(unchanged, "document_version_changes_nothing", by=BOB)
    world.apply(after, by=BOB)
    assert get_version(world.state, document, 1).cid == make_paper("1").cid
    assert can_read(world.state, document, 1, UTILITY.address), "what was decided on can be read again"
    assert not can_read(world.state, document, 2, UTILITY.address)


def test_a_document_has_so_many_versions_and_no_more(world: World) -> None:
    document = anchor(world)
    for number in range(2, VERSIONS_MAX + 1):
        world.apply(replace(make_paper(str(number)), supersedes=document), by=BOB)
    last = replace(make_paper("last"), supersedes=document)
    world.refuses(last, "document_has_too_many_versions", by=BOB)
    world.apply(RetireDocument(document), by=BOB)
    assert not list(GRANTS.scan(world.state, document))


def test_a_version_has_so_many_readers_and_no_more(world: World) -> None:
    document = anchor(world, BOB)
    readers = [make_person(f"reader {number}") for number in range(READERS_MAX)]
    template = PARTICIPANTS.get(world.state, BOB.address)
    for one in readers:
        PARTICIPANTS.put(world.state, one.address, value=replace(template, public_key=one.public_key))
    world.commit()
    for one in readers:
        world.apply(SetEncryptionKey(make_x25519(one.name)), by=one)
    world.refuses(GrantDocument(document, 1, wrap(*readers)), "document_has_too_many_readers", by=BOB)
    world.apply(GrantDocument(document, 1, wrap(*readers[1:])), by=BOB)


def test_a_grant_is_the_owners_for_a_version_and_a_reader_once(world: World) -> None:
    document = anchor(world, BOB)
    grant = GrantDocument(document, 1, wrap(UTILITY, AUDITOR))
    world.refuses(grant, "document_of_another", by=UTILITY)
    world.refuses(replace(grant, document=bytes(16)), "document_unknown", by=BOB)
    world.refuses(replace(grant, version=2), "document_version_unknown", by=BOB)
    event = world.apply(grant, by=BOB).one(DocumentGranted)
    assert event.readers == (UTILITY.address, AUDITOR.address)
    world.refuses(GrantDocument(document, 1, wrap(UTILITY)), "reader_already_granted", by=BOB)


def test_a_key_sealed_to_an_older_encryption_key_is_replaced(world: World) -> None:
    document = anchor(world)
    new_key = make_x25519("new")
    world.apply(SetEncryptionKey(new_key), by=UTILITY)
    sealed = b"\x01" * 80
    world.apply(GrantDocument(document, 1, (WrappedKey(UTILITY.address, new_key, sealed),)), by=BOB)
    grant = GRANTS.get(world.state, document, 1, UTILITY.address)
    assert (grant.reader_key, grant.sealed) == (new_key, sealed)


def test_access_is_taken_back_by_the_owner_the_subject_or_the_reader(world: World) -> None:
    paper = make_paper("1", UTILITY, RIVAL, AUDITOR, CLERK, subject=CLERK)
    document = world.apply(paper, by=UTILITY).one(DocumentAnchored).document
    world.refuses(RevokeDocument(document, RIVAL.address), "document_of_another", by=AUDITOR)
    world.refuses(RevokeDocument(document, BOB.address), "reader_not_granted", by=UTILITY)
    world.refuses(RevokeDocument(bytes(16), BOB.address), "document_unknown", by=UTILITY)
    world.apply(RevokeDocument(document, AUDITOR.address), by=AUDITOR)
    world.apply(RevokeDocument(document, RIVAL.address), by=CLERK)
    world.apply(RevokeDocument(document, CLERK.address), by=UTILITY)
    assert list_readers(world.state, document, 1) == [UTILITY.address]


def test_a_document_is_retired_by_the_owner_or_whom_it_is_about(world: World) -> None:
    paper = make_paper("1", UTILITY, subject=CLERK)
    document = world.apply(paper, by=UTILITY).one(DocumentAnchored).document
    for other in (RIVAL, AUDITOR, ADMIN):
        world.refuses(RetireDocument(document), "document_of_another", by=other)
    assert world.apply(RetireDocument(document), by=CLERK).one(DocumentRetired).retired_by == CLERK.address
    site = world.register_site(BOB)
    design = world.apply(make_design(site, AUDITOR), by=UTILITY).one(DocumentAnchored).document
    world.refuses(RetireDocument(design), "document_of_another", by=CLERK)
    world.apply(RetireDocument(design), by=BOB)


def test_retiring_destroys_every_key_and_keeps_what_was_recorded(world: World) -> None:
    document = anchor(world)
    world.apply(replace(make_paper("2", BOB, AUDITOR), supersedes=document), by=BOB)
    world.apply(RetireDocument(document), by=BOB)
    assert not list(GRANTS.scan(world.state, document))
    assert get_version(world.state, document, 1).commitment == DIGEST
    assert DOCUMENTS.get(world.state, document).status is DocumentStatus.RETIRED
    world.refuses(make_paper("2"), "document_key_already_used", by=BOB)


# Every pair of a status and a transaction, and where a document stands afterwards; None: refused.

ACTIONS: dict[str, Callable[[bytes], Payload]] = {
    "document.anchor": lambda document: replace(make_paper("next"), supersedes=document),
    "document.grant": lambda document: GrantDocument(document, 1, wrap(AUDITOR)),
    "document.revoke": lambda document: RevokeDocument(document, UTILITY.address),
    "document.retire": RetireDocument,
}
ACTIVE, RETIRED = DocumentStatus.ACTIVE, DocumentStatus.RETIRED
AFTER: dict[tuple[DocumentStatus, str], DocumentStatus] = {
    (ACTIVE, "document.anchor"): ACTIVE,
    (ACTIVE, "document.grant"): ACTIVE,
    (ACTIVE, "document.revoke"): ACTIVE,
    (ACTIVE, "document.retire"): RETIRED,
}


@pytest.mark.parametrize("tag", ACTIONS)
@pytest.mark.parametrize("status", DocumentStatus)
def test_a_document_goes_only_where_the_domain_lets_it(world: World, status: DocumentStatus, tag: str) -> None:
    document = anchor(world)
    if status is RETIRED:
        world.apply(RetireDocument(document), by=BOB)
    payload = ACTIONS[tag](document)
    wanted = AFTER.get((status, tag))
    assert DOCUMENT_TRANSITIONS.get((status, tag)) is wanted
    if wanted is None:
        refusal = world.refuses(payload, "document_not_open_to_this", by=BOB)
        assert f"is {status}" in refusal.item
    else:
        world.apply(payload, by=BOB)
    assert DOCUMENTS.get(world.state, document).status is (wanted or status)


def refuse_decision(world: World, document: bytes, version: int, subject: Address, decider: Address) -> str:
    with pytest.raises(Rejected) as caught:
        check_kyc_version(world.state, document, version, subject=subject, decider=decider)
    return caught.value.reason


def test_a_decision_stands_on_the_latest_version_that_the_decider_could_read(world: World) -> None:
    document = anchor(world)
    bob, utility = BOB.address, UTILITY.address
    check_kyc_version(world.state, document, 1, subject=bob, decider=utility)
    assert refuse_decision(world, bytes(16), 1, bob, utility) == "document_unknown"
    assert refuse_decision(world, document, 2, bob, utility) == "document_version_unknown"
    assert refuse_decision(world, document, 1, ALICE.address, utility) == "document_is_no_paper_of_participant"
    assert refuse_decision(world, document, 1, bob, RIVAL.address) == "reader_not_granted"
    world.apply(replace(make_paper("2", BOB, UTILITY), supersedes=document), by=BOB)
    assert refuse_decision(world, document, 1, bob, utility) == "document_version_superseded"
    check_kyc_version(world.state, document, 2, subject=bob, decider=utility)
    world.apply(RetireDocument(document), by=BOB)
    assert refuse_decision(world, document, 2, bob, utility) == "document_not_open_to_this"
    other = world.apply(replace(make_paper("3"), kind=DocumentKind.OTHER), by=BOB).one(DocumentAnchored).document
    assert refuse_decision(world, other, 1, bob, bob) == "document_is_no_paper_of_participant"
