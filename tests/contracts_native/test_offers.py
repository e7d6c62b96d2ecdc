"""Energy against payment: both change hands, or neither does; what is not sold goes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from contracts_native.lots import EnergyMoved, EnergyReleased, EnergyReserved, LotId, SliceRef, TransferEnergy
from contracts_native.offers import (
    OFFER_SLICES_MAX,
    OFFER_TRANSITIONS,
    OFFERS,
    AcceptOffer,
    CancelOffer,
    OfferAccepted,
    OfferCancelled,
    OfferOpened,
    OfferStatus,
    OpenOffer,
    get_offer,
)
from contracts_native.slices import SliceStatus
from ledger.errors import Malformed, Rejected
from ledger.parameters import Parameters
from tests.contracts_native.harness import (
    ALICE,
    AUDITOR,
    BOB,
    CAROL,
    DAY_0_MS,
    DAY_MS,
    NOW_MS,
    QUARTER_MS,
    Person,
    check_energy_conserved,
)
from tests.contracts_native.money import balance, check_credits_conserved, pay_in
from tests.contracts_native.trade import Market, make_market

CENT_PER_WH = 1_000_000  # in cents per MWh
UNTIL_MS = NOW_MS + DAY_MS


def make_shop(*values_wh: int, parameters: Parameters | None = None) -> tuple[Market, list[LotId]]:
    """Alice's lots; Bob and Carol have 1,000 cents each."""
    market = make_market(parameters=parameters)
    for person in (BOB, CAROL):
        pay_in(market.world, person, 1_000)
    return market, market.world.produce(market.producer, *values_wh)


def open_offer(market: Market, *refs: SliceRef, price: int | None = CENT_PER_WH, total: int | None = None) -> bytes:
    payload = OpenOffer(refs, UNTIL_MS, None if total else price, total)
    return market.world.apply(payload, by=ALICE).make_id("offer")


def check(market: Market) -> None:
    check_energy_conserved(market.world.state)
    check_credits_conserved(market.world.state)
    reserved_wh = check_energy_conserved(market.world.state)[SliceStatus.RESERVED]
    assert reserved_wh == sum(offer.left_wh for _, offer in OFFERS.scan(market.world.state))


def test_an_offer_reserves_what_it_sells_and_a_sale_moves_both_sides() -> None:
    market, (first, second) = make_shop(100, 200)
    payload = OpenOffer((SliceRef(first, 50, 100), SliceRef(second, 0, 200)), UNTIL_MS, CENT_PER_WH)
    applied = market.world.apply(payload, by=ALICE)
    offer = applied.make_id("offer")
    assert applied.one(OfferOpened) == OfferOpened(offer, ALICE.address, 250, CENT_PER_WH, None, UNTIL_MS)
    assert applied.all_of(EnergyReserved)[0] == EnergyReserved(first, 50, 100, ALICE.address, offer)
    assert market.list_statuses(first) == [(50, "active"), (100, "reserved")]
    check(market)
    sale = market.world.apply(AcceptOffer(offer, 120), by=BOB)
    assert sale.one(OfferAccepted) == OfferAccepted(offer, ALICE.address, BOB.address, 120, 120, 130)
    assert [(one.lot, one.first_wh, one.end_wh) for one in sale.all_of(EnergyMoved)] == [
        (first, 50, 100),
        (second, 0, 70),
    ]
    assert len(sale.all_of(EnergyReleased)) == 2
    assert (balance(market.world, BOB), balance(market.world, ALICE)) == (880, 120)
    assert get_offer(market.world.state, offer).slices == (SliceRef(second, 70, 200),)
    check(market)
    market.world.apply(AcceptOffer(offer, 130), by=CAROL)
    assert get_offer(market.world.state, offer).status is OfferStatus.SOLD
    assert market.list_statuses(second) == [(70, "active"), (200, "active")]
    check(market)


def test_a_price_is_rounded_up_so_that_no_part_is_for_nothing() -> None:
    market, (lot,) = make_shop(100)
    offer = open_offer(market, SliceRef(lot, 0, 100), price=8_000)
    assert market.world.apply(AcceptOffer(offer, 1), by=BOB).one(OfferAccepted).cents == 1
    assert market.world.apply(AcceptOffer(offer, 99), by=BOB).one(OfferAccepted).cents == 1


def test_an_offer_at_a_total_is_sold_whole() -> None:
    market, (lot,) = make_shop(100)
    offer = open_offer(market, SliceRef(lot, 0, 100), total=77)
    market.world.refuses(AcceptOffer(offer, 99), "offer_sold_whole_only", by=BOB)
    market.world.apply(AcceptOffer(offer, 100), by=BOB)
    assert balance(market.world, ALICE) == 77
    check(market)


def test_without_the_credits_nothing_moves() -> None:
    market, (lot,) = make_shop(2_000)
    offer = open_offer(market, SliceRef(lot, 0, 2_000))
    market.world.refuses(AcceptOffer(offer, 1_001), "credits_not_sufficient", by=BOB)
    assert market.list_statuses(lot) == [(2_000, "reserved")]
    market.world.apply(AcceptOffer(offer, 1_000), by=BOB)
    assert balance(market.world, BOB) == 0
    check(market)


def test_an_offer_has_one_price_and_time_left() -> None:
    market, (lot,) = make_shop(100)
    good = OpenOffer((SliceRef(lot, 0, 100),), UNTIL_MS, CENT_PER_WH)
    market.world.refuses(replace(good, total_cents=1), "offer_needs_one_price", by=ALICE)
    market.world.refuses(replace(good, price_cents_per_mwh=None), "offer_needs_one_price", by=ALICE)
    market.world.refuses(replace(good, valid_until_ms=NOW_MS), "offer_already_over", by=ALICE)
    market.world.refuses(good, "slice_not_held", by=BOB)
    market.world.refuses(
        replace(good, slices=(SliceRef(lot, 0, 50), SliceRef(lot, 49, 60))), "slice_reserved", by=ALICE
    )
    for wrong in (replace(good, price_cents_per_mwh=0), replace(good, slices=())):
        with pytest.raises(Malformed):
            market.world.apply(wrong, by=ALICE)
    many = tuple(SliceRef(lot, 0, 1) for _ in range(OFFER_SLICES_MAX + 1))
    with pytest.raises(Malformed, match="array_length_out_of_range"):
        market.world.apply(replace(good, slices=many), by=ALICE)


def test_what_is_offered_neither_moves_nor_is_offered_again() -> None:
    market, (lot,) = make_shop(100)
    open_offer(market, SliceRef(lot, 0, 50))
    market.world.refuses(TransferEnergy(BOB.address, (SliceRef(lot, 40, 60),), ""), "slice_reserved", by=ALICE)
    again = OpenOffer((SliceRef(lot, 49, 60),), UNTIL_MS, CENT_PER_WH)
    market.world.refuses(again, "slice_reserved", by=ALICE)


def test_nobody_buys_more_than_is_left_or_from_oneself() -> None:
    market, (lot,) = make_shop(100)
    offer = open_offer(market, SliceRef(lot, 0, 100))
    market.world.refuses(AcceptOffer(offer, 101), "quantity_above_offer", by=BOB)
    market.world.refuses(AcceptOffer(offer, 1), "offer_of_oneself", by=ALICE)
    market.world.refuses(AcceptOffer(bytes(16), 1), "offer_unknown", by=BOB)
    with pytest.raises(Malformed, match="number_out_of_range"):
        market.world.apply(AcceptOffer(offer, 0), by=BOB)


def test_offer_expires_unpaid_and_slices_return() -> None:
    market, (lot,) = make_shop(100)
    offer = open_offer(market, SliceRef(lot, 0, 100))
    market.world.apply(AcceptOffer(offer, 30), by=BOB)
    market.world.refuses(CancelOffer(offer), "offer_of_another_seller", by=CAROL)
    market.world.time_ms = UNTIL_MS - 1
    market.world.refuses(CancelOffer(offer), "offer_of_another_seller", by=CAROL)
    market.world.time_ms = UNTIL_MS
    market.world.refuses(AcceptOffer(offer, 1), "offer_over", by=BOB)
    applied = market.world.apply(CancelOffer(offer), by=CAROL)
    assert applied.one(OfferCancelled) == OfferCancelled(offer, ALICE.address, 70)
    assert market.list_statuses(lot) == [(30, "active"), (100, "active")]
    check(market)


def test_a_seller_cancels_at_any_time_also_what_is_past_its_lifetime() -> None:
    market, (lot,) = make_shop(100, parameters=Parameters(lot_lifetime_s=40 * DAY_MS // 1_000))
    payload = OpenOffer((SliceRef(lot, 0, 100),), NOW_MS + 100 * DAY_MS, CENT_PER_WH)
    offer = market.world.apply(payload, by=ALICE).make_id("offer")
    market.world.time_ms = DAY_0_MS + QUARTER_MS + 40 * DAY_MS
    market.world.refuses(AcceptOffer(offer, 1), "lot_expired", by=BOB)
    market.world.apply(CancelOffer(offer), by=ALICE)
    check(market)


def test_a_frozen_seller_sells_nothing_and_a_frozen_buyer_buys_nothing() -> None:
    market, (lot,) = make_shop(100)
    offer = open_offer(market, SliceRef(lot, 0, 100))
    market.world.freeze(BOB)
    market.world.refuses(AcceptOffer(offer, 1), "participant_frozen", by=BOB)
    market.world.freeze(ALICE)
    market.world.refuses(AcceptOffer(offer, 1), "participant_frozen", by=CAROL)
    market.world.time_ms = UNTIL_MS
    market.world.apply(CancelOffer(offer), by=AUDITOR)
    assert market.list_statuses(lot) == [(100, "active")]


def test_a_withdrawn_lot_leaves_its_offer_and_the_rest_is_still_for_sale() -> None:
    market, (first, second) = make_shop(100, 200)
    offer = open_offer(market, SliceRef(first, 0, 60), SliceRef(second, 0, 50), SliceRef(first, 60, 80))
    market.withdraw(first)
    left = get_offer(market.world.state, offer)
    assert (left.slices, left.left_wh, left.status) == ((SliceRef(second, 0, 50),), 50, OfferStatus.OPEN)
    assert market.list_statuses(first) == [(100, "withdrawn")]
    check(market)
    market.withdraw(second)
    assert get_offer(market.world.state, offer).status is OfferStatus.CANCELLED
    check(market)


def test_an_offer_at_a_total_ends_when_a_lot_of_it_is_withdrawn() -> None:
    market, (first, second) = make_shop(100, 200)
    offer = open_offer(market, SliceRef(first, 0, 60), SliceRef(second, 0, 50), total=10)
    applied = market.withdraw(first)
    assert applied.one(OfferCancelled) == OfferCancelled(offer, ALICE.address, 50)
    assert market.list_statuses(second) == [(200, "active")]
    check(market)


# Every pair of a status and a transaction

OPEN, SOLD, CANCELLED = OfferStatus.OPEN, OfferStatus.SOLD, OfferStatus.CANCELLED
ACTIONS: dict[str, Callable[[Market, bytes, LotId], object]] = {
    "buy a part": lambda market, offer, _: market.world.apply(AcceptOffer(offer, 1), by=BOB),
    "buy all": lambda market, offer, _: market.world.apply(AcceptOffer(offer, 90), by=BOB),
    "cancel": lambda market, offer, _: market.world.apply(CancelOffer(offer), by=ALICE),
    "withdraw": lambda market, _, lot: market.withdraw(lot),
    "correct": lambda market, _, lot: market.correct(7, start_ms=lot.start_ms),
}
AFTER: dict[OfferStatus, dict[str, OfferStatus]] = {
    OPEN: {"buy a part": OPEN, "buy all": SOLD, "cancel": CANCELLED, "withdraw": OPEN, "correct": OPEN},
    SOLD: {"withdraw": SOLD, "correct": SOLD},  # an offer that is over has nothing of the lot
    CANCELLED: {"withdraw": CANCELLED, "correct": CANCELLED},
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", OfferStatus)
def test_an_offer_goes_only_where_the_domain_lets_it(status: OfferStatus, action: str) -> None:
    market, (first, second) = make_shop(40, 50)
    offer = open_offer(market, SliceRef(first, 0, 40), SliceRef(second, 0, 50))
    if status is SOLD:
        market.world.apply(AcceptOffer(offer, 90), by=BOB)
    if status is CANCELLED:
        market.world.apply(CancelOffer(offer), by=ALICE)
    wanted = AFTER[status].get(action)
    if wanted is None:
        with pytest.raises(Rejected, match=f"offer_not_open_to_this: {offer.hex()} is {status}"):
            ACTIONS[action](market, offer, first)
    else:
        ACTIONS[action](market, offer, first)
    assert get_offer(market.world.state, offer).status is (wanted or status)
    check(market)


def test_nothing_leaves_an_offer_that_is_over() -> None:
    assert {status for status, _ in OFFER_TRANSITIONS} == {OPEN}


@pytest.mark.parametrize("seed", range(4))
def test_random_sales_conserve_energy_and_credits(seed: int) -> None:
    random = Random(seed)
    market, lots = make_shop(*[Random(seed).randrange(1, 300) for _ in range(8)])
    people: list[Person] = [ALICE, BOB, CAROL]
    open_offers: list[bytes] = []
    known = {"slice_not_held", "slice_reserved", "slice_withdrawn", "range_outside_lot", "quantity_above_offer"}
    known |= {"offer_of_oneself", "credits_not_sufficient", "offer_of_another_seller", "offer_not_open_to_this"}
    known |= {"lot_already_withdrawn"}
    for _ in range(60):
        person, lot = random.choice(people), random.choice(lots)
        first = random.randrange(200)
        try:
            match random.randrange(8):
                case 0 | 1 | 2:
                    ref = SliceRef(lot, first, first + random.randrange(1, 50))
                    payload = OpenOffer((ref,), UNTIL_MS, random.randrange(1, CENT_PER_WH))
                    open_offers.append(market.world.apply(payload, by=person).make_id("offer"))
                case 3 | 4 | 5 if open_offers:
                    payload_ = AcceptOffer(random.choice(open_offers), random.randrange(1, 60))
                    market.world.apply(payload_, by=person)
                case 6 if open_offers:
                    market.world.apply(CancelOffer(random.choice(open_offers)), by=person)
                case 7 if random.random() < 0.2:
                    market.withdraw(lot)
        except Rejected as error:
            if error.reason not in known:
                raise
        check(market)
