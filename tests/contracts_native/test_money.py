"""Conservation: no sequence of credit, bill and escrow transactions makes a credit, loses one, or miscounts dues.

One source of chance draws transactions, most of them possible and some not; the sums are checked after each.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from contracts_native.bills import (
    BILLS,
    CreditBill,
    DisputeBill,
    Outcome,
    PayBill,
    ResolveBill,
    compute_dues_cents,
    compute_overdue_cents,
)
from contracts_native.credits import ConfirmPayout, FailPayout, IssueCredits, RedeemCredits, TransferCredits
from contracts_native.escrow import (
    ESCROWS,
    ApproveReturn,
    LockEscrow,
    RejectReturn,
    RequestReturn,
    SelfReturn,
    SetOff,
)
from ledger.errors import Rejected
from ledger.parameters import Parameters
from ledger.primitives import Address
from ledger.transaction import Payload
from tests.contracts_native.harness import ALICE, BOB, DAY_MS, FULFILMENT, RIVAL, UTILITY, Person, SigningMeter, World
from tests.contracts_native.money import bill_of, check_credits_conserved, meter_line


@dataclass
class Market:
    """Draws transactions, most of them possible and some not, from one source of chance."""

    world: World
    chance: random.Random
    meters: dict[Person, SigningMeter]
    bills: list[bytes] = field(default_factory=list)
    escrows: list[bytes] = field(default_factory=list)
    redemptions: list[bytes] = field(default_factory=list)
    applied: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def draw(self) -> tuple[Payload, Person]:
        chance = self.chance
        consumer = chance.choice((ALICE, BOB))
        utility = UTILITY if chance.random() < 0.9 else RIVAL
        bill_id, escrow = self._one_of(self.bills), self._one_of(self.escrows)
        if escrow in self.escrows and chance.random() < 0.8:
            consumer = next(
                who for who in (ALICE, BOB) if who.address == ESCROWS.get(self.world.state, escrow).consumer
            )
        elif bill_id in self.bills and chance.random() < 0.8:
            consumer = self._person_at(BILLS.get(self.world.state, bill_id).consumer)
        meter, cents = self.meters[consumer], chance.choice((1, 50, 400, 1_000))
        bill = BILLS.find(self.world.state, bill_id)
        owed = bill.outstanding_cents if bill and bill.outstanding_cents and chance.random() < 0.7 else cents
        redemption = self._one_of(self.redemptions)
        moves: list[tuple[Payload, Person]] = [
            (IssueCredits(consumer.address, cents, f"payment {chance.randrange(300)}"), utility),
            (TransferCredits(chance.choice((ALICE, BOB, UTILITY)).address, cents, ""), consumer),
            (RedeemCredits(utility.address, cents), consumer),
            (ConfirmPayout(redemption, "wire"), FULFILMENT),
            (FailPayout(redemption, "wire"), FULFILMENT),
            (PayBill(bill_id, owed), consumer),
            (DisputeBill(bill_id, "x"), consumer),
            (ResolveBill(bill_id, chance.choice(tuple(Outcome))), utility),
            (CreditBill(bill_id, cents, "x"), utility),
            (LockEscrow(utility.address, meter.meter_id, cents), consumer),
            (RequestReturn(escrow), consumer),
            (ApproveReturn(escrow), utility),
            (RejectReturn(escrow, (bill_id,)), utility),
            (SetOff(escrow), utility),
            (SelfReturn(escrow), consumer),
        ]
        if chance.random() < 0.03:
            line = meter_line(self.world, meter, chance.randrange(0, 900))
            return bill_of(self.world, line, consumer=consumer, due_in_ms=chance.choice((0, DAY_MS))), utility
        return chance.choice(moves)

    def step(self) -> None:
        self.world.time_ms += self.chance.choice((1, 1_000, DAY_MS // 4))
        payload, by = self.draw()
        tag = payload.declaration.tag
        try:
            applied = self.world.apply(payload, by=by)
        except Rejected as refusal:
            self.reasons[refusal.reason] += 1
            return
        self.applied[tag] += 1
        kept = {
            "bill.issue": (self.bills, "bill"),
            "escrow.lock": (self.escrows, "escrow"),
            "credit.redeem": (self.redemptions, "redemption"),
        }.get(tag)
        if kept:
            kept[0].append(applied.make_id(kept[1]))

    def _person_at(self, address: Address) -> Person:
        return next(who for who in self.meters if who.address == address)

    def _one_of(self, ids: list[bytes]) -> bytes:
        return self.chance.choice([*ids[-4:], bytes(16)])


TAGS = {
    *(f"credit.{verb}" for verb in ("issue", "transfer", "redeem", "confirm_payout", "fail_payout")),
    *(f"bill.{verb}" for verb in ("issue", "pay", "dispute", "resolve", "credit_note")),
    *(
        f"escrow.{verb}"
        for verb in ("lock", "request_return", "approve_return", "reject_return", "set_off", "self_return")
    ),
}


def test_no_sequence_of_transactions_makes_or_loses_a_credit() -> None:
    applied: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for seed in range(2):
        world = World(Parameters(escrow_silence_s=3_600, dispute_deadline_s=10 * 86_400))
        market = Market(world, random.Random(seed), {who: world.add_consumer(who) for who in (ALICE, BOB)})
        for _ in range(800):
            market.step()
            check_credits_conserved(world.state)
            for who in (ALICE, BOB):
                check_dues(world, who)
        applied += market.applied
        reasons += market.reasons
    assert applied.keys() == TAGS, TAGS - applied.keys()
    assert len(reasons) > 20


def check_dues(world: World, who: Person) -> None:
    """The index of open bills gives the same dues as a look at all bills."""
    dues_cents = compute_dues_cents(world.state, who.address, UTILITY.address)
    overdue_cents = compute_overdue_cents(world.state, who.address, UTILITY.address, time_ms=world.time_ms)
    bills = [bill for _, bill in BILLS.scan(world.state) if bill.consumer == who.address]
    assert dues_cents == sum(bill.outstanding_cents for bill in bills)
    assert 0 <= overdue_cents <= dues_cents
