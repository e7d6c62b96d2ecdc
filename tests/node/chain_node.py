"""A node without processes or sockets that has a real chain: submitted is committed, asked is looked up.

For tests of what stands on client and ledger together. The people of the contracts' tests have key files here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ledger.errors import Rejected
from ledger.fields import Json
from ledger.receipt import to_json
from ledger.transaction import check_signatures, decode_transaction
from node.client_errors import make_error
from node.jsonrpc import Fault
from node.keystore import SigningKey, save_key_unencrypted
from node.methods import explain
from node.queries.view import View
from node.rpc_methods import METHODS
from node.service import NodeService
from tests.contracts_native.harness import CHAIN_ID, Person
from tests.node.fake_node import FakeNode
from tests.node.query_chain import QueryChain


@dataclass
class ChainNode(FakeNode):
    """A ``FakeNode`` whose answers come from a chain in memory."""

    chain: QueryChain = field(default_factory=QueryChain)
    wire: list[bytes] = field(default_factory=list)  # every transaction as it was sent

    @property
    def view(self) -> View:
        return self.chain.view

    @property
    def reader(self) -> object:
        return self.chain.store

    @property
    def table(self) -> object:
        return self.chain.table

    @property
    def tree(self) -> object:
        return self.chain.tree

    def answer(self, method: str, params: dict[str, Json], url: str) -> object:
        if method == "chain_status":
            return {"chain_id": CHAIN_ID, "height": self.chain.height}
        if method in self.answers and method != "chain_parameters":
            return super().answer(method, params, url)
        self.asked.append((method, params))
        try:
            if method == "tx_submit":
                return self._submit(bytes.fromhex(str(params["transaction"])))
            handler = METHODS[method]
            return handler.handle(cast(NodeService, self), **handler.bind(params))
        except Fault as fault:
            raise make_error(fault.to_json()) from None
        except Rejected as error:
            raise make_error(explain(error).to_json()) from None

    def _submit(self, raw: bytes) -> dict[str, Json]:
        self.wire.append(raw)
        tx = decode_transaction(raw, self.chain.table)
        check_signatures(tx)
        (applied,) = self.chain.commit_block([tx])
        self.submitted.append(tx)
        events: list[Json] = [to_json(one) for one in applied.events]
        place: dict[str, Json] = {"height": self.chain.height, "index": 0, "events": events}
        return {"tx_id": tx.tx_id.hex(), "status": "committed", **place}


def make_signing_key(person: Person) -> SigningKey:
    return SigningKey.from_seed(person.seed)


def save_key(directory: Path, person: Person) -> Path:
    """The key file of a person, in clear."""
    path = directory / f"{person.name}.key.json"
    save_key_unencrypted(path, make_signing_key(person))
    return path
