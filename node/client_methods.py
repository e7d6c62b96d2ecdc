"""One typed method per JSON-RPC method, for the asynchronous and the blocking client alike.

Owns the names and parameters as a Python program sees them; a test compares them with the server's table. What a
method returns is the JSON object of the answer; its fields stand in the OpenRPC document.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeAlias, TypeVar

from ledger.fields import Json

Answer: TypeAlias = dict[str, Any]  # JSON from the wire has no static shape
A = TypeVar("A")


class Methods(ABC, Generic[A]):
    """The methods over ``call``; ``A`` is an answer, or the coroutine of one."""

    @abstractmethod
    def call(self, method: str, /, **params: Json) -> A:
        """Call any method by its name; parameters that are None are left out."""

    def discover(self) -> A:
        """The OpenRPC document of the node."""
        return self.call("rpc.discover")

    def chain_status(self) -> A:
        """How the node and its chain stand."""
        return self.call("chain_status")

    def chain_block(self, height: int | None = None, block_id: str | None = None) -> A:
        """A block: header, ids of its transactions, certificate."""
        return self.call("chain_block", height=height, block_id=block_id)

    def chain_validators(self, height: int | None = None) -> A:
        """The validators in force."""
        return self.call("chain_validators", height=height)

    def chain_parameters(self, height: int | None = None) -> A:
        """The parameters in force."""
        return self.call("chain_parameters", height=height)

    def tx_simulate(self, transaction: str) -> A:
        """The events that a signed envelope (hex) would cause."""
        return self.call("tx_simulate", transaction=transaction)

    def tx_get(self, tx_id: str) -> A:
        """A transaction: pending, committed, dropped or expired."""
        return self.call("tx_get", tx_id=tx_id)

    def tx_pending(self, tx_id: str | None = None, limit: int | None = None) -> A:
        """The pending transactions, or the one with this id."""
        return self.call("tx_pending", tx_id=tx_id, limit=limit)

    def participant_get(self, participant: str) -> A:
        """A participant."""
        return self.call("participant_get", participant=participant)

    def participant_list(self, role: str | None = None, limit: int | None = None, cursor: str | None = None) -> A:
        """Participants, by address."""
        return self.call("participant_list", role=role, limit=limit, cursor=cursor)

    def proof_transaction(self, tx_id: str) -> A:
        """What shows that a transaction is in a final block."""
        return self.call("proof_transaction", tx_id=tx_id)

    def proof_state(self, key: str) -> A:
        """What shows the value of a state key, or that it has none."""
        return self.call("proof_state", key=key)
