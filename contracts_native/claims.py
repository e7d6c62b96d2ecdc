"""Claims: the final use of watt-hours.

Owns that a claim cancels its slices for ever, that its statement number is used once, and what becomes of a claim whose
energy or consumption was corrected: it is impaired, until another claim replaces what it lost or its claimant voids it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native import lots
from contracts_native.lots import SLICES_PER_TRANSACTION_MAX, LotId, Reason, SliceRefs
from contracts_native.matching import Matching, free, list_parts
from contracts_native.meters import MeterId
from contracts_native.participants import check_not_frozen
from contracts_native.sites import InstantMs
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Amount, Length
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction

PURPOSE_BYTES_MAX: Final = 256
STATEMENT_BYTES_MAX: Final = 64
SCORE_SCALE: Final = 10_000  # a matching score is in hundredths of a percent


class ClaimStatus(enum.StrEnum):
    """`claimed → impaired → replaced | void`; a replaced claim that loses more is impaired again."""

    CLAIMED = "claimed"
    IMPAIRED = "impaired"
    REPLACED = "replaced"
    VOID = "void"


class ClaimKind(enum.StrEnum):
    """What the energy was for: a beneficiary used it, or it went into a storage."""

    USE = "use"
    CHARGE = "charge"


# (status, transaction) → the status that follows. What is not here is refused; withdrawals and corrections pass a
# void claim by, since nothing of it counts any more.
CLAIM_TRANSITIONS: Final[Mapping[tuple[ClaimStatus, str], ClaimStatus]] = {
    (ClaimStatus.CLAIMED, "energy.withdraw"): ClaimStatus.IMPAIRED,
    (ClaimStatus.IMPAIRED, "energy.withdraw"): ClaimStatus.IMPAIRED,
    (ClaimStatus.REPLACED, "energy.withdraw"): ClaimStatus.IMPAIRED,
    (ClaimStatus.CLAIMED, "reading.correct"): ClaimStatus.IMPAIRED,
    (ClaimStatus.IMPAIRED, "reading.correct"): ClaimStatus.IMPAIRED,
    (ClaimStatus.REPLACED, "reading.correct"): ClaimStatus.IMPAIRED,
    (ClaimStatus.IMPAIRED, "energy.claim"): ClaimStatus.REPLACED,
    (ClaimStatus.IMPAIRED, "energy.void_claim"): ClaimStatus.VOID,
}

ClaimId = Annotated[bytes, Length(16, 16)]
Purpose = Annotated[str, Length(PURPOSE_BYTES_MAX)]
Statement = Annotated[str, Length(STATEMENT_BYTES_MAX, 1)]


@dataclass(frozen=True, slots=True)
class Claim:
    """Slices that were used, by whom, for what. Without a consumption meter the claim is volumetric.

    ``replaces``: the impaired claim whose losses this one makes good. Only ``status`` ever changes.
    """

    claimant: Address
    beneficiary: Address
    purpose: Purpose
    statement: Statement
    period_start_ms: int
    period_end_ms: int
    slices: SliceRefs
    wh: Amount
    consumption_meter: MeterId | None
    claimed_ms: int
    status: ClaimStatus
    kind: ClaimKind
    replaces: ClaimId | None

    @property
    def is_hourly(self) -> bool:
        """Whether every slice is matched to consumption of its own interval or matching period."""
        return self.consumption_meter is not None


@dataclass(frozen=True, slots=True)
class UsedStatement:
    """The claim that has a statement number of a beneficiary."""

    claim: ClaimId


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a claim lost: Wh of each of its slices in their order. ``replaced_wh``: what other claims made good."""

    lost_wh: Annotated[tuple[int, ...], Length(SLICES_PER_TRANSACTION_MAX, 1)]
    replaced_wh: int


CLAIMS: Table[Claim] = Table("cl", Claim, missing="claim_unknown")
STATEMENTS: Table[UsedStatement] = Table("ct", UsedStatement, missing="statement_unknown")  # beneficiary, statement
IMPAIRMENTS: Table[Impairment] = Table("cm", Impairment, missing="claim_not_impaired")  # claim


@event("energy.claimed")
@dataclass(frozen=True, slots=True)
class EnergyClaimed(Event):
    """A range of a lot was used for good."""

    claim: ClaimId
    lot: LotId
    first_wh: int
    end_wh: int
    claimant: Address
    beneficiary: Address
    is_hourly: bool
    consumption_meter: MeterId | None


@event("energy.claim_impaired")
@dataclass(frozen=True, slots=True)
class ClaimImpaired(Event):
    """So many Wh of a claim's slice of a lot no longer count, and why."""

    claim: ClaimId
    lot: LotId
    wh: int
    beneficiary: Address
    kind: ClaimKind
    reason: Reason


@event("energy.claim_ended")
@dataclass(frozen=True, slots=True)
class ClaimEnded(Event):
    """An impaired claim was replaced by another, or is void."""

    claim: ClaimId
    status: ClaimStatus
    replaced_by: ClaimId | None


def get_claim(state: State, claim: bytes) -> Claim:
    """A claim by its id. Raises ``RuleViolated`` (``claim_unknown``)."""
    return CLAIMS.get(state, claim)


def get_lost_wh(state: State, claim_id: bytes, claim: Claim) -> tuple[int, ...]:
    """What no longer counts of each slice of a claim, in their order."""
    found = IMPAIRMENTS.find(state, claim_id)
    return (0,) * len(claim.slices) if found is None else found.lost_wh


def compute_matching_score(consumed_wh: Sequence[int], claimed_wh: Sequence[int]) -> int:
    """The part of consumption that claims of the same period cover, in hundredths of a percent, rounded down.

    The sequences are parallel, one item a period; what is claimed beyond a period's consumption does not count.
    """
    covered_wh = sum(min(pair) for pair in zip(consumed_wh, claimed_wh, strict=True))
    total_wh = sum(consumed_wh)
    return SCORE_SCALE if total_wh == 0 else covered_wh * SCORE_SCALE // total_wh


def put_claim(state: State, claim_id: bytes, claim: Claim) -> None:
    """Put down a new claim under its statement number, which is free (``check_statement``)."""
    CLAIMS.put(state, claim_id, value=claim)
    STATEMENTS.put(state, claim.beneficiary, claim.statement, value=UsedStatement(claim_id))


def check_statement(state: State, beneficiary: Address, statement: str) -> None:
    """A statement number is used once for a beneficiary. Raises ``RuleViolated`` (``statement_already_used``)."""
    if STATEMENTS.find(state, beneficiary, statement) is not None:
        raise RuleViolated("statement_already_used", statement)


def impair(state: State, claim_id: bytes, losses: Mapping[int, int], *, tag: str, reason: str) -> None:
    """Take Wh off slices of a claim, by their place among them; their consumption must have been freed.

    What is void stays as it is: it has nothing left to lose.
    """
    claim = get_claim(state, claim_id)
    status = CLAIM_TRANSITIONS[claim.status, tag]
    found = IMPAIRMENTS.find(state, claim_id) or Impairment((0,) * len(claim.slices), 0)
    lost_wh = list(found.lost_wh)
    for position, wh in losses.items():
        lost_wh[position] += wh
        ref = claim.slices[position]
        assert wh > 0
        assert lost_wh[position] <= ref.wh, "a slice loses no more than it has"
        state.emit(ClaimImpaired(claim_id, ref.lot, wh, claim.beneficiary, claim.kind, reason))
    IMPAIRMENTS.put(state, claim_id, value=replace(found, lost_wh=tuple(lost_wh)))
    CLAIMS.put(state, claim_id, value=replace(claim, status=status))


@transaction("energy.claim", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class ClaimEnergy(Payload):
    """Use watt-hours for a beneficiary, for good. With its ``consumption_meter`` the claim is hourly.

    ``replaces``: the sender's impaired claim for the same beneficiary whose losses, or fewer Wh, this one makes good
    within the same period. The id: ``tx.make_id("claim")``.
    """

    slices: SliceRefs
    beneficiary: Address
    purpose: Purpose
    period_start_ms: InstantMs
    period_end_ms: InstantMs
    statement: Statement
    consumption_meter: MeterId | None = None
    replaces: ClaimId | None = None

    def apply(self, state: State, tx: TxContext) -> None:
        check_not_frozen(state, self.beneficiary)
        if self.period_start_ms >= self.period_end_ms:
            raise RuleViolated("claim_period_empty", f"{self.period_start_ms} … {self.period_end_ms}")
        check_statement(state, self.beneficiary, self.statement)
        claim_id = tx.make_id("claim")
        matching = None
        if self.consumption_meter is not None:
            matching = Matching(state, self.consumption_meter, beneficiary=self.beneficiary)
        for position, ref in enumerate(self.slices):
            lot = lots.claim(state, ref, owner=tx.sender, reference=claim_id, time_ms=tx.time_ms)
            if lot.start_ms < self.period_start_ms or lot.end_ms > self.period_end_ms:
                raise RuleViolated("claim_outside_period", ref)
            if matching is not None:
                matching.match(lot, ref.wh, position)
            meter = self.consumption_meter
            is_hourly = meter is not None
            state.emit(
                EnergyClaimed(
                    claim_id, ref.lot, ref.first_wh, ref.end_wh, tx.sender, self.beneficiary, is_hourly, meter
                )
            )
        if matching is not None:
            matching.write(claim_id)
        put_claim(state, claim_id, self._make_claim(tx))
        if self.replaces is not None:
            self._replace(state, self.replaces, claim_id, tx)

    def _make_claim(self, tx: TxContext) -> Claim:
        return Claim(
            claimant=tx.sender,
            beneficiary=self.beneficiary,
            purpose=self.purpose,
            statement=self.statement,
            period_start_ms=self.period_start_ms,
            period_end_ms=self.period_end_ms,
            slices=self.slices,
            wh=sum(ref.wh for ref in self.slices),
            consumption_meter=self.consumption_meter,
            claimed_ms=tx.time_ms,
            status=ClaimStatus.CLAIMED,
            kind=ClaimKind.USE,
            replaces=self.replaces,
        )

    def _replace(self, state: State, old_id: bytes, claim_id: bytes, tx: TxContext) -> None:
        old = _get_open(state, old_id, tx, "energy.claim")
        if old.kind is not ClaimKind.USE:
            raise RuleViolated("charge_cannot_be_replaced", old_id.hex())
        if old.beneficiary != self.beneficiary:
            raise RuleViolated("replacement_for_another_beneficiary", format_address(self.beneficiary))
        if self.period_start_ms < old.period_start_ms or self.period_end_ms > old.period_end_ms:
            raise RuleViolated("replacement_outside_period", old_id.hex())
        impairment = IMPAIRMENTS.get(state, old_id)
        wh = sum(ref.wh for ref in self.slices)
        missing_wh = sum(impairment.lost_wh) - impairment.replaced_wh
        if wh > missing_wh:
            raise RuleViolated("replacement_too_large", f"{wh} Wh for {missing_wh} Wh that were lost")
        IMPAIRMENTS.put(state, old_id, value=replace(impairment, replaced_wh=impairment.replaced_wh + wh))
        status = CLAIM_TRANSITIONS[old.status, "energy.claim"]
        CLAIMS.put(state, old_id, value=replace(old, status=status))
        state.emit(ClaimEnded(old_id, status, claim_id))


@transaction("energy.void_claim", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class VoidClaim(Payload):
    """Give up an impaired claim of the sender: nothing of it counts any more, and its consumption is free again.

    Its slices stay used: a watt-hour is in at most one claim, ever.
    """

    claim: ClaimId

    def apply(self, state: State, tx: TxContext) -> None:
        claim = _get_open(state, self.claim, tx, "energy.void_claim")
        if claim.kind is not ClaimKind.USE:
            raise RuleViolated("charge_cannot_be_void", self.claim.hex())
        lost_wh = get_lost_wh(state, self.claim, claim)
        if claim.consumption_meter is not None:
            parts = list_parts(state, self.claim, claim.consumption_meter, claim.slices, lost_wh)
            free(state, self.claim, claim.consumption_meter, parts)
        for ref, lost in zip(claim.slices, lost_wh, strict=True):
            if ref.wh > lost:
                state.emit(
                    ClaimImpaired(self.claim, ref.lot, ref.wh - lost, claim.beneficiary, claim.kind, "claim void")
                )
        impairment = IMPAIRMENTS.get(state, self.claim)
        all_wh = tuple(ref.wh for ref in claim.slices)
        IMPAIRMENTS.put(state, self.claim, value=replace(impairment, lost_wh=all_wh))
        status = CLAIM_TRANSITIONS[claim.status, "energy.void_claim"]
        CLAIMS.put(state, self.claim, value=replace(claim, status=status))
        state.emit(ClaimEnded(self.claim, status, None))


def _get_open(state: State, claim_id: bytes, tx: TxContext, tag: str) -> Claim:
    claim = get_claim(state, claim_id)
    if claim.claimant != tx.sender:
        raise NotPermitted("claim_of_another_claimant", format_address(claim.claimant))
    if (claim.status, tag) not in CLAIM_TRANSITIONS:
        raise RuleViolated("claim_not_open_to_this", f"{claim_id.hex()} is {claim.status}: no {tag}")
    return claim
