"""The way from a home directory to a running node, and back: opens everything, runs until told to stop, closes.

Touches the world. ``python -m node.launch HOME`` is what a test network starts: it imports no command line, so that
a node is up quickly and small.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import Final

import uvloop

from consensus.journal import replay
from consensus.parameters import ConsensusParameters
from consensus.watchfulness import QUIET_HEIGHTS, Watchfulness
from contracts_native.table import load_table
from ledger.errors import CorruptStore, Rejected
from ledger.genesis import GenesisDocument, compute_genesis_hash, read_genesis
from ledger.primitives import PublicKey
from ledger.storage import Reader
from ledger.transaction import TransactionTable
from node import chain_store, logs
from node.chain_store import compute_genesis_batch
from node.config import NodeConfig, read_config
from node.core import Core
from node.core_config import CoreConfig
from node.documents.places import open_store_at
from node.errors import LocalError, get_disk_reason
from node.forks import FORK_SEEN, list_fork_heights
from node.housekeeping import Upkeep
from node.joining import Joiner
from node.journal import Journal
from node.keystore import SigningKey, load_signing_key
from node.leveldb_store import LevelDbStore
from node.rollback import finish_replacement
from node.rpc import RpcServer
from node.runtime import NodeParts, PeerSettings, Runtime, open_store
from p2p.network import Network, NetworkHandler
from p2p.peers import PeerAddress
from p2p.session import LocalNode

STORE_NAME: Final = "state"
SNAPSHOT_NAME: Final = "snapshot"  # the last one made, for peers who join
JOURNAL_NAME: Final = "journal"
FOLLOWER_JOURNAL_NAME: Final = "journal.follower"  # a follower signs nothing; its journal stays empty
GENESIS_BYTES_MAX: Final = 4 * 1024 * 1024
COLLECT_AFTER_OBJECTS: Final = 20_000  # a few megabytes; after 700 it takes a twentieth of a block's time

_log = logs.Log("launch")


class LaunchError(LocalError):
    """The node cannot start from this home.

    Reasons: ``genesis_missing``, ``genesis_not_usable``, ``genesis_of_another_chain``, ``store_corrupt``,
    ``address_not_usable``, ``optimised_python_not_allowed``.
    """


class JournalOrigin(enum.Enum):
    """Where the journal of a node that starts comes from, and so how far its word goes."""

    FOUND = "found"
    BORN_WITH_STORE = "born_with_store"
    REPLACED = "replaced"  # it was lost, and the operator lets the node sign again
    LOST = "lost"  # it was lost, and the operator has not said so


@dataclass(frozen=True, slots=True)
class OpenNode:
    """Everything of a home that is open, before the event loop begins."""

    config: NodeConfig
    document: GenesisDocument
    key: SigningKey
    table: TransactionTable
    store: LevelDbStore
    journal: Journal
    core: Core

    def close(self) -> None:
        """Let go of the files; for a node that never ran."""
        self.journal.close()
        self.store.close()


def read_genesis_file(path: Path) -> GenesisDocument:
    """The genesis document in a file. Raises ``LaunchError``."""
    try:
        with path.open("rb") as stream:
            data = stream.read(GENESIS_BYTES_MAX + 1)
        if len(data) > GENESIS_BYTES_MAX:
            raise LaunchError("genesis_not_usable", f"{path}: at most {GENESIS_BYTES_MAX} bytes")
        return read_genesis(json.loads(data))
    except FileNotFoundError:
        raise LaunchError("genesis_missing", path) from None
    except OSError as error:
        raise LaunchError(get_disk_reason(error, otherwise="genesis_not_usable"), f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise LaunchError("genesis_not_usable", f"{path}: not JSON") from None
    except Rejected as error:
        raise LaunchError("genesis_not_usable", f"{path}: {error}") from None


def open_node(home: Path, *, passphrase: str | None = None, has_new_journal: bool = False) -> OpenNode:
    """Open a home. ``has_new_journal``: sign, after watching, although the journal is gone. Raises ``LocalError``."""
    config = read_config(home)
    logs.configure(config.log_level, config.log_format)
    document = read_genesis_file(config.genesis_file)
    key = load_signing_key(config.key_file, passphrase)
    table = load_table()
    finish_replacement(config.chain_directory / STORE_NAME)
    store = LevelDbStore(config.chain_directory / STORE_NAME)
    try:
        journal, frames, origin = _open_chain(config, document, store, table, has_new_journal=has_new_journal)
        try:
            core = _make_core(config, store, table, key, frames, watch=_make_watch(origin, key, store, frames))
        except (CorruptStore, LocalError):
            journal.close()
            raise
    except CorruptStore as error:
        store.close()
        raise LaunchError("store_corrupt", error) from error
    except LocalError:
        store.close()
        raise
    return OpenNode(config, document, key, table, store, journal, core)


def _open_chain(
    config: NodeConfig,
    document: GenesisDocument,
    store: LevelDbStore,
    table: TransactionTable,
    *,
    has_new_journal: bool,
) -> tuple[Journal, list[bytes], JournalOrigin]:
    """The journal, its frames, and where it comes from. A new store gets its first state."""
    path = config.chain_directory / JOURNAL_NAME
    origin = _find_origin(path, is_new=chain_store.is_empty(store), has_new_journal=has_new_journal)
    if origin is JournalOrigin.LOST:
        # What it signed before is not known any more: a second vote could contradict the first.
        _log.warning(
            "journal missing: this node follows and signs nothing",
            journal=path,
            remedy=f"start it with --new-journal: it signs once {QUIET_HEIGHTS} heights passed without its key",
        )
        path = path.with_name(FOLLOWER_JOURNAL_NAME)
    # The journal is there before the first state, so that a store without one always means a lost journal.
    journal, frames = Journal.open(path)
    try:
        open_store(store, lambda: compute_genesis_batch(document, table))
        stored = chain_store.read_genesis_document(store)
    except Rejected as error:
        journal.close()
        raise LaunchError("genesis_not_usable", f"{config.genesis_file}: {error}") from error
    except (CorruptStore, LocalError):
        journal.close()
        raise
    if stored != document:
        journal.close()
        raise LaunchError("genesis_of_another_chain", f"{config.genesis_file}: the store has {stored.chain_id}")
    return journal, frames, origin


def _find_origin(path: Path, *, is_new: bool, has_new_journal: bool) -> JournalOrigin:
    if path.exists():
        return JournalOrigin.FOUND
    if is_new:
        return JournalOrigin.BORN_WITH_STORE
    return JournalOrigin.REPLACED if has_new_journal else JournalOrigin.LOST


def _make_watch(origin: JournalOrigin, key: SigningKey, store: Reader, frames: list[bytes]) -> Watchfulness | None:
    """Whether the key must be watched before it signs; None for a journal that is as recent as its store."""
    head = chain_store.read_head_height(store)
    recorded = replay(frames)
    if recorded is not None and recorded.height + QUIET_HEIGHTS >= head:
        return None
    if recorded is not None or head > 0:
        _log.warning(
            "this node watches before it signs",
            journal_height=0 if recorded is None else recorded.height,
            height=head,
            is_permitted=origin is not JournalOrigin.LOST,
        )
    is_fresh = recorded is None and head == 0 and origin is not JournalOrigin.LOST
    return Watchfulness(key.public_key, is_permitted=origin is not JournalOrigin.LOST, is_fresh=is_fresh)


def _make_core(
    config: NodeConfig,
    store: Reader,
    table: TransactionTable,
    key: SigningKey,
    frames: list[bytes],
    *,
    watch: Watchfulness | None,
) -> Core:
    settings = CoreConfig(
        own_key=key.public_key,
        sign=key.sign,
        watch=watch,
        consensus=ConsensusParameters(
            block_interval_ms=config.block_interval_ms,
            heartbeat_ms=max(config.heartbeat_ms, config.block_interval_ms),
        ),
        mempool_transactions_max=config.mempool_transactions_max,
        mempool_bytes_max=config.mempool_bytes_max,
    )
    return Core(settings, store, table, journal_frames=frames)


def make_runtime(node: OpenNode, upkeep: Upkeep | None = None) -> Runtime:
    """The runtime of an opened home, ready to start."""
    config, core = node.config, node.core
    upkeep = replace(upkeep or Upkeep(), snapshot_path=config.chain_directory / SNAPSHOT_NAME)
    allowed = frozenset((*config.allowed_peers, *(peer.public_key for peer in config.peers)))

    def list_validators() -> frozenset[PublicKey]:
        return frozenset(member.public_key for member in core.validators.members)

    def list_allowed() -> frozenset[PublicKey]:
        return allowed | list_validators()

    return Runtime(
        NodeParts(
            moniker=config.moniker,
            own_key=node.key.public_key,
            core=core,
            store=node.store,
            journal=node.journal,
            table=node.table,
            documents=open_store_at(config.documents_store, base=config.home),
            keep_for=config.keep_for,
            upkeep=upkeep,
        ),
        PeerSettings(
            local=_make_local(config, node.document, node.key),
            host=config.p2p_host,
            port=config.p2p_port,
            addresses=_list_addresses(config),
            list_allowed=list_allowed,
            list_validators=list_validators,
            limits=config.peer_limits,
        ),
    )


def _make_local(config: NodeConfig, document: GenesisDocument, key: SigningKey) -> LocalNode:
    return LocalNode(key.public_key, key.sign, document.chain_id, compute_genesis_hash(document), config.moniker)


def _list_addresses(config: NodeConfig) -> list[PeerAddress]:
    return [PeerAddress(peer.public_key, peer.host, peer.port) for peer in config.peers]


async def join_by_snapshot(home: Path, *, passphrase: str | None = None) -> None:
    """Begin the chain of a home without one at a snapshot that its peers give. Raises ``LocalError``."""
    config = read_config(home)
    logs.configure(config.log_level, config.log_format)
    document, key = read_genesis_file(config.genesis_file), load_signing_key(config.key_file, passphrase)
    path = config.chain_directory / STORE_NAME
    finish_replacement(path)
    if path.is_dir():
        _log.info("this home has a chain; no snapshot is taken", store=path)
        return
    config.chain_directory.mkdir(parents=True, exist_ok=True)
    founders = frozenset(one.public_key for one in document.validators)
    allowed = founders.union(config.allowed_peers, (peer.public_key for peer in config.peers))

    def make_network(handler: NetworkHandler) -> Network:
        return Network(
            local=_make_local(config, document, key),
            listen_host=config.p2p_host,
            listen_port=config.p2p_port,
            addresses=_list_addresses(config),
            list_allowed=lambda: allowed,
            limits=config.peer_limits,
            handler=handler,
            get_height=lambda: 0,
            clock_ms=lambda: time.monotonic_ns() // 1_000_000,
            random=SystemRandom(),
        )

    await _bind(Joiner(document, path, make_network).run(), f"{config.p2p_host}:{config.p2p_port}")


async def serve(node: OpenNode, upkeep: Upkeep | None = None) -> None:
    """Run until a signal, or until the node cannot go on. Raises ``LocalError``."""
    runtime = make_runtime(node, upkeep)
    config = node.config
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    server = RpcServer(runtime, host=config.rpc_host, port=config.rpc_port, settings=config.rpc_gate)
    try:
        await _bind(runtime.start(), f"{config.p2p_host}:{config.p2p_port}")
        await _bind(server.start(), f"{config.rpc_host}:{config.rpc_port}")
        forks = list_fork_heights(node.store)
        if forks:
            _log.error("forks are on record", reason=FORK_SEEN, heights=forks, report="wattprint chain forks")
        _log.info(
            "node ready", moniker=config.moniker, rpc=server.port, p2p=runtime.p2p_port, height=node.core.header.height
        )
        stopped = asyncio.ensure_future(runtime.wait_stopped())
        signalled = asyncio.ensure_future(told.wait())
        await asyncio.wait((stopped, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        error = stopped.result() if stopped.done() else None
        stopped.cancel()
    finally:
        await server.stop()
        await runtime.stop()
    if error is not None:
        raise error
    _log.info("node stopped", height=node.core.header.height)


def run_node(
    home: Path,
    *,
    passphrase: str | None = None,
    has_new_journal: bool = False,
    from_snapshot: bool = False,
    upkeep: Upkeep | None = None,
) -> None:
    """Run the node of a home until SIGTERM or SIGINT. Raises ``LocalError`` when it cannot start or go on."""
    if not __debug__:
        # Assertions are how our own mistakes stop a node before it signs something wrong.
        raise LaunchError("optimised_python_not_allowed", "start it without -O")
    # Measured with four validators: uvloop takes a tenth to a fifth of a node's processor time off.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if from_snapshot:
            runner.run(join_by_snapshot(home, passphrase=passphrase))
        node = open_node(home, passphrase=passphrase, has_new_journal=has_new_journal)
        _calm_collector()
        runner.run(serve(node, upkeep))


def _calm_collector() -> None:
    """Look for cycles less often, and never in what a node starts with: a block makes many objects and few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 20)


async def _bind(work: Awaitable[None], address: str) -> None:
    try:
        await work
    except OSError as error:
        raise LaunchError("address_not_usable", f"{address}: {error.strerror or error}") from error


def main(arguments: list[str]) -> int:
    """``python -m node.launch HOME``; the exit status is 0, or 2 with one line on stderr."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m node.launch HOME\n")
        return 2
    try:
        run_node(Path(arguments[0]), passphrase=os.environ.get("WATTPRINT_PASSPHRASE"))
    except LocalError as error:
        sys.stderr.write(f"wattprint: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
