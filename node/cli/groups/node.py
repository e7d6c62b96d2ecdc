"""``wattprint node``: make a home, run the node of it, look at it, check its chain, mend it.

Owns the commands; what a node is made of is node/launch.py's.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from contracts_native.table import load_table
from ledger.block import compute_block_id
from ledger.errors import CorruptStore, Rejected, RuleViolated
from ledger.fields import Json
from ledger.primitives import PUBLIC_KEY_BYTES, PublicKey
from ledger.storage import Store
from node import chain_store
from node.cli.fork_text import format_forks
from node.cli.options import (
    FILE,
    UNLOCK_VARIABLE,
    Common,
    Connected,
    ask_passphrase,
    find_passphrase,
    with_common,
    with_node,
)
from node.cli.output import show
from node.cli.reads import ask
from node.config import NodeConfig, PeerConfig, make_config, read_config, write_config
from node.errors import LocalError
from node.forks import compute_forgetting
from node.housekeeping import Upkeep
from node.keystore import SigningKey, load_signing_key, read_key_file, save_key, save_key_unencrypted
from node.launch import JOURNAL_NAME, STORE_NAME, read_genesis_file, run_node
from node.leveldb_store import LevelDbStore
from node.pruning import compute_line, iterate_prune
from node.queries.forks import chain_forks
from node.queries.view import View
from node.rollback import (
    check_no_chain,
    finish_replacement,
    import_snapshot,
    replace_store,
    roll_back,
    set_journal_aside,
    verify_snapshot,
)
from node.snapshot_files import SnapshotFile, write_snapshot_file
from node.snapshots import Manifest
from node.verification import Verified, verify_store

HOME_VARIABLE: Final = "WATTPRINT_HOME"

_home = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=HOME_VARIABLE,
    default="node0",
    show_default=True,
    metavar="DIR",
    help=f"The node's home directory; or {HOME_VARIABLE}.",
)
_port = click.IntRange(0, 65_535)


@click.group()
def command() -> None:
    """Run a node.

    \b
    Example:
      wattprint node init --home node-a --genesis genesis.json --moniker node-a
      wattprint node start --home node-a
      wattprint node status
      wattprint node verify --home node-a
      wattprint node export-state snapshot.wps --home node-a
      wattprint node import-state snapshot.wps --home node-b
    """


@command.command()
@_home
@click.option("--genesis", "genesis_file", type=FILE, required=True, help="The document that the chain starts from.")
@click.option("--moniker", default="node", show_default=True, help="A name for people.")
@click.option("--key-file", type=FILE, help="Use this validator key.  [default: make a new one]")
@click.option("--unencrypted", is_flag=True, help="A new key gets no passphrase: for tests.")
@click.option("--rpc-host", default="127.0.0.1", show_default=True, help="Where users are answered.")
@click.option("--rpc-port", type=_port, default=8600, show_default=True)
@click.option("--p2p-host", default="127.0.0.1", show_default=True, help="Where peers are answered.")
@click.option("--p2p-port", type=_port, default=8601, show_default=True)
@click.option(
    "--peer", "peers", multiple=True, metavar="KEY@HOST:PORT", help="A peer to keep a connection to; repeatable."
)
@with_common
def init(
    common: Common,
    *,
    home: Path,
    genesis_file: Path,
    moniker: str,
    key_file: Path | None,
    unencrypted: bool,
    peers: tuple[str, ...],
    rpc_host: str,
    rpc_port: int,
    p2p_host: str,
    p2p_port: int,
) -> None:
    """Make a home: config.toml, genesis.json and the validator's key. What is there already is not replaced."""
    config = replace(
        make_config(home),
        moniker=moniker,
        rpc_host=rpc_host,
        rpc_port=rpc_port,
        p2p_host=p2p_host,
        p2p_port=p2p_port,
        peers=tuple(_parse_peer(text) for text in peers),
    )
    if (config.home / "config.toml").exists():
        raise click.UsageError(f"{home} is a home already; edit its config.toml.")
    read_genesis_file(genesis_file)
    config.home.mkdir(parents=True, exist_ok=True)
    if key_file is not None:
        load_signing_key(key_file, find_passphrase(key_file))
        shutil.copyfile(key_file, config.key_file)
        config.key_file.chmod(0o600)
    elif unencrypted:
        save_key_unencrypted(config.key_file, SigningKey.generate())
    else:
        save_key(config.key_file, SigningKey.generate(), _find_new_passphrase())
    shutil.copyfile(genesis_file, config.genesis_file)
    write_config(config)
    shown: dict[str, Json] = {
        "home": str(config.home),
        "public_key": load_public_key(config.key_file),
        **_show_addresses(config),
    }
    show(common, shown)


@command.command()
@_home
@click.option(
    "--new-journal",
    is_flag=True,
    help="Sign again although the journal is lost, once ten heights have passed in which this key was silent."
    " No other node may have the key: a second vote at one height is proof of fraud.",
)
@click.option(
    "--retain",
    "retain_blocks",
    type=click.IntRange(1),
    metavar="BLOCKS",
    help="Forget older blocks while running, as far as nobody can need them.  [default: keep all]",
)
@click.option(
    "--snapshot-every",
    "snapshot_blocks",
    type=click.IntRange(1),
    metavar="BLOCKS",
    help="Make a snapshot at every multiple of this height, for those who join; alike on all nodes.  [default: none]",
)
@click.option(
    "--from-snapshot", is_flag=True, help="A home without a chain begins at a snapshot that its peers agree on."
)
@with_common
def start(
    common: Common,
    *,
    home: Path,
    new_journal: bool,
    retain_blocks: int | None,
    snapshot_blocks: int | None,
    from_snapshot: bool,
) -> None:
    """Run the node of a home until SIGTERM or Ctrl-C. It logs to stderr; --json says where it answers.

    A home whose journal is missing though its chain has begun follows the chain and signs nothing.
    """
    config = read_config(home)
    passphrase = find_passphrase(config.key_file)
    if common.as_json:
        show(common, {"home": str(config.home), "moniker": config.moniker, **_show_addresses(config)})
    upkeep = Upkeep(retain_blocks=retain_blocks, snapshot_blocks=snapshot_blocks)
    run_node(home, passphrase=passphrase, has_new_journal=new_journal, from_snapshot=from_snapshot, upkeep=upkeep)


@command.command()
@with_node
def status(connected: Connected) -> None:
    """How a running node and its chain stand."""
    ask(connected, "chain_status", {})


@command.command()
@_home
@with_common
def verify(common: Common, *, home: Path) -> None:
    """Execute the stored chain again from genesis, and compare every root and the stored state. The node must not run.

    Only genesis.json is believed: certificates, signatures and rules are all checked again. A home that pruned its
    blocks, or began at a snapshot, cannot execute what it lacks: "executed" is then false.
    """
    config = read_config(home)
    document = read_genesis_file(config.genesis_file)
    with _open_store(config) as store:
        last, transactions = _follow(common, verify_store(store, document, load_table()))
        oldest = chain_store.read_oldest_height(store)
    shown: dict[str, Json] = {"verified": True, "chain_id": document.chain_id, **_show(last)}
    show(common, {**shown, "transactions": transactions, "executed": last.is_executed, "oldest_height": oldest})


@command.command("export-state")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_home
@with_common
def export_state(common: Common, *, file: Path, home: Path) -> None:
    """Write the state of the last block into a snapshot FILE, with what proves it. The node must not run."""
    with _open_store(read_config(home)) as store:
        manifest = write_snapshot_file(file, store)
    show(common, {"file": str(file), "file_bytes": file.stat().st_size, **_show_manifest(manifest)})


@command.command("import-state")
@click.argument("file", type=FILE)
@_home
@with_common
def import_state(common: Common, *, file: Path, home: Path) -> None:
    """Begin the chain of a home without one at a snapshot FILE, once every part of it is proven by genesis.json.

    The node then follows from that height on. It signs nothing before it is started with --new-journal.
    """
    config = read_config(home)
    document = read_genesis_file(config.genesis_file)
    path = config.chain_directory / STORE_NAME
    finish_replacement(path)
    check_no_chain(path)
    with closing(SnapshotFile(file)) as snapshot, _make_progress(common) as progress:
        task = progress.add_task("chunks", total=2 * len(snapshot.manifest.chunk_hashes))
        verifier = import_snapshot(snapshot, path, document, lambda: progress.advance(task))
        set_journal_aside(config.chain_directory / JOURNAL_NAME)
    counts: dict[str, Json] = {"oldest_height": verifier.oldest, "transactions": verifier.transactions_count}
    show(common, {"imported": True, **_show_manifest(snapshot.manifest), **counts})


@command.command()
@_home
@click.option("--to", "height", type=click.IntRange(0), help="The height to go back to.  [default: one block back]")
@click.option("--snapshot", "snapshot_file", type=FILE, help="Where to begin, if the home lacks its first blocks.")
@with_common
def rollback(common: Common, *, home: Path, height: int | None, snapshot_file: Path | None) -> None:
    """Undo the blocks above a height, by executing those up to it anew. The node must not run.

    For a home whose own state is wrong; it fetches the blocks again from its peers. The journal is set aside, not
    deleted, and the node follows without signing until it is started with --new-journal.
    """
    config = read_config(home)
    document, table = read_genesis_file(config.genesis_file), load_table()
    path, journal = config.chain_directory / STORE_NAME, config.chain_directory / JOURNAL_NAME
    last: Verified | None = None
    with ExitStack() as stack:
        snapshot = None
        if snapshot_file is not None:
            opened = stack.enter_context(closing(SnapshotFile(snapshot_file)))
            snapshot = (opened, verify_snapshot(opened, document, lambda: None))

        finish_replacement(path)
        until = _find_height_before_last(path) if height is None else height

        def fill(target: Store) -> None:
            nonlocal last
            with _open_store_at(path) as source:
                steps = roll_back(source, target, document, table, until=until, snapshot=snapshot)
                last, _ = _follow(common, steps)

        replace_store(path, fill, journal_path=journal)
    assert last is not None
    show(common, {"rolled_back": True, "chain_id": document.chain_id, **_show(last)})


@command.command()
@_home
@click.option("--retain", "retain_blocks", type=click.IntRange(1), required=True, help="How many blocks to keep whole.")
@with_common
def prune(common: Common, *, home: Path, retain_blocks: int) -> None:
    """Forget old blocks, receipts and certificates, and compact the database. The node must not run.

    Headers stay, and every block that a transaction's replay or evidence may still need, whatever --retain says.
    """
    with _open_store(read_config(home)) as store:
        before = store.size_bytes()
        line = compute_line(store, retain_blocks=retain_blocks)
        for batch in iterate_prune(store, line=line):
            store.write(batch, sync=False)
        store.write({}, sync=True)
        store.compact()
        shown: dict[str, Json] = {"oldest_height": chain_store.read_oldest_height(store)}
        show(common, {**shown, "bytes_before": before, "bytes_after": store.size_bytes()})


@command.command("clear-forks")
@_home
@with_common
def clear_forks(common: Common, *, home: Path) -> None:
    """Take the alarm of a fork off, once it is dealt with: prints the records and forgets them. The node must not run.

    Keep the output: it proves the fork to anybody (`chain verify-forks`). A peer that still has another chain raises
    the alarm again.
    """
    with _open_store(read_config(home)) as store:
        shown = cast("dict[str, list[dict[str, Json]]]", chain_forks(View(store, load_table())))
        # Shown first: what could not be printed, to a full disk say, is not forgotten.
        show(common, cast(Json, shown), format_forks(shown["forks"]))
        store.write(compute_forgetting(store), sync=True)


def _open_store(config: NodeConfig) -> AbstractContextManager[LevelDbStore]:
    finish_replacement(config.chain_directory / STORE_NAME)
    return _open_store_at(config.chain_directory / STORE_NAME)


@contextmanager
def _open_store_at(directory: Path) -> Iterator[LevelDbStore]:
    """The store of a home that has run. Raises ``LocalError``."""
    if not directory.is_dir():
        raise LocalError("store_missing", f"{directory}: this node has never run")
    store = LevelDbStore(directory)
    try:
        yield store
    except CorruptStore as error:
        raise LocalError("store_corrupt", error) from error
    finally:
        store.close()


def _find_height_before_last(path: Path) -> int:
    with _open_store_at(path) as store:
        height = chain_store.read_head_height(store)
    if height == 0:
        raise LocalError("height_out_of_range", "the chain has no block but the first")
    return height - 1


def _follow(common: Common, steps: Iterator[Verified]) -> tuple[Verified, int]:
    """The last step, and the transactions of all, behind a progress bar. Raises ``Rejected`` with the height."""
    transactions = 0
    last: Verified | None = None
    try:
        with _make_progress(common) as progress:
            task = progress.add_task("heights", total=None)
            for last in steps:
                transactions += last.transactions
                progress.update(task, total=last.head_height, completed=last.height)
    except Rejected as error:
        if last is None:
            raise
        raise RuleViolated("chain_does_not_verify", f"after height {last.height}: {error}") from error
    assert last is not None, "the first step is where it begins"
    return last, transactions


def _show(last: Verified) -> dict[str, Json]:
    return {"height": last.height, "block_id": last.block_id.hex(), "state_root": last.state_root.hex()}


def _show_manifest(manifest: Manifest) -> dict[str, Json]:
    header = manifest.header
    return {
        "chain_id": manifest.genesis.chain_id,
        "height": header.height,
        "block_id": compute_block_id(header).hex(),
        "state_root": header.state_root.hex(),
        "snapshot_id": manifest.compute_id().hex(),
        "chunks": len(manifest.chunk_hashes),
    }


def _show_addresses(config: NodeConfig) -> dict[str, Json]:
    rpc, p2p = f"{config.rpc_host}:{config.rpc_port}", f"{config.p2p_host}:{config.p2p_port}"
    return {"rpc": f"http://{rpc}", "p2p": p2p}


def load_public_key(path: Path) -> str:
    """The public key in a key file, hex."""
    return read_key_file(path).public_key.hex()


def _find_new_passphrase() -> str:
    known = os.environ.get(UNLOCK_VARIABLE)
    return known if known is not None else ask_passphrase("New passphrase of the validator's key", confirm=True)


def _parse_peer(text: str) -> PeerConfig:
    key, at, address = text.partition("@")
    host, colon, port = address.rpartition(":")
    try:
        public_key = bytes.fromhex(key)
    except ValueError:
        public_key = b""
    if not at or not colon or not host or not port.isdecimal() or len(public_key) != PUBLIC_KEY_BYTES:
        raise click.UsageError(f"A peer is KEY@HOST:PORT with 64 hexadecimal digits of key, not {text!r}.")
    return PeerConfig(PublicKey(public_key), host, int(port))


def _make_progress(common: Common) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=common.as_json or not sys.stderr.isatty(),
        transient=True,
    )
