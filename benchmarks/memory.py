"""Whose the memory of one node is as its chain grows, and once a peer has read all of it: one process, no network.

    python -m benchmarks.memory [--blocks 3000] [--transfers 40]

Runs blocks through the stages of ``benchmarks.pipeline``. "Own" is memory that nobody else has, "files" what is mapped
from files: the program, and tables of LevelDB, which the system takes back at need. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.pipeline import ACCOUNTS, Stages, make_chain, run_block, sign
from contracts_native.credits import IssueCredits, TransferCredits
from ledger.execution import Chain
from node.keystore import SigningKey
from node.leveldb_store import LevelDbStore
from node.sync import BLOCKS_PER_REQUEST, collect_blocks

ROWS: Final = 12  # of the table
WINDOW_BLOCKS: Final = 400


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--blocks", type=int, default=3_000)
    parser.add_argument("--transfers", type=int, default=40, help="in each block")
    options = parser.parse_args()
    print("| | own MiB | files MiB | of these tables | LevelDB says | Python's blocks | disk |")
    print("|---|---|---|---|---|---|---|")
    with TemporaryDirectory(prefix="wattprint-memory-") as directory:
        keys = [SigningKey.from_seed(f"memory {i}".encode().ljust(32, b".")) for i in range(ACCOUNTS)]
        chain, store = make_chain(Path(directory) / "chain", keys)
        salts = iter(range(10**9))
        fund = [sign(IssueCredits(key.address, 10**9, f"{i}"), keys[0], next(salts)) for i, key in enumerate(keys)]
        chain = run_block(chain, store, fund, Stages())
        print(show("beginning", store))
        for number in range(1, options.blocks + 1):
            chain = run_block(chain, store, make_transfers(chain, keys, salts, options.transfers), Stages())
            if number % -(-options.blocks // ROWS) == 0:
                print(show(f"block {number:,}", store), flush=True)
        for height in range(1, chain.parent.height + 1, BLOCKS_PER_REQUEST):
            collect_blocks(store, height, BLOCKS_PER_REQUEST)
        print(show("all read", store))
        store.close()


def make_transfers(chain: Chain, keys: list[SigningKey], salts: Iterator[int], count: int) -> list[bytes]:
    """Signed transfers from one account to the next."""
    late = chain.parent.height + WINDOW_BLOCKS
    pairs = [(keys[i % ACCOUNTS], keys[(i + 1) % ACCOUNTS]) for i in range(count)]
    return [sign(TransferCredits(to.address, 1, ""), by, next(salts), valid_until=late) for by, to in pairs]


def show(what: str, store: LevelDbStore) -> str:
    """One row, after a collection of cycles."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    own, files = (int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in ("RssAnon", "RssFile"))
    regions = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    mapped = [region for region in regions if ".ldb\n" in region]
    tables = sum(int(size) for region in mapped for size in re.findall(r"^Rss:\s+(\d+)", region, re.MULTILINE))
    says, disk = store.memory_bytes() / 2**20, store.size_bytes() / 2**20
    figures = f"{own / 1024:.1f} | {files / 1024:.1f} | {tables / 1024:.1f} | {says:.1f}"
    return f"| {what} | {figures} | {sys.getallocatedblocks():,} | {disk:.1f} |"


if __name__ == "__main__":
    main()
