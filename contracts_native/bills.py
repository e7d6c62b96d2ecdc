"""Bills: what a consumer owes a utility for metered energy.

Owns bills, their disputes and credit notes, and the dues that follow from them: the ledger computes what is
outstanding, nobody states it. Escrow stands on it (escrow imports bills), because a deposit asks for the dues.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native import credits
from contracts_native.credits import Reference
from contracts_native.meters import Channel, MeterId, find_channel, get_meter
from contracts_native.participants import Role, get_participant
from contracts_native.readings import get_recorded_wh
from contracts_native.sites import InstantMs, get_site
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import INTEGER_MAX, Amount, Bounds, Length
from ledger.parameters import get_parameters
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction

LINES_MAX: Final = 1_000  # a month of hourly prices
BILLED_PERIOD_MS_MAX: Final = 3 * 366 * 86_400_000  # of all lines: about 100,000 quarter-hours are read for a bill
OPEN_BILLS_MAX: Final = 240  # of one consumer with one utility: twenty years of months; dues read them all
PRICE_CENTS_PER_MWH_MAX: Final = 10**9
WH_PER_MWH: Final = 1_000_000

BillId = Annotated[bytes, Length(16, 16)]


class BillStatus(enum.StrEnum):
    """Where a bill stands; ``BILL_TRANSITIONS`` says what may happen there."""

    ISSUED = "issued"
    PART_PAID = "part_paid"
    DISPUTED = "disputed"
    PAID = "paid"
    CREDITED = "credited"


class Outcome(enum.StrEnum):
    """What became of a disputed bill: it is upheld and stays due, or withdrawn and what is outstanding is credited."""

    UPHELD = "upheld"
    WITHDRAWN = "withdrawn"


# (status, transaction) → the statuses that may follow. What is not here is refused.
BILL_TRANSITIONS: Final[Mapping[tuple[BillStatus, str], frozenset[BillStatus]]] = {
    (BillStatus.ISSUED, "bill.pay"): frozenset({BillStatus.PART_PAID, BillStatus.PAID}),
    (BillStatus.PART_PAID, "bill.pay"): frozenset({BillStatus.PART_PAID, BillStatus.PAID}),
    (BillStatus.DISPUTED, "bill.pay"): frozenset({BillStatus.DISPUTED, BillStatus.PAID}),
    (BillStatus.ISSUED, "escrow.set_off"): frozenset({BillStatus.PART_PAID, BillStatus.PAID}),
    (BillStatus.PART_PAID, "escrow.set_off"): frozenset({BillStatus.PART_PAID, BillStatus.PAID}),
    (BillStatus.ISSUED, "bill.credit_note"): frozenset({BillStatus.ISSUED, BillStatus.CREDITED}),
    (BillStatus.PART_PAID, "bill.credit_note"): frozenset({BillStatus.PART_PAID, BillStatus.CREDITED}),
    (BillStatus.DISPUTED, "bill.credit_note"): frozenset({BillStatus.DISPUTED, BillStatus.CREDITED}),
    (BillStatus.ISSUED, "bill.dispute"): frozenset({BillStatus.DISPUTED}),
    (BillStatus.PART_PAID, "bill.dispute"): frozenset({BillStatus.DISPUTED}),
    (BillStatus.DISPUTED, "bill.resolve"): frozenset({BillStatus.ISSUED, BillStatus.PART_PAID, BillStatus.CREDITED}),
}


@dataclass(frozen=True, slots=True)
class BillLine:
    """The energy of one service point (a meter's consumption channel) in [from_ms, until_ms), at one price."""

    service_point: MeterId
    from_ms: InstantMs
    until_ms: InstantMs
    energy_wh: int
    price_cents_per_mwh: Annotated[int, Bounds(0, PRICE_CENTS_PER_MWH_MAX)]


@dataclass(frozen=True, slots=True)
class Bill:
    """What is owed and what became of it. ``disputed_ms`` is 0 for a bill that was never disputed."""

    consumer: Address
    utility: Address
    total_cents: int
    paid_cents: int
    credited_cents: int
    issued_ms: int
    due_ms: int
    disputed_ms: int
    status: BillStatus
    reference: Reference

    @property
    def outstanding_cents(self) -> int:
        """What is still owed."""
        return self.total_cents - self.paid_cents - self.credited_cents


@dataclass(frozen=True, slots=True)
class BillLines:
    """The lines of a bill; kept apart, since they never change and every payment rewrites the bill."""

    lines: Annotated[tuple[BillLine, ...], Length(LINES_MAX, 1)]


@dataclass(frozen=True, slots=True)
class OpenBill:
    """A bill with something outstanding."""

    bill: BillId


@dataclass(frozen=True, slots=True)
class BilledInterval:
    """An interval of a service point that a bill has charged; it begins where its key says."""

    until_ms: int
    bill: BillId


BILLS: Table[Bill] = Table("bi", Bill, missing="bill_unknown")
BILL_LINES: Table[BillLines] = Table("bl", BillLines, missing="bill_unknown")
OPEN_BILLS: Table[OpenBill] = Table("bo", OpenBill, missing="bill_not_open")  # consumer, utility, bill
BILLED_INTERVALS: Table[BilledInterval] = Table("bn", BilledInterval, missing="interval_not_billed")  # meter, from_ms


@event("bill.issued")
@dataclass(frozen=True, slots=True)
class BillIssued(Event):
    """A consumer owes a utility from now on."""

    bill: BillId
    consumer: Address
    utility: Address
    total_cents: int
    due_ms: int
    reference: str


@event("bill.paid")
@dataclass(frozen=True, slots=True)
class BillPaid(Event):
    """Credits went to the utility; ``is_set_off`` when they came out of a deposit."""

    bill: BillId
    consumer: Address
    utility: Address
    cents: int
    outstanding_cents: int
    status: BillStatus
    is_set_off: bool


@event("bill.disputed")
@dataclass(frozen=True, slots=True)
class BillDisputed(Event):
    """The consumer contests a bill; until it is resolved no deposit pays it."""

    bill: BillId
    consumer: Address
    utility: Address
    reason: str


@event("bill.resolved")
@dataclass(frozen=True, slots=True)
class BillResolved(Event):
    """The utility answered a dispute."""

    bill: BillId
    consumer: Address
    utility: Address
    outcome: Outcome
    status: BillStatus


@event("bill.credited")
@dataclass(frozen=True, slots=True)
class BillCredited(Event):
    """A credit note took from what was outstanding; no credits moved."""

    bill: BillId
    consumer: Address
    utility: Address
    cents: int
    outstanding_cents: int
    status: BillStatus
    reason: str


@dataclass(frozen=True, slots=True)
class BillSums:
    """All bills together: billed = paid + credited + outstanding, and outstanding is what the open bills hold."""

    billed_cents: int
    paid_cents: int
    credited_cents: int
    outstanding_cents: int
    outstanding_on_open_bills_cents: int


def get_open_bills(state: State, consumer: Address, utility: Address) -> list[tuple[bytes, Bill]]:
    """The bills with something outstanding between the two, the earliest due first."""
    ids = [entry.bill for _, entry in OPEN_BILLS.scan(state, consumer, utility)]
    bills = [(bill_id, BILLS.get(state, bill_id)) for bill_id in ids]
    return sorted(bills, key=lambda pair: (pair[1].due_ms, pair[0]))


def get_overdue_bills(state: State, consumer: Address, utility: Address, *, time_ms: int) -> list[tuple[bytes, Bill]]:
    """The open, undisputed bills whose due time has passed, the earliest due first."""
    return [
        (bill_id, bill)
        for bill_id, bill in get_open_bills(state, consumer, utility)
        if bill.due_ms < time_ms and bill.status is not BillStatus.DISPUTED
    ]


def compute_dues_cents(state: State, consumer: Address, utility: Address) -> int:
    """What is outstanding on the consumer's bills with the utility, disputed or not."""
    return sum(bill.outstanding_cents for _, bill in get_open_bills(state, consumer, utility))


def compute_overdue_cents(state: State, consumer: Address, utility: Address, *, time_ms: int) -> int:
    """What a deposit may be set off against: outstanding, past its due time, and not disputed."""
    return sum(bill.outstanding_cents for _, bill in get_overdue_bills(state, consumer, utility, time_ms=time_ms))


def compute_line_cents(line: BillLine) -> int:
    """The price of a line's energy, rounded half up to a cent."""
    return (line.energy_wh * line.price_cents_per_mwh + WH_PER_MWH // 2) // WH_PER_MWH


def compute_bill_sums(state: State) -> BillSums:
    """The sums of every bill there is, by scanning them: for audits."""
    bills = [bill for _, bill in BILLS.scan(state)]
    return BillSums(
        billed_cents=sum(bill.total_cents for bill in bills),
        paid_cents=sum(bill.paid_cents for bill in bills),
        credited_cents=sum(bill.credited_cents for bill in bills),
        outstanding_cents=sum(bill.outstanding_cents for bill in bills),
        outstanding_on_open_bills_cents=sum(
            BILLS.get(state, entry.bill).outstanding_cents for _, entry in OPEN_BILLS.scan(state)
        ),
    )


def check_service_point(state: State, service_point: bytes, *, utility: Address, consumer: Address) -> None:
    """The meter measures consumption at a site of this utility that this consumer owns. Raises ``RuleViolated``."""
    meter = get_meter(state, service_point)
    site = get_site(state, meter.site)
    if site.utility != utility:
        raise RuleViolated("service_point_of_another_utility", service_point.hex())
    if site.owner != consumer:
        raise RuleViolated("service_point_of_another_owner", service_point.hex())
    if find_channel(meter, Channel.CONSUMPTION) is None:
        raise RuleViolated("service_point_measures_no_consumption", service_point.hex())


def record_payment(state: State, bill_id: bytes, cents: int, *, tag: str) -> None:
    """Note that ``cents`` reached the utility for a bill, and say so; ``tag`` is the transaction that moved them.

    Raises ``RuleViolated``: ``bill_not_open_to_this``, ``payment_exceeds_outstanding``.
    """
    bill = BILLS.get(state, bill_id)
    _check_allowed(bill, bill_id, tag)
    if cents > bill.outstanding_cents:
        raise RuleViolated("payment_exceeds_outstanding", f"{bill_id.hex()} has {bill.outstanding_cents} cents")
    paid = replace(bill, paid_cents=bill.paid_cents + cents)
    if not paid.outstanding_cents:
        status = BillStatus.PAID
    else:
        status = BillStatus.DISPUTED if bill.status is BillStatus.DISPUTED else BillStatus.PART_PAID
    _put(state, bill_id, bill, replace(paid, status=status), tag)
    is_set_off = tag != "bill.pay"
    state.emit(BillPaid(bill_id, bill.consumer, bill.utility, cents, paid.outstanding_cents, status, is_set_off))


@transaction("bill.issue", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class IssueBill(Payload):
    """Bill what the readings recorded; the ledger computes the amounts. An interval is billed once."""

    consumer: Address
    lines: Annotated[tuple[BillLine, ...], Length(LINES_MAX)]
    due_ms: InstantMs
    reference: Reference

    def apply(self, state: State, tx: TxContext) -> None:
        if self.consumer == tx.sender:
            raise RuleViolated("bill_to_oneself", format_address(tx.sender))
        get_participant(state, self.consumer)
        if not self.lines:
            raise RuleViolated("bill_has_no_lines", self.reference)
        if self.due_ms < tx.time_ms:
            raise RuleViolated("bill_due_before_issue", self.due_ms)
        self._check_periods()
        if len(get_open_bills(state, self.consumer, tx.sender)) >= OPEN_BILLS_MAX:
            raise RuleViolated("too_many_open_bills", f"at most {OPEN_BILLS_MAX}")
        bill_id = tx.make_id("bill")
        for line in self.lines:
            check_service_point(state, line.service_point, utility=tx.sender, consumer=self.consumer)
            _bill_interval(state, line, bill_id)
        total_cents = sum(map(compute_line_cents, self.lines))
        if not 0 < total_cents <= INTEGER_MAX:
            raise RuleViolated("bill_total_out_of_range", f"{total_cents} cents")
        bill = Bill(
            consumer=self.consumer,
            utility=tx.sender,
            total_cents=total_cents,
            paid_cents=0,
            credited_cents=0,
            issued_ms=tx.time_ms,
            due_ms=self.due_ms,
            disputed_ms=0,
            status=BillStatus.ISSUED,
            reference=self.reference,
        )
        BILLS.put(state, bill_id, value=bill)
        BILL_LINES.put(state, bill_id, value=BillLines(self.lines))
        OPEN_BILLS.put(state, self.consumer, tx.sender, bill_id, value=OpenBill(bill_id))
        state.emit(BillIssued(bill_id, self.consumer, tx.sender, total_cents, self.due_ms, self.reference))

    def _check_periods(self) -> None:
        for line in self.lines:
            if line.from_ms >= line.until_ms:
                raise RuleViolated("billed_period_empty", f"{line.from_ms} … {line.until_ms}")
        if sum(line.until_ms - line.from_ms for line in self.lines) > BILLED_PERIOD_MS_MAX:
            raise RuleViolated("billed_period_too_long", f"at most {BILLED_PERIOD_MS_MAX} ms in all lines")


@transaction("bill.pay", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class PayBill(Payload):
    """Pay a bill, or a part of it."""

    bill: BillId
    amount_cents: Amount

    def apply(self, state: State, tx: TxContext) -> None:
        bill = BILLS.get(state, self.bill)
        _check_is(tx.sender, bill.consumer, "bill_of_another_consumer")
        record_payment(state, self.bill, self.amount_cents, tag="bill.pay")
        reference = f"bill {self.bill.hex()}"
        credits.move(state, self.amount_cents, sender=tx.sender, recipient=bill.utility, reference=reference)


@transaction("bill.dispute", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class DisputeBill(Payload):
    """Contest a bill, once and within ``dispute_deadline_s`` of its issue."""

    bill: BillId
    reason: Reference

    def apply(self, state: State, tx: TxContext) -> None:
        bill = BILLS.get(state, self.bill)
        _check_is(tx.sender, bill.consumer, "bill_of_another_consumer")
        _check_allowed(bill, self.bill, "bill.dispute")
        # Without this a consumer could keep a deposit from its utility for ever, one dispute after the other.
        if bill.disputed_ms:
            raise RuleViolated("bill_already_disputed", self.bill.hex())
        deadline_ms = bill.issued_ms + get_parameters(state).dispute_deadline_s * 1_000
        if tx.time_ms > deadline_ms:
            raise RuleViolated("dispute_deadline_passed", deadline_ms)
        disputed = replace(bill, status=BillStatus.DISPUTED, disputed_ms=tx.time_ms)
        _put(state, self.bill, bill, disputed, "bill.dispute")
        state.emit(BillDisputed(self.bill, bill.consumer, bill.utility, self.reason))


@transaction("bill.resolve", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class ResolveBill(Payload):
    """Answer a dispute: the bill is upheld and due again, or withdrawn and its outstanding amount credited."""

    bill: BillId
    outcome: Outcome

    def apply(self, state: State, tx: TxContext) -> None:
        bill = BILLS.get(state, self.bill)
        _check_is(tx.sender, bill.utility, "bill_of_another_utility")
        _check_allowed(bill, self.bill, "bill.resolve")
        if self.outcome is Outcome.WITHDRAWN:
            credited_cents = bill.credited_cents + bill.outstanding_cents
            after = replace(bill, status=BillStatus.CREDITED, credited_cents=credited_cents)
        else:
            after = replace(bill, status=BillStatus.PART_PAID if bill.paid_cents else BillStatus.ISSUED)
        _put(state, self.bill, bill, after, "bill.resolve")
        state.emit(BillResolved(self.bill, bill.consumer, bill.utility, self.outcome, after.status))


@transaction("bill.credit_note", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class CreditBill(Payload):
    """Take from what is outstanding: the only way in which an issued bill changes. What was billed stays billed."""

    bill: BillId
    amount_cents: Amount
    reason: Reference

    def apply(self, state: State, tx: TxContext) -> None:
        bill = BILLS.get(state, self.bill)
        _check_is(tx.sender, bill.utility, "bill_of_another_utility")
        _check_allowed(bill, self.bill, "bill.credit_note")
        if self.amount_cents > bill.outstanding_cents:
            raise RuleViolated("credit_note_exceeds_outstanding", f"{bill.outstanding_cents} cents")
        after = replace(bill, credited_cents=bill.credited_cents + self.amount_cents)
        if not after.outstanding_cents:
            after = replace(after, status=BillStatus.CREDITED)
        _put(state, self.bill, bill, after, "bill.credit_note")
        state.emit(
            BillCredited(
                self.bill,
                bill.consumer,
                bill.utility,
                self.amount_cents,
                after.outstanding_cents,
                after.status,
                self.reason,
            )
        )


def _bill_interval(state: State, line: BillLine, bill_id: bytes) -> None:
    before = BILLED_INTERVALS.find_floor(state, line.service_point, line.until_ms - 1)
    # Billed intervals are disjoint, so the last that begins in time is the only one that can reach into this.
    if before is not None and before[1].until_ms > line.from_ms:
        raise RuleViolated("interval_already_billed", f"{line.service_point.hex()} {line.from_ms} … {line.until_ms}")
    recorded_wh = get_recorded_wh(
        state, line.service_point, Channel.CONSUMPTION, from_ms=line.from_ms, until_ms=line.until_ms
    )
    if line.energy_wh != recorded_wh:
        item = f"{line.service_point.hex()} {line.from_ms} … {line.until_ms}: {line.energy_wh} of {recorded_wh} Wh"
        raise RuleViolated("billed_energy_differs_from_readings", item)
    BILLED_INTERVALS.put(state, line.service_point, line.from_ms, value=BilledInterval(line.until_ms, bill_id))


def _check_is(sender: Address, party: Address, reason: str) -> None:
    if sender != party:
        raise NotPermitted(reason, format_address(party))


def _check_allowed(bill: Bill, bill_id: bytes, tag: str) -> None:
    if (bill.status, tag) not in BILL_TRANSITIONS:
        raise RuleViolated("bill_not_open_to_this", f"{bill_id.hex()} is {bill.status}: no {tag}")


def _put(state: State, bill_id: bytes, before: Bill, after: Bill, tag: str) -> None:
    assert after.status in BILL_TRANSITIONS[before.status, tag], (before.status, tag, after.status)
    assert after.outstanding_cents >= 0, after
    BILLS.put(state, bill_id, value=after)
    if not after.outstanding_cents:
        OPEN_BILLS.delete(state, after.consumer, after.utility, bill_id)
