"""Where a bill can stand: every pair of a status and a transaction, walked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts_native.bills import (
    BILL_TRANSITIONS,
    BILLS,
    BillStatus,
    CreditBill,
    DisputeBill,
    Outcome,
    PayBill,
    ResolveBill,
)
from ledger.transaction import Payload
from tests.contracts_native.harness import BOB, UTILITY, Person, SigningMeter, World
from tests.contracts_native.money import check_credits_conserved, dispute, issue_bill, pay, pay_in


@pytest.fixture
def world() -> World:
    """Bob has paid 10,000 cents in."""
    one = World()
    pay_in(one, BOB, 10_000)
    return one


@pytest.fixture
def meter(world: World) -> SigningMeter:
    """Bob's meter."""
    return world.add_consumer(BOB)


# Every pair of a status and a transaction, and where a bill of 100 cents stands afterwards; None: refused.

ISSUED, PART_PAID, DISPUTED = BillStatus.ISSUED, BillStatus.PART_PAID, BillStatus.DISPUTED
PAID, CREDITED = BillStatus.PAID, BillStatus.CREDITED

ACTIONS: dict[str, tuple[Callable[[bytes], Payload], Person]] = {
    "pay a part": (lambda bill_id: PayBill(bill_id, 1), BOB),
    "pay 50": (lambda bill_id: PayBill(bill_id, 50), BOB),
    "dispute": (lambda bill_id: DisputeBill(bill_id, "x"), BOB),
    "uphold": (lambda bill_id: ResolveBill(bill_id, Outcome.UPHELD), UTILITY),
    "withdraw": (lambda bill_id: ResolveBill(bill_id, Outcome.WITHDRAWN), UTILITY),
    "credit a part": (lambda bill_id: CreditBill(bill_id, 1, "x"), UTILITY),
    "credit 50": (lambda bill_id: CreditBill(bill_id, 50, "x"), UTILITY),
}
AFTER: dict[BillStatus, dict[str, BillStatus]] = {  # each with 50 cents outstanding, where anything is
    ISSUED: {
        "pay a part": PART_PAID,
        "pay 50": PAID,
        "dispute": DISPUTED,
        "credit a part": ISSUED,
        "credit 50": CREDITED,
    },
    PART_PAID: {
        "pay a part": PART_PAID,
        "pay 50": PAID,
        "dispute": DISPUTED,
        "credit a part": PART_PAID,
        "credit 50": CREDITED,
    },
    DISPUTED: {
        "pay a part": DISPUTED,
        "pay 50": PAID,
        "uphold": ISSUED,
        "withdraw": CREDITED,
        "credit a part": DISPUTED,
        "credit 50": CREDITED,
    },
    PAID: {},
    CREDITED: {},
}


def bring_to(world: World, meter: SigningMeter, status: BillStatus) -> bytes:
    bill_id = issue_bill(world, meter, 100 if status is PART_PAID else 50)
    if status in (PART_PAID, PAID):
        pay(world, bill_id, 50)
    if status is DISPUTED:
        dispute(world, bill_id)
    if status is CREDITED:
        world.apply(CreditBill(bill_id, 50, "x"), by=UTILITY)
    assert BILLS.get(world.state, bill_id).status is status
    return bill_id


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", BillStatus)
def test_a_bill_goes_only_where_the_domain_lets_it(
    world: World, meter: SigningMeter, status: BillStatus, action: str
) -> None:
    bill_id = bring_to(world, meter, status)
    make, by = ACTIONS[action]
    wanted = AFTER[status].get(action)
    if wanted is None:
        refusal = world.refuses(make(bill_id), "bill_not_open_to_this", by=by)
        assert f"is {status}" in refusal.item
    else:
        world.apply(make(bill_id), by=by)
    assert BILLS.get(world.state, bill_id).status is (wanted or status)
    check_credits_conserved(world.state)


def test_nothing_leaves_a_closed_bill() -> None:
    assert {status for status, _ in BILL_TRANSITIONS} == {ISSUED, PART_PAID, DISPUTED}
