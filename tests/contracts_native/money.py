"""Money in the tests of the contracts: credits paid in, bills over real readings, and the sums that must hold."""

from __future__ import annotations

from typing import Final

from contracts_native.bills import (
    BILLS,
    OPEN_BILLS,
    BillLine,
    DisputeBill,
    IssueBill,
    Outcome,
    PayBill,
    ResolveBill,
    compute_bill_sums,
)
from contracts_native.credits import IssueCredits, compute_credit_sums, get_balance_cents
from contracts_native.escrow import ESCROWS, OPEN_ESCROWS, compute_held_cents
from ledger.state import State
from tests.contracts_native.harness import BOB, DAY_MS, UTILITY, Person, SigningMeter, World

CENT_PER_WH: Final = 1_000_000  # as a price in cents per MWh: a bill's cents are its Wh


def pay_in(world: World, holder: Person, cents: int) -> None:
    """Credits for money that the utility attests."""
    reference = f"payment {world.height}"
    world.apply(IssueCredits(holder.address, cents, reference), by=UTILITY)


def balance(world: World, holder: Person) -> int:
    return get_balance_cents(world.state, holder.address)


def meter_line(world: World, meter: SigningMeter, *values_wh: int, price: int = CENT_PER_WH) -> BillLine:
    """Let a meter consume, and the line that bills it."""
    report = world.consume(meter, *values_wh)
    return BillLine(meter.meter_id, report.start_ms, report.end_ms, sum(values_wh), price)


def bill_of(world: World, *lines: BillLine, consumer: Person = BOB, due_in_ms: int = DAY_MS) -> IssueBill:
    return IssueBill(consumer.address, lines, world.time_ms + due_in_ms, "June")


def issue_bill(
    world: World, meter: SigningMeter, cents: int, *, consumer: Person = BOB, due_in_ms: int = DAY_MS
) -> bytes:
    """Bill one new interval for so many cents; the bill's id."""
    payload = bill_of(world, meter_line(world, meter, cents), consumer=consumer, due_in_ms=due_in_ms)
    return world.apply(payload, by=UTILITY).make_id("bill")


def pay(world: World, bill_id: bytes, cents: int, *, by: Person = BOB) -> None:
    world.apply(PayBill(bill_id, cents), by=by)


def dispute(world: World, bill_id: bytes, *, by: Person = BOB) -> None:
    world.apply(DisputeBill(bill_id, "not mine"), by=by)


def resolve(world: World, bill_id: bytes, outcome: Outcome) -> None:
    world.apply(ResolveBill(bill_id, outcome), by=UTILITY)


def check_credits_conserved(state: State) -> None:
    """Every credit is somewhere, once; every bill adds up; the indexes of open things list just those."""
    sums = compute_credit_sums(state)
    supply_cents = sums.issued_cents - sums.paid_out_cents
    assert supply_cents == sums.balances_cents + sums.redemptions_requested_cents + compute_held_cents(state)
    assert supply_cents == sums.issuers_outstanding_cents
    bills = compute_bill_sums(state)
    assert bills.billed_cents == bills.paid_cents + bills.credited_cents + bills.outstanding_cents
    assert bills.outstanding_cents == bills.outstanding_on_open_bills_cents
    open_bills = {entry.bill for _, entry in OPEN_BILLS.scan(state)}
    assert open_bills == {key[3:] for key, bill in BILLS.scan(state) if bill.outstanding_cents}
    assert all(bill.outstanding_cents >= 0 for _, bill in BILLS.scan(state))
    open_escrows = {entry.escrow for _, entry in OPEN_ESCROWS.scan(state)}
    assert open_escrows == {key[3:] for key, escrow in ESCROWS.scan(state) if escrow.held_cents}
