"""Joining a long chain: replaying every block, against a snapshot; and what the chain takes on disk, pruned or not.

    python -m benchmarks.joining [BLOCKS]

It makes a chain of small blocks under four validators in a temporary
directory, then lets one new node take the blocks as a catching-up core does, and another the snapshot.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus.messages import ChainContext, CommitCertificate, CommitSignature, Precommit, compute_signed_bytes
from consensus.parameters import ConsensusParameters
from contracts_native.credits import IssueCredits
from contracts_native.table import load_table
from ledger.execution import Chain, build_block
from ledger.genesis import GenesisDocument, GenesisParticipant, GenesisValidator, compute_genesis_hash
from ledger.parameters import Parameters
from ledger.primitives import Height
from ledger.transaction import Transaction, check_signatures, decode_transaction, make_body, sign_transaction
from node import chain_store
from node.core import Core
from node.core_config import CoreConfig
from node.effects import Feed, Halt, WriteBlock
from node.index import compute_index_changes
from node.inputs import BlockWritten, Input, MessageReceived, PeerUp, Started
from node.keystore import SigningKey
from node.leveldb_store import LevelDbStore
from node.pruning import iterate_prune
from node.rollback import import_snapshot
from node.snapshot_files import SnapshotFile, write_snapshot_file
from node.state_sync import Ask, Complete, Keep, StateSync
from node.sync import BLOCKS_PER_REQUEST, collect_blocks
from p2p.messages import Blocks, SnapshotPart

BLOCKS_DEFAULT: Final = 20_000
START_MS: Final = 1_750_000_000_000
BLOCK_MS: Final = 10_000
ACCOUNTS: Final = 500
RETAINED: Final = 2_000


def make_key(name: str) -> SigningKey:
    return SigningKey.from_seed(name.encode().ljust(32, b"."))


KEYS: Final = [make_key(f"validator {number}") for number in range(4)]
PEOPLE: Final = [make_key(f"account {number}") for number in range(ACCOUNTS)]
PAYER: Final = make_key("payer")


@dataclass(slots=True)
class Stopwatch:
    """Seconds since the last look."""

    since: float

    def look(self) -> float:
        now = time.perf_counter()
        passed, self.since = now - self.since, now
        return passed


def make_genesis() -> GenesisDocument:
    validators = tuple(GenesisValidator(key.public_key, f"v{number}") for number, key in enumerate(KEYS))
    people = [GenesisParticipant(key.public_key, "someone", ("consumer",), 0) for key in PEOPLE]
    payer = GenesisParticipant(PAYER.public_key, "payer", ("utility",), 10**12)
    return GenesisDocument("joining", START_MS, validators, (payer, *people), Parameters())


def make_transaction(height: int) -> Transaction:
    body = make_body(
        chain_id="joining",
        payload=IssueCredits(PEOPLE[height % ACCOUNTS].address, 1 + height, f"payment {height}"),
        sender=PAYER.address,
        valid_until=height + 100,
        salt=height.to_bytes(8, "big"),
    )
    tx = decode_transaction(sign_transaction(body, [(PAYER.public_key, PAYER.sign)]), load_table())
    check_signatures(tx)
    return tx


def make_chain(store: LevelDbStore, document: GenesisDocument, blocks: int) -> None:
    """A chain of blocks with one transaction each, certified by three of four."""
    store.write(chain_store.compute_genesis_batch(document, load_table()))
    context = ChainContext(document.chain_id, compute_genesis_hash(document))
    chain = Chain(store, chain_store.load_tree(store), chain_store.get_header(store, 0), load_table())
    for height in range(1, blocks + 1):
        proposer = KEYS[height % len(KEYS)].public_key
        executed, dropped = build_block(
            chain, [make_transaction(height)], time_ms=START_MS + height * BLOCK_MS, proposer=proposer
        )
        assert not dropped
        vote = Precommit(Height(height), 0, executed.block_id)
        signed = compute_signed_bytes(context, vote)
        signatures = tuple(CommitSignature(key.public_key, key.sign(signed)) for key in KEYS[:3])
        certificate = CommitCertificate(context.compute_hash(), vote.height, 0, executed.block_id, signatures)
        index_changes = compute_index_changes(store, executed.receipts, executed.block.header)
        store.write(chain_store.compute_block_batch(executed, certificate, index_changes), sync=False)
        chain = chain.advance(executed)
    store.write({}, sync=True)


def replay(source: LevelDbStore, path: Path, document: GenesisDocument, blocks: int) -> None:
    """A new node takes every block, as the runtime feeds it: checked, executed, one synced batch each."""
    store = LevelDbStore(path)
    store.write(chain_store.compute_genesis_batch(document, load_table()))
    config = CoreConfig(own_key=None, sign=None, consensus=ConsensusParameters())
    core = Core(config, store, load_table(), journal_frames=[])
    peer = KEYS[0].public_key
    now_ms = START_MS + blocks * BLOCK_MS
    queue: list[Input] = [Started(), PeerUp(peer, blocks)]
    while core.header.height < blocks:
        if not queue:
            items = collect_blocks(source, core.header.height + 1, BLOCKS_PER_REQUEST)
            queue.append(MessageReceived(peer, Blocks(items)))
        for effect in core.handle(queue.pop(0), now_ms):
            if isinstance(effect, WriteBlock):
                store.write(effect.changes, sync=True)
                queue.insert(0, BlockWritten(effect.height))
            elif isinstance(effect, Feed):
                queue.append(effect.input)
            assert not isinstance(effect, Halt), effect
    store.close()


def join(snapshot: SnapshotFile, path: Path, document: GenesisDocument) -> None:
    """A new node takes the snapshot from two validators, checks it, writes it, and stands ready to follow."""
    sync = StateSync(document)
    for key in KEYS[:2]:
        sync.note_peer(key.public_key)
    steps = list(sync.tick(0))
    kept = 0
    while steps:
        step = steps.pop(0)
        if isinstance(step, Ask):
            is_offer = step.request.snapshot_id is None
            data = snapshot.manifest_bytes if is_offer else snapshot.read_chunk(step.request.index)
            steps += sync.take(step.peer, SnapshotPart(step.request.snapshot_id, step.request.index, data), 0)
        kept += isinstance(step, Keep)
        if isinstance(step, Complete):
            assert kept == len(step.manifest.chunk_hashes)
            import_snapshot(snapshot, path, document, lambda: None)
    store = LevelDbStore(path)
    config = CoreConfig(own_key=None, sign=None, consensus=ConsensusParameters())
    core = Core(config, store, load_table(), journal_frames=[])
    assert core.header == snapshot.manifest.header
    store.close()


def main() -> None:
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else BLOCKS_DEFAULT
    with tempfile.TemporaryDirectory() as name:
        directory, document = Path(name), make_genesis()
        store = LevelDbStore(directory / "source")
        watch = Stopwatch(time.perf_counter())
        make_chain(store, document, blocks)
        print(f"made {blocks} blocks of one transaction in {watch.look():.1f} s")
        store.compact()
        print(f"on disk, compacted: {store.size_bytes() / 2**20:.1f} MiB, {store.size_bytes() // blocks} bytes a block")
        watch.look()
        write_snapshot_file(directory / "snapshot", store)
        size = (directory / "snapshot").stat().st_size
        print(f"snapshot written in {watch.look():.2f} s: {size / 2**20:.2f} MiB")
        snapshot = SnapshotFile(directory / "snapshot")
        join(snapshot, directory / "joined", document)
        joined = watch.look()
        print(f"joined from the snapshot in {joined:.2f} s")
        snapshot.close()
        replay(store, directory / "replayed", document, blocks)
        replayed = watch.look()
        print(f"joined by replay in {replayed:.1f} s: {replayed / joined:.0f} times as long")
        prune(store, line=max(0, blocks + 1 - RETAINED))
        store.close()


def prune(store: LevelDbStore, *, line: int) -> None:
    """What pruning gives back. Not as an operator would: this chain is so short that evidence still needs all of it."""
    watch = Stopwatch(time.perf_counter())
    for batch in iterate_prune(store, line=line):
        store.write(batch, sync=False)
    store.compact()
    print(f"pruned to {RETAINED} blocks in {watch.look():.1f} s: {store.size_bytes() / 2**20:.1f} MiB on disk")


if __name__ == "__main__":
    main()
