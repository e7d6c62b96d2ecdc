"""Hear of blocks as they become final, and see a refusal with its reason.

wattprint testnet start --detach
python examples/follow_the_chain.py
"""

from __future__ import annotations

import os
import secrets
import sys
from itertools import islice
from pathlib import Path

from contracts_native.credits import IssueCredits, TransferCredits
from ledger.primitives import format_address
from node.client import Refused, SyncClient
from node.keystore import load_signing_key

URL = os.environ.get("WATTPRINT_NODE", "http://127.0.0.1:8600")


def main(url: str = URL, keyring: str = "testnet/keyring") -> None:
    """Play it against the node at ``url``."""
    utility, payer, payee = (
        load_signing_key(Path(keyring) / f"{name}.key.json") for name in ("utility", "consumer", "prosumer")
    )
    with SyncClient(url) as client:
        client.submit(IssueCredits(payer.address, 300, f"bank transfer {secrets.token_hex(4)}"), key=utility)
        have = client.credit_balance(format_address(payer.address))["balance_cents"]
        try:
            client.submit(TransferCredits(payee.address, have + 1, "too much"), key=payer)
        except Refused as refusal:
            print(f"refused: {refusal.reason} ({refusal.item})")
        payments = [TransferCredits(payee.address, 100, f"part {number}") for number in (1, 2, 3)]
        for outcome in client.submit_many(payments, key=payer, wait="admitted"):
            print(outcome)
        for block in islice(client.subscribe("blocks"), 1):
            print(f"block {block['height']} is final: {block['transactions']} transactions")


if __name__ == "__main__":
    main(*sys.argv[1:])
