"""Believe no node: check by a Merkle proof that a payment is in a block, and that the block's header says so.

wattprint testnet start --detach
python examples/check_a_proof.py
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from contracts_native.credits import IssueCredits
from ledger.errors import Rejected
from ledger.merkle import check_inclusion
from node.client import SyncClient
from node.keystore import load_signing_key

URL = os.environ.get("WATTPRINT_NODE", "http://127.0.0.1:8600")


def main(url: str = URL, keyring: str = "testnet/keyring") -> None:
    """Play it against the node at ``url``."""
    utility, consumer = (load_signing_key(Path(keyring) / f"{name}.key.json") for name in ("utility", "consumer"))
    with SyncClient(url, key=utility) as client:
        paid = client.submit(IssueCredits(consumer.address, 5_000, f"bank transfer {secrets.token_hex(4)}"))
        proof = client.proof_transaction(paid.tx_id)
        root = bytes.fromhex(proof["header"]["transactions_root"])
        path = [bytes.fromhex(sibling) for sibling in proof["proof"]]
        leaf = bytes.fromhex(proof["leaf"])
        check_inclusion(leaf, index=proof["index"], size=proof["size"], proof=path, root=root)
        try:
            check_inclusion(leaf + b"\0", index=proof["index"], size=proof["size"], proof=path, root=root)
        except Rejected as refusal:
            print(f"one byte more, and the proof fails: {refusal.reason}")
        signatures = len(proof["certificate"]["signatures"])
        print(
            f"transaction {paid.tx_id[:16]}… is number {proof['index']} of {proof['size']} in block {proof['height']}"
        )
        print(f"its header is signed by {signatures} validators; the proof has {len(path)} steps")


if __name__ == "__main__":
    main(*sys.argv[1:])
