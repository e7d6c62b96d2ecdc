"""``wattprint store``: the place where encrypted documents are kept, whatever kind it is.

Owns the commands that need no node and no key: what a file would be called, what is kept, moving from one kind of
store to another, and carrying a document by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ledger.errors import Malformed
from ledger.fields import Json
from node.cli.options import FILE, JSON_OPTION, Common, add_options
from node.cli.output import show, show_rows
from node.cli.stores import STORE_OPTION, open_store, show_count, show_progress
from node.documents.car import encode_block, encode_header, read_car
from node.documents.chunking import build_blocks
from node.documents.cid import Cid, parse_cid
from node.documents.encryption import ProgressReader
from node.documents.store import DOCUMENT_BYTES_MAX, DocumentStore, migrate
from node.files import sync_directory

R = TypeVar("R")

NEW_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_OWNER_ONLY: Final = 0o600


def with_store(function: Callable[..., R]) -> Callable[..., R]:
    """--store and --json; the command's first arguments are ``Common`` and a store."""

    @wraps(function)
    def enter(**options: Any) -> R:
        common = Common(options.pop("as_json"))
        return function(common, open_store(options.pop("store_place")), **options)

    return add_options(enter, STORE_OPTION, JSON_OPTION)


@click.group()
def command() -> None:
    """The store of encrypted documents: a directory, or an IPFS daemon.

    \b
    Example:
      wattprint store status
      wattprint store cid design.pdf
      wattprint store export bafk… paper.car
      wattprint store migrate --to /ip4/127.0.0.1/tcp/5001
    """


@command.command(name="cid")
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def show_cid(file: Path, *, as_json: bool) -> None:
    """The CID that IPFS gives FILE as it is. Nothing is stored.

    A document is encrypted before it is stored, under a new key each time: its CID is never that of the plain file.
    """
    common, size = Common(as_json), file.stat().st_size
    cid: Cid | None = None
    with show_progress(common) as report, file.open("rb") as stream:
        source = ProgressReader(stream, lambda done: report("hashing", done, size))
        for block in build_blocks(source, size_max=DOCUMENT_BYTES_MAX):
            cid = block.cid
    show(common, {"cid": str(cid), "size_bytes": size}, str(cid))


@command.command(name="list")
@with_store
def list_(common: Common, store: DocumentStore) -> None:
    """The documents that are kept through every garbage collection, by CID."""
    rows: list[dict[str, Json]] = [{"cid": str(cid)} for cid in store.list_pins()]
    document: Json = {"pins": [*rows]}
    show_rows(common, document, rows)


@command.command()
@click.argument("cid")
@with_store
def pin(common: Common, store: DocumentStore, *, cid: str) -> None:
    """Keep a document through every garbage collection. It is read whole first."""
    store.pin(_read(cid))
    show(common, {"cid": cid, "pinned": True})


@command.command()
@click.argument("cid")
@with_store
def unpin(common: Common, store: DocumentStore, *, cid: str) -> None:
    """Leave a document to the next `store gc`."""
    store.unpin(_read(cid))
    show(common, {"cid": cid, "pinned": False})


@command.command()
@with_store
def gc(common: Common, store: DocumentStore) -> None:
    """Remove every block that no kept document needs. Removes nothing unless every kept document is whole."""
    show(common, {"blocks_removed": store.collect_garbage()})


@command.command()
@with_store
def status(common: Common, store: DocumentStore) -> None:
    """How the store is."""
    health = store.health()
    show(
        common,
        {"kind": health.kind, "version": health.version, "pins": health.pins, "bytes_stored": health.bytes_stored},
    )


@command.command(name="migrate")
@click.option("--to", "target", metavar="DIR|ADDRESS", required=True, help="The other store.")
@with_store
def migrate_(common: Common, store: DocumentStore, *, target: str) -> None:
    """Copy every kept document to another store, under the same CIDs. Runs again after a failure."""
    total = len(store.list_pins())
    copied: list[Json] = []
    with show_count(common, "documents", total) as advance:

        def tell(cid: Cid) -> None:
            copied.append(str(cid))
            advance()

        migrate(store, open_store(target), report=tell)
    show(common, {"documents": len(copied), "cids": copied}, f"{len(copied)} documents")


@command.command(name="export")
@click.argument("cid")
@click.argument("file", type=NEW_FILE)
@with_store
def export(common: Common, store: DocumentStore, *, cid: str, file: Path) -> None:
    """Write a document, still encrypted, to the archive FILE (CAR), to be carried to another store."""
    root = _read(cid)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(encode_header(root))
            for block in store.open_blocks(root):
                stream.write(encode_block(block))
            stream.flush()
            os.fsync(descriptor)
    except BaseException:
        file.unlink()
        raise
    sync_directory(file.parent)
    show(common, {"cid": cid, "file": str(file), "size_bytes": file.stat().st_size})


@command.command(name="import")
@click.argument("file", type=FILE)
@with_store
def import_(common: Common, store: DocumentStore, *, file: Path) -> None:
    """Store and keep the document in an archive (CAR). Every block is verified."""
    with file.open("rb") as stream:
        car = read_car(stream)
        if len(car.roots) != 1:
            raise Malformed("car_malformed", f"{len(car.roots)} roots, one expected")
        store.put_blocks(car.roots[0], car.blocks)
    show(common, {"cid": str(car.roots[0]), "pinned": True})


def _read(text: str) -> Cid:
    try:
        return parse_cid(text)
    except Malformed as error:
        raise click.UsageError(str(error)) from error
