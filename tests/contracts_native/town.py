"""A town where everything happens to energy that can: random transactions, refused for known reasons only.

Shared by the tests of the rules and of what a node derives from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from contracts_native.amendments import SetShares
from contracts_native.claims import CLAIMS, ClaimEnergy, ClaimStatus, VoidClaim
from contracts_native.corrections import CorrectReading, WithdrawEnergy
from contracts_native.lots import LotId, SliceRef, TransferEnergy, get_slices
from contracts_native.meters import Channel, get_meter
from contracts_native.offers import OFFERS, AcceptOffer, CancelOffer, OfferStatus, OpenOffer
from contracts_native.participants import FreezeParticipant, UnfreezeParticipant, get_participant
from contracts_native.readings import Flag
from contracts_native.sites import Technology
from contracts_native.slices import Slice, SliceStatus
from contracts_native.storage import ChargeStorage
from ledger.errors import Rejected
from ledger.parameters import Parameters
from tests.contracts_native.harness import (
    ALICE,
    AUDITOR,
    BOB,
    CAROL,
    DAY_0_MS,
    DAY_MS,
    HOUR_MS,
    MEASURER,
    UTILITY,
    Person,
    SigningMeter,
    World,
    list_lots,
)
from tests.contracts_native.money import pay_in

PEOPLE = (ALICE, BOB, CAROL)
PARAMETERS = Parameters(lot_lifetime_s=40 * DAY_MS // 1_000)
# Refusals that a random step may meet. Any other is a mistake of ours.
KNOWN = frozenset(
    {
        *("slice_reserved", "slice_withdrawn", "slice_already_claimed", "slice_already_charged", "slice_not_held"),
        *("lot_expired", "lot_already_withdrawn", "correction_changes_nothing", "interval_not_recorded"),
        *("consumption_exceeded", "consumption_not_recorded", "consumption_quarantined", "charge_not_recorded"),
        *("consumption_meter_not_of_beneficiary", "participant_frozen", "participant_not_open_to_this"),
        *("credits_not_sufficient", "offer_of_oneself", "offer_of_another_seller", "quantity_above_offer"),
        *("offer_over", "replacement_too_large", "shareholder_countersignature_missing", "amendment_changes_nothing"),
        "recipient_is_sender",
    }
)


class Town:
    """A plant of Alice, a house of Bob that consumes, a battery of Carol; everybody has credits."""

    def __init__(self, seed: int, world: World | None = None) -> None:
        self.random = Random(seed)
        self.world = World(PARAMETERS) if world is None else world
        self.plant = self.world.add_producer(ALICE, interval_s=self.random.choice((900, 3_600)))
        self.house = self.world.add_consumer(BOB)
        battery = self.world.register_site(CAROL, technology=Technology.STORAGE)
        self.battery = self.world.register_meter(CAROL, battery)
        for person in PEOPLE:
            pay_in(self.world, person, 5_000)
        self.statements = 0
        self.done: Counter[str] = Counter()

    def step(self) -> None:
        """Something happens, or is refused for a reason that may be."""
        action = self.random.choices(list(ACTIONS), weights=[weight for _, weight in ACTIONS.values()])[0]
        try:
            ACTIONS[action][0](self)
        except Rejected as error:
            if error.reason not in KNOWN:
                raise
        else:
            self.done[action] += 1
        self.world.time_ms += self.random.randrange(3 * HOUR_MS)

    def run(self, steps: int, *, check: Callable[[], None]) -> None:
        """Reports first, so that there is something to trade; ``check`` after each step."""
        for _ in range(8):
            self.report()
        for _ in range(steps):
            self.step()
            check()

    def report(self) -> None:
        meter, channel = self.random.choice(
            [(self.plant, Channel.PRODUCTION), (self.house, Channel.CONSUMPTION), *self._battery_channels()]
        )
        wh = [self.random.choice((0, self.random.randrange(1, 300))) for _ in range(self.random.randrange(1, 6))]
        if self.random.random() < 0.1:
            wh[0] = 10**6
        flag = self.random.choices(list(Flag), weights=[8, 1, 1])[0]
        self.world.submit(meter.report(channel, wh, flag=flag))

    def _battery_channels(self) -> list[tuple[SigningMeter, Channel]]:
        return [(self.battery, Channel.CONSUMPTION), (self.battery, Channel.PRODUCTION)]

    def pick(self, *statuses: SliceStatus) -> tuple[LotId, Slice, SliceRef]:
        """A slice, mostly in one of these statuses, and a part of it."""
        every = [(lot.lot, one) for lot in list_lots(self.world.state) for one in get_slices(self.world.state, lot.lot)]
        if not every:
            raise Rejected("interval_not_recorded", "nothing was minted yet")
        wanted = [pair for pair in every if pair[1].status in statuses]
        lot, one = self.random.choice(wanted if wanted and self.random.random() < 0.9 else every)
        first_wh = self.random.randrange(one.first_wh, one.end_wh)
        return lot, one, SliceRef(lot, first_wh, self.random.randint(first_wh + 1, one.end_wh))

    def holder(self, one: Slice) -> Person:
        (person,) = (person for person in PEOPLE if person.address == one.holder)
        return person

    def transfer(self) -> None:
        _, one, ref = self.pick(SliceStatus.ACTIVE)
        recipient = self.random.choice(PEOPLE).address
        self.world.apply(TransferEnergy(recipient, (ref,), ""), by=self.holder(one))

    def claim(self, *, replaces: bytes | None = None) -> None:
        _, one, ref = self.pick(SliceStatus.ACTIVE)
        self.statements += 1
        meter = self.random.choice((None, self.house.meter_id, self.house.meter_id))
        beneficiary = BOB if meter else self.random.choice(PEOPLE)
        payload = ClaimEnergy(
            (ref,), beneficiary.address, "", DAY_0_MS, DAY_0_MS + 60 * DAY_MS, f"{self.statements}", meter
        )
        if replaces is None:
            self.world.apply(payload, by=self.holder(one))
            return
        old = CLAIMS.get(self.world.state, replaces)
        payload = replace(payload, replaces=replaces, beneficiary=old.beneficiary)
        if old.claimant != one.holder:
            raise Rejected("slice_not_held")
        self.world.apply(payload, by=self.holder(one))

    def end_claim(self) -> None:
        impaired = [
            (key[3:], claim)
            for key, claim in CLAIMS.scan(self.world.state)
            if claim.status is ClaimStatus.IMPAIRED and claim.purpose == ""
        ]
        if not impaired:
            raise Rejected("interval_not_recorded")
        claim_id, claim = self.random.choice(impaired)
        if self.random.random() < 0.7:
            self.claim(replaces=claim_id)
        else:
            (person,) = (person for person in PEOPLE if person.address == claim.claimant)
            self.world.apply(VoidClaim(claim_id), by=person)

    def offer(self) -> None:
        _, one, ref = self.pick(SliceStatus.ACTIVE)
        until_ms = self.world.time_ms + self.random.randrange(1, DAY_MS)
        price = {"price_cents_per_mwh": 10**6} if self.random.random() < 0.7 else {"total_cents": 50}
        self.world.apply(OpenOffer((ref,), until_ms, **price), by=self.holder(one))

    def end_offer(self) -> None:
        open_offers = [
            (key[3:], offer) for key, offer in OFFERS.scan(self.world.state) if offer.status is OfferStatus.OPEN
        ]
        if not open_offers:
            raise Rejected("interval_not_recorded")
        offer_id, offer = self.random.choice(open_offers)
        person = self.random.choice(PEOPLE)
        if self.random.random() < 0.7:
            whole = offer.total_cents is not None or self.random.random() < 0.5
            wh = offer.left_wh if whole else self.random.randint(1, offer.left_wh)
            self.world.apply(AcceptOffer(offer_id, wh), by=person)
        else:
            self.world.apply(CancelOffer(offer_id), by=person)

    def charge(self) -> None:
        _, one, ref = self.pick(SliceStatus.ACTIVE)
        if one.holder != CAROL.address:
            self.world.apply(TransferEnergy(CAROL.address, (ref,), ""), by=self.holder(one))
        self.statements += 1
        self.world.apply(ChargeStorage(self.battery.meter_id, (ref,), f"{self.statements}"), by=CAROL)

    def withdraw(self) -> None:
        lot, _, _ = self.pick(*SliceStatus)
        self.world.apply(WithdrawEnergy((lot,), "wrong"), by=MEASURER)

    def correct(self) -> None:
        meter, channel = self.random.choice(
            [(self.plant, Channel.PRODUCTION), (self.house, Channel.CONSUMPTION), *self._battery_channels()]
        )
        start_ms = DAY_0_MS + self.random.randrange(12) * meter.interval_ms
        wh = [self.random.choice((0, self.random.randrange(300), 10**6)) for _ in range(self.random.randrange(1, 4))]
        flag = self.random.choices(list(Flag), weights=[8, 1, 1])[0]
        payload = CorrectReading(meter.meter_id, channel, start_ms, tuple(wh), flag, "wrong")
        self.world.apply(payload, by=MEASURER)

    def freeze(self) -> None:
        person = self.random.choice(PEOPLE)
        if get_participant(self.world.state, person.address).is_frozen:
            self.world.apply(UnfreezeParticipant(person.address, "x"), by=AUDITOR)
        elif self.random.random() < 0.3:
            self.world.apply(FreezeParticipant(person.address, "x"), by=AUDITOR)

    def share(self) -> None:
        site = get_meter(self.world.state, self.plant.meter_id).site
        shares = ((ALICE.address, self.random.randrange(1, 9)), (CAROL.address, self.random.randrange(1, 9)))
        self.world.apply(SetShares(site, shares), by=UTILITY, cosigners=[ALICE, CAROL])

    def wait(self) -> None:
        self.world.time_ms += self.random.randrange(2 * DAY_MS)


ACTIONS: dict[str, tuple[Callable[[Town], None], int]] = {
    "report": (Town.report, 10),
    "transfer": (Town.transfer, 8),
    "claim": (Town.claim, 8),
    "end_claim": (Town.end_claim, 6),
    "offer": (Town.offer, 6),
    "end_offer": (Town.end_offer, 7),
    "charge": (Town.charge, 5),
    "withdraw": (Town.withdraw, 2),
    "correct": (Town.correct, 6),
    "freeze": (Town.freeze, 3),
    "share": (Town.share, 1),
    "wait": (Town.wait, 1),
}
