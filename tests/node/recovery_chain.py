"""A small network with a short transaction lifetime: what the tests of snapshots, rollback and pruning work on."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ledger.genesis import GenesisDocument
from ledger.storage import MemoryStore, Reader
from ledger.transaction import Payload, make_body, sign_transaction
from node.inputs import Submitted
from node.keystore import SigningKey
from tests.simulator.cluster import CHAIN_ID, Cluster

LIFETIME_BLOCKS: Final = 6


class ShortCluster(Cluster):
    """A cluster whose transactions live for six blocks."""

    def submit(self, number: int, payload: Payload, *, by: SigningKey) -> None:
        """Hand a signed transaction to a node."""
        core = self.nodes[number].core
        if core is None:
            return
        self._salt += 1
        body = make_body(
            chain_id=CHAIN_ID,
            payload=payload,
            sender=by.address,
            valid_until=core.header.height + LIFETIME_BLOCKS,
            salt=self._salt.to_bytes(8, "big"),
        )
        self.nodes[number].tell(Submitted(self._salt, (sign_transaction(body, [(by.public_key, by.sign)]),)))

    def run_with_load(self, *, height: int) -> None:
        """Decide heights with a transaction or two in most of them."""
        while self[0].height < height:
            self.submit_something()
            self.submit_something()
            self.run_until(height=self[0].height + 1)

    def _make_genesis(self, validators: int) -> GenesisDocument:
        document = super()._make_genesis(validators)
        return replace(document, parameters=replace(document.parameters, transaction_lifetime_blocks=LIFETIME_BLOCKS))


def make_chain(*, height: int, seed: int = 21, validators: int = 4) -> ShortCluster:
    """A cluster that has decided ``height`` blocks or a few more."""
    net = ShortCluster(validators=validators, seed=seed)
    net.run_with_load(height=height)
    return net


def copy_store(reader: Reader) -> MemoryStore:
    """All that a store holds."""
    return MemoryStore(reader.scan(b"", b"\xff"))
