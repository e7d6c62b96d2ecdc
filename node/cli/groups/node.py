"""``wattprint node``: make a home, run the node of it, look at it, check its chain.

Owns the commands; what a node is made of is node/launch.py's.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from contracts_native.table import load_table
from ledger.errors import Rejected, RuleViolated
from ledger.fields import Json
from ledger.primitives import PUBLIC_KEY_BYTES, PublicKey
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
from node.config import PeerConfig, make_config, read_config, write_config
from node.errors import LocalError
from node.keystore import SigningKey, load_signing_key, read_key_file, save_key, save_key_unencrypted
from node.launch import STORE_NAME, read_genesis_file, run_node
from node.leveldb_store import LevelDbStore
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
        "rpc": f"http://{rpc_host}:{rpc_port}",
        "p2p": f"{p2p_host}:{p2p_port}",
    }
    show(common, shown)


@command.command()
@_home
@click.option(
    "--new-journal",
    is_flag=True,
    help="Sign although the journal is lost. Only once the chain is past every height that this node can have voted in:"
    " a second vote at one height is proof of fraud.",
)
def start(*, home: Path, new_journal: bool) -> None:
    """Run the node of a home until SIGTERM or Ctrl-C. It logs to stderr.

    A home whose journal is missing though its chain has begun follows the chain and signs nothing.
    """
    passphrase = find_passphrase(read_config(home).key_file)
    run_node(home, passphrase=passphrase, has_new_journal=new_journal)


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

    Only genesis.json is believed: certificates, signatures and rules are all checked again.
    """
    config = read_config(home)
    document = read_genesis_file(config.genesis_file)
    directory = config.chain_directory / STORE_NAME
    if not directory.is_dir():
        raise LocalError("store_missing", f"{directory}: this node has never run")
    store = LevelDbStore(directory)
    transactions = 0
    last: Verified | None = None
    try:
        with _make_progress(common) as progress:
            task = progress.add_task("heights", total=None)
            for last in verify_store(store, document, load_table()):
                transactions += last.transactions
                progress.update(task, total=last.head_height, completed=last.height)
    except Rejected as error:
        raise RuleViolated("chain_does_not_verify", f"after height {last.height if last else '–'}: {error}") from error
    finally:
        store.close()
    assert last is not None
    shown: dict[str, Json] = {
        "verified": True,
        "chain_id": document.chain_id,
        "height": last.height,
        "block_id": last.block_id.hex(),
        "state_root": last.state_root.hex(),
        "transactions": transactions,
    }
    show(common, shown)


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
