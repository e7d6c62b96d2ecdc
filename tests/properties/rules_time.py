"""Rules of time: the clock goes to where something ends, or a millisecond before or after, and that is tried."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import rule

from contracts_native.bills import DisputeBill
from contracts_native.escrow import SelfReturn, SetOff
from contracts_native.lots import SliceRef, TransferEnergy
from contracts_native.offers import AcceptOffer, CancelOffer
from ledger.primitives import Address
from tests.contracts_native.harness import ALICE, BOB, CAROL
from tests.properties.machine import Ground, N, pick
from tests.properties.model_bills import Bill, Escrow
from tests.properties.model_energy import Lot, Offer

TRADERS = (ALICE, BOB, CAROL)
Edge = tuple[int, Callable[[], None]]  # when it is, and what to try


class TimeRules(Ground):
    """To the millisecond."""

    @rule(which=N, number=N, off_ms=st.sampled_from((-1, 0, 1)))
    def tries_at_the_edge(self, which: int, number: int, off_ms: int) -> None:
        kinds = [self.list_returns(), self.list_disputes(), self.list_dues(), self.list_offers()]
        kinds += [self.list_lots()] * (number % 5 == 0)  # seldom: afterwards hardly anything can be traded
        ahead = [[edge for edge in edges if edge[0] > self.model.now_ms + 1] for edges in kinds]
        some = [edges for edges in ahead if edges]
        if some:
            time_ms, attempt = pick(pick(some, which), number)
            self.pass_time(time_ms + off_ms - self.model.now_ms)
            attempt()

    def list_returns(self) -> list[Edge]:
        asked = [one for one in self.model.escrows if one.status == "return_requested"]
        return [(one.requested_ms + self.model.silence_ms, partial(self.return_alone, one)) for one in asked]

    def return_alone(self, escrow: Escrow) -> None:
        reasons = self.model.self_return(escrow.consumer, escrow)
        self.expect(SelfReturn(escrow.id), reasons, by=escrow.consumer)

    def list_disputes(self) -> list[Edge]:
        fit = [one for one in self.model.bills if one.left_cents and not one.was_disputed]
        return [(one.issued_ms + self.model.dispute_ms, partial(self.contest, one)) for one in fit]

    def contest(self, bill: Bill) -> None:
        self.expect(DisputeBill(bill.id, "late"), self.model.dispute(bill.consumer, bill), by=bill.consumer)

    def list_dues(self) -> list[Edge]:
        """Of bills that a deposit could pay."""
        held = [one for one in self.model.escrows if one.status == "held"]
        return [
            (bill.due_ms, partial(self.pay_from, escrow))
            for escrow in held
            for bill in self.model.list_open(escrow.consumer, escrow.utility)
        ]

    def pay_from(self, escrow: Escrow) -> None:
        self.expect(SetOff(escrow.id), self.model.set_off(escrow.utility, escrow), by=escrow.utility)

    def list_offers(self) -> list[Edge]:
        fit = [one for one in self.model.offers if one.status == "open"]
        return [(one.until_ms, partial(attempt, one)) for one in fit for attempt in (self.buy_all, self.take_down)]

    def find_other(self, than: bytes) -> Address:
        return next(one.address for one in TRADERS if one.address != than)

    def buy_all(self, offer: Offer) -> None:
        by, wh = self.find_other(offer.seller), len(offer.units)
        self.expect(AcceptOffer(offer.id, wh), self.model.accept_offer(by, offer, wh), by=by)

    def take_down(self, offer: Offer) -> None:
        """Somebody else than the seller."""
        by = self.find_other(offer.seller)
        self.expect(CancelOffer(offer.id), self.model.cancel_offer(by, offer), by=by)

    def list_lots(self) -> list[Edge]:
        fit = [one for one in self.model.lots.values() if any(unit.status == "active" for unit in one.units)]
        return [(one.end_ms + self.model.lifetime_ms, partial(self.give_away, one)) for one in fit]

    def give_away(self, lot: Lot) -> None:
        place = next(at for at, unit in enumerate(lot.units) if unit.status == "active")
        by, refs = lot.units[place].holder, (SliceRef(lot.id, place, place + 1),)
        recipient = self.find_other(by)
        self.expect(TransferEnergy(recipient, refs, ""), self.model.transfer(by, recipient, refs), by=by)
