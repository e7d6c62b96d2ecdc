"""``wattprint document``: private papers, encrypted before they leave this machine; who may read them.

Owns the commands that need a store or a document's key. The forms that only send a transaction derive from it, as do
``show`` and ``list``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from contracts_native.documents import DocumentId, DocumentKind
from contracts_native.sites import SiteId
from ledger.fields import Json, get_codec
from ledger.primitives import Address, format_address, parse_address
from node.cli.derive import describe_submitted, format_submitted
from node.cli.options import (
    FILE,
    JSON_OPTION,
    KEY_OPTION,
    KEY_VARIABLE,
    NODE_OPTION,
    TIMEOUT_MS_DEFAULT,
    TIMEOUT_MS_MAX,
    Connected,
    Option,
    add_options,
    load_key,
    take_connected,
)
from node.cli.output import show
from node.cli.stores import STORE_OPTION, open_store, show_progress
from node.cli.values import FieldType
from node.client import Client, Submitted
from node.documents.files import make_file
from node.documents.service import About, Added, Documents
from node.documents.store import DocumentStore

R = TypeVar("R")

_ADDRESS: Final = FieldType("address", get_codec(Address).schema, get_codec(Address))
_DOCUMENT: Final = FieldType("document", get_codec(DocumentId).schema, get_codec(DocumentId))
_SITE: Final = FieldType("site", get_codec(SiteId).schema, get_codec(SiteId))
NEW_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_VERSION: Final[Option] = (
    ("--version",),
    {"type": click.IntRange(1), "help": "Which version.  [default: the latest]"},
)
_READERS: Final[Option] = (
    ("--reader", "readers"),
    {"type": _ADDRESS, "multiple": True, "help": "Who may read it: an address, or a key file; repeatable."},
)
_OLD_KEYS: Final[Option] = (
    ("--old-key", "old_key_paths"),
    {
        "type": FILE,
        "metavar": "FILE",
        "multiple": True,
        "help": "An earlier key file of yours, for what was sealed to its encryption key; repeatable.",
    },
)
_TIMEOUT: Final[Option] = (
    ("--timeout-ms",),
    {
        "type": click.IntRange(1, TIMEOUT_MS_MAX),
        "default": TIMEOUT_MS_DEFAULT,
        "show_default": True,
        "help": "How long to wait until it is final.",
    },
)


@dataclass(frozen=True, slots=True)
class Desk(Connected):
    """What a command about documents takes: a node, a key, a store."""

    key_path: Path | None
    old_key_paths: tuple[Path, ...]
    store_place: str | None
    timeout_ms: int

    def open_store(self, *, must_exist: bool = True) -> DocumentStore:
        """The store that was named, or this person's."""
        return open_store(self.store_place, must_exist=must_exist)

    def work(self, work: Callable[[Documents], Coroutine[Any, Any, R]], *stores: DocumentStore) -> R:
        """Do something with this person's documents, with a bar for what takes long; the stores are closed after it."""
        key = None if self.key_path is None else load_key(self.key_path)
        old_keys = [load_key(path).derive_encryption_key() for path in self.old_key_paths]

        async def enter(client: Client) -> R:
            with ExitStack() as stack:
                report = stack.enter_context(show_progress(self))
                for store in stores:
                    stack.callback(store.close)
                documents = Documents(client, key, private_keys=old_keys, report=report, timeout_ms=self.timeout_ms)
                return await work(stack.enter_context(closing(documents)))

        return self.run(enter)

    def show_submitted(self, submitted: Submitted) -> None:
        """What became of a transaction."""
        document = describe_submitted(submitted)
        show(self, document, format_submitted(document))


def with_desk(function: Callable[..., R]) -> Callable[..., R]:
    """--key, --old-key, --store, --timeout-ms, --json, --node; the command's first argument is ``Desk``."""

    @wraps(function)
    def check_key(desk: Desk, **options: Any) -> R:
        if desk.key_path is None:
            raise click.UsageError(f"Missing option '--key' (or {KEY_VARIABLE}): the key file of whoever asks.")
        return function(desk, **options)

    return with_desk_of_anyone(check_key)


def with_desk_of_anyone(function: Callable[..., R]) -> Callable[..., R]:
    """The same, for a command that has something to say without a key, too."""

    @click.pass_obj
    @wraps(function)
    def enter(factory: object, /, **options: Any) -> R:
        connected = take_connected(factory, options)
        desk = Desk(
            connected.as_json,
            connected.url,
            connected.make_client,
            key_path=options.pop("key_path"),
            old_key_paths=tuple(options.pop("old_key_paths")),
            store_place=options.pop("store_place"),
            timeout_ms=options.pop("timeout_ms"),
        )
        return function(desk, **options)

    return add_options(enter, KEY_OPTION, _OLD_KEYS, STORE_OPTION, _TIMEOUT, JSON_OPTION, NODE_OPTION)


@click.group()
def command() -> None:
    """Documents: private papers, encrypted here, stored by content, readable by whom you grant.

    \b
    Example:
      wattprint document register-key --key officer.key.json
      wattprint document add passport.pdf --kind kyc --reader officer.key.json --key alice.key.json
      wattprint document get 5f0c… --output paper.pdf --key officer.key.json
      wattprint document revoke 5f0c… --reader officer.key.json --key alice.key.json
    """


@command.command(name="register-key")
@with_desk
def register_key(desk: Desk) -> None:
    """Put your encryption key on the ledger, so that others can grant you documents. It follows from your key file."""
    desk.show_submitted(desk.work(lambda documents: documents.register_key()))


@command.command()
@click.argument("file", type=FILE)
@click.option("--kind", type=click.Choice([one.value for one in DocumentKind]), help="What it is about.")
@click.option("--subject", type=_ADDRESS, help="The participant that it is about.  [default: yourself]")
@click.option("--site", type=_SITE, help="The site that it is about.")
@click.option("--supersedes", type=_DOCUMENT, help="The document whose next version it is; kind and subject stay.")
@click.option(*_READERS[0], **_READERS[1])
@with_desk
def add(desk: Desk, *, file: Path, supersedes: str | None, readers: tuple[str, ...], **about: str | None) -> None:
    """Encrypt FILE, store it, read it back, and anchor it on the ledger. Its name stays here.

    You and every --reader can read it; of a next version without --reader, those who can read the latest.
    """
    if (about["kind"] is None) == (supersedes is None) or (supersedes is not None and any(about.values())):
        raise click.UsageError("Give --kind, with --subject or --site; or --supersedes alone.")
    addresses = [parse_address(reader) for reader in readers]
    store = desk.open_store(must_exist=False)

    async def work(documents: Documents) -> Added:
        if supersedes is not None:
            chosen = addresses or None
            return await documents.supersede(store, file, bytes.fromhex(supersedes), readers=chosen)
        return await documents.add(store, file, _read_about(documents, **about), readers=addresses)

    added = desk.work(work, store)
    document: dict[str, Json] = {
        "document": added.document.hex(),
        "version": added.version,
        "cid": str(added.cid),
        "size_bytes": added.size_bytes,
        "readers": [format_address(reader) for reader in added.readers],
        "tx_id": added.submitted.tx_id,
        "height": added.submitted.height,
    }
    show(desk, document)


@command.command()
@click.argument("document", type=_DOCUMENT)
@click.option("--output", "-o", type=NEW_FILE, required=True, help="Where the plain file goes; it must not exist yet.")
@click.option(*_VERSION[0], **_VERSION[1])
@with_desk
def get(desk: Desk, *, document: str, output: Path, version: int | None) -> None:
    """Fetch a document, verify and decrypt it. The file appears when all of it is there, and true."""
    store, document_id = desk.open_store(), bytes.fromhex(document)
    found = desk.work(lambda documents: documents.get(store, document_id, output, version=version), store)
    size = output.stat().st_size
    show(desk, {"document": document, "version": found.version, "file": str(output), "size_bytes": size})


@command.command()
@click.argument("document", type=_DOCUMENT)
@click.option(*_READERS[0], required=True, **_READERS[1])
@click.option(*_VERSION[0], **_VERSION[1])
@with_desk
def grant(desk: Desk, *, document: str, readers: tuple[str, ...], version: int | None) -> None:
    """Give readers the key of a document. The stored content stays as it is."""
    document_id, addresses = bytes.fromhex(document), [parse_address(reader) for reader in readers]
    desk.show_submitted(desk.work(lambda documents: documents.grant(document_id, addresses, version=version)))


@command.command()
@click.argument("document", type=_DOCUMENT)
@click.option("--reader", type=_ADDRESS, required=True, help="Whose keys go: an address, or a key file.")
@with_desk
def revoke(desk: Desk, *, document: str, reader: str) -> None:
    """Take back a reader's keys, of every version. What was read can have been kept: the next version has a new key."""
    document_id, address = bytes.fromhex(document), parse_address(reader)
    desk.show_submitted(desk.work(lambda documents: documents.revoke(document_id, address)))


@command.command()
@click.argument("document", type=_DOCUMENT)
@with_desk
def retire(desk: Desk, *, document: str) -> None:
    """Destroy every key of a document, and let the store forget it at its next `store gc`."""
    store, document_id = desk.open_store(), bytes.fromhex(document)
    desk.show_submitted(desk.work(lambda documents: documents.retire(store, document_id), store))


@command.command()
@click.argument("document", type=_DOCUMENT)
@click.option(*_VERSION[0], **_VERSION[1])
@with_desk_of_anyone
def verify(desk: Desk, *, document: str, version: int | None) -> None:
    """Read a document whole from the store and check it: every block, and the content if you have the key."""
    store, document_id = desk.open_store(), bytes.fromhex(document)
    checked = desk.work(lambda documents: documents.check(store, document_id, version=version), store)
    found = checked.anchored
    answer: dict[str, Json] = {
        "document": document,
        "version": found.version,
        "cid": str(found.cid),
        "size_bytes": found.size_bytes,
        "blocks_are": "whole",
        "content_is": "as committed" if checked.has_key else "not checked: no key of yours",
    }
    show(desk, answer)


@command.command()
@click.argument("document", type=_DOCUMENT)
@click.option("--output", "-o", type=NEW_FILE, required=True, help="Where the key goes; it must not exist yet.")
@click.option(*_VERSION[0], **_VERSION[1])
@with_desk
def identity(desk: Desk, *, document: str, output: Path, version: int | None) -> None:
    """Write the key of a document to a file, as the `age` command reads it. Whoever has it can read the document.

    \b
    Without Wattprint, the file that `store get CID` writes opens so:
      age --decrypt -i KEYFILE -o paper.pdf SEALED
    """
    document_id = bytes.fromhex(document)
    text = desk.work(lambda documents: documents.open_identity(document_id, version=version))
    with make_file(output) as file:
        file.write(text.encode() + b"\n")
    show(desk, {"document": document, "file": str(output)})


def _read_about(documents: Documents, *, kind: str | None, subject: str | None, site: str | None) -> About:
    address = None if subject is None else parse_address(subject)
    if address is None and site is None:
        address = documents.address
    assert kind is not None, "add has checked it"
    return About(DocumentKind(kind), address, None if site is None else bytes.fromhex(site))
