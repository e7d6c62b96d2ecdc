"""KYC: what a utility decided on a participant's papers.

Owns ``participant.decide_kyc``. A decision cites the document version that it was made on, so that it can be asked for
later what the officer saw.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from contracts_native.documents import DocumentId, DocumentVersion, check_kyc_version
from contracts_native.participants import (
    PARTICIPANTS,
    KycStatus,
    Participant,
    Role,
    check_standing,
    get_participant,
    has_role,
)
from ledger.errors import NotPermitted, RuleViolated
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import Payload, TxContext, transaction


class KycDecision(enum.StrEnum):
    """What can be decided."""

    APPROVED = "approved"
    REFUSED = "refused"


# (status, decision) → the status that follows. A decision may be repeated on another version of the document.
KYC_TRANSITIONS: Final[Mapping[tuple[KycStatus, KycDecision], KycStatus]] = {
    (status, decision): KycStatus(decision.value) for status in KycStatus for decision in KycDecision
}


@dataclass(frozen=True, slots=True)
class Citation:
    """One version of a document on the ledger."""

    document: DocumentId
    version: DocumentVersion


@dataclass(frozen=True, slots=True)
class KycRecord:
    """The decision in force, and what it was made on."""

    decision: KycDecision
    citation: Citation
    decided_by: Address
    decided_ms: int


KYC_RECORDS: Table[KycRecord] = Table("py", KycRecord, missing="kyc_not_decided")  # participant


@event("participant.kyc_decided")
@dataclass(frozen=True, slots=True)
class KycDecided(Event):
    """A utility decided on a participant's papers."""

    participant: Address
    decision: KycDecision
    citation: Citation
    decided_by: Address


@transaction("participant.decide_kyc", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class DecideKyc(Payload):
    """Approve or refuse a participant on the latest version of its papers, which the decider could read.

    The utility that registered the participant decides; of whom no utility registered, any utility may.
    """

    participant: Address
    decision: KycDecision
    citation: Citation

    def apply(self, state: State, tx: TxContext) -> None:
        participant = get_participant(state, self.participant)
        check_standing(participant, self.participant, "participant.decide_kyc")
        if self.participant == tx.sender:
            raise NotPermitted("kyc_of_oneself", format_address(tx.sender))
        if not _is_in_charge(state, participant, tx.sender):
            raise NotPermitted("participant_of_another_registrar", format_address(self.participant))
        before = KYC_RECORDS.find(state, self.participant)
        if before is not None and (before.decision, before.citation) == (self.decision, self.citation):
            raise RuleViolated("kyc_already_decided", format_address(self.participant))
        document, version = self.citation.document, self.citation.version
        check_kyc_version(state, document, version, subject=self.participant, decider=tx.sender)
        status = KYC_TRANSITIONS[participant.kyc, self.decision]
        PARTICIPANTS.put(state, self.participant, value=replace(participant, kyc=status))
        record = KycRecord(self.decision, self.citation, tx.sender, tx.time_ms)
        KYC_RECORDS.put(state, self.participant, value=record)
        state.emit(KycDecided(self.participant, self.decision, self.citation, tx.sender))


def _is_in_charge(state: State, participant: Participant, utility: Address) -> bool:
    registrar = participant.registrar
    return registrar == utility or registrar is None or not has_role(state, registrar, [Role.UTILITY])
