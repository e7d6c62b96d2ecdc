"""Every question that a node answers from what is committed, by the name of its JSON-RPC method.

Owns the list only: each function's name is the method's, and its keyword parameters are the method's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from node.queries import (
    audit,
    certificates,
    chain,
    credits,
    documents,
    energy,
    forks,
    governance,
    lists,
    mix,
    offers,
    participants,
    readings,
    sites,
    trace,
    trace_lot,
)

QUERIES: Final[tuple[Callable[..., object], ...]] = (
    chain.chain_block,
    chain.chain_validators,
    chain.chain_parameters,
    forks.chain_forks,
    audit.chain_audit,
    participants.participant_get,
    participants.participant_list,
    documents.participant_encryption_key,
    sites.site_get,
    sites.site_list,
    sites.meter_get,
    sites.meter_list,
    readings.reading_list,
    energy.energy_balance,
    energy.energy_slices,
    energy.lot_get,
    energy.claim_get,
    energy.claim_list,
    mix.energy_residual_mix,
    offers.offer_get,
    offers.offer_list,
    credits.credit_balance,
    credits.redemption_list,
    credits.escrow_get,
    credits.escrow_list,
    credits.bill_get,
    credits.bill_list,
    credits.bill_dues,
    documents.document_get,
    documents.document_list,
    governance.governance_get,
    governance.governance_list,
    governance.governance_offences,
    trace.trace_source,
    trace.trace_holder,
    trace_lot.trace_lot,
    lists.lot_list,
    lists.movement_list,
    chain.proof_transaction,
    chain.proof_state,
    certificates.certificate_get,
)
