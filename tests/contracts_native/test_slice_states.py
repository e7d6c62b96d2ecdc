"""Where a slice can stand: every pair of a status and a transaction, walked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts_native.lots import LotId, SliceRef, TransferEnergy, get_slices_at
from contracts_native.meters import Channel
from contracts_native.offers import AcceptOffer, CancelOffer, OpenOffer
from contracts_native.sites import Technology
from contracts_native.slices import SLICE_TRANSITIONS, SliceStatus
from contracts_native.storage import ChargeStorage
from ledger.errors import Rejected
from ledger.parameters import Parameters
from tests.contracts_native.harness import BOB, CAROL, DAY_MS, NOW_MS, check_energy_conserved
from tests.contracts_native.money import pay_in
from tests.contracts_native.trade import Market, make_market

LIFETIME_S = 60 * DAY_MS // 1_000


class Story:
    """A lot of 100 Wh that Bob has, a battery of his, an offer of the lot."""

    def __init__(self) -> None:
        self.market: Market = make_market(parameters=Parameters(lot_lifetime_s=LIFETIME_S))
        world = self.market.world
        pay_in(world, CAROL, 1_000)
        self.battery = world.register_meter(BOB, world.register_site(BOB, technology=Technology.STORAGE))
        world.submit(self.battery.report(Channel.CONSUMPTION, (100,)))
        (self.lot,) = self.market.buy(100)
        self.offer = b""

    @property
    def ref(self) -> SliceRef:
        return SliceRef(self.lot, 0, 100)

    @property
    def status(self) -> SliceStatus:
        (one,) = get_slices_at(self.market.world.state, self.lot, time_ms=self.market.world.time_ms)
        return one.status

    def open_offer(self) -> None:
        payload = OpenOffer((self.ref,), NOW_MS + 100 * DAY_MS, total_cents=100)
        self.offer = self.market.world.apply(payload, by=BOB).make_id("offer")

    def charge(self) -> None:
        self.market.world.apply(
            ChargeStorage(self.battery.meter_id, (self.ref,), f"charge {self.market.world.height}"), by=BOB
        )

    def bring_to(self, status: SliceStatus) -> None:
        # An offer of other energy, so that there is one to accept or cancel in every status.
        other: list[LotId] = self.market.buy(10)
        if status is SliceStatus.RESERVED:
            self.open_offer()
        else:
            payload = OpenOffer((SliceRef(other[0], 0, 10),), NOW_MS + 100 * DAY_MS, total_cents=100)
            self.offer = self.market.world.apply(payload, by=BOB).make_id("offer")
        if status is SliceStatus.CLAIMED:
            self.market.claim(self.ref, hourly=False)
        if status is SliceStatus.CHARGED:
            self.charge()
        if status is SliceStatus.WITHDRAWN:
            self.market.withdraw(self.lot)
        if status is SliceStatus.EXPIRED:
            self.market.world.time_ms += 61 * DAY_MS
        assert self.status is status


ACTIONS: dict[str, Callable[[Story], object]] = {
    "energy.transfer": lambda story: story.market.world.apply(TransferEnergy(CAROL.address, (story.ref,), ""), by=BOB),
    "energy.claim": lambda story: story.market.claim(story.ref, hourly=False),
    "storage.charge": lambda story: story.charge(),
    "offer.open": lambda story: story.open_offer(),
    "offer.accept": lambda story: story.market.world.apply(
        AcceptOffer(story.offer, 100 if story.status is SliceStatus.RESERVED else 10), by=CAROL
    ),
    "offer.cancel": lambda story: story.market.world.apply(CancelOffer(story.offer), by=BOB),
    "energy.withdraw": lambda story: story.market.withdraw(story.lot),
    "reading.correct": lambda story: story.market.correct(0),
}
ACTIVE, RESERVED, CLAIMED = SliceStatus.ACTIVE, SliceStatus.RESERVED, SliceStatus.CLAIMED
CHARGED, EXPIRED, WITHDRAWN = SliceStatus.CHARGED, SliceStatus.EXPIRED, SliceStatus.WITHDRAWN
REFUSALS: dict[SliceStatus, str] = {
    RESERVED: "slice_reserved",
    CLAIMED: "slice_already_claimed",
    CHARGED: "slice_already_charged",
    EXPIRED: "lot_expired",
    WITHDRAWN: "slice_withdrawn",
}
# Withdrawals and corrections take every status but these, which stay; offers touch no slice but their own.
STAYS = {
    *((status, tag) for status in (CLAIMED, CHARGED) for tag in ("energy.withdraw", "reading.correct")),
    (WITHDRAWN, "reading.correct"),
    *((status, tag) for status in SliceStatus if status is not RESERVED for tag in ("offer.accept", "offer.cancel")),
}
AFTER: dict[tuple[SliceStatus, str], SliceStatus] = {
    (ACTIVE, "energy.transfer"): ACTIVE,
    (ACTIVE, "energy.claim"): CLAIMED,
    (ACTIVE, "storage.charge"): CHARGED,
    (ACTIVE, "offer.open"): RESERVED,
    (RESERVED, "offer.accept"): ACTIVE,
    (RESERVED, "offer.cancel"): ACTIVE,
    **{
        (status, tag): WITHDRAWN
        for status in (ACTIVE, RESERVED, EXPIRED)
        for tag in ("energy.withdraw", "reading.correct")
    },
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", SliceStatus)
def test_a_slice_goes_only_where_the_domain_lets_it(status: SliceStatus, action: str) -> None:
    story = Story()
    story.bring_to(status)
    wanted = AFTER.get((status, action))
    if wanted is not None:
        ACTIONS[action](story)
    elif (status, action) not in STAYS:
        reason = "lot_already_withdrawn" if action == "energy.withdraw" else REFUSALS[status]
        with pytest.raises(Rejected, match=reason):
            ACTIONS[action](story)
    elif status is not EXPIRED or action != "offer.accept":  # where all lots are past their lifetime
        ACTIONS[action](story)
    assert story.status is (wanted or status)
    check_energy_conserved(story.market.world.state)


def test_the_table_says_what_was_walked() -> None:
    assert dict(SLICE_TRANSITIONS) == AFTER
    assert {tag for _, tag in SLICE_TRANSITIONS} == set(ACTIONS)
