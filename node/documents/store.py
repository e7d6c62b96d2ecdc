"""What a document store is: the small interface that the embedded store and the daemon share, its limits and errors.

A store holds encrypted documents by content. Whoever it belongs to, nothing leaves it that does not hash to its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from ledger.errors import Malformed
from node.documents.cid import Block, Cid
from node.errors import LocalError

DOCUMENT_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024  # of ciphertext
PINS_MAX: Final = 1_000_000  # documents kept by one store
ABSENT: Final = frozenset({"block_absent", "block_hash_wrong", "block_too_large"})  # why a block is not to be had here


class StoreFailed(LocalError):
    """The store, ours or a daemon, did not do what was asked. Nothing was half-written; asking again is harmless.

    ``store_unreachable``, ``store_timed_out``, ``store_redirected``, ``store_answer_malformed``,
    ``store_answer_too_large``, ``store_refused``, ``store_version_unsupported``, ``store_address_invalid``,
    ``store_busy``, ``store_absent``, ``store_directory_foreign``, ``block_absent``, ``block_hash_wrong``,
    ``block_too_large``, ``pin_absent``, ``store_full``, ``disk_full``, ``permission_missing``, ``disk_failed``,
    ``peer_too_slow``, ``work_abandoned``.
    A wrong CID or DAG is its author's mistake, and ``Rejected``.
    """


class Readable(Protocol):
    """Bytes from somewhere: a file, or a wrapper that counts or hashes. Gives fewer than asked only where it likes."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """What a store says about itself when it is well. ``bytes_stored`` counts every block, pinned or not."""

    kind: str  # "embedded" or "daemon"
    version: str
    pins: int
    bytes_stored: int


class DocumentStore(Protocol):
    """Documents by content. Every call blocks; ``node/documents/workers.py`` keeps that off the event loop."""

    def put(self, stream: Readable, *, size_max: int) -> Cid:
        """Stores and pins a document; on return it is durable and was read back, or its blocks are on our disk.

        Raises ``RuleViolated`` (``document_too_large``), ``StoreFailed``.
        """

    def put_blocks(self, root: Cid, blocks: Iterable[Block], *, size_max: int = DOCUMENT_BYTES_MAX) -> None:
        """Stores and pins the document ``root`` from its blocks, as ``open_blocks`` of any store gives them.

        Raises ``StoreFailed`` (``block_hash_wrong``, ``block_absent`` …), ``Malformed`` where the DAG is wrong.
        """

    def open(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[bytes]:
        """The content of a document, piece by piece, each verified before it is given; a late error raises late.

        Raises ``StoreFailed``, ``Malformed``, ``RuleViolated`` (``document_too_large``, before the first byte).
        """

    def open_blocks(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[Block]:
        """The verified blocks of a document, parents first, repeated where the document repeats them."""

    def has(self, cid: Cid) -> bool:
        """Whether the document's first block is here and whole; what is pinned is here in full."""

    def pin(self, cid: Cid) -> None:
        """Keeps a document through every garbage collection. Reads it whole first. Raises like ``open``."""

    def unpin(self, cid: Cid) -> None:
        """Leaves a document to the next garbage collection. Raises ``StoreFailed`` (``pin_absent``)."""

    def list_pins(self) -> list[Cid]:
        """Every pinned document, in the order of their CIDs."""

    def collect_garbage(self) -> int:
        """Removes every block that no pinned document needs; gives their number.

        Raises ``StoreFailed``: removes nothing unless every pinned document's tree could be read.
        """

    def health(self) -> StoreHealth:
        """Says how the store is. Raises ``StoreFailed`` when it is not well."""

    def close(self) -> None:
        """Gives back what it holds. A call that waits for a daemon in another thread ends at once, with an error."""


def check_root(root: Cid) -> None:
    """That a document can be kept under this name: there is one text for it. Raises ``Malformed`` (``cid_invalid``)."""
    if root.version != 1:
        raise Malformed("cid_invalid", f"{root} is of version {root.version}; documents have version 1")


def migrate(source: DocumentStore, target: DocumentStore, *, report: Callable[[Cid], None]) -> int:
    """Copies every pinned document to ``target``, CIDs unchanged, and reports each; gives their number.

    Runs again after a failure: what is there already is only read.
    """
    cids = source.list_pins()
    there = set(target.list_pins())
    for cid in cids:
        if cid not in there:
            target.put_blocks(cid, source.open_blocks(cid))
        report(cid)
    return len(cids)
