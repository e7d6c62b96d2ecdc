"""What a participant does with documents: add, read, give, take back, retire; joins a node, a store and a key.

Touches the world (a scratch directory, files to read). Nothing is anchored that was not read back from the store and
decrypted; nothing is published that is not whole; what is refused leaves nothing behind that is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contracts_native.documents import (
    AnchorDocument,
    DocumentAnchored,
    DocumentKind,
    DocumentStatus,
    GrantDocument,
    RetireDocument,
    RevokeDocument,
    SetEncryptionKey,
    WrappedKey,
    compute_document_id,
)
from ledger.errors import Malformed, NotPermitted, Rejected, RuleViolated
from ledger.primitives import Address, Hash, format_address
from ledger.transaction import Payload
from node.client import COMMIT_TIMEOUT_MS, Client, Refused, Submitted, UnknownItem
from node.documents.anchored import Anchored, read_anchored, read_encryption_key
from node.documents.cid import Cid
from node.documents.encryption import (
    PieceReader,
    ProgressReader,
    check_content,
    decrypt_to,
    encrypt_to,
    make_key,
)
from node.documents.files import check_new, open_file
from node.documents.grants import (
    DocumentKey,
    GrantPlace,
    compute_public_key,
    format_identity,
    open_grant,
    seal_grant,
)
from node.documents.store import DOCUMENT_BYTES_MAX, DocumentStore, Readable, StoreFailed
from node.documents.workers import StoreWorkers
from node.errors import LocalError
from node.keystore import SigningKey

Report = Callable[[str, int, int], None]  # what is being done, bytes so far, bytes in all

# Encrypted it grows by a tag of 16 bytes for each 64 KiB, and by a head that one more such piece makes room for.
PLAIN_BYTES_MAX: Final = DOCUMENT_BYTES_MAX // (65_536 + 16) * 65_536 - 65_536
PIECE_BYTES: Final = 262_144

ENCRYPTING: Final = "encrypting"
STORING: Final = "storing"
CHECKING: Final = "reading back"
READING: Final = "reading"


class DocumentError(LocalError):
    """What was asked for cannot be done with the keys that are here.

    Reasons: ``encryption_key_not_held``, ``encryption_key_missing``, ``document_key_not_anchored``,
    ``document_size_wrong``.
    """


@dataclass(frozen=True, slots=True)
class About:
    """What a document is about: a participant, or a site."""

    kind: DocumentKind
    subject: Address | None = None
    site: bytes | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """A version that was stored, read back and anchored."""

    document: bytes
    version: int
    cid: Cid
    size_bytes: int
    readers: tuple[Address, ...]
    submitted: Submitted


@dataclass(frozen=True, slots=True)
class Checked:
    """What of a version could be checked: its blocks always; its content with the key."""

    anchored: Anchored
    has_key: bool


def say_nothing(what: str, done: int, total: int) -> None:
    """For whom nobody watches."""


class Documents:
    """The documents of one participant. ``private_keys`` opens what was sealed to earlier encryption keys.

    Without a key, blocks can be checked and the ledger asked: no more.
    """

    def __init__(
        self,
        client: Client,
        key: SigningKey | None,
        *,
        scratch: Path | None = None,
        private_keys: Sequence[bytes] = (),
        workers: StoreWorkers | None = None,
        report: Report = say_nothing,
        timeout_ms: int = COMMIT_TIMEOUT_MS,
    ) -> None:
        self._client = client
        self._key = key
        self._scratch = scratch
        self._private_keys = (*(() if key is None else (key.derive_encryption_key(),)), *private_keys)
        self._workers = workers or StoreWorkers()
        self._report = report
        self._timeout_ms = timeout_ms

    @property
    def address(self) -> Address:
        """Whose documents these are."""
        return self._get_key().address

    def close(self) -> None:
        """Ends the threads: what is under way stops at its next piece, and nothing of it is kept."""
        self._workers.close()

    async def register_key(self) -> Submitted:
        """Make the encryption key that belongs to the signing key the one in force. Raises ``Refused``."""
        return await self._submit(SetEncryptionKey(compute_public_key(self._private_keys[0])))

    async def find(self, document: bytes, version: int | None = None) -> Anchored:
        """What the ledger has of a document; without ``version`` of its latest. Raises ``UnknownItem``."""
        found = read_anchored(await self._client.document_get(document.hex(), version=version))
        if found.document != document or version not in (None, found.version):
            raise Malformed("answer_malformed", "another document than was asked for")
        return found

    async def add(self, store: DocumentStore, path: Path, about: About, *, readers: Sequence[Address] = ()) -> Added:
        """Encrypt a file, store it, read it back and anchor it, readable by us and the readers.

        Raises ``Refused``, ``StoreFailed``, ``DocumentError``, ``RuleViolated`` (``document_too_large``),
        ``FileFailed``.
        """
        return await self._add(store, path, about, readers, supersedes=None)

    async def supersede(
        self, store: DocumentStore, path: Path, document: bytes, *, readers: Sequence[Address] | None = None
    ) -> Added:
        """As ``add``: the next version, under a new key; readable by whoever can read the latest, unless said."""
        before = await self.find(document)
        if before.owner != self.address:
            raise NotPermitted("document_of_another", format_address(before.owner))
        _check_active(before)
        chosen = tuple(before.grants) if readers is None else readers
        about = About(before.kind, before.subject, before.site)
        return await self._add(store, path, about, chosen, supersedes=document)

    async def get(self, store: DocumentStore, document: bytes, target: Path, *, version: int | None = None) -> Anchored:
        """Fetch, verify and decrypt a version to ``target``, which is there only when all of it is.

        Raises ``NotPermitted`` (``reader_not_granted``, ``document_retired``), ``StoreFailed``, ``Malformed``,
        ``DocumentError`` and ``FileFailed``.
        """
        check_new(target)
        found = await self.find(document, version)
        key = await self._open_key(found)
        source = self._watch(READING, store, found)
        await self._workers.run(
            lambda: decrypt_to(target, source, key, size_max=found.size_bytes, commitment=found.commitment)
        )
        return found

    async def grant(self, document: bytes, readers: Sequence[Address], *, version: int | None = None) -> Submitted:
        """Give readers the key of a version, which we must be able to read. The content stays as it is."""
        found = await self.find(document, version)
        key = await self._open_key(found)
        wrapped = self._wrap(key, found.document, await self._find_keys(readers), await self._get_chain_id())
        return await self._submit(GrantDocument(document, found.version, wrapped))

    async def revoke(self, document: bytes, reader: Address) -> Submitted:
        """Take back a reader's keys of every version."""
        return await self._submit(RevokeDocument(document, reader))

    async def retire(self, store: DocumentStore, document: bytes) -> Submitted:
        """Destroy every key, then let the store forget the content at its next garbage collection.

        Nothing is done where the store does not answer: what is retired could not be told to forget a second time.
        """
        found = await self.find(document)
        pins = await self._workers.run(store.list_pins)
        submitted = await self._submit(RetireDocument(document))
        for cid in found.cids:
            if cid in pins:
                await self._forget(store, cid)
        return submitted

    async def check(self, store: DocumentStore, document: bytes, *, version: int | None = None) -> Checked:
        """Read a version whole, every block against its name; with the key, the content against the commitment.

        Raises as ``get``, and ``DocumentError`` (``document_size_wrong``); nothing is written.
        """
        found = await self.find(document, version)
        source = self._watch(CHECKING, store, found)
        if self._key is None or self.address not in found.grants:
            await self._workers.run(lambda: _check_size(source, found))
            return Checked(found, has_key=False)
        key = await self._open_key(found)
        await self._workers.run(
            lambda: check_content(source, key, size_max=found.size_bytes, commitment=found.commitment)
        )
        return Checked(found, has_key=True)

    async def open_identity(self, document: bytes, *, version: int | None = None) -> str:
        """The key of a version as the ``age`` command reads it. Raises as ``get``; guard it like the content."""
        return format_identity(await self._open_key(await self.find(document, version)))

    async def _add(
        self,
        store: DocumentStore,
        path: Path,
        about: About,
        readers: Iterable[Address],
        *,
        supersedes: bytes | None,
    ) -> Added:
        with open_file(path) as file:
            if file.size > PLAIN_BYTES_MAX:
                raise RuleViolated("document_too_large", f"{path}: {file.size} bytes, at most {PLAIN_BYTES_MAX}")
        await self._check_own_key()
        # Each reader once, and whoever anchors can read what it anchored.
        reader_keys = await self._find_keys([self.address, *readers])
        chain_id, key = await self._get_chain_id(), make_key()
        recipient = compute_public_key(key)
        document = supersedes or compute_document_id(self.address, recipient)
        cid, size, commitment = await self._store(store, path, key)
        payload = AnchorDocument(
            cid=bytes(cid),
            size_bytes=size,
            commitment=Hash(commitment),
            recipient=recipient,
            kind=about.kind,
            grants=self._wrap(key, document, reader_keys, chain_id),
            subject=about.subject,
            site=about.site,
            supersedes=supersedes,
        )
        try:
            submitted = await self._submit(payload)
        except Refused:
            await self._forget(store, cid)
            raise
        (event,) = (one for one in submitted.events if one["event"] == DocumentAnchored.name)
        return Added(document, int(event["version"]), cid, size, tuple(reader_keys), submitted)

    async def _store(self, store: DocumentStore, path: Path, key: DocumentKey) -> tuple[Cid, int, bytes]:
        """The CID, size and commitment of a file that is in the store and was read back from it."""
        with tempfile.TemporaryDirectory(prefix="wattprint-", dir=self._scratch) as directory:
            sealed = Path(directory) / "sealed"
            commitment = await self._workers.run(lambda: self._encrypt(path, sealed, key))
            size = sealed.stat().st_size
            cid = await self._workers.run(lambda: self._put(store, sealed, size))
        try:
            pieces = store.open(cid, size_max=size)
            source = self._follow(CHECKING, PieceReader(pieces), size)
            await self._workers.run(lambda: check_content(source, key, size_max=size, commitment=commitment))
        except (LocalError, Rejected):
            await self._forget(store, cid)
            raise
        return cid, size, commitment

    def _encrypt(self, path: Path, sealed: Path, key: DocumentKey) -> bytes:
        with open_file(path) as file:
            return encrypt_to(sealed, self._follow(ENCRYPTING, file, file.size), key)

    def _put(self, store: DocumentStore, sealed: Path, size: int) -> Cid:
        with open_file(sealed) as file:
            return store.put(self._follow(STORING, file, size), size_max=DOCUMENT_BYTES_MAX)

    def _watch(self, what: str, store: DocumentStore, found: Anchored) -> ProgressReader:
        pieces = store.open(found.cid, size_max=found.size_bytes)
        return self._follow(what, PieceReader(pieces), found.size_bytes)

    def _follow(self, what: str, source: Readable, size: int) -> ProgressReader:
        """A stream that tells how far it is, and breaks off when nobody waits for it any more."""

        def tell(done: int) -> None:
            self._workers.check_open()
            self._report(what, done, size)

        return ProgressReader(source, tell)

    async def _forget(self, store: DocumentStore, cid: Cid) -> None:
        try:
            await self._workers.run(lambda: store.unpin(cid))
        except StoreFailed as error:
            if error.reason != "pin_absent":
                raise

    async def _open_key(self, found: Anchored) -> DocumentKey:
        """The key of a version that was sealed to us, and is the one that the ledger was told of."""
        _check_active(found)
        grant = found.grants.get(self.address)
        if grant is None:
            raise NotPermitted("reader_not_granted", f"{format_address(self.address)} {found.document.hex()}")
        for private_key in self._private_keys:
            if compute_public_key(private_key) == grant.reader_key:
                break
        else:
            raise DocumentError("encryption_key_not_held", f"sealed to {grant.reader_key.hex()}")
        place = GrantPlace(await self._get_chain_id(), found.document, self.address)
        key = open_grant(grant.sealed, private_key, place)
        if compute_public_key(key) != found.recipient:
            raise DocumentError("document_key_not_anchored", f"{found.document.hex()} version {found.version}")
        return key

    async def _check_own_key(self) -> None:
        """Registers our encryption key if the ledger has none of us; refuses to seal to one that is not here."""
        try:
            known = read_encryption_key(await self._client.participant_encryption_key(self._get_own_address()))
        except UnknownItem as error:
            if error.reason != "encryption_key_not_found":
                raise
            await self.register_key()
            return
        if known not in map(compute_public_key, self._private_keys):
            raise DocumentError("encryption_key_not_held", f"the ledger has {known.hex()} of us: register ours")

    async def _find_keys(self, readers: Iterable[Address]) -> dict[Address, bytes]:
        found: dict[Address, bytes] = {}
        for reader in readers:
            try:
                answer = await self._client.participant_encryption_key(format_address(reader))
            except UnknownItem as error:
                if error.reason != "encryption_key_not_found":
                    raise
                raise DocumentError(
                    "encryption_key_missing",
                    f"{format_address(reader)} has registered none: `wattprint document register-key` does it",
                ) from None
            found[reader] = read_encryption_key(answer)
        return found

    def _wrap(
        self, key: DocumentKey, document: bytes, reader_keys: Mapping[Address, bytes], chain_id: str
    ) -> tuple[WrappedKey, ...]:
        return tuple(
            WrappedKey(reader, reader_key, seal_grant(key, reader_key, GrantPlace(chain_id, document, reader)))
            for reader, reader_key in reader_keys.items()
        )

    def _get_key(self) -> SigningKey:
        assert self._key is not None, "who acts has a key"
        return self._key

    def _get_own_address(self) -> str:
        return format_address(self.address)

    async def _get_chain_id(self) -> str:
        return str((await self._client.chain_status())["chain_id"])

    async def _submit(self, payload: Payload) -> Submitted:
        return await self._client.submit(payload, key=self._get_key(), timeout_ms=self._timeout_ms)


def _check_active(found: Anchored) -> None:
    if found.status is DocumentStatus.RETIRED:
        raise NotPermitted("document_retired", f"{found.document.hex()}: every key to it was destroyed")


def _check_size(source: Readable, found: Anchored) -> None:
    size = 0
    while piece := source.read(PIECE_BYTES):
        size += len(piece)
    if size != found.size_bytes:
        raise DocumentError("document_size_wrong", f"{size} bytes are stored, {found.size_bytes} are anchored")
