"""One table of transitions for each object that has a status, of every transaction about it; each has its walk."""

from __future__ import annotations

import enum
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

import contracts_native
from contracts_native.bills import BILL_TRANSITIONS, BillStatus
from contracts_native.claims import CLAIM_TRANSITIONS, ClaimStatus
from contracts_native.credits import REDEMPTION_TRANSITIONS, RedemptionStatus
from contracts_native.documents import DOCUMENT_TRANSITIONS, DocumentStatus
from contracts_native.escrow import ESCROW_TRANSITIONS, EscrowStatus
from contracts_native.governance import ITS_HEIGHT, PROPOSAL_TRANSITIONS, ProposalStatus
from contracts_native.kyc import KYC_TRANSITIONS
from contracts_native.meters import METER_TRANSITIONS, MeterStatus
from contracts_native.offers import OFFER_TRANSITIONS, OfferStatus
from contracts_native.participants import PARTICIPANT_TRANSITIONS, Standing
from contracts_native.slices import SLICE_TRANSITIONS, SliceStatus
from contracts_native.table import load_table

PAYLOADS: Final = load_table().payloads


@dataclass(frozen=True, slots=True)
class Walk:
    """A table, its family of transactions, those of the family that are about another object, and first statuses."""

    table: Mapping[tuple[Any, str], Any]
    family: str
    besides: frozenset[str]
    starts: frozenset[str]


WALKS: Final[dict[type[enum.StrEnum], Walk]] = {
    Standing: Walk(
        PARTICIPANT_TRANSITIONS,
        "participant.",
        frozenset({"participant.register", "participant.set_encryption_key"}),
        frozenset({Standing.FREE}),
    ),
    MeterStatus: Walk(METER_TRANSITIONS, "meter.", frozenset(), frozenset({MeterStatus.PROPOSED})),
    SliceStatus: Walk(
        SLICE_TRANSITIONS,
        "energy.",
        frozenset({"energy.void_claim"}),
        frozenset({SliceStatus.ACTIVE, SliceStatus.EXPIRED}),  # expiry is by time alone
    ),
    ClaimStatus: Walk(CLAIM_TRANSITIONS, "energy.", frozenset({"energy.transfer"}), frozenset({ClaimStatus.CLAIMED})),
    RedemptionStatus: Walk(
        REDEMPTION_TRANSITIONS,
        "credit.",
        frozenset({"credit.issue", "credit.transfer", "credit.redeem"}),
        frozenset({RedemptionStatus.REQUESTED}),
    ),
    EscrowStatus: Walk(ESCROW_TRANSITIONS, "escrow.", frozenset({"escrow.lock"}), frozenset({EscrowStatus.HELD})),
    BillStatus: Walk(BILL_TRANSITIONS, "bill.", frozenset({"bill.issue"}), frozenset({BillStatus.ISSUED})),
    OfferStatus: Walk(OFFER_TRANSITIONS, "offer.", frozenset({"offer.open"}), frozenset({OfferStatus.OPEN})),
    DocumentStatus: Walk(DOCUMENT_TRANSITIONS, "document.", frozenset(), frozenset({DocumentStatus.ACTIVE})),
    ProposalStatus: Walk(
        PROPOSAL_TRANSITIONS, "governance.", frozenset({"governance.evidence"}), frozenset({ProposalStatus.OPEN})
    ),
}


def follow(table: Mapping[tuple[Any, str], Any], starts: frozenset[str]) -> set[str]:
    """Every status that can be reached."""
    reached = set(starts)
    while True:
        after = [after for (before, _), after in table.items() if before in reached]
        found = {one for many in after for one in (many if isinstance(many, frozenset) else {many})}
        if found <= reached:
            return reached
        reached |= found


@pytest.mark.parametrize("kind", WALKS, ids=lambda kind: kind.__name__)
def test_every_transaction_about_an_object_stands_in_its_table(kind: type[enum.StrEnum]) -> None:
    walk = WALKS[kind]
    tags = {tag for _, tag in walk.table} - {ITS_HEIGHT}
    family = {tag for tag in PAYLOADS if tag.startswith(walk.family)}
    assert family - walk.besides <= tags <= set(PAYLOADS)
    assert not tags & walk.besides


@pytest.mark.parametrize("kind", WALKS, ids=lambda kind: kind.__name__)
def test_every_status_can_be_reached(kind: type[enum.StrEnum]) -> None:
    walk = WALKS[kind]
    assert follow(walk.table, walk.starts) == set(kind)


def test_no_table_and_no_status_is_forgotten() -> None:
    modules = [
        importlib.import_module(f"{contracts_native.__name__}.{one.name}")
        for one in pkgutil.iter_modules(contracts_native.__path__)
    ]
    kinds = {
        value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, enum.StrEnum) and name.endswith(("Status", "Standing"))
    }
    assert {kind.__name__ for kind in kinds} == {kind.__name__ for kind in WALKS} | {"KycStatus"}  # decided on anew
    tables = {id(value) for module in modules for name, value in vars(module).items() if name.endswith("_TRANSITIONS")}
    assert tables == {id(walk.table) for walk in WALKS.values()} | {id(KYC_TRANSITIONS)}
