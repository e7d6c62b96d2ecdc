"""Credits: the utility token that pays for energy.

Owns balances, issuers and redemptions. Supply is money attested in less money paid out; credits are moved by one
verb, ``move``, so that what leaves one holder arrives at another or nothing happens.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native.participants import Role, check_not_frozen, get_participant
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import INTEGER_MAX, Amount, Length
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction

REFERENCE_BYTES_MAX: Final = 64

Reference = Annotated[str, Length(REFERENCE_BYTES_MAX, 1)]
RedemptionId = Annotated[bytes, Length(16, 16)]


class RedemptionStatus(enum.StrEnum):
    """Where a redemption stands; nothing leaves ``paid`` or ``failed``."""

    REQUESTED = "requested"
    PAID = "paid"
    FAILED = "failed"


# (status, transaction) → the status that follows. What is not here is refused.
REDEMPTION_TRANSITIONS: Final[Mapping[tuple[RedemptionStatus, str], RedemptionStatus]] = {
    (RedemptionStatus.REQUESTED, "credit.confirm_payout"): RedemptionStatus.PAID,
    (RedemptionStatus.REQUESTED, "credit.fail_payout"): RedemptionStatus.FAILED,
}


@dataclass(frozen=True, slots=True)
class Balance:
    """Credits that a holder may spend."""

    cents: int


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who may attest money paid in, up to a limit of credits outstanding."""

    limit_cents: int
    outstanding_cents: int


@dataclass(frozen=True, slots=True)
class Supply:
    """Money attested in and money paid out since genesis."""

    issued_cents: int
    paid_out_cents: int


@dataclass(frozen=True, slots=True)
class PaymentReference:
    """A payment in that was attested once, and may not be attested again."""

    issuer: Address
    holder: Address
    cents: int


@dataclass(frozen=True, slots=True)
class Redemption:
    """Credits on their way out as money: locked while requested."""

    holder: Address
    issuer: Address
    cents: int
    status: RedemptionStatus
    requested_ms: int
    payout_reference: Annotated[str, Length(REFERENCE_BYTES_MAX)]


BALANCES: Table[Balance] = Table("cb", Balance, missing="credit_balance_missing", is_hot=True)
ISSUERS: Table[Issuer] = Table("ci", Issuer, missing="issuer_not_authorised", is_hot=True)
SUPPLY: Table[Supply] = Table("cs", Supply, missing="credit_supply_missing", is_hot=True)
PAYMENT_REFERENCES: Table[PaymentReference] = Table("cp", PaymentReference, missing="payment_reference_unknown")
REDEMPTIONS: Table[Redemption] = Table("cr", Redemption, missing="redemption_unknown")


@event("credit.issued")
@dataclass(frozen=True, slots=True)
class CreditsIssued(Event):
    """Money came in and became credits."""

    issuer: Address
    holder: Address
    cents: int
    payment_reference: str


@event("credit.moved")
@dataclass(frozen=True, slots=True)
class CreditsMoved(Event):
    """Credits changed hands."""

    sender: Address
    recipient: Address
    cents: int
    reference: str


@event("credit.redemption_requested")
@dataclass(frozen=True, slots=True)
class RedemptionRequested(Event):
    """Credits are locked until they are paid out, or the payout fails."""

    redemption: RedemptionId
    holder: Address
    issuer: Address
    cents: int


@event("credit.redemption_ended")
@dataclass(frozen=True, slots=True)
class RedemptionEnded(Event):
    """Paid: the credits are burned. Failed: they are back with their holder."""

    redemption: RedemptionId
    holder: Address
    cents: int
    status: RedemptionStatus
    payout_reference: str
    ended_by: Address


@dataclass(frozen=True, slots=True)
class CreditSums:
    """Where all credits are, as far as this file knows: what it lacks is locked by families that stand on it.

    issued − paid out = balances + redemptions requested + escrow (``escrow.compute_held_cents``), and
    issued − paid out = what the issuers have outstanding.
    """

    issued_cents: int
    paid_out_cents: int
    balances_cents: int
    redemptions_requested_cents: int
    issuers_outstanding_cents: int


def compute_credit_sums(state: State) -> CreditSums:
    """The sums of every balance, redemption and issuer, by scanning them: for audits."""
    supply = _get_supply(state)
    redemptions = [redemption for _, redemption in REDEMPTIONS.scan(state)]
    return CreditSums(
        issued_cents=supply.issued_cents,
        paid_out_cents=supply.paid_out_cents,
        balances_cents=sum(balance.cents for _, balance in BALANCES.scan(state)),
        redemptions_requested_cents=sum(
            redemption.cents for redemption in redemptions if redemption.status is RedemptionStatus.REQUESTED
        ),
        issuers_outstanding_cents=sum(issuer.outstanding_cents for _, issuer in ISSUERS.scan(state)),
    )


def get_balance_cents(state: State, holder: Address) -> int:
    """Credits that a holder may spend; 0 for one who never had any."""
    balance = BALANCES.find(state, holder)
    return 0 if balance is None else balance.cents


def take(state: State, holder: Address, cents: int) -> None:
    """Take credits from a holder's balance, for a lock or a burn. Raises ``RuleViolated``."""
    have = get_balance_cents(state, holder)
    if cents > have:
        raise RuleViolated("credits_not_sufficient", f"{format_address(holder)} has {have} cents, needs {cents}")
    if have == cents:
        BALANCES.delete(state, holder)
    else:
        BALANCES.put(state, holder, value=Balance(have - cents))


def give(state: State, holder: Address, cents: int) -> None:
    """Add credits to a holder's balance, from an issue or a lock that ended."""
    assert cents >= 0, cents
    total = get_balance_cents(state, holder) + cents
    if total > INTEGER_MAX:
        raise RuleViolated("credit_balance_too_large", format_address(holder))
    BALANCES.put(state, holder, value=Balance(total))


def move(state: State, cents: int, *, sender: Address, recipient: Address, reference: str) -> None:
    """Move credits between holders, and say so. Raises ``RuleViolated`` or ``NotPermitted``."""
    check_not_frozen(state, recipient)
    take(state, sender, cents)
    give(state, recipient, cents)
    state.emit(CreditsMoved(sender, recipient, cents, reference))


def _get_supply(state: State) -> Supply:
    return SUPPLY.find(state) or Supply(0, 0)


@transaction("credit.issue", roles=(Role.UTILITY, Role.ADMIN))
@dataclass(frozen=True, slots=True)
class IssueCredits(Payload):
    """Attest money paid in, once per payment reference, and credit it to its payer."""

    holder: Address
    amount_cents: Amount
    payment_reference: Reference

    def apply(self, state: State, tx: TxContext) -> None:
        issuer = ISSUERS.find(state, tx.sender)
        if issuer is None:
            raise NotPermitted("issuer_not_authorised", format_address(tx.sender))
        check_not_frozen(state, self.holder)
        if PAYMENT_REFERENCES.find(state, tx.sender, self.payment_reference) is not None:
            raise RuleViolated("payment_reference_already_used", self.payment_reference)
        outstanding_cents = issuer.outstanding_cents + self.amount_cents
        if outstanding_cents > issuer.limit_cents:
            raise RuleViolated("issuer_limit_exceeded", f"{outstanding_cents} of {issuer.limit_cents} cents")
        supply = _get_supply(state)
        if supply.issued_cents + self.amount_cents > INTEGER_MAX:
            raise RuleViolated("credit_supply_too_large", self.amount_cents)
        ISSUERS.put(state, tx.sender, value=Issuer(issuer.limit_cents, outstanding_cents))
        SUPPLY.put(state, value=Supply(supply.issued_cents + self.amount_cents, supply.paid_out_cents))
        reference = PaymentReference(tx.sender, self.holder, self.amount_cents)
        PAYMENT_REFERENCES.put(state, tx.sender, self.payment_reference, value=reference)
        give(state, self.holder, self.amount_cents)
        state.emit(CreditsIssued(tx.sender, self.holder, self.amount_cents, self.payment_reference))


@transaction("credit.transfer", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class TransferCredits(Payload):
    """Move credits to another participant."""

    recipient: Address
    amount_cents: Amount
    reference: Annotated[str, Length(REFERENCE_BYTES_MAX)]

    def apply(self, state: State, tx: TxContext) -> None:
        if self.recipient == tx.sender:
            raise RuleViolated("recipient_is_sender", format_address(tx.sender))
        move(state, self.amount_cents, sender=tx.sender, recipient=self.recipient, reference=self.reference)


@transaction("credit.redeem", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class RedeemCredits(Payload):
    """Ask an issuer to pay credits out as money; they are locked until it has, or could not."""

    issuer: Address
    amount_cents: Amount

    def apply(self, state: State, tx: TxContext) -> None:
        get_participant(state, self.issuer)
        issuer = ISSUERS.get(state, self.issuer)
        if self.amount_cents > issuer.outstanding_cents:
            raise RuleViolated("issuer_has_less_outstanding", f"{issuer.outstanding_cents} cents")
        take(state, tx.sender, self.amount_cents)
        redemption_id = tx.make_id("redemption")
        redemption = Redemption(
            tx.sender, self.issuer, self.amount_cents, RedemptionStatus.REQUESTED, tx.time_ms, payout_reference=""
        )
        REDEMPTIONS.put(state, redemption_id, value=redemption)
        state.emit(RedemptionRequested(redemption_id, tx.sender, self.issuer, self.amount_cents))


@transaction("credit.confirm_payout", roles=(Role.FULFILMENT,))
@dataclass(frozen=True, slots=True)
class ConfirmPayout(Payload):
    """The money was paid: the locked credits are burned."""

    redemption: RedemptionId
    payout_reference: Reference

    def apply(self, state: State, tx: TxContext) -> None:
        redemption = _get_open(state, self.redemption, "credit.confirm_payout")
        if redemption.holder == tx.sender:
            raise NotPermitted("payout_to_oneself", format_address(tx.sender))
        issuer = ISSUERS.get(state, redemption.issuer)
        if redemption.cents > issuer.outstanding_cents:
            raise RuleViolated("issuer_has_less_outstanding", f"{issuer.outstanding_cents} cents")
        left_cents = issuer.outstanding_cents - redemption.cents
        ISSUERS.put(state, redemption.issuer, value=Issuer(issuer.limit_cents, left_cents))
        supply = _get_supply(state)
        SUPPLY.put(state, value=Supply(supply.issued_cents, supply.paid_out_cents + redemption.cents))
        _end(state, self.redemption, "credit.confirm_payout", ended_by=tx.sender, reference=self.payout_reference)


@transaction("credit.fail_payout", roles=(Role.FULFILMENT,))
@dataclass(frozen=True, slots=True)
class FailPayout(Payload):
    """The money could not be paid: the credits go back to their holder."""

    redemption: RedemptionId
    reason: Reference

    def apply(self, state: State, tx: TxContext) -> None:
        redemption = _get_open(state, self.redemption, "credit.fail_payout")
        give(state, redemption.holder, redemption.cents)
        _end(state, self.redemption, "credit.fail_payout", ended_by=tx.sender, reference=self.reason)


def _get_open(state: State, redemption_id: bytes, tag: str) -> Redemption:
    redemption = REDEMPTIONS.get(state, redemption_id)
    if (redemption.status, tag) not in REDEMPTION_TRANSITIONS:
        raise RuleViolated("redemption_already_ended", f"{redemption_id.hex()} is {redemption.status}")
    return redemption


def _end(state: State, redemption_id: bytes, tag: str, *, ended_by: Address, reference: str) -> None:
    before = REDEMPTIONS.get(state, redemption_id)
    status = REDEMPTION_TRANSITIONS[before.status, tag]
    REDEMPTIONS.put(state, redemption_id, value=replace(before, status=status, payout_reference=reference))
    state.emit(RedemptionEnded(redemption_id, before.holder, before.cents, status, reference, ended_by))
