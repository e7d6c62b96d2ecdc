"""A node that is not there, for tests of the command line: it answers from a table and keeps what was submitted.

Owns the fake client and the one way in which these tests run a command.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from contracts_native.table import load_table
from ledger.fields import Json
from ledger.transaction import Transaction, check_signatures, decode_transaction
from node.cli.app import app
from node.client import Client, NodeUnreachable, RpcError
from node.keystore import SigningKey, save_key_unencrypted

CHAIN_ID = "test-chain"
HEIGHT = 41


@dataclass
class FakeNode:
    """``answers``: method → its result, the error that it raises, or a function of the parameters."""

    answers: dict[str, object] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Json]]] = field(default_factory=list)
    submitted: list[Transaction] = field(default_factory=list)
    is_there: bool = True

    def __post_init__(self) -> None:
        self.answers.setdefault("chain_status", {"chain_id": CHAIN_ID, "height": HEIGHT})
        self.answers.setdefault("chain_parameters", {"parameters": {"transaction_lifetime_blocks": 100}})

    def make_client(self, url: str) -> Client:
        return FakeClient(self, url)

    def answer(self, method: str, params: dict[str, Json], url: str) -> object:
        if not self.is_there:
            raise NodeUnreachable(url, "connection refused")
        self.asked.append((method, params))
        found = self.answers.get(method)
        if isinstance(found, RpcError):
            raise found
        if callable(found):
            return found(params)
        if method in ("tx_submit", "tx_simulate"):
            tx = decode_transaction(bytes.fromhex(str(params["transaction"])), load_table())
            check_signatures(tx)
            self.submitted.append(tx)
            events = [{"event": "credit.moved", "cents": 7}]
            place = {"height": HEIGHT + 1, "index": 0}
            return {"tx_id": tx.tx_id.hex(), "status": "committed", "events": events, **place}
        assert found is not None, f"no answer prepared for {method}"
        return found

    def run(self, *arguments: object, stdin: str = "", env: dict[str, str] | None = None) -> Result:
        """Run a command against this node. What it may not do, whatever it is: print a traceback."""
        clean = {"WATTPRINT_KEY": None, "WATTPRINT_NODE": None, "WATTPRINT_PASSPHRASE": None, "WATTPRINT_HOME": None}
        result = CliRunner().invoke(
            app, [str(one) for one in arguments], obj=self.make_client, input=stdin, env={**clean, **(env or {})}
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def run_json(self, *arguments: object, **options: Any) -> Any:
        """Run a command with --json: it must succeed, and print one document and nothing else."""
        result = self.run(*arguments, "--json", **options)
        assert result.exit_code == 0, result.output
        assert result.stdout.count("\n") == 1
        return json.loads(result.stdout)


class FakeClient(Client):
    """A client whose requests go to a ``FakeNode``."""

    def __init__(self, node: FakeNode, url: str) -> None:
        super().__init__(url)
        self._node = node

    async def request(self, method: str, params: dict[str, Json], *, timeout_ms: int) -> object:
        assert timeout_ms > 0
        given: dict[str, Json] = {name: value for name, value in params.items() if value is not None}
        return self._node.answer(method, given, self.url)


def make_key_file(directory: Path, name: str, number: int) -> tuple[Path, SigningKey]:
    """A key file in clear, and its key, the same for the same number."""
    key = SigningKey.from_seed(number.to_bytes(32, "big"))
    path = directory / f"{name}.key.json"
    save_key_unencrypted(path, key)
    return path, key


def get_one(items: list[Transaction]) -> Transaction:
    assert len(items) == 1
    return items[0]
