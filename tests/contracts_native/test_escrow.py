"""The security deposit: held by the ledger, back when nothing is due, and neither side's word is enough."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts_native.bills import (
    BILLS,
    BillPaid,
    BillStatus,
    CreditBill,
    DisputeBill,
    Outcome,
    PayBill,
    compute_dues_cents,
)
from contracts_native.escrow import (
    BILLS_NAMED_MAX,
    ESCROW_TRANSITIONS,
    ESCROWS,
    OPEN_ESCROWS,
    ApproveReturn,
    Escrow,
    EscrowLocked,
    EscrowReturned,
    EscrowReturnRejected,
    EscrowReturnRequested,
    EscrowSetOff,
    EscrowStatus,
    LockEscrow,
    RejectReturn,
    RequestReturn,
    SelfReturn,
    SetOff,
    compute_held_cents,
)
from ledger.errors import NotPermitted
from ledger.parameters import Parameters
from ledger.primitives import format_address
from ledger.transaction import Payload
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    DAY_MS,
    RIVAL,
    STRANGER,
    UTILITY,
    Person,
    SigningMeter,
    World,
)
from tests.contracts_native.money import (
    balance,
    bill_of,
    check_credits_conserved,
    dispute,
    issue_bill,
    meter_line,
    pay,
    pay_in,
    resolve,
)

SILENCE_MS = Parameters().escrow_silence_s * 1_000
HELD, REQUESTED = EscrowStatus.HELD, EscrowStatus.RETURN_REQUESTED
RETURNED, SET_OFF = EscrowStatus.RETURNED, EscrowStatus.SET_OFF


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


def lock(world: World, meter: SigningMeter, cents: int = 1_000) -> bytes:
    return world.apply(LockEscrow(UTILITY.address, meter.meter_id, cents), by=BOB).make_id("escrow")


def request(world: World, escrow: bytes) -> None:
    world.apply(RequestReturn(escrow), by=BOB)


def get(world: World, escrow: bytes) -> Escrow:
    return ESCROWS.get(world.state, escrow)


# escrow.lock


def test_a_deposit_leaves_the_balance_and_is_held(world: World, meter: SigningMeter) -> None:
    applied = world.apply(LockEscrow(UTILITY.address, meter.meter_id, 1_000), by=BOB)
    escrow = applied.make_id("escrow")
    assert applied.one(EscrowLocked) == EscrowLocked(escrow, BOB.address, UTILITY.address, meter.meter_id, 1_000)
    assert get(world, escrow) == Escrow(BOB.address, UTILITY.address, meter.meter_id, 1_000, 1_000, HELD, 0)
    assert (balance(world, BOB), balance(world, UTILITY)) == (9_000, 0)
    assert compute_held_cents(world.state) == 1_000
    check_credits_conserved(world.state)


def test_one_deposit_is_open_for_a_service_point(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    again = LockEscrow(UTILITY.address, meter.meter_id, 5)
    assert world.refuses(again, "escrow_already_open", by=BOB).item == escrow.hex()
    request(world, escrow)
    world.refuses(again, "escrow_already_open", by=BOB)
    world.apply(ApproveReturn(escrow), by=UTILITY)
    world.apply(again, by=BOB)


def test_another_service_point_has_another_deposit(world: World, meter: SigningMeter) -> None:
    lock(world, meter)
    lock(world, world.add_consumer(BOB))
    assert compute_held_cents(world.state) == 2_000


def test_a_deposit_is_no_larger_than_the_balance(world: World, meter: SigningMeter) -> None:
    world.refuses(LockEscrow(UTILITY.address, meter.meter_id, 10_001), "credits_not_sufficient", by=BOB)
    lock(world, meter, 10_000)
    assert balance(world, BOB) == 0


def test_a_deposit_is_for_ones_own_service_point_with_its_utility(world: World, meter: SigningMeter) -> None:
    pay_in(world, ALICE, 100)
    producer = world.add_producer(BOB)

    def refuse(reason: str, *, utility: Person = UTILITY, meter_id: bytes = meter.meter_id, by: Person = BOB) -> None:
        world.refuses(LockEscrow(utility.address, meter_id, 10), reason, by=by)

    refuse("service_point_of_another_utility", utility=RIVAL)
    refuse("service_point_of_another_owner", by=ALICE)
    refuse("service_point_measures_no_consumption", meter_id=producer.meter_id)
    refuse("meter_unknown", meter_id=bytes(16))
    refuse("beneficiary_is_no_utility", utility=ALICE)
    refuse("participant_unknown", utility=STRANGER)
    refuse("deposit_with_oneself", by=UTILITY)


def test_a_frozen_utility_takes_no_deposit(world: World, meter: SigningMeter) -> None:
    world.freeze(UTILITY)
    world.refuses(LockEscrow(UTILITY.address, meter.meter_id, 10), "participant_frozen", by=BOB)


# The return


def test_a_deposit_without_dues_comes_back_whole(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    requested = world.apply(RequestReturn(escrow), by=BOB).one(EscrowReturnRequested)
    assert requested == EscrowReturnRequested(escrow, BOB.address, UTILITY.address, world.time_ms + SILENCE_MS)
    returned = world.apply(ApproveReturn(escrow), by=UTILITY).one(EscrowReturned)
    assert returned == EscrowReturned(escrow, BOB.address, UTILITY.address, 1_000, is_alone=False)
    assert balance(world, BOB) == 10_000
    assert (get(world, escrow).status, get(world, escrow).held_cents) == (RETURNED, 0)
    assert OPEN_ESCROWS.find(world.state, BOB.address, UTILITY.address, meter.meter_id) is None
    check_credits_conserved(world.state)


def test_a_return_is_refused_while_a_bill_is_open_whatever_the_utility_says(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    bill_id = issue_bill(world, meter, 300)
    request(world, escrow)
    refusal = world.refuses(ApproveReturn(escrow), "dues_outstanding", by=UTILITY)
    assert refusal.item == f"300 cents on bills {bill_id.hex()}"
    pay(world, bill_id, 299)
    assert world.refuses(ApproveReturn(escrow), "dues_outstanding", by=UTILITY).item.startswith("1 cents on")
    pay(world, bill_id, 1)
    world.apply(ApproveReturn(escrow), by=UTILITY)
    assert balance(world, BOB) == 9_700


def test_a_disputed_bill_holds_the_deposit_and_a_withdrawn_one_frees_it(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    bill_id = issue_bill(world, meter, 300)
    dispute(world, bill_id)
    request(world, escrow)
    world.refuses(ApproveReturn(escrow), "dues_outstanding", by=UTILITY)
    resolve(world, bill_id, Outcome.WITHDRAWN)
    world.apply(ApproveReturn(escrow), by=UTILITY)


def test_a_refusal_names_some_bills_and_counts_the_rest(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    bills = [issue_bill(world, meter, 1, due_in_ms=due) for due in range(BILLS_NAMED_MAX + 2)]
    request(world, escrow)
    item = world.refuses(ApproveReturn(escrow), "dues_outstanding", by=UTILITY).item
    named = ", ".join(bill.hex() for bill in bills[:BILLS_NAMED_MAX])
    assert item == f"{len(bills)} cents on bills {named} and 2 more"


def test_dues_with_another_utility_or_of_another_consumer_hold_nothing(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    issue_bill(world, world.add_consumer(ALICE), 50, consumer=ALICE)
    other = world.register_meter(BOB, world.register_site(BOB, utility=RIVAL), utility=RIVAL)
    world.apply(bill_of(world, meter_line(world, other, 7)), by=RIVAL)
    request(world, escrow)
    world.apply(ApproveReturn(escrow), by=UTILITY)


def test_a_rejection_cites_open_bills_and_the_deposit_stays_held(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    bills = (issue_bill(world, meter, 300), issue_bill(world, meter, 40))
    request(world, escrow)
    rejected = world.apply(RejectReturn(escrow, bills[:1]), by=UTILITY).one(EscrowReturnRejected)
    assert rejected == EscrowReturnRejected(escrow, BOB.address, UTILITY.address, 340, bills[:1])
    assert get(world, escrow) == Escrow(BOB.address, UTILITY.address, meter.meter_id, 1_000, 1_000, HELD, 0)
    request(world, escrow)


def test_a_rejection_without_dues_is_refused(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    bill_id = issue_bill(world, meter, 300)
    pay(world, bill_id, 300)
    request(world, escrow)
    refusal = world.refuses(RejectReturn(escrow, (bill_id,)), "no_dues_outstanding", by=UTILITY)
    assert refusal.item == format_address(BOB.address)


def test_a_rejection_cites_only_what_is_outstanding_between_the_two(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    paid, open_bill = issue_bill(world, meter, 10), issue_bill(world, meter, 20)
    pay(world, paid, 10)
    other = issue_bill(world, world.add_consumer(ALICE), 50, consumer=ALICE)
    request(world, escrow)
    for wrong in (paid, other, bytes(16)):
        refusal = world.refuses(RejectReturn(escrow, (open_bill, wrong)), "cited_bill_not_outstanding", by=UTILITY)
        assert refusal.item == wrong.hex()
    world.refuses(RejectReturn(escrow, ()), "rejection_cites_no_bill", by=UTILITY)
    world.refuses(RejectReturn(escrow, (open_bill, open_bill)), "bill_cited_twice", by=UTILITY)


def test_a_silent_utility_does_not_keep_the_deposit(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    request(world, escrow)
    asked_ms = world.time_ms
    world.time_ms = asked_ms + SILENCE_MS - 1
    refusal = world.refuses(SelfReturn(escrow), "utility_may_still_answer", by=BOB)
    assert refusal.item == f"until {asked_ms + SILENCE_MS}"
    world.time_ms += 1
    returned = world.apply(SelfReturn(escrow), by=BOB).one(EscrowReturned)
    assert (returned.cents, returned.is_alone) == (1_000, True)
    assert balance(world, BOB) == 10_000
    check_credits_conserved(world.state)


def test_silence_is_counted_from_the_last_request(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    bill_id = issue_bill(world, meter, 10)
    request(world, escrow)
    world.time_ms += SILENCE_MS
    world.apply(RejectReturn(escrow, (bill_id,)), by=UTILITY)
    pay(world, bill_id, 10)
    request(world, escrow)
    world.refuses(SelfReturn(escrow), "utility_may_still_answer", by=BOB)


def test_silence_returns_nothing_while_dues_are_outstanding(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    bill_id = issue_bill(world, meter, 10)
    request(world, escrow)
    world.time_ms += SILENCE_MS
    world.refuses(SelfReturn(escrow), "dues_outstanding", by=BOB)
    pay(world, bill_id, 10)
    world.apply(SelfReturn(escrow), by=BOB)


def test_a_frozen_consumers_deposit_does_not_move(world: World, meter: SigningMeter) -> None:
    returning, overdue = lock(world, meter), lock(world, world.add_consumer(BOB))
    request(world, returning)
    world.freeze(BOB)
    world.refuses(ApproveReturn(returning), "participant_frozen", by=UTILITY)
    world.refuses(SetOff(overdue), "participant_frozen", by=UTILITY)


# escrow.set_off


def test_overdue_bills_are_paid_from_the_deposit_and_the_rest_stays_held(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    bill_id = issue_bill(world, meter, 300)
    world.time_ms += DAY_MS + 1
    applied = world.apply(SetOff(escrow), by=UTILITY)
    assert applied.one(EscrowSetOff) == EscrowSetOff(escrow, BOB.address, UTILITY.address, 300, 700, HELD)
    assert applied.one(BillPaid) == BillPaid(
        bill_id, BOB.address, UTILITY.address, 300, 0, BillStatus.PAID, is_set_off=True
    )
    assert (balance(world, BOB), balance(world, UTILITY)) == (9_000, 300)
    assert (get(world, escrow).held_cents, get(world, escrow).locked_cents) == (700, 1_000)
    check_credits_conserved(world.state)
    request(world, escrow)
    world.apply(ApproveReturn(escrow), by=UTILITY)
    assert balance(world, BOB) == 9_700


def test_a_deposit_smaller_than_the_dues_pays_the_earliest_due_first(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter, 250)
    late, soon = issue_bill(world, meter, 200, due_in_ms=9), issue_bill(world, meter, 100, due_in_ms=3)
    latest = issue_bill(world, meter, 100, due_in_ms=10)
    world.time_ms += DAY_MS
    applied = world.apply(SetOff(escrow), by=UTILITY)
    assert [(one.bill, one.cents, one.status) for one in applied.all_of(BillPaid)] == [
        (soon, 100, BillStatus.PAID),
        (late, 150, BillStatus.PART_PAID),
    ]
    assert applied.one(EscrowSetOff).status is SET_OFF
    assert get(world, escrow).status is SET_OFF
    assert BILLS.get(world.state, latest).status is BillStatus.ISSUED
    assert compute_dues_cents(world.state, BOB.address, UTILITY.address) == 150
    assert balance(world, UTILITY) == 250
    check_credits_conserved(world.state)
    lock(world, meter)  # the closed one is out of the way


def test_a_set_off_takes_no_more_than_is_overdue_and_undisputed(world: World, meter: SigningMeter) -> None:
    escrow = lock(world, meter)
    overdue, disputed = issue_bill(world, meter, 100), issue_bill(world, meter, 200)
    issue_bill(world, meter, 400, due_in_ms=2 * DAY_MS)
    dispute(world, disputed)
    world.time_ms += DAY_MS
    assert world.refuses(SetOff(escrow), "nothing_overdue_to_set_off", by=UTILITY)  # due today is not overdue
    world.time_ms += 1
    (paid,) = world.apply(SetOff(escrow), by=UTILITY).all_of(BillPaid)
    assert (paid.bill, paid.cents) == (overdue, 100)
    world.refuses(SetOff(escrow), "nothing_overdue_to_set_off", by=UTILITY)
    resolve(world, disputed, Outcome.UPHELD)
    assert world.apply(SetOff(escrow), by=UTILITY).one(BillPaid).bill == disputed


# Who may, and when


@pytest.mark.parametrize("kind", [RequestReturn, SelfReturn])
def test_only_the_depositor_asks_for_a_deposit(
    world: World, meter: SigningMeter, kind: type[RequestReturn | SelfReturn]
) -> None:
    escrow = lock(world, meter)
    for who in (ALICE, UTILITY):
        assert isinstance(world.refuses(kind(escrow), "escrow_of_another_consumer", by=who), NotPermitted)
    world.refuses(kind(bytes(16)), "escrow_unknown", by=BOB)


@pytest.mark.parametrize("make", [ApproveReturn, SetOff, lambda escrow: RejectReturn(escrow, ())])
def test_only_the_utility_of_a_deposit_answers(
    world: World, meter: SigningMeter, make: Callable[[bytes], Payload]
) -> None:
    escrow = lock(world, meter)
    assert isinstance(world.refuses(make(escrow), "escrow_of_another_utility", by=RIVAL), NotPermitted)
    world.refuses(make(escrow), "role_missing", by=BOB)
    world.refuses(make(bytes(16)), "escrow_unknown", by=UTILITY)


ACTIONS: dict[str, tuple[Callable[[bytes, bytes], Payload], Person]] = {
    "request_return": (lambda escrow, _: RequestReturn(escrow), BOB),
    "self_return": (lambda escrow, _: SelfReturn(escrow), BOB),
    "approve_return": (lambda escrow, _: ApproveReturn(escrow), UTILITY),
    "reject_return": (lambda escrow, bill_id: RejectReturn(escrow, (bill_id,)), UTILITY),
    "set_off": (lambda escrow, _: SetOff(escrow), UTILITY),
}
# Every pair of a status and a transaction, and where the deposit stands afterwards; what is absent is refused. The
# two of each entry: without dues, and with an overdue bill larger than the deposit; a str is the reason of a refusal.
AFTER: dict[EscrowStatus, dict[str, tuple[EscrowStatus | str, EscrowStatus | str]]] = {
    HELD: {"request_return": (REQUESTED, REQUESTED), "set_off": ("nothing_overdue_to_set_off", SET_OFF)},
    REQUESTED: {
        "self_return": (RETURNED, "dues_outstanding"),
        "approve_return": (RETURNED, "dues_outstanding"),
        "reject_return": ("no_dues_outstanding", HELD),
    },
    RETURNED: {},
    SET_OFF: {},
}


def bring_to(world: World, meter: SigningMeter, status: EscrowStatus) -> bytes:
    escrow = lock(world, meter)
    if status is SET_OFF:
        issue_bill(world, meter, 1_000, due_in_ms=0)
        world.time_ms += 1
        world.apply(SetOff(escrow), by=UTILITY)
    if status in (REQUESTED, RETURNED):
        request(world, escrow)
    if status is RETURNED:
        world.apply(ApproveReturn(escrow), by=UTILITY)
    assert get(world, escrow).status is status
    return escrow


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("has_dues", [False, True])
@pytest.mark.parametrize("status", EscrowStatus)
def test_a_deposit_goes_only_where_the_domain_lets_it(
    world: World, meter: SigningMeter, status: EscrowStatus, has_dues: bool, action: str
) -> None:
    escrow = bring_to(world, meter, status)
    bill_id = issue_bill(world, meter, 1_500, due_in_ms=0) if has_dues else bytes(16)
    world.time_ms += SILENCE_MS
    make, by = ACTIONS[action]
    wanted = AFTER[status].get(action, ("escrow_not_open_to_this",) * 2)[has_dues]
    if isinstance(wanted, EscrowStatus):
        world.apply(make(escrow, bill_id), by=by)
        assert get(world, escrow).status is wanted
    else:
        world.refuses(make(escrow, bill_id), wanted, by=by)
        assert get(world, escrow).status is status
    check_credits_conserved(world.state)


@pytest.mark.parametrize("status", BillStatus)
def test_a_set_off_reaches_only_bills_that_are_open_and_undisputed(
    world: World, meter: SigningMeter, status: BillStatus
) -> None:
    escrow = lock(world, meter)
    bill_id = issue_bill(world, meter, 100, due_in_ms=0)
    bring: dict[BillStatus, list[tuple[Payload, Person]]] = {
        BillStatus.ISSUED: [],
        BillStatus.PART_PAID: [(PayBill(bill_id, 40), BOB)],
        BillStatus.DISPUTED: [(DisputeBill(bill_id, "x"), BOB)],
        BillStatus.PAID: [(PayBill(bill_id, 100), BOB)],
        BillStatus.CREDITED: [(CreditBill(bill_id, 100, "x"), UTILITY)],
    }
    for payload, by in bring[status]:
        world.apply(payload, by=by)
    assert BILLS.get(world.state, bill_id).status is status
    world.time_ms += 1
    if status in (BillStatus.ISSUED, BillStatus.PART_PAID):
        world.apply(SetOff(escrow), by=UTILITY)
        assert BILLS.get(world.state, bill_id).status is BillStatus.PAID
    else:
        world.refuses(SetOff(escrow), "nothing_overdue_to_set_off", by=UTILITY)
        assert BILLS.get(world.state, bill_id).status is status


def test_nothing_leaves_a_closed_deposit() -> None:
    assert {status for status, _ in ESCROW_TRANSITIONS} == {HELD, REQUESTED}
