"""The model's bills and deposits: what is owed is the sum of what bills have left, computed anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts_native.bills import BillLine
from tests.properties.model import Reasons, gather
from tests.properties.model_claims import Claims
from tests.properties.model_places import Meter


@dataclass(eq=False)
class Bill:
    """What is owed."""

    consumer: bytes
    utility: bytes
    total_cents: int
    issued_ms: int
    due_ms: int
    paid_cents: int = 0
    credited_cents: int = 0
    was_disputed: bool = False
    status: str = "issued"
    id: bytes = b""

    @property
    def left_cents(self) -> int:
        return self.total_cents - self.paid_cents - self.credited_cents

    def take_payment(self, cents: int) -> None:
        self.paid_cents += cents
        if not self.left_cents:
            self.status = "paid"
        elif self.status != "disputed":
            self.status = "part_paid"


@dataclass(eq=False)
class Escrow:
    """A deposit."""

    consumer: bytes
    utility: bytes
    meter: Meter
    held_cents: int
    status: str = "held"
    requested_ms: int = 0
    id: bytes = b""


@dataclass(eq=False)
class Bills(Claims):
    """Bills and deposits."""

    dispute_ms: int = 0
    silence_ms: int = 0
    bills: list[Bill] = field(default_factory=list)
    billed: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    escrows: list[Escrow] = field(default_factory=list)

    def list_open(self, consumer: bytes, utility: bytes) -> list[Bill]:
        mine = [bill for bill in self.bills if (bill.consumer, bill.utility) == (consumer, utility)]
        return sorted((bill for bill in mine if bill.left_cents), key=lambda bill: (bill.due_ms, bill.id))

    def _judge_point(self, meter: Meter, utility: bytes, consumer: bytes) -> Reasons:
        return gather(
            (meter.site.utility != utility, "service_point_of_another_utility"),
            (meter.site.owner != consumer, "service_point_of_another_owner"),
            ("consumption" not in meter.channels, "service_point_measures_no_consumption"),
        )

    def _judge_line(self, line: BillLine, meter: Meter, before: Sequence[tuple[int, int]]) -> Reasons:
        reasons = gather(
            (line.from_ms >= line.until_ms, "billed_period_empty"),
            (any(a < line.until_ms and line.from_ms < b for a, b in before), "interval_already_billed"),
        )
        if "consumption" not in meter.channels:
            return reasons
        length_ms = meter.channels["consumption"][1] * 1_000
        starts_ms = range(line.from_ms - line.from_ms % length_ms, line.until_ms, length_ms)
        found = [self.intervals.get((meter.id, "consumption", start_ms)) for start_ms in starts_ms]
        recorded = [one for one in found if one is not None]
        is_ragged = line.from_ms % length_ms != 0 or line.until_ms % length_ms != 0
        reasons |= gather(
            (is_ragged or len(recorded) < len(found), "interval_not_recorded"),
            (any(one.is_quarantined for one in recorded), "interval_quarantined"),
        )
        is_known = not reasons & {"interval_not_recorded", "interval_quarantined", "billed_period_empty"}
        differs = is_known and sum(one.wh for one in recorded) != line.energy_wh
        return reasons | gather((differs, "billed_energy_differs_from_readings"))

    def issue_bill(
        self, sender: bytes, consumer: bytes, lines: Sequence[tuple[BillLine, Meter]], due_ms: int
    ) -> Reasons:
        reasons = self.may_sign("bill.issue", sender) | gather(
            (consumer == sender, "bill_to_oneself"),
            (consumer not in self.members, "participant_unknown"),
            (not lines, "bill_has_no_lines"),
            (due_ms < self.now_ms, "bill_due_before_issue"),
        )
        stretches = {meter.id: list(self.billed.get(meter.id, [])) for _, meter in lines}
        for line, meter in lines:
            reasons |= self._judge_point(meter, sender, consumer)
            reasons |= self._judge_line(line, meter, stretches[meter.id])
            stretches[meter.id].append((line.from_ms, line.until_ms))
        cents = [(2 * line.energy_wh * line.price_cents_per_mwh + 10**6) // (2 * 10**6) for line, _ in lines]
        reasons |= gather((sum(cents) == 0, "bill_total_out_of_range"))
        if not reasons:
            self.billed |= stretches
            self.bills.append(Bill(consumer, sender, sum(cents), self.now_ms, due_ms))
        return reasons

    def pay_bill(self, sender: bytes, bill: Bill, cents: int) -> Reasons:
        reasons = self.may_sign("bill.pay", sender) | self.may_be_given(bill.utility) | self.lacks(sender, cents)
        reasons |= gather(
            (bill.consumer != sender, "bill_of_another_consumer"),
            (not bill.left_cents, "bill_not_open_to_this"),
            (cents > bill.left_cents, "payment_exceeds_outstanding"),
        )
        if not reasons:
            bill.take_payment(cents)
            self.pay(sender, bill.utility, cents)
        return reasons

    def dispute(self, sender: bytes, bill: Bill) -> Reasons:
        reasons = self.may_sign("bill.dispute", sender) | gather(
            (bill.consumer != sender, "bill_of_another_consumer"),
            (bill.status not in ("issued", "part_paid"), "bill_not_open_to_this"),
            (bill.was_disputed, "bill_already_disputed"),
            (self.now_ms > bill.issued_ms + self.dispute_ms, "dispute_deadline_passed"),
        )
        if not reasons:
            bill.status, bill.was_disputed = "disputed", True
        return reasons

    def resolve(self, sender: bytes, bill: Bill, *, is_upheld: bool) -> Reasons:
        reasons = self.may_sign("bill.resolve", sender) | gather(
            (bill.utility != sender, "bill_of_another_utility"),
            (bill.status != "disputed", "bill_not_open_to_this"),
        )
        if not reasons and is_upheld:
            bill.status = "part_paid" if bill.paid_cents else "issued"
        elif not reasons:
            bill.status = "credited"
            bill.credited_cents += bill.left_cents
        return reasons

    def credit_note(self, sender: bytes, bill: Bill, cents: int) -> Reasons:
        reasons = self.may_sign("bill.credit_note", sender) | gather(
            (bill.utility != sender, "bill_of_another_utility"),
            (not bill.left_cents, "bill_not_open_to_this"),
            (cents > bill.left_cents, "credit_note_exceeds_outstanding"),
        )
        if not reasons:
            bill.credited_cents += cents
            if not bill.left_cents:
                bill.status = "credited"
        return reasons

    def lock(self, sender: bytes, utility: bytes, meter: Meter, cents: int) -> Reasons:
        open_ones = [(one.consumer, one.utility, one.meter) for one in self.escrows if one.held_cents]
        reasons = self.may_sign("escrow.lock", sender) | self.may_be_given(utility) | self.lacks(sender, cents)
        reasons |= self._judge_point(meter, utility, sender) | gather(
            (not self.has_role(utility, "utility"), "beneficiary_is_no_utility"),
            (utility == sender, "deposit_with_oneself"),
            ((sender, utility, meter) in open_ones, "escrow_already_open"),
        )
        if not reasons:
            self.balances[sender] -= cents
            self.escrows.append(Escrow(sender, utility, meter, cents))
        return reasons

    def _judge_escrow(self, tag: str, sender: bytes, escrow: Escrow, *, of: str, status: str) -> Reasons:
        party = escrow.consumer if of == "consumer" else escrow.utility
        return self.may_sign(tag, sender) | gather(
            (party != sender, f"escrow_of_another_{of}"),
            (escrow.status != status, "escrow_not_open_to_this"),
        )

    def _judge_dues(self, escrow: Escrow) -> Reasons:
        return gather((bool(self.list_open(escrow.consumer, escrow.utility)), "dues_outstanding"))

    def _return(self, escrow: Escrow) -> None:
        self.balances[escrow.consumer] += escrow.held_cents
        escrow.held_cents, escrow.status = 0, "returned"

    def request_return(self, sender: bytes, escrow: Escrow) -> Reasons:
        reasons = self._judge_escrow("escrow.request_return", sender, escrow, of="consumer", status="held")
        if not reasons:
            escrow.status, escrow.requested_ms = "return_requested", self.now_ms
        return reasons

    def approve_return(self, sender: bytes, escrow: Escrow) -> Reasons:
        tag, status = "escrow.approve_return", "return_requested"
        reasons = self._judge_escrow(tag, sender, escrow, of="utility", status=status)
        reasons |= self._judge_dues(escrow) | self.may_be_given(escrow.consumer)
        if not reasons:
            self._return(escrow)
        return reasons

    def reject_return(self, sender: bytes, escrow: Escrow, cited: Sequence[Bill]) -> Reasons:
        tag, status = "escrow.reject_return", "return_requested"
        reasons = self._judge_escrow(tag, sender, escrow, of="utility", status=status)
        owed = self.list_open(escrow.consumer, escrow.utility)
        reasons |= gather(
            (not owed, "no_dues_outstanding"),
            (not cited, "rejection_cites_no_bill"),
            (len(set(cited)) != len(cited), "bill_cited_twice"),
            (not set(cited) <= set(owed), "cited_bill_not_outstanding"),
        )
        if not reasons:
            escrow.status = "held"
        return reasons

    def self_return(self, sender: bytes, escrow: Escrow) -> Reasons:
        tag, status = "escrow.self_return", "return_requested"
        reasons = self._judge_escrow(tag, sender, escrow, of="consumer", status=status) | self._judge_dues(escrow)
        is_early = self.now_ms < escrow.requested_ms + self.silence_ms
        reasons |= gather((is_early, "utility_may_still_answer"))
        if not reasons:
            self._return(escrow)
        return reasons

    def list_overdue(self, escrow: Escrow) -> list[Bill]:
        owed = self.list_open(escrow.consumer, escrow.utility)
        return [bill for bill in owed if bill.due_ms < self.now_ms and bill.status != "disputed"]

    def set_off(self, sender: bytes, escrow: Escrow) -> Reasons:
        reasons = self._judge_escrow("escrow.set_off", sender, escrow, of="utility", status="held")
        overdue = self.list_overdue(escrow)
        reasons |= self.may_be_given(escrow.consumer) | gather((not overdue, "nothing_overdue_to_set_off"))
        if not reasons:
            for bill in overdue:
                cents = min(escrow.held_cents, bill.left_cents)
                if cents:
                    bill.take_payment(cents)
                    escrow.held_cents -= cents
                    self.balances[escrow.utility] += cents
            escrow.status = "held" if escrow.held_cents else "set_off"
        return reasons
