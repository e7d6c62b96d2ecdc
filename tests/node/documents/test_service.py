"""Documents from end to end: a real ledger, a real store, and nothing anchored that cannot be read back."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from contracts_native.documents import (
    GRANTS,
    DocumentKind,
    GrantDocument,
    SetEncryptionKey,
    WrappedKey,
    check_kyc_version,
)
from ledger.errors import Malformed, NotPermitted, RuleViolated
from ledger.primitives import Address
from node.client import NotYetCommitted, Refused, UnknownItem
from node.documents.cid import Cid
from node.documents.embedded import EmbeddedStore
from node.documents.encryption import encrypt, make_key
from node.documents.files import FileFailed
from node.documents.grants import DocumentKey, GrantPlace, compute_public_key, parse_identity, seal_grant
from node.documents.service import (
    CHECKING,
    ENCRYPTING,
    PLAIN_BYTES_MAX,
    READING,
    STORING,
    About,
    Added,
    DocumentError,
    Documents,
)
from node.documents.store import DOCUMENT_BYTES_MAX, Readable, StoreFailed
from node.jsonrpc import TIMED_OUT
from tests.contracts_native.harness import ALICE, AUDITOR, BOB, CHAIN_ID, RIVAL, STRANGER, UTILITY, Person
from tests.node.chain_node import ChainNode, make_signing_key
from tests.node.documents.samples import make_content

R = TypeVar("R")
PAPER = b"Passport of Bob Example, born 1970-01-01, number X12345678"
KYC_OF_BOB = About(DocumentKind.KYC, BOB.address)


@dataclass
class Office:
    """A node, a store, and people who work with documents."""

    directory: Path
    node: ChainNode = field(default_factory=ChainNode)
    reported: list[tuple[str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = EmbeddedStore(self.directory / "store")
        self.paper = self.directory / "passport-of-bob.pdf"
        self.paper.write_bytes(PAPER)

    def do(self, person: Person, work: Callable[[Documents], Coroutine[Any, Any, R]], *private_keys: bytes) -> R:
        """Let someone do something with documents."""

        async def enter() -> R:
            client, key = self.node.make_client("http://node"), make_signing_key(person)

            def report(what: str, done: int, total: int) -> None:
                self.reported.append((what, done, total))

            with closing(Documents(client, key, private_keys=private_keys, report=report)) as documents:
                return await work(documents)

        return asyncio.run(enter())

    def register(self, *people: Person) -> None:
        for person in people:
            self.do(person, lambda documents: documents.register_key())

    def add(self, *readers: Person, about: About = KYC_OF_BOB, by: Person = BOB) -> Added:
        addresses = [one.address for one in readers]
        return self.do(by, lambda documents: documents.add(self.store, self.paper, about, readers=addresses))

    def read(self, person: Person, document: bytes, *, version: int | None = None) -> bytes:
        target = self.directory / f"read by {person.name}"
        target.unlink(missing_ok=True)
        self.do(person, lambda documents: documents.get(self.store, document, target, version=version))
        return target.read_bytes()

    def find_recipient(self, document: bytes, version: int) -> bytes:
        return self.do(BOB, lambda documents: documents.find(document, version)).recipient

    def list_files(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """The utility has an encryption key on the ledger."""
    one = Office(tmp_path)
    one.register(UTILITY)
    return one


def test_a_paper_is_added_granted_and_read_and_can_be_decided_on(office: Office) -> None:
    added = office.add(UTILITY)
    assert (added.version, set(added.readers)) == (1, {BOB.address, UTILITY.address})
    assert office.store.list_pins() == [added.cid]
    assert office.read(UTILITY, added.document) == office.read(BOB, added.document) == PAPER
    state = office.node.chain.state
    check_kyc_version(state, added.document, 1, subject=BOB.address, decider=UTILITY.address)
    assert len({what for what, _, _ in office.reported} & {ENCRYPTING, STORING, CHECKING, READING}) == 4
    assert office.list_files() == {"store", office.paper.name, "read by utility", "read by bob"}


def test_a_large_design_goes_through_and_the_progress_ends_at_the_whole(office: Office) -> None:
    content = make_content(3_000_000)
    office.paper.write_bytes(content)
    site = office.node.chain.register_site(ALICE)
    office.register(AUDITOR)
    added = office.add(AUDITOR, about=About(DocumentKind.SITE_DESIGN, site=site), by=ALICE)
    assert office.read(AUDITOR, added.document) == content
    for what in (ENCRYPTING, STORING, CHECKING, READING):
        steps = [(done, total) for name, done, total in office.reported if name == what]
        assert steps[-1][0] == steps[-1][1] >= 3_000_000, what


def test_a_stranger_is_refused_and_gets_no_file(office: Office) -> None:
    added = office.add(UTILITY)
    target = office.directory / "stolen"
    for other in (RIVAL, AUDITOR, STRANGER):
        with pytest.raises(NotPermitted, match="reader_not_granted"):
            office.do(other, lambda documents: documents.get(office.store, added.document, target))
        checked = office.do(other, lambda documents: documents.check(office.store, added.document))
        assert not checked.has_key, "without a key, the blocks are checked and nothing is read"
    assert not target.exists()
    with pytest.raises(UnknownItem, match="document_not_found"):
        office.do(BOB, lambda documents: documents.get(office.store, bytes(16), target))


def test_access_is_granted_later_and_withdrawn(office: Office) -> None:
    added = office.add()
    with pytest.raises(NotPermitted, match="reader_not_granted"):
        office.read(UTILITY, added.document)
    office.do(BOB, lambda documents: documents.grant(added.document, [UTILITY.address]))
    assert office.read(UTILITY, added.document) == PAPER
    office.do(BOB, lambda documents: documents.revoke(added.document, UTILITY.address))
    with pytest.raises(NotPermitted, match="reader_not_granted"):
        office.read(UTILITY, added.document)
    assert office.read(BOB, added.document) == PAPER


def test_the_next_version_has_a_new_key_for_those_who_can_read_the_latest(office: Office) -> None:
    office.register(AUDITOR)
    first = office.add(UTILITY, AUDITOR)
    office.do(BOB, lambda documents: documents.revoke(first.document, AUDITOR.address))
    office.paper.write_bytes(b"a newer paper")
    second = office.do(BOB, lambda documents: documents.supersede(office.store, office.paper, first.document))
    assert (second.document, second.version) == (first.document, 2)
    assert set(second.readers) == {BOB.address, UTILITY.address}
    assert office.read(UTILITY, first.document) == b"a newer paper"
    assert office.read(UTILITY, first.document, version=1) == PAPER
    recipients = {office.find_recipient(first.document, version) for version in (1, 2)}
    assert len(recipients) == 2


def test_retiring_destroys_the_keys_and_the_store_forgets(office: Office) -> None:
    added = office.add(UTILITY)
    office.do(BOB, lambda documents: documents.retire(office.store, added.document))
    assert not list(GRANTS.scan(office.node.chain.state))
    assert office.store.list_pins() == []
    assert office.store.collect_garbage() > 0
    with pytest.raises(NotPermitted, match="document_retired"):
        office.read(BOB, added.document)
    with pytest.raises(NotPermitted, match="document_retired"):
        office.do(BOB, lambda documents: documents.grant(added.document, [UTILITY.address]))
    with pytest.raises(NotPermitted, match="document_retired"):
        office.do(BOB, lambda documents: documents.supersede(office.store, office.paper, added.document))
    assert office.store.health().bytes_stored == 0, "the next version is refused before it is encrypted"


def test_a_reader_without_an_encryption_key_is_named_before_anything_is_stored(office: Office) -> None:
    with pytest.raises(DocumentError, match="encryption_key_missing"):
        office.add(RIVAL)
    with pytest.raises(UnknownItem, match="participant_not_found"):
        office.add(STRANGER)
    assert office.store.health().bytes_stored == 0


def test_what_the_ledger_refuses_is_not_kept(office: Office) -> None:
    office.register(BOB)
    with pytest.raises(Refused, match="subject_of_another"):
        office.add(UTILITY, about=About(DocumentKind.KYC, ALICE.address))
    assert office.store.list_pins() == []


def test_what_may_still_be_committed_is_kept(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.register(BOB)

    def wait_in_vain(raw: bytes) -> None:
        raise NotYetCommitted(TIMED_OUT, f"{len(raw)} bytes are on their way")

    monkeypatch.setattr(office.node, "_submit", wait_in_vain)
    with pytest.raises(NotYetCommitted):
        office.add(UTILITY)
    assert len(office.store.list_pins()) == 1


class WatchedStore(EmbeddedStore):
    """Says when a put has ended, however it did."""

    ended = threading.Event()

    def put(self, stream: Readable, *, size_max: int) -> Cid:
        try:
            return super().put(stream, size_max=size_max)
        finally:
            self.ended.set()


def test_what_is_interrupted_stops_and_nothing_is_kept_or_anchored(office: Office) -> None:
    office.register(BOB)
    office.paper.write_bytes(make_content(3_000_000))
    store, sent = WatchedStore(office.directory / "watched"), len(office.node.wire)
    reached, go_on = threading.Event(), threading.Event()

    def pause(what: str, done: int, _: int) -> None:
        if what == STORING and done > 1_000_000:
            reached.set()
            assert go_on.wait(10)

    async def interrupt() -> None:
        client, key = office.node.make_client("http://node"), make_signing_key(BOB)
        with closing(Documents(client, key, scratch=office.directory, report=pause)) as documents:
            task = asyncio.create_task(documents.add(store, office.paper, KYC_OF_BOB))
            assert await asyncio.to_thread(reached.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(interrupt())
    go_on.set()
    assert store.ended.wait(10)
    assert (store.list_pins(), len(office.node.wire)) == ([], sent)
    assert office.list_files() == {"store", "watched", office.paper.name}


def test_only_a_file_can_be_added_and_only_its_owner_adds_the_next_version(office: Office) -> None:
    added = office.add(UTILITY)
    pipe = office.directory / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileFailed, match="file_not_regular"):
        office.do(BOB, lambda documents: documents.add(office.store, pipe, KYC_OF_BOB))
    huge = office.directory / "huge"
    with huge.open("wb") as file:
        file.truncate(PLAIN_BYTES_MAX + 1)
    with pytest.raises(RuleViolated, match="document_too_large"):
        office.do(BOB, lambda documents: documents.add(office.store, huge, KYC_OF_BOB))
    stored = office.store.health().bytes_stored
    with pytest.raises(NotPermitted, match="document_of_another"):
        office.do(UTILITY, lambda documents: documents.supersede(office.store, office.paper, added.document))
    assert office.store.health().bytes_stored == stored


def test_the_largest_file_that_is_taken_fits_when_it_is_encrypted() -> None:
    pieces = -(-PLAIN_BYTES_MAX // 65_536)
    target = io.BytesIO()
    encrypt(io.BytesIO(b""), target, make_key())
    assert PLAIN_BYTES_MAX + pieces * 16 + 2 * len(target.getvalue()) < DOCUMENT_BYTES_MAX
    assert PLAIN_BYTES_MAX > DOCUMENT_BYTES_MAX * 0.999


def test_the_identity_of_a_document_is_that_of_its_recipient_and_for_readers_only(office: Office) -> None:
    added = office.add(UTILITY)
    text = office.do(UTILITY, lambda documents: documents.open_identity(added.document))
    assert compute_public_key(parse_identity(text)) == office.find_recipient(added.document, 1)
    with pytest.raises(NotPermitted, match="reader_not_granted"):
        office.do(RIVAL, lambda documents: documents.open_identity(added.document))


class DeadStore(EmbeddedStore):
    """Does not answer."""

    def list_pins(self) -> list[Cid]:
        raise StoreFailed("store_unreachable", "/ip4/127.0.0.1/tcp/1")


def test_nothing_is_retired_while_the_store_does_not_answer(office: Office) -> None:
    added = office.add(UTILITY)
    dead = DeadStore(office.directory / "store")
    with pytest.raises(StoreFailed, match="store_unreachable"):
        office.do(BOB, lambda documents: documents.retire(dead, added.document))
    assert office.read(UTILITY, added.document) == PAPER
    office.do(BOB, lambda documents: documents.retire(office.store, added.document))
    assert office.store.list_pins() == []


class LosingStore(EmbeddedStore):
    """Says that it stored, and gives back less."""

    def open(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[bytes]:
        return (piece[:-1] for piece in super().open(cid, size_max=size_max))


class SilentStore(EmbeddedStore):
    """Cannot find again what it took."""

    def open(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[bytes]:
        raise StoreFailed("block_absent", f"{cid}, of {size_max} bytes")


class OtherStore(EmbeddedStore):
    """Gives back another document than it was asked for."""

    def open(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[bytes]:
        return iter([str(cid).encode()[:size_max]])


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        (LosingStore, Malformed, "content_not_decrypted"),
        (SilentStore, StoreFailed, "block_absent"),
        (OtherStore, Malformed, "content_not_decrypted"),
    ],
)
def test_nothing_is_anchored_that_cannot_be_read_back(
    office: Office, kind: type[EmbeddedStore], error: type[Exception], reason: str
) -> None:
    office.register(BOB)
    office.store = kind(office.directory / "bad store")
    sent = len(office.node.wire)
    with pytest.raises(error, match=reason):
        office.add(UTILITY)
    assert len(office.node.wire) == sent
    assert office.store.list_pins() == []


def test_a_block_that_was_damaged_or_lost_later_is_found_and_nothing_is_published(office: Office) -> None:
    added = office.add(UTILITY)
    (block,) = (office.directory / "store" / "blocks").glob("*/*.data")
    whole = block.read_bytes()
    for damage, reason in ((whole[:-1], "block_hash_wrong"), (b"", "block_hash_wrong"), (None, "block_absent")):
        block.unlink()
        if damage is not None:
            block.write_bytes(damage)
        for person in (UTILITY, RIVAL):
            with pytest.raises(StoreFailed, match=reason):
                office.do(person, lambda documents: documents.check(office.store, added.document))
        with pytest.raises(StoreFailed, match=reason):
            office.read(UTILITY, added.document)
        block.write_bytes(whole)
    assert office.list_files() == {"store", office.paper.name}
    assert office.do(UTILITY, lambda documents: documents.check(office.store, added.document)).has_key


def test_a_file_that_is_there_is_not_replaced(office: Office) -> None:
    added = office.add(UTILITY)
    asked = len(office.node.asked)
    with pytest.raises(FileFailed, match=r"file_exists: .*passport-of-bob\.pdf"):
        office.do(UTILITY, lambda documents: documents.get(office.store, added.document, office.paper))
    assert office.paper.read_bytes() == PAPER
    with pytest.raises(FileFailed, match=r"directory_missing: .*nowhere"):
        office.do(UTILITY, lambda documents: documents.get(office.store, added.document, Path("nowhere/paper")))
    assert len(office.node.asked) == asked, "said before anything was asked for or fetched"


def test_a_grant_of_another_key_than_the_anchored_one_is_found(office: Office) -> None:
    first, second = office.add(UTILITY), office.add(UTILITY)
    # The second document's key, sealed to its own place, cannot be put under the first document.
    state = office.node.chain.state
    moved = GRANTS.get(state, second.document, 1, UTILITY.address)
    GRANTS.put(state, first.document, 1, UTILITY.address, value=moved)
    office.node.chain.store.write(state.compute_changes())
    with pytest.raises(Malformed, match="grant_not_opened"):
        office.read(UTILITY, first.document)


def test_a_wrong_key_in_a_grant_is_found_before_the_content_is_read(office: Office) -> None:
    added = office.add()
    reader_key = compute_public_key(make_signing_key(UTILITY).derive_encryption_key())
    place = GrantPlace(CHAIN_ID, added.document, UTILITY.address)
    sealed = seal_grant(DocumentKey(bytes(range(32))), reader_key, place)
    grant = GrantDocument(added.document, 1, (WrappedKey(UTILITY.address, reader_key, sealed),))
    office.node.chain.apply(grant, by=BOB)
    with pytest.raises(DocumentError, match="document_key_not_anchored"):
        office.read(UTILITY, added.document)


def test_what_was_sealed_to_an_earlier_key_opens_with_it(office: Office) -> None:
    added = office.add(UTILITY)
    other = make_signing_key(STRANGER).derive_encryption_key()
    office.node.chain.apply(SetEncryptionKey(compute_public_key(other)), by=UTILITY)
    assert office.read(UTILITY, added.document) == PAPER
    sealed = WrappedKey(UTILITY.address, compute_public_key(other), bytes(80))
    office.node.chain.apply(GrantDocument(added.document, 1, (sealed,)), by=BOB)
    with pytest.raises(DocumentError, match="encryption_key_not_held"):
        office.read(UTILITY, added.document)
    with pytest.raises(Malformed, match="grant_not_opened"):
        office.do(UTILITY, lambda documents: documents.get(office.store, added.document, office.directory / "x"), other)
    # Nobody seals to a key of its own that it does not hold.
    with pytest.raises(DocumentError, match="encryption_key_not_held"):
        office.add(BOB, about=About(DocumentKind.KYC, UTILITY.address), by=UTILITY)


def test_a_node_that_answers_nonsense_is_not_believed(office: Office) -> None:
    added = office.add(UTILITY)
    honest = office.do(BOB, lambda documents: documents.find(added.document))
    answer = office.node.answer("document_get", {"document": added.document.hex()}, "")
    assert isinstance(answer, dict)
    wrong: list[dict[str, object]] = [
        {"document": bytes(16).hex()},
        {"cid": "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"},
        {"cid": 7},
        {"size_bytes": -1},
        {"recipient": "00"},
        {"grants": "none"},
        {"grants": [{"reader": "wp1"}]},
        {"owner": None},
        {"status": "lost"},
    ]
    for change in wrong:
        office.node.answers["document_get"] = {**answer, **change}
        with pytest.raises(Malformed):
            office.do(BOB, lambda documents: documents.find(added.document))
    office.node.answers["document_get"] = answer
    assert office.do(BOB, lambda documents: documents.find(added.document)) == honest
    office.node.answers["participant_encryption_key"] = {"public_key": "00" * 32}
    with pytest.raises(Exception, match="encryption_key_invalid"):
        office.do(BOB, lambda documents: documents.grant(added.document, [Address(RIVAL.address)]))
    assert replace(honest, version=1) == honest
