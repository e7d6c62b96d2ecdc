"""Another store in the place of a node's own: from a snapshot, or from its own blocks up to an earlier height.

Owns the swap, which a kill at any point must not turn into a half-written store or a lost one. The journal is set
aside with it, never thrown away: a node whose store was replaced follows, and does not sign. Touches the world.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ledger.block import compute_block_id
from ledger.errors import CorruptStore, RuleViolated
from ledger.genesis import GenesisDocument
from ledger.storage import Reader, Store, compute_prefix_end
from ledger.transaction import TransactionTable
from node import chain_store
from node.errors import LocalError, get_disk_reason
from node.files import sync_directory, sync_files
from node.forks import FORKS
from node.leveldb_store import LevelDbStore
from node.snapshot_files import SnapshotFile
from node.snapshot_verifier import Verifier, iterate_writes
from node.verification import ALL_KEPT, Verified, replay_blocks

NEW_SUFFIX: Final = ".new"  # being filled
READY_SUFFIX: Final = ".ready"  # whole, and about to take the place
OLD_SUFFIX: Final = ".old"  # has given up its place
ASIDE_SUFFIX: Final = ".aside"
ASIDE_MAX: Final = 1_000

Note = Callable[[], None]


class ReplaceError(LocalError):
    """The store cannot be replaced.

    Reasons: ``store_not_replaceable``, ``store_not_empty``, ``disk_full``, ``permission_missing``.
    """


def import_snapshot(file: SnapshotFile, store_path: Path, document: GenesisDocument, note: Note) -> Verifier:
    """Check a snapshot whole, then make it the store at ``store_path``, where there is none. ``note`` per chunk, twice.

    Raises ``Rejected`` and writes nothing when anything in it is wrong; ``LocalError``.
    """
    verifier = verify_snapshot(file, document, note)

    def fill(store: Store) -> None:
        write_snapshot(file, store, verifier, note)

    replace_store(store_path, fill)
    return verifier


def verify_snapshot(file: SnapshotFile, document: GenesisDocument, note: Note) -> Verifier:
    """Every check of a snapshot. Raises ``Rejected``."""
    verifier = Verifier(file.manifest, document)
    for chunk in file.iterate_chunks(note):
        verifier.take(chunk)
    verifier.finish()
    return verifier


def write_snapshot(file: SnapshotFile, store: Store, verifier: Verifier, note: Note) -> None:
    """Fill an empty store; only the last write is synced, and makes it a store."""
    for batch in iterate_writes(verifier, file.iterate_chunks(note)):
        store.write(batch, sync=chain_store.FORMAT_KEY in batch)


def roll_back(
    source: Reader,
    target: Store,
    document: GenesisDocument,
    table: TransactionTable,
    *,
    until: int,
    snapshot: tuple[SnapshotFile, Verifier] | None = None,
) -> Iterator[Verified]:
    """Fill an empty store with the chain up to ``until``, by executing the blocks of ``source`` again.

    From genesis, or from a verified snapshot where ``source`` has lost its first blocks.
    Raises ``Rejected``: ``height_not_below_head``, ``height_below_snapshot``, ``blocks_not_kept``.
    """
    head = chain_store.read_head_height(source)
    if not 0 <= until < head:
        raise RuleViolated("height_not_below_head", f"height {until}, the head is {head}")
    if snapshot is None:
        first = 1
        target.write(chain_store.compute_genesis_batch(document, table), sync=False)
    else:
        file, verifier = snapshot
        first = file.manifest.header.height + 1
        if until < first - 1:
            raise RuleViolated("height_below_snapshot", f"height {until}, the snapshot is of {first - 1}")
        write_snapshot(file, target, verifier, lambda: None)
    if first < chain_store.read_oldest_height(source):
        raise RuleViolated("blocks_not_kept", f"height {first}; give a snapshot")
    header = chain_store.get_header(target, first - 1)
    yield Verified(header.height, until, compute_block_id(header), header.state_root, 0)
    yield from replay_blocks(source, target, table, header, until=until, dropped=ALL_KEPT)
    target.write(dict(source.scan(FORKS, compute_prefix_end(FORKS))), sync=True)  # the alarm stays on


def replace_store(path: Path, fill: Callable[[Store], None], *, journal_path: Path | None = None) -> None:
    """Put a new store, filled by ``fill``, in the place of the one at ``path``, if any; ``fill`` has let go of that.

    The journal at ``journal_path`` is set aside first: what it knows does not fit the new store.
    Whatever ``fill`` raises leaves everything as it was. A kill at any point is mended by ``finish_replacement``.
    """
    new, ready = (path.with_name(path.name + suffix) for suffix in (NEW_SUFFIX, READY_SUFFIX))
    try:
        shutil.rmtree(new, ignore_errors=True)
        store = LevelDbStore(new)
        try:
            fill(store)
        finally:
            store.close()
        # A synced write covers LevelDB's log of the moment: an older log that is no table yet may still be lost.
        sync_files(new)
        if journal_path is not None:
            set_journal_aside(journal_path)
        new.rename(ready)
        sync_directory(path.parent)
    except OSError as error:
        reason = get_disk_reason(error, otherwise="store_not_replaceable")
        raise ReplaceError(reason, f"{path}: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)  # once it is ready it has another name
    finish_replacement(path)


def finish_replacement(path: Path) -> None:
    """Bring a replacement to its end that a kill has cut short; called before a store is opened.

    Raises ``ReplaceError``.
    """
    new, ready, old = (path.with_name(path.name + suffix) for suffix in (NEW_SUFFIX, READY_SUFFIX, OLD_SUFFIX))
    try:
        if ready.exists():
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            ready.rename(path)
            sync_directory(path.parent)
        for rest in (new, old):
            if rest.exists():
                shutil.rmtree(rest)
    except OSError as error:
        reason = get_disk_reason(error, otherwise="store_not_replaceable")
        raise ReplaceError(reason, f"{path}: {error.strerror}") from error


def set_journal_aside(path: Path) -> Path | None:
    """Rename a journal, so that the node follows without signing and what it signed is still known; None without one.

    Raises ``ReplaceError``.
    """
    if not path.exists():
        return None
    for number in range(1, ASIDE_MAX):
        aside = path.with_name(f"{path.name}{ASIDE_SUFFIX}-{number}")
        if aside.exists():
            continue
        try:
            path.rename(aside)
            sync_directory(path.parent)
        except OSError as error:
            reason = get_disk_reason(error, otherwise="store_not_replaceable")
            raise ReplaceError(reason, f"{path}: {error.strerror}") from error
        return aside
    raise ReplaceError("store_not_replaceable", f"{path}: {ASIDE_MAX} journals were set aside already")


def check_no_chain(store_path: Path) -> None:
    """There is no chain yet at ``store_path``. Raises ``ReplaceError`` (``store_not_empty``), ``LocalError``."""
    if not store_path.is_dir():
        return
    store = LevelDbStore(store_path)
    try:
        is_empty = chain_store.is_empty(store)
    except CorruptStore as error:
        raise ReplaceError("store_not_replaceable", error) from error
    finally:
        store.close()
    if not is_empty:
        raise ReplaceError("store_not_empty", f"{store_path}: a snapshot goes into a home without a chain")
