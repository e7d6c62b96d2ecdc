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

    def rpc_discover(self) -> A:
        """The OpenRPC document of the node."""
        return self.call("rpc.discover")

    def chain_status(self) -> A:
        """How the node and its chain stand."""
        return self.call("chain_status")

    def chain_block(self, height: int | None = None, *, block_id: str | None = None) -> A:
        """A block: header, ids of its transactions, certificate."""
        return self.call("chain_block", height=height, block_id=block_id)

    def chain_validators(self, height: int | None = None) -> A:
        """The validators in force."""
        return self.call("chain_validators", height=height)

    def chain_parameters(self, height: int | None = None) -> A:
        """The parameters in force."""
        return self.call("chain_parameters", height=height)

    def chain_forks(self) -> A:
        """Forks that the node has seen, each with its proof."""
        return self.call("chain_forks")

    def chain_audit(self) -> A:
        """The conservation sums of the ledger, each with its two sides."""
        return self.call("chain_audit")

    def tx_submit(self, transaction: str, *, wait: str | None = None, timeout_ms: int | None = None) -> A:
        """What became of a signed envelope (hex); ``submit`` signs as well."""
        return self.call("tx_submit", transaction=transaction, wait=wait, timeout_ms=timeout_ms)

    def tx_simulate(self, transaction: str) -> A:
        """The events that a signed envelope (hex) would cause."""
        return self.call("tx_simulate", transaction=transaction)

    def tx_get(self, tx_id: str) -> A:
        """A transaction: pending, committed, dropped or expired."""
        return self.call("tx_get", tx_id=tx_id)

    def tx_pending(self, *, tx_id: str | None = None, limit: int | None = None, cursor: str | None = None) -> A:
        """The pending transactions, or the one with this id."""
        return self.call("tx_pending", tx_id=tx_id, limit=limit, cursor=cursor)

    def participant_get(self, participant: str) -> A:
        """A participant."""
        return self.call("participant_get", participant=participant)

    def participant_list(self, *, role: str | None = None, limit: int | None = None, cursor: str | None = None) -> A:
        """Participants, by address."""
        return self.call("participant_list", role=role, limit=limit, cursor=cursor)

    def participant_encryption_key(self, participant: str) -> A:
        """The key that document keys of a participant are sealed to."""
        return self.call("participant_encryption_key", participant=participant)

    def site_get(self, site: str) -> A:
        """A site, with the ids of its meters."""
        return self.call("site_get", site=site)

    def site_list(
        self,
        *,
        owner: str | None = None,
        utility: str | None = None,
        technology: str | None = None,
        zone: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Sites."""
        return self.call(
            "site_list", owner=owner, utility=utility, technology=technology, zone=zone, limit=limit, cursor=cursor
        )

    def meter_get(self, meter: str) -> A:
        """A meter, with what was last accepted of each channel."""
        return self.call("meter_get", meter=meter)

    def meter_list(
        self,
        *,
        site: str | None = None,
        utility: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Meters."""
        return self.call("meter_list", site=site, utility=utility, status=status, limit=limit, cursor=cursor)

    def reading_list(
        self,
        meter: str,
        *,
        channel: str | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """The intervals that a meter reported, and what became of each."""
        return self.call(
            "reading_list", meter=meter, channel=channel, from_ms=from_ms, until_ms=until_ms, limit=limit, cursor=cursor
        )

    def energy_balance(self, holder: str) -> A:
        """What a participant has, in Wh by status."""
        return self.call("energy_balance", holder=holder)

    def energy_slices(
        self,
        holder: str,
        *,
        site: str | None = None,
        technology: str | None = None,
        zone: str | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """The slices that a participant holds or has used."""
        return self.call(
            "energy_slices",
            holder=holder,
            site=site,
            technology=technology,
            zone=zone,
            from_ms=from_ms,
            until_ms=until_ms,
            status=status,
            limit=limit,
            cursor=cursor,
        )

    def lot_get(self, lot: str) -> A:
        """A lot, and the slices that partition it."""
        return self.call("lot_get", lot=lot)

    def claim_get(self, claim: str) -> A:
        """A claim, with its slices."""
        return self.call("claim_get", claim=claim)

    def claim_list(
        self,
        *,
        beneficiary: str | None = None,
        claimant: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Claims."""
        return self.call(
            "claim_list", beneficiary=beneficiary, claimant=claimant, status=status, limit=limit, cursor=cursor
        )

    def energy_residual_mix(self, zone: str, *, from_ms: int | None = None, until_ms: int | None = None) -> A:
        """What nobody claimed of a zone's production in time, by hour and technology."""
        return self.call("energy_residual_mix", zone=zone, from_ms=from_ms, until_ms=until_ms)

    def offer_get(self, offer: str) -> A:
        """An offer with the slices that it still has for sale."""
        return self.call("offer_get", offer=offer)

    def offer_list(
        self,
        *,
        holder: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Offers, perhaps those of a seller."""
        return self.call("offer_list", holder=holder, status=status, limit=limit, cursor=cursor)

    def credit_balance(self, holder: str) -> A:
        """The credits that a participant may spend."""
        return self.call("credit_balance", holder=holder)

    def redemption_list(
        self,
        *,
        holder: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Redemptions."""
        return self.call("redemption_list", holder=holder, status=status, limit=limit, cursor=cursor)

    def escrow_get(self, escrow: str) -> A:
        """A deposit."""
        return self.call("escrow_get", escrow=escrow)

    def escrow_list(
        self,
        *,
        consumer: str | None = None,
        utility: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Deposits."""
        return self.call("escrow_list", consumer=consumer, utility=utility, status=status, limit=limit, cursor=cursor)

    def bill_get(self, bill: str) -> A:
        """A bill, with its lines."""
        return self.call("bill_get", bill=bill)

    def bill_list(
        self,
        *,
        consumer: str | None = None,
        utility: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Bills."""
        return self.call("bill_list", consumer=consumer, utility=utility, status=status, limit=limit, cursor=cursor)

    def bill_dues(self, *, consumer: str, utility: str) -> A:
        """What a consumer owes a utility."""
        return self.call("bill_dues", consumer=consumer, utility=utility)

    def document_get(self, document: str, *, version: int | None = None) -> A:
        """A document, with a version of it and the wrapped keys of its readers."""
        return self.call("document_get", document=document, version=version)

    def document_list(
        self,
        *,
        owner: str | None = None,
        subject: str | None = None,
        site: str | None = None,
        reader: str | None = None,
        kind: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Documents."""
        return self.call(
            "document_list",
            owner=owner,
            subject=subject,
            site=site,
            reader=reader,
            kind=kind,
            status=status,
            limit=limit,
            cursor=cursor,
        )

    def governance_get(self, proposal: str) -> A:
        """A proposal with its votes."""
        return self.call("governance_get", proposal=proposal)

    def governance_list(self, *, status: str | None = None, limit: int | None = None, cursor: str | None = None) -> A:
        """Proposals."""
        return self.call("governance_list", status=status, limit=limit, cursor=cursor)

    def governance_offences(self, *, limit: int | None = None, cursor: str | None = None) -> A:
        """What was proven of validators."""
        return self.call("governance_offences", limit=limit, cursor=cursor)

    def trace_source(
        self,
        *,
        site: str | None = None,
        meter: str | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
        zone: str | None = None,
        technology: str | None = None,
        by: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Who has the output of a meter, a site, a grid zone or a technology."""
        return self.call(
            "trace_source",
            site=site,
            meter=meter,
            from_ms=from_ms,
            until_ms=until_ms,
            zone=zone,
            technology=technology,
            by=by,
            limit=limit,
            cursor=cursor,
        )

    def trace_holder(
        self,
        participant: str,
        *,
        from_ms: int | None = None,
        until_ms: int | None = None,
        site: str | None = None,
        meter: str | None = None,
        zone: str | None = None,
        technology: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Where a participant's energy came from."""
        return self.call(
            "trace_holder",
            participant=participant,
            from_ms=from_ms,
            until_ms=until_ms,
            site=site,
            meter=meter,
            zone=zone,
            technology=technology,
            limit=limit,
            cursor=cursor,
        )

    def trace_lot(self, lot: str, *, limit: int | None = None, cursor: str | None = None) -> A:
        """What happened to a lot."""
        return self.call("trace_lot", lot=lot, limit=limit, cursor=cursor)

    def lot_list(
        self,
        *,
        meter: str | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """Lots, with what became of each."""
        return self.call("lot_list", meter=meter, from_ms=from_ms, until_ms=until_ms, limit=limit, cursor=cursor)

    def movement_list(
        self,
        *,
        meter: str | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> A:
        """What moved or used energy, in the order of the chain."""
        return self.call("movement_list", meter=meter, from_ms=from_ms, until_ms=until_ms, limit=limit, cursor=cursor)

    def proof_transaction(self, tx_id: str) -> A:
        """What shows that a transaction is in a final block."""
        return self.call("proof_transaction", tx_id=tx_id)

    def proof_state(self, key: str) -> A:
        """What shows the value of a state key, or that it has none."""
        return self.call("proof_state", key=key)

    def certificate_get(
        self,
        *,
        claim: str | None = None,
        holder: str | None = None,
        from_ms: int | None = None,
        until_ms: int | None = None,
    ) -> A:
        """The certificate of provenance of a claim, or of what a holder has."""
        return self.call("certificate_get", claim=claim, holder=holder, from_ms=from_ms, until_ms=until_ms)
