"""Rules of bills and deposits."""

from __future__ import annotations

from hypothesis.stateful import rule

from contracts_native.bills import BillLine, CreditBill, DisputeBill, IssueBill, Outcome, PayBill, ResolveBill
from contracts_native.escrow import ApproveReturn, LockEscrow, RejectReturn, RequestReturn, SelfReturn, SetOff
from ledger.primitives import Address
from tests.contracts_native.harness import HOUR_MS, RIVAL
from tests.properties.machine import LUCK, WRONG, Ground, Luck, N, pick
from tests.properties.model_bills import Bill, Escrow
from tests.properties.model_places import Meter


class BillRules(Ground):
    """Bills over what was consumed, and what becomes of them."""

    @rule(which=N, luck=LUCK)
    def bills(self, which: int, luck: Luck) -> None:
        rules = [self.issue_bill] if self.model.intervals else []
        if self.model.bills:
            rules += [self.pay_bill, self.dispute_bill, self.resolve_bill, self.credit_bill]
        pick(rules, which)(luck)

    def list_unbilled(self, meter: Meter) -> list[int]:
        """Consumption intervals of a meter that no bill has yet."""
        billed = self.model.billed.get(meter.id, [])
        return [
            start_ms
            for meter_id, name, start_ms in sorted(self.model.intervals)
            if (meter_id, name) == (meter.id, "consumption")
            and not any(first <= start_ms < until for first, until in billed)
        ]

    def make_line(self, meter: Meter, start_ms: int, count: int, odd: int, price: int) -> BillLine:
        length_ms = meter.channels.get("consumption", (0, 900))[1] * 1_000
        until_ms = start_ms + count * length_ms
        found = [
            self.model.intervals.get((meter.id, "consumption", one)) for one in range(start_ms, until_ms, length_ms)
        ]
        energy_wh = sum(one.wh for one in found if one is not None)
        if odd == 12:
            energy_wh += 1
        if odd == 11:
            until_ms -= 60_000
        return BillLine(meter.id, start_ms, until_ms, energy_wh, price)

    def issue_bill(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        count, price = pick((1, 2, 3, 4, 2, 1, 3, 0), cut), pick((10**6, 250_000, 10**6, 100), cut // 8)
        houses = [one for one in self.model.meters if "consumption" in one.channels]
        house = pick(houses, n) if odd < 10 else pick(self.model.meters, n)
        starts_ms = self.list_unbilled(house)
        if not starts_ms or odd == 9:
            starts_ms = sorted(start_ms for _, _, start_ms in self.model.intervals)
        lines = [(self.make_line(house, starts_ms[0], count, odd, price), house)]
        if n % 4 == 0 and len(starts_ms) > count:
            lines.append((self.make_line(house, starts_ms[count], 1, 0, price), house))
        by = self.rightly(house.utility, odd, n)
        consumer = Address(house.site.owner) if odd != 10 else self.someone(n)
        due_ms = self.model.now_ms + (n % 4 - (1 if odd == 8 else 0)) * HOUR_MS
        payload = IssueBill(consumer, tuple(line for line, _ in lines), due_ms, "June")
        applied = self.expect(payload, self.model.issue_bill(by, consumer, lines, due_ms), by=by)
        if applied is not None:
            self.model.bills[-1].id = applied.make_id("bill")

    def pick_bill(self, n: int, odd: int) -> Bill:
        owed = [one for one in self.model.bills if one.left_cents]
        return pick(owed if owed and odd < 12 else self.model.bills, n)

    def pay_bill(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        bill = self.pick_bill(n, odd)
        by = self.rightly(bill.consumer, odd, n)
        cents = max(1, bill.left_cents // (1 + cut % 4)) + (1 if odd == 11 else 0)
        cents = min(cents, max(1, self.model.balances[by])) if odd < 11 else cents
        self.expect(PayBill(bill.id, cents), self.model.pay_bill(by, bill, cents), by=by)

    def dispute_bill(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        bill = self.pick_bill(n, odd)
        by = self.rightly(bill.consumer, odd, n)
        self.expect(DisputeBill(bill.id, "not mine"), self.model.dispute(by, bill), by=by)

    def resolve_bill(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        disputed = [one for one in self.model.bills if one.status == "disputed"]
        outcome = pick(list(Outcome), n // 2)
        bill = pick(disputed, n) if disputed else self.pick_bill(n, odd)
        by = self.rightly(bill.utility, odd, n)
        reasons = self.model.resolve(by, bill, is_upheld=outcome is Outcome.UPHELD)
        self.expect(ResolveBill(bill.id, outcome), reasons, by=by)

    def credit_bill(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        bill = self.pick_bill(n, odd)
        by = self.rightly(bill.utility, odd, n)
        cents = max(1, bill.left_cents // (1 + cut % 4)) + (1 if odd == 11 else 0)
        self.expect(CreditBill(bill.id, cents, "goodwill"), self.model.credit_note(by, bill, cents), by=by)


class EscrowRules(Ground):
    """Deposits come, are asked for, and go."""

    @rule(which=N, luck=LUCK)
    def deposits(self, which: int, luck: Luck) -> None:
        answers = [self.approve_return, self.reject_return, self.self_return]
        rules = [self.lock_escrow]
        if self.model.escrows:
            rules += [self.request_return, self.set_off]
        asked = [one for one in self.model.escrows if one.status == "return_requested"]
        if asked or (self.model.escrows and luck.odd >= WRONG):
            rules += answers * 2
        if any(one.requested_ms + self.model.silence_ms <= self.model.now_ms for one in asked):
            rules += [self.self_return] * 6
        if any(self.model.list_overdue(one) for one in self.model.escrows if one.status == "held"):
            rules += [self.set_off] * 4
        pick(rules, which)(luck)

    def lock_escrow(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        houses = [one for one in self.model.meters if "consumption" in one.channels]
        house = pick(houses, n) if odd < 11 else pick(self.model.meters, n)
        by = self.rightly(house.site.owner, odd, n)
        utility = Address(house.site.utility) if odd != 12 else pick((RIVAL.address, by, self.someone(n)), n)
        cents = min(1 + cut // 2, max(1, self.model.balances[by]))
        reasons = self.model.lock(by, utility, house, cents)
        applied = self.expect(LockEscrow(utility, house.id, cents), reasons, by=by)
        if applied is not None:
            self.model.escrows[-1].id = applied.make_id("escrow")

    def pick_escrow(self, n: int, odd: int) -> Escrow:
        """One whose return was asked for or, if there is none, the latest."""
        asked = [one for one in self.model.escrows if one.status == "return_requested"]
        return pick(asked if asked and odd < 12 else self.model.escrows, -1 - n // 9)

    def request_return(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        escrow = self.pick_escrow(n, odd)
        by = self.rightly(escrow.consumer, odd, n)
        self.expect(RequestReturn(escrow.id), self.model.request_return(by, escrow), by=by)

    def approve_return(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        escrow = self.pick_escrow(n, odd)
        by = self.rightly(escrow.utility, odd, n)
        self.expect(ApproveReturn(escrow.id), self.model.approve_return(by, escrow), by=by)

    def reject_return(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        escrow = self.pick_escrow(n, odd)
        by = self.rightly(escrow.utility, odd, n)
        cited = self.model.list_open(escrow.consumer, escrow.utility)[: 1 + n % 2]
        if odd == 12 and self.model.bills:
            cited = [pick(self.model.bills, n)] * (1 + n % 2)
        reasons = self.model.reject_return(by, escrow, cited)
        self.expect(RejectReturn(escrow.id, tuple(one.id for one in cited)), reasons, by=by)

    def self_return(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        escrow = self.pick_escrow(n, odd)
        by = self.rightly(escrow.consumer, odd, n)
        self.expect(SelfReturn(escrow.id), self.model.self_return(by, escrow), by=by)

    def set_off(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        fit = [one for one in self.model.escrows if one.status == "held" and self.model.list_overdue(one)]
        escrow = pick(fit if fit and odd < 12 else self.model.escrows, -1 - n // 9)
        by = self.rightly(escrow.utility, odd, n)
        self.expect(SetOff(escrow.id), self.model.set_off(by, escrow), by=by)
