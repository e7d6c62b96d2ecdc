"""Where one transfer's processor time goes inside a node: microseconds a transaction, stage by stage, one process.

    python -m benchmarks.pipeline [--transfers 2000] [--blocks 5]

Runs the real code of each stage over a LevelDB store in a temporary directory, without network and consensus.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from consensus.messages import CommitCertificate
from contracts_native.credits import IssueCredits, TransferCredits
from contracts_native.table import load_table
from ledger.block import decode_block
from ledger.execution import Chain, build_block, execute_block
from ledger.genesis import GenesisDocument, GenesisParticipant, GenesisValidator
from ledger.parameters import Parameters
from ledger.primitives import ZERO_HASH, Height
from ledger.transaction import Payload, Transaction, check_signatures, decode_transaction, make_body, sign_transaction
from node import chain_store
from node.door import Door
from node.index import compute_index_changes
from node.keystore import SigningKey
from node.leveldb_store import LevelDbStore
from node.mempool import Mempool

START_MS: Final = 1_750_000_000_000
CHAIN_ID: Final = "pipeline"
ACCOUNTS: Final = 200
T = TypeVar("T")


class Stages:
    """Adds up processor time by stage."""

    def __init__(self) -> None:
        self.spent_ns: dict[str, int] = {}

    def run(self, stage: str, work: Callable[[], T]) -> T:
        """Run a piece of work and count it for a stage."""
        began = time.process_time_ns()
        result = work()
        self.spent_ns[stage] = self.spent_ns.get(stage, 0) + time.process_time_ns() - began
        return result


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--transfers", type=int, default=2_000, help="in each block")
    parser.add_argument("--blocks", type=int, default=5)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="wattprint-pipeline-") as directory:
        stages = measure(Path(directory), transfers=options.transfers, blocks=options.blocks)
    count = options.transfers * options.blocks
    print("| stage | µs a transfer |\n|---|---|")
    for stage, spent_ns in stages.spent_ns.items():
        print(f"| {stage} | {spent_ns / count / 1000:.1f} |")
    print(f"| all | {sum(stages.spent_ns.values()) / count / 1000:.1f} |")


def measure(directory: Path, *, transfers: int, blocks: int) -> Stages:
    """Run blocks of transfers through every stage of a node."""
    keys = [SigningKey.from_seed(f"pipeline {i}".encode().ljust(32, b".")) for i in range(ACCOUNTS)]
    chain, store = make_chain(directory / "chain", keys)
    salts = iter(range(10**9))
    fund = [sign(IssueCredits(key.address, 10**9, f"{i}"), keys[0], next(salts)) for i, key in enumerate(keys)]
    chain = run_block(chain, store, fund, Stages())
    stages = Stages()
    for _ in range(blocks):
        raws = [
            sign(TransferCredits(keys[(7 * i + 1) % ACCOUNTS].address, 1, ""), keys[i % ACCOUNTS], next(salts))
            for i in range(transfers)
            if (6 * i + 1) % ACCOUNTS
        ]
        chain = run_block(chain, store, raws, stages)
    store.close()
    return stages


def make_chain(path: Path, keys: list[SigningKey]) -> tuple[Chain, LevelDbStore]:
    """A fresh chain with one validator and the accounts in genesis."""
    people = tuple(
        GenesisParticipant(key.public_key, f"a{i}", ("utility", "consumer"), 10**15 if i == 0 else 0)
        for i, key in enumerate(keys)
    )
    members = (GenesisValidator(keys[0].public_key, "v0"),)
    document = GenesisDocument(CHAIN_ID, START_MS, members, people, Parameters())
    store = LevelDbStore(path)
    store.write(chain_store.compute_genesis_batch(document, load_table()))
    header = chain_store.get_header(store, 0)
    return Chain(store, chain_store.load_tree(store), header, load_table()), store


def sign(payload: Payload, key: SigningKey, salt: int, *, valid_until: int = 500) -> bytes:
    """A signed envelope."""
    body = make_body(
        chain_id=CHAIN_ID, payload=payload, sender=key.address, valid_until=valid_until, salt=salt.to_bytes(8, "big")
    )
    return sign_transaction(body, [(key.public_key, key.sign)])


def run_block(chain: Chain, store: LevelDbStore, raws: list[bytes], stages: Stages) -> Chain:
    """One block through every stage; the chain with it on top."""
    now_ms = chain.parent.time_ms + 1_000
    proposer = SigningKey.from_seed(b"pipeline 0".ljust(32, b".")).public_key
    txs = stages.run("decode the envelope", lambda: [decode_transaction(raw, chain.table) for raw in raws])
    stages.run("verify the signature", lambda: deque(map(check_signatures, txs), maxlen=0))
    mempool = Mempool(transactions_max=4 * len(raws), bytes_max=10**9)
    door = Door(chain, mempool)
    stages.run("rules at the door (one node of all)", lambda: [door.check(tx, now_ms, keep=True) for tx in txs])
    stages.run("take into the pool", lambda: take_in(mempool, txs, now_ms))
    built, dropped = stages.run(
        "build (the proposer)", lambda: build_block(chain, txs, time_ms=now_ms, proposer=proposer)
    )
    assert not dropped, dropped[:1]
    block = stages.run("decode the block", lambda: decode_block(built.body))
    executed = stages.run(
        "execute (the others)", lambda: execute_block(chain, block, built.body, find_known=mempool.find_by_raw)
    )
    index = stages.run("index", lambda: compute_index_changes(store, executed.receipts, block.header))
    certificate = CommitCertificate(ZERO_HASH, Height(block.header.height), 0, executed.block_id, ())
    batch = stages.run("put the batch together", lambda: chain_store.compute_block_batch(executed, certificate, index))
    stages.run("write to LevelDB, synced", lambda: store.write(batch))
    return stages.run("advance", lambda: chain.advance(executed))


def take_in(mempool: Mempool, txs: Sequence[Transaction], now_ms: int) -> None:
    """Put all into the pool."""
    for tx in txs:
        mempool.add(tx, now_ms, is_from_door=False)


if __name__ == "__main__":
    main()
