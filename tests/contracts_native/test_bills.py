"""Bills: what the readings recorded is billed once, paid no more than once, and the ledger computes the dues."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native import bills as bills_module
from contracts_native.bills import (
    BILL_LINES,
    BILLED_PERIOD_MS_MAX,
    BILLS,
    PRICE_CENTS_PER_MWH_MAX,
    Bill,
    BillCredited,
    BillDisputed,
    BillIssued,
    BillLine,
    BillPaid,
    BillResolved,
    BillStatus,
    CreditBill,
    DisputeBill,
    IssueBill,
    Outcome,
    PayBill,
    ResolveBill,
    compute_bill_sums,
    compute_dues_cents,
    compute_line_cents,
    compute_overdue_cents,
    get_open_bills,
)
from contracts_native.credits import CreditsMoved
from contracts_native.meters import Channel
from ledger.errors import Malformed, NotPermitted
from ledger.parameters import get_parameters
from ledger.transaction import Payload
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    DAY_0_MS,
    DAY_MS,
    QUARTER_MS,
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


def get_bill(world: World, bill_id: bytes) -> Bill:
    return BILLS.get(world.state, bill_id)


def dues(world: World, *, consumer: Person = BOB, utility: Person = UTILITY) -> int:
    return compute_dues_cents(world.state, consumer.address, utility.address)


def overdue(world: World) -> int:
    return compute_overdue_cents(world.state, BOB.address, UTILITY.address, time_ms=world.time_ms)


# bill.issue


def test_a_bill_charges_what_was_recorded_at_the_price_of_each_line(world: World, meter: SigningMeter) -> None:
    lines = (meter_line(world, meter, 500, 250, price=300_000), meter_line(world, meter, 1_000, price=250_000))
    payload = bill_of(world, *lines)
    applied = world.apply(payload, by=UTILITY)
    bill_id = applied.make_id("bill")
    assert applied.one(BillIssued) == BillIssued(
        bill_id, BOB.address, UTILITY.address, 225 + 250, payload.due_ms, "June"
    )
    assert get_bill(world, bill_id) == Bill(
        consumer=BOB.address,
        utility=UTILITY.address,
        total_cents=475,
        paid_cents=0,
        credited_cents=0,
        issued_ms=world.time_ms,
        due_ms=payload.due_ms,
        disputed_ms=0,
        status=BillStatus.ISSUED,
        reference="June",
    )
    assert BILL_LINES.get(world.state, bill_id).lines == lines
    assert dues(world) == 475
    check_credits_conserved(world.state)


@pytest.mark.parametrize(
    ("energy_wh", "price", "cents"),
    [
        (0, 300_000, 0),
        (1, 499_999, 0),
        (1, 500_000, 1),
        (3, 500_000, 2),
        (5, 300_000, 2),
        (1_000_000, 1, 1),
        (999, 0, 0),
    ],
)
def test_a_line_is_rounded_half_up_to_a_cent(energy_wh: int, price: int, cents: int) -> None:
    assert compute_line_cents(BillLine(bytes(16), 0, 1, energy_wh, price)) == cents


@pytest.mark.parametrize("difference", [-1, 1])
def test_energy_other_than_the_readings_is_not_billed(world: World, meter: SigningMeter, difference: int) -> None:
    line = meter_line(world, meter, 500, 250)
    wrong = replace(line, energy_wh=line.energy_wh + difference)
    refusal = world.refuses(bill_of(world, wrong), "billed_energy_differs_from_readings", by=UTILITY)
    assert refusal.item.endswith(f"{750 + difference} of 750 Wh")


def test_what_was_not_recorded_is_not_billed(world: World, meter: SigningMeter) -> None:
    line = meter_line(world, meter, 500)
    for wrong in (
        replace(line, until_ms=line.until_ms + QUARTER_MS),
        replace(line, from_ms=line.from_ms - QUARTER_MS),
        replace(line, until_ms=line.until_ms - 1),
        replace(line, from_ms=line.from_ms + 1),
    ):
        world.refuses(bill_of(world, wrong), "interval_not_recorded", by=UTILITY)


def test_an_interval_is_billed_once_however_it_is_cut(world: World, meter: SigningMeter) -> None:
    world.consume(meter, 10, 20, 30, 40, 50)
    start = DAY_0_MS

    def line(first: int, stop: int) -> BillLine:
        energy_wh = sum((10, 20, 30, 40, 50)[first:stop])
        return BillLine(meter.meter_id, start + first * QUARTER_MS, start + stop * QUARTER_MS, energy_wh, 10**6)

    world.apply(bill_of(world, line(1, 3)), by=UTILITY)
    for first, stop in ((1, 3), (0, 5), (0, 2), (2, 4), (1, 2), (2, 3), (1, 4), (0, 3)):
        world.refuses(bill_of(world, line(first, stop)), "interval_already_billed", by=UTILITY)
    world.refuses(bill_of(world, line(0, 1), line(0, 1)), "interval_already_billed", by=UTILITY)
    world.refuses(bill_of(world, line(3, 5), line(4, 5)), "interval_already_billed", by=UTILITY)
    world.apply(bill_of(world, line(3, 4), line(0, 1)), by=UTILITY)
    world.apply(bill_of(world, line(4, 5)), by=UTILITY)
    assert dues(world) == 150


def test_another_service_points_interval_of_that_time_is_another_interval(world: World, meter: SigningMeter) -> None:
    second = world.add_consumer(BOB)
    lines = (meter_line(world, meter, 10), meter_line(world, second, 20))
    assert lines[0].from_ms == lines[1].from_ms
    world.apply(bill_of(world, *lines), by=UTILITY)
    assert dues(world) == 30


def test_a_refused_bill_leaves_its_intervals_unbilled(world: World, meter: SigningMeter) -> None:
    good, bad = meter_line(world, meter, 10), meter_line(world, meter, 20)
    refused = bill_of(world, good, replace(bad, energy_wh=21))
    world.refuses(refused, "billed_energy_differs_from_readings", by=UTILITY)
    world.apply(bill_of(world, good, bad), by=UTILITY)


def test_a_credit_note_unbills_nothing(world: World, meter: SigningMeter) -> None:
    line = meter_line(world, meter, 10)
    bill_id = world.apply(bill_of(world, line), by=UTILITY).make_id("bill")
    world.apply(CreditBill(bill_id, 10, "goodwill"), by=UTILITY)
    world.refuses(bill_of(world, line), "interval_already_billed", by=UTILITY)


def test_a_bill_needs_lines_with_something_to_pay(world: World, meter: SigningMeter) -> None:
    world.refuses(bill_of(world), "bill_has_no_lines", by=UTILITY)
    nothing = meter_line(world, meter, 0)
    world.refuses(bill_of(world, nothing), "bill_total_out_of_range", by=UTILITY)
    world.refuses(bill_of(world, replace(nothing, until_ms=nothing.from_ms)), "billed_period_empty", by=UTILITY)
    world.refuses(bill_of(world, replace(nothing, until_ms=nothing.from_ms - 1)), "billed_period_empty", by=UTILITY)


def test_a_bill_has_an_end_to_what_it_reads_and_what_it_may_come_to(
    world: World, meter: SigningMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = meter_line(world, meter, 1_000)
    long = replace(line, until_ms=line.from_ms + BILLED_PERIOD_MS_MAX)
    world.refuses(bill_of(world, long), "interval_not_recorded", by=UTILITY)
    world.refuses(bill_of(world, long, line), "billed_period_too_long", by=UTILITY)
    dear = replace(line, price_cents_per_mwh=PRICE_CENTS_PER_MWH_MAX)
    monkeypatch.setattr(bills_module, "INTEGER_MAX", 999_999)
    world.refuses(bill_of(world, dear), "bill_total_out_of_range", by=UTILITY)


def test_a_bill_is_not_due_before_it_is_issued(world: World, meter: SigningMeter) -> None:
    line = meter_line(world, meter, 10)
    world.refuses(bill_of(world, line, due_in_ms=-1), "bill_due_before_issue", by=UTILITY)
    world.apply(bill_of(world, line, due_in_ms=0), by=UTILITY)


def test_a_utility_bills_its_own_service_points_to_their_owner(world: World, meter: SigningMeter) -> None:
    line = meter_line(world, meter, 10)
    world.refuses(bill_of(world, line), "service_point_of_another_utility", by=RIVAL)
    world.refuses(bill_of(world, line, consumer=ALICE), "service_point_of_another_owner", by=UTILITY)
    world.refuses(bill_of(world, line, consumer=STRANGER), "participant_unknown", by=UTILITY)
    world.refuses(bill_of(world, line, consumer=UTILITY), "bill_to_oneself", by=UTILITY)
    world.refuses(bill_of(world, line), "role_missing", by=BOB)
    unknown = replace(line, service_point=bytes(16))
    world.refuses(bill_of(world, unknown), "meter_unknown", by=UTILITY)


def test_production_is_not_billed(world: World) -> None:
    producer = world.add_producer(BOB)
    world.produce(producer, 100)
    line = BillLine(producer.meter_id, DAY_0_MS, DAY_0_MS + QUARTER_MS, 100, 10**6)
    world.refuses(bill_of(world, line), "service_point_measures_no_consumption", by=UTILITY)


def test_what_a_prosumer_produces_is_not_on_its_bill(world: World) -> None:
    meter = world.register_meter(ALICE, world.register_site(ALICE))
    world.submit(meter.report(Channel.PRODUCTION, [700]))
    payload = bill_of(world, meter_line(world, meter, 20), consumer=ALICE)
    world.apply(payload, by=UTILITY)
    assert dues(world, consumer=ALICE) == 20


def test_open_bills_of_a_pair_have_a_limit(world: World, meter: SigningMeter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bills_module, "OPEN_BILLS_MAX", 2)
    first = issue_bill(world, meter, 5)
    issue_bill(world, meter, 5)
    third = bill_of(world, meter_line(world, meter, 5))
    world.refuses(third, "too_many_open_bills", by=UTILITY)
    pay(world, first, 5)
    world.apply(third, by=UTILITY)


# bill.pay


def test_a_bill_is_paid_in_parts_until_nothing_is_outstanding(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 1_000)
    applied = world.apply(PayBill(bill_id, 400), by=BOB)
    paid = applied.one(BillPaid)
    assert paid == BillPaid(bill_id, BOB.address, UTILITY.address, 400, 600, BillStatus.PART_PAID, is_set_off=False)
    assert applied.one(CreditsMoved).cents == 400
    assert (balance(world, BOB), balance(world, UTILITY)) == (9_600, 400)
    assert get_bill(world, bill_id).status is BillStatus.PART_PAID
    assert dues(world) == 600
    check_credits_conserved(world.state)
    assert world.apply(PayBill(bill_id, 600), by=BOB).one(BillPaid).status is BillStatus.PAID
    assert get_bill(world, bill_id).status is BillStatus.PAID
    assert dues(world) == 0
    assert balance(world, UTILITY) == 1_000
    check_credits_conserved(world.state)


def test_a_payment_never_exceeds_what_is_outstanding(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 1_000)
    refusal = world.refuses(PayBill(bill_id, 1_001), "payment_exceeds_outstanding", by=BOB)
    assert refusal.item == f"{bill_id.hex()} has 1000 cents"
    world.apply(CreditBill(bill_id, 300, "meter fault"), by=UTILITY)
    pay(world, bill_id, 500)
    world.refuses(PayBill(bill_id, 201), "payment_exceeds_outstanding", by=BOB)
    pay(world, bill_id, 200)


def test_a_bill_is_paid_by_its_consumer_with_credits_that_it_has(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 1_000)
    pay_in(world, ALICE, 1_000)
    for who in (ALICE, UTILITY):
        assert isinstance(world.refuses(PayBill(bill_id, 1), "bill_of_another_consumer", by=who), NotPermitted)
    poor = issue_bill(world, world.add_consumer(ALICE), 2_000, consumer=ALICE)
    world.refuses(PayBill(poor, 1_001), "credits_not_sufficient", by=ALICE)
    world.refuses(PayBill(bytes(16), 1), "bill_unknown", by=BOB)
    assert get_bill(world, poor).status is BillStatus.ISSUED


def test_a_frozen_utility_is_not_paid(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 1_000)
    world.freeze(UTILITY)
    world.refuses(PayBill(bill_id, 1), "participant_frozen", by=BOB)


# bill.dispute, bill.resolve, bill.credit_note


def test_a_disputed_bill_is_still_due_but_not_overdue(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 1_000)
    world.time_ms += DAY_MS
    assert overdue(world) == 0  # at its due time it is not late yet
    world.time_ms += 1
    assert overdue(world) == 1_000
    applied = world.apply(DisputeBill(bill_id, "not mine"), by=BOB)
    assert applied.one(BillDisputed) == BillDisputed(bill_id, BOB.address, UTILITY.address, "not mine")
    assert (dues(world), overdue(world)) == (1_000, 0)
    resolve(world, bill_id, Outcome.UPHELD)
    assert (dues(world), overdue(world)) == (1_000, 1_000)


def test_an_upheld_bill_stands_where_it_stood(world: World, meter: SigningMeter) -> None:
    untouched, begun = issue_bill(world, meter, 100), issue_bill(world, meter, 100)
    pay(world, begun, 30)
    for bill_id, status in ((untouched, BillStatus.ISSUED), (begun, BillStatus.PART_PAID)):
        dispute(world, bill_id)
        assert get_bill(world, bill_id).status is BillStatus.DISPUTED
        event = world.apply(ResolveBill(bill_id, Outcome.UPHELD), by=UTILITY).one(BillResolved)
        assert event == BillResolved(bill_id, BOB.address, UTILITY.address, Outcome.UPHELD, status)
        assert get_bill(world, bill_id).status is status


def test_a_withdrawn_bill_is_credited_and_what_was_paid_stays_paid(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 100)
    pay(world, bill_id, 30)
    dispute(world, bill_id)
    resolve(world, bill_id, Outcome.WITHDRAWN)
    bill = get_bill(world, bill_id)
    assert (bill.paid_cents, bill.credited_cents, bill.status) == (30, 70, BillStatus.CREDITED)
    assert dues(world) == 0
    check_credits_conserved(world.state)


def test_a_dispute_has_a_deadline(world: World, meter: SigningMeter) -> None:
    in_time, late = issue_bill(world, meter, 100), issue_bill(world, meter, 100)
    world.time_ms += get_parameters(world.state).dispute_deadline_s * 1_000
    dispute(world, in_time)
    world.time_ms += 1
    world.refuses(DisputeBill(late, "too late"), "dispute_deadline_passed", by=BOB)


def test_a_bill_is_disputed_once(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 100)
    dispute(world, bill_id)
    resolve(world, bill_id, Outcome.UPHELD)
    world.refuses(DisputeBill(bill_id, "again"), "bill_already_disputed", by=BOB)


def test_a_disputed_bill_may_be_paid_which_ends_the_dispute(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 100)
    dispute(world, bill_id)
    pay(world, bill_id, 40)
    assert get_bill(world, bill_id).status is BillStatus.DISPUTED
    pay(world, bill_id, 60)
    assert get_bill(world, bill_id).status is BillStatus.PAID


def test_a_credit_note_takes_from_what_is_outstanding_and_never_more(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 100)
    pay(world, bill_id, 30)
    world.refuses(CreditBill(bill_id, 71, "too kind"), "credit_note_exceeds_outstanding", by=UTILITY)
    event = world.apply(CreditBill(bill_id, 20, "meter fault"), by=UTILITY).one(BillCredited)
    assert event == BillCredited(bill_id, BOB.address, UTILITY.address, 20, 50, BillStatus.PART_PAID, "meter fault")
    assert dues(world) == 50
    world.apply(CreditBill(bill_id, 50, "goodwill"), by=UTILITY)
    assert get_bill(world, bill_id).status is BillStatus.CREDITED
    assert dues(world) == 0
    assert (balance(world, BOB), balance(world, UTILITY)) == (9_970, 30)
    check_credits_conserved(world.state)


def test_only_its_consumer_disputes_a_bill_and_only_its_utility_changes_it(world: World, meter: SigningMeter) -> None:
    bill_id = issue_bill(world, meter, 100)
    for who in (ALICE, UTILITY):
        world.refuses(DisputeBill(bill_id, "x"), "bill_of_another_consumer", by=who)
    dispute(world, bill_id)
    for payload in (ResolveBill(bill_id, Outcome.UPHELD), CreditBill(bill_id, 1, "x")):
        world.refuses(payload, "bill_of_another_utility", by=RIVAL)
        world.refuses(payload, "role_missing", by=BOB)


@pytest.mark.parametrize(
    ("payload", "by"),
    [
        (DisputeBill(bytes(16), "x"), BOB),
        (ResolveBill(bytes(16), Outcome.UPHELD), UTILITY),
        (CreditBill(bytes(16), 1, "x"), UTILITY),
    ],
)
def test_a_bill_that_nobody_issued_is_unknown(world: World, payload: Payload, by: Person) -> None:
    world.refuses(payload, "bill_unknown", by=by)


# Dues


def test_dues_are_those_of_one_consumer_with_one_utility(world: World, meter: SigningMeter) -> None:
    issue_bill(world, meter, 100)
    issue_bill(world, world.add_consumer(ALICE), 30, consumer=ALICE)
    site = world.register_site(BOB, utility=RIVAL)
    other = world.register_meter(BOB, site, utility=RIVAL)
    world.apply(bill_of(world, meter_line(world, other, 7)), by=RIVAL)
    assert dues(world) == 100
    assert dues(world, consumer=ALICE) == 30
    assert dues(world, utility=RIVAL) == 7
    assert dues(world, consumer=ALICE, utility=RIVAL) == 0
    assert compute_bill_sums(world.state).outstanding_cents == 137


def test_open_bills_come_earliest_due_first(world: World, meter: SigningMeter) -> None:
    late, soon = issue_bill(world, meter, 1, due_in_ms=9), issue_bill(world, meter, 2, due_in_ms=3)
    paid = issue_bill(world, meter, 3)
    pay(world, paid, 3)
    open_bills = get_open_bills(world.state, BOB.address, UTILITY.address)
    assert [bill_id for bill_id, _ in open_bills] == [soon, late]
    assert [bill.outstanding_cents for _, bill in open_bills] == [2, 1]


def test_a_bill_may_name_a_thousand_lines_and_no_more(world: World, meter: SigningMeter) -> None:
    line = meter_line(world, meter, 10)
    with pytest.raises(Malformed, match="array_length_out_of_range"):
        world.apply(IssueBill(BOB.address, (line,) * 1_001, world.time_ms, "June"), by=UTILITY)
