"""Escrow: the security deposit that a consumer lodges with a utility for a service point.

Owns the locked credits and when they come back. The ledger computes the dues from its own bills at that moment, so
that neither side can hold or take the deposit by its word alone. Escrow imports bills, not the other way round.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native import credits
from contracts_native.bills import (
    OPEN_BILLS_MAX,
    BillId,
    check_service_point,
    compute_dues_cents,
    get_open_bills,
    get_overdue_bills,
    record_payment,
)
from contracts_native.meters import MeterId
from contracts_native.participants import Role, check_not_frozen, has_role
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Amount, Length
from ledger.parameters import get_parameters
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction

BILLS_NAMED_MAX: Final = 5  # in a refusal; the rest is counted

EscrowId = Annotated[bytes, Length(16, 16)]


class EscrowStatus(enum.StrEnum):
    """Where a deposit stands; nothing leaves ``returned`` or ``set_off``."""

    HELD = "held"
    RETURN_REQUESTED = "return_requested"
    RETURNED = "returned"
    SET_OFF = "set_off"


# (status, transaction) → the statuses that may follow. What is not here is refused.
ESCROW_TRANSITIONS: Final[Mapping[tuple[EscrowStatus, str], frozenset[EscrowStatus]]] = {
    (EscrowStatus.HELD, "escrow.request_return"): frozenset({EscrowStatus.RETURN_REQUESTED}),
    (EscrowStatus.HELD, "escrow.set_off"): frozenset({EscrowStatus.HELD, EscrowStatus.SET_OFF}),
    (EscrowStatus.RETURN_REQUESTED, "escrow.approve_return"): frozenset({EscrowStatus.RETURNED}),
    (EscrowStatus.RETURN_REQUESTED, "escrow.reject_return"): frozenset({EscrowStatus.HELD}),
    (EscrowStatus.RETURN_REQUESTED, "escrow.self_return"): frozenset({EscrowStatus.RETURNED}),
}


@dataclass(frozen=True, slots=True)
class Escrow:
    """A deposit: what was locked, what is still held. ``requested_ms`` is 0 unless a return is requested."""

    consumer: Address
    utility: Address
    service_point: MeterId
    locked_cents: int
    held_cents: int
    status: EscrowStatus
    requested_ms: int


@dataclass(frozen=True, slots=True)
class OpenEscrow:
    """The one open deposit of a consumer with a utility for a service point."""

    escrow: EscrowId


ESCROWS: Table[Escrow] = Table("es", Escrow, missing="escrow_unknown")
OPEN_ESCROWS: Table[OpenEscrow] = Table("eo", OpenEscrow, missing="escrow_not_open")  # consumer, utility, meter


@event("escrow.locked")
@dataclass(frozen=True, slots=True)
class EscrowLocked(Event):
    """Credits left the consumer's balance and are held."""

    escrow: EscrowId
    consumer: Address
    utility: Address
    service_point: MeterId
    cents: int


@event("escrow.return_requested")
@dataclass(frozen=True, slots=True)
class EscrowReturnRequested(Event):
    """The consumer asks for the deposit; ``alone_from_ms`` is when silence lets it come back by itself."""

    escrow: EscrowId
    consumer: Address
    utility: Address
    alone_from_ms: int


@event("escrow.return_rejected")
@dataclass(frozen=True, slots=True)
class EscrowReturnRejected(Event):
    """The utility keeps the deposit, citing what is outstanding."""

    escrow: EscrowId
    consumer: Address
    utility: Address
    dues_cents: int
    bills: tuple[BillId, ...]


@event("escrow.returned")
@dataclass(frozen=True, slots=True)
class EscrowReturned(Event):
    """What was held is back with the consumer; ``is_alone`` when the utility was silent."""

    escrow: EscrowId
    consumer: Address
    utility: Address
    cents: int
    is_alone: bool


@event("escrow.set_off")
@dataclass(frozen=True, slots=True)
class EscrowSetOff(Event):
    """Overdue bills were paid from the deposit; what is left stays held."""

    escrow: EscrowId
    consumer: Address
    utility: Address
    cents: int
    held_cents: int
    status: EscrowStatus


def compute_held_cents(state: State) -> int:
    """All credits in escrow, by scanning every deposit: for audits."""
    return sum(escrow.held_cents for _, escrow in ESCROWS.scan(state))


@transaction("escrow.lock", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class LockEscrow(Payload):
    """Lodge a security deposit for a service point that the sender owns."""

    utility: Address
    service_point: MeterId
    amount_cents: Amount

    def apply(self, state: State, tx: TxContext) -> None:
        check_not_frozen(state, self.utility)
        if not has_role(state, self.utility, [Role.UTILITY]):
            raise RuleViolated("beneficiary_is_no_utility", format_address(self.utility))
        if self.utility == tx.sender:
            raise RuleViolated("deposit_with_oneself", format_address(tx.sender))
        check_service_point(state, self.service_point, utility=self.utility, consumer=tx.sender)
        already_open = OPEN_ESCROWS.find(state, tx.sender, self.utility, self.service_point)
        if already_open is not None:
            raise RuleViolated("escrow_already_open", already_open.escrow.hex())
        credits.take(state, tx.sender, self.amount_cents)
        escrow_id = tx.make_id("escrow")
        escrow = Escrow(
            consumer=tx.sender,
            utility=self.utility,
            service_point=self.service_point,
            locked_cents=self.amount_cents,
            held_cents=self.amount_cents,
            status=EscrowStatus.HELD,
            requested_ms=0,
        )
        ESCROWS.put(state, escrow_id, value=escrow)
        OPEN_ESCROWS.put(state, tx.sender, self.utility, self.service_point, value=OpenEscrow(escrow_id))
        state.emit(EscrowLocked(escrow_id, tx.sender, self.utility, self.service_point, self.amount_cents))


@transaction("escrow.request_return", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class RequestReturn(Payload):
    """Ask the utility for the deposit."""

    escrow: EscrowId

    def apply(self, state: State, tx: TxContext) -> None:
        escrow = _get_of_consumer(state, self.escrow, tx, "escrow.request_return")
        requested = replace(escrow, status=EscrowStatus.RETURN_REQUESTED, requested_ms=tx.time_ms)
        _put(state, self.escrow, escrow, requested, "escrow.request_return")
        alone_from_ms = _compute_alone_from_ms(state, requested)
        state.emit(EscrowReturnRequested(self.escrow, escrow.consumer, escrow.utility, alone_from_ms))


@transaction("escrow.approve_return", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class ApproveReturn(Payload):
    """Give the deposit back; refused while the ledger computes dues."""

    escrow: EscrowId

    def apply(self, state: State, tx: TxContext) -> None:
        escrow = _get_of_utility(state, self.escrow, tx, "escrow.approve_return")
        _check_no_dues(state, escrow)
        _return(state, self.escrow, escrow, "escrow.approve_return")


@transaction("escrow.reject_return", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class RejectReturn(Payload):
    """Keep the deposit, citing open bills of this consumer; refused when the ledger computes no dues."""

    escrow: EscrowId
    bills: Annotated[tuple[BillId, ...], Length(OPEN_BILLS_MAX)]

    def apply(self, state: State, tx: TxContext) -> None:
        escrow = _get_of_utility(state, self.escrow, tx, "escrow.reject_return")
        dues_cents = compute_dues_cents(state, escrow.consumer, escrow.utility)
        if not dues_cents:
            raise RuleViolated("no_dues_outstanding", format_address(escrow.consumer))
        if not self.bills:
            raise RuleViolated("rejection_cites_no_bill", self.escrow.hex())
        if len(set(self.bills)) != len(self.bills):
            raise RuleViolated("bill_cited_twice", self.escrow.hex())
        open_bills = {bill_id for bill_id, _ in get_open_bills(state, escrow.consumer, escrow.utility)}
        for bill_id in self.bills:
            if bill_id not in open_bills:
                raise RuleViolated("cited_bill_not_outstanding", bill_id.hex())
        held = replace(escrow, status=EscrowStatus.HELD, requested_ms=0)
        _put(state, self.escrow, escrow, held, "escrow.reject_return")
        state.emit(EscrowReturnRejected(self.escrow, escrow.consumer, escrow.utility, dues_cents, self.bills))


@transaction("escrow.set_off", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class SetOff(Payload):
    """Pay overdue, undisputed bills from the deposit, the earliest due first; what is left stays held."""

    escrow: EscrowId

    def apply(self, state: State, tx: TxContext) -> None:
        escrow = _get_of_utility(state, self.escrow, tx, "escrow.set_off")
        check_not_frozen(state, escrow.consumer)
        left_cents = escrow.held_cents
        for bill_id, bill in get_overdue_bills(state, escrow.consumer, escrow.utility, time_ms=tx.time_ms):
            cents = min(left_cents, bill.outstanding_cents)
            if not cents:
                break
            record_payment(state, bill_id, cents, tag="escrow.set_off")
            left_cents -= cents
        paid_cents = escrow.held_cents - left_cents
        if not paid_cents:
            raise RuleViolated("nothing_overdue_to_set_off", format_address(escrow.consumer))
        credits.give(state, escrow.utility, paid_cents)
        status = EscrowStatus.HELD if left_cents else EscrowStatus.SET_OFF
        _put(state, self.escrow, escrow, replace(escrow, held_cents=left_cents, status=status), "escrow.set_off")
        state.emit(EscrowSetOff(self.escrow, escrow.consumer, escrow.utility, paid_cents, left_cents, status))


@transaction("escrow.self_return", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class SelfReturn(Payload):
    """Take the deposit back alone: the utility was silent for ``escrow_silence_s``, and nothing is due."""

    escrow: EscrowId

    def apply(self, state: State, tx: TxContext) -> None:
        escrow = _get_of_consumer(state, self.escrow, tx, "escrow.self_return")
        alone_from_ms = _compute_alone_from_ms(state, escrow)
        if tx.time_ms < alone_from_ms:
            raise RuleViolated("utility_may_still_answer", f"until {alone_from_ms}")
        _check_no_dues(state, escrow)
        _return(state, self.escrow, escrow, "escrow.self_return")


def _get_of_consumer(state: State, escrow_id: bytes, tx: TxContext, tag: str) -> Escrow:
    escrow = ESCROWS.get(state, escrow_id)
    if tx.sender != escrow.consumer:
        raise NotPermitted("escrow_of_another_consumer", format_address(escrow.consumer))
    return _check_allowed(escrow, escrow_id, tag)


def _get_of_utility(state: State, escrow_id: bytes, tx: TxContext, tag: str) -> Escrow:
    escrow = ESCROWS.get(state, escrow_id)
    if tx.sender != escrow.utility:
        raise NotPermitted("escrow_of_another_utility", format_address(escrow.utility))
    return _check_allowed(escrow, escrow_id, tag)


def _check_allowed(escrow: Escrow, escrow_id: bytes, tag: str) -> Escrow:
    if (escrow.status, tag) not in ESCROW_TRANSITIONS:
        raise RuleViolated("escrow_not_open_to_this", f"{escrow_id.hex()} is {escrow.status}: no {tag}")
    return escrow


def _compute_alone_from_ms(state: State, escrow: Escrow) -> int:
    return escrow.requested_ms + get_parameters(state).escrow_silence_s * 1_000


def _check_no_dues(state: State, escrow: Escrow) -> None:
    dues_cents = compute_dues_cents(state, escrow.consumer, escrow.utility)
    if dues_cents:
        ids = [bill_id.hex() for bill_id, _ in get_open_bills(state, escrow.consumer, escrow.utility)]
        more = f" and {len(ids) - BILLS_NAMED_MAX} more" if len(ids) > BILLS_NAMED_MAX else ""
        raise RuleViolated("dues_outstanding", f"{dues_cents} cents on bills {', '.join(ids[:BILLS_NAMED_MAX])}{more}")


def _return(state: State, escrow_id: bytes, escrow: Escrow, tag: str) -> None:
    # The payee is always the depositor.
    check_not_frozen(state, escrow.consumer)
    credits.give(state, escrow.consumer, escrow.held_cents)
    _put(state, escrow_id, escrow, replace(escrow, status=EscrowStatus.RETURNED, held_cents=0), tag)
    is_alone = tag == "escrow.self_return"
    state.emit(EscrowReturned(escrow_id, escrow.consumer, escrow.utility, escrow.held_cents, is_alone))


def _put(state: State, escrow_id: bytes, before: Escrow, after: Escrow, tag: str) -> None:
    assert after.status in ESCROW_TRANSITIONS[before.status, tag], (before.status, tag, after.status)
    ESCROWS.put(state, escrow_id, value=after)
    if after.status in (EscrowStatus.RETURNED, EscrowStatus.SET_OFF):
        assert after.held_cents == 0, after
        OPEN_ESCROWS.delete(state, after.consumer, after.utility, after.service_point)
