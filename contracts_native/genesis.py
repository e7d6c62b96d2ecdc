"""What the genesis document writes into the tables of the contracts.

Owns the first participants, the first issuers of credits, and what the rules of governance know from the start;
everyone after them is registered by a transaction.
"""

from __future__ import annotations

from contracts_native import evidence
from contracts_native.credits import ISSUERS, Issuer
from contracts_native.participants import PARTICIPANTS, KycStatus, Participant, Role
from ledger.errors import Malformed
from ledger.genesis import GenesisDocument, compute_genesis_hash
from ledger.primitives import compute_address
from ledger.state import State


def found(state: State, document: GenesisDocument) -> None:
    """Write the genesis participants, and which chain this is.

    Raises ``Malformed`` for an unknown role or a key named twice.
    """
    evidence.found(state, compute_genesis_hash(document))
    for member in document.participants:
        address = compute_address(member.public_key)
        if PARTICIPANTS.find(state, address) is not None:
            raise Malformed("participant_named_twice", member.label)
        try:
            roles = tuple(Role(role) for role in member.roles)
        except ValueError as error:
            raise Malformed("role_unknown", ", ".join(member.roles)) from error
        participant = Participant(
            member.public_key, roles, member.label, None, document.time_ms, KycStatus.NONE, is_frozen=False
        )
        PARTICIPANTS.put(state, address, value=participant)
        if member.credit_limit_cents:
            ISSUERS.put(state, address, value=Issuer(limit_cents=member.credit_limit_cents, outstanding_cents=0))
