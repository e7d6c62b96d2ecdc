"""Offers: energy for sale, delivered against payment.

Owns that slices and credits change hands together or not at all. An offer reserves what it sells, so that nobody buys
what is gone; what is left goes back to its seller when the offer ends.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native import credits, lots
from contracts_native.lots import LotId, SliceRef
from contracts_native.sites import InstantMs
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import INTEGER_MAX, Amount, Bounds, Length
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction

OFFER_SLICES_MAX: Final = 500  # about 20 kB, rewritten with each sale
PRICE_CENTS_PER_MWH_MAX: Final = 10**9
WH_PER_MWH: Final = 1_000_000


class OfferStatus(enum.StrEnum):
    """`open → sold | cancelled`. An open offer whose time is over is no longer accepted, and anyone may cancel it."""

    OPEN = "open"
    SOLD = "sold"
    CANCELLED = "cancelled"


# (status, transaction) → the statuses that may follow. What is not here is refused.
OFFER_TRANSITIONS: Final[Mapping[tuple[OfferStatus, str], frozenset[OfferStatus]]] = {
    (OfferStatus.OPEN, "offer.accept"): frozenset({OfferStatus.OPEN, OfferStatus.SOLD}),
    (OfferStatus.OPEN, "offer.cancel"): frozenset({OfferStatus.CANCELLED}),
    (OfferStatus.OPEN, "energy.withdraw"): frozenset({OfferStatus.OPEN, OfferStatus.CANCELLED}),
    (OfferStatus.OPEN, "reading.correct"): frozenset({OfferStatus.OPEN, OfferStatus.CANCELLED}),
}

OfferId = Annotated[bytes, Length(16, 16)]
PricePerMwh = Annotated[int, Bounds(1, PRICE_CENTS_PER_MWH_MAX)]
Total = Annotated[int, Bounds(1, INTEGER_MAX)]


@dataclass(frozen=True, slots=True)
class Offer:
    """What is for sale: ``slices`` are those still reserved, sold from the front.

    It has a price per MWh, at which any part is sold, or a total, at which all is sold at once.
    """

    seller: Address
    slices: Annotated[tuple[SliceRef, ...], Length(OFFER_SLICES_MAX)]
    left_wh: int
    sold_wh: int
    price_cents_per_mwh: PricePerMwh | None
    total_cents: Total | None
    valid_until_ms: InstantMs
    status: OfferStatus


OFFERS: Table[Offer] = Table("of", Offer, missing="offer_unknown")


@event("offer.opened")
@dataclass(frozen=True, slots=True)
class OfferOpened(Event):
    """Energy is for sale."""

    offer: OfferId
    seller: Address
    wh: int
    price_cents_per_mwh: PricePerMwh | None
    total_cents: Total | None
    valid_until_ms: InstantMs


@event("offer.accepted")
@dataclass(frozen=True, slots=True)
class OfferAccepted(Event):
    """So much of an offer was sold for so much."""

    offer: OfferId
    seller: Address
    buyer: Address
    wh: int
    cents: int
    left_wh: int


@event("offer.cancelled")
@dataclass(frozen=True, slots=True)
class OfferCancelled(Event):
    """What was left of an offer is its seller's again."""

    offer: OfferId
    seller: Address
    released_wh: int


def get_offer(state: State, offer: bytes) -> Offer:
    """An offer by its id. Raises ``RuleViolated`` (``offer_unknown``)."""
    return OFFERS.get(state, offer)


def compute_price_cents(offer: Offer, wh: int) -> int:
    """What ``wh`` of an offer cost: rounded up to a cent, so that no part is for nothing."""
    if offer.total_cents is not None:
        return offer.total_cents
    assert offer.price_cents_per_mwh is not None, "an offer has one price"
    return -(-wh * offer.price_cents_per_mwh // WH_PER_MWH)


def drop_lot(state: State, offer_id: bytes, lot: LotId, *, tag: str) -> None:
    """A lot was withdrawn: what an offer had of it is no longer for sale.

    An offer at a total price ends, since what is left was never offered at that price; so does one with nothing left.
    """
    offer = get_offer(state, offer_id)
    slices = tuple(ref for ref in offer.slices if ref.lot != lot)
    left_wh = sum(ref.wh for ref in slices)
    left = replace(offer, slices=slices, left_wh=left_wh)
    if left_wh and offer.total_cents is None:
        _put(state, offer_id, offer, left, tag)
    else:
        _cancel(state, offer_id, left, tag)


@transaction("offer.open", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class OpenOffer(Payload):
    """Offer watt-hours for credits, at a price per MWh or at a total. The id: ``tx.make_id("offer")``."""

    slices: Annotated[tuple[SliceRef, ...], Length(OFFER_SLICES_MAX, 1)]
    valid_until_ms: InstantMs
    price_cents_per_mwh: PricePerMwh | None = None
    total_cents: Total | None = None

    def apply(self, state: State, tx: TxContext) -> None:
        if (self.price_cents_per_mwh is None) == (self.total_cents is None):
            raise RuleViolated("offer_needs_one_price", "per MWh or in total")
        if self.valid_until_ms <= tx.time_ms:
            raise RuleViolated("offer_already_over", self.valid_until_ms)
        offer_id = tx.make_id("offer")
        for ref in self.slices:
            lots.reserve(state, ref, owner=tx.sender, reference=offer_id, time_ms=tx.time_ms)
        wh = sum(ref.wh for ref in self.slices)
        offer = Offer(
            seller=tx.sender,
            slices=self.slices,
            left_wh=wh,
            sold_wh=0,
            price_cents_per_mwh=self.price_cents_per_mwh,
            total_cents=self.total_cents,
            valid_until_ms=self.valid_until_ms,
            status=OfferStatus.OPEN,
        )
        OFFERS.put(state, offer_id, value=offer)
        state.emit(
            OfferOpened(offer_id, tx.sender, wh, self.price_cents_per_mwh, self.total_cents, self.valid_until_ms)
        )


@transaction("offer.accept", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class AcceptOffer(Payload):
    """Buy so many watt-hours of an offer, its first slices first, for what they cost."""

    offer: OfferId
    quantity_wh: Amount

    def apply(self, state: State, tx: TxContext) -> None:
        offer = _get_open(state, self.offer, "offer.accept")
        if offer.seller == tx.sender:
            raise RuleViolated("offer_of_oneself", self.offer.hex())
        if tx.time_ms >= offer.valid_until_ms:
            raise RuleViolated("offer_over", f"{self.offer.hex()} since {offer.valid_until_ms}")
        if self.quantity_wh > offer.left_wh:
            raise RuleViolated("quantity_above_offer", f"{self.quantity_wh} of {offer.left_wh} Wh")
        if offer.total_cents is not None and self.quantity_wh != offer.left_wh:
            raise RuleViolated("offer_sold_whole_only", f"{offer.left_wh} Wh for {offer.total_cents} cents")
        sold, left = _split(offer.slices, self.quantity_wh)
        text = f"offer {self.offer.hex()}"
        for ref in sold:
            lots.deliver(
                state,
                ref,
                owner=offer.seller,
                to=tx.sender,
                reference=self.offer,
                text=text,
                time_ms=tx.time_ms,
            )
        cents = compute_price_cents(offer, self.quantity_wh)
        credits.move(state, cents, sender=tx.sender, recipient=offer.seller, reference=text)
        after = replace(
            offer,
            slices=left,
            left_wh=offer.left_wh - self.quantity_wh,
            sold_wh=offer.sold_wh + self.quantity_wh,
            status=OfferStatus.OPEN if left else OfferStatus.SOLD,
        )
        _put(state, self.offer, offer, after, "offer.accept")
        state.emit(OfferAccepted(self.offer, offer.seller, tx.sender, self.quantity_wh, cents, after.left_wh))


@transaction("offer.cancel", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class CancelOffer(Payload):
    """End an offer: its seller at any time, anyone once its time is over."""

    offer: OfferId

    def apply(self, state: State, tx: TxContext) -> None:
        offer = _get_open(state, self.offer, "offer.cancel")
        if tx.sender != offer.seller and tx.time_ms < offer.valid_until_ms:
            raise NotPermitted("offer_of_another_seller", format_address(offer.seller))
        _cancel(state, self.offer, offer, "offer.cancel")


def _get_open(state: State, offer_id: bytes, tag: str) -> Offer:
    offer = get_offer(state, offer_id)
    if (offer.status, tag) not in OFFER_TRANSITIONS:
        raise RuleViolated("offer_not_open_to_this", f"{offer_id.hex()} is {offer.status}: no {tag}")
    return offer


def _cancel(state: State, offer_id: bytes, offer: Offer, tag: str) -> None:
    for ref in offer.slices:
        lots.release(state, ref, owner=offer.seller, reference=offer_id)
    after = replace(offer, slices=(), left_wh=0, status=OfferStatus.CANCELLED)
    _put(state, offer_id, offer, after, tag)
    state.emit(OfferCancelled(offer_id, offer.seller, offer.left_wh))


def _put(state: State, offer_id: bytes, before: Offer, after: Offer, tag: str) -> None:
    assert after.status in OFFER_TRANSITIONS[before.status, tag], (before.status, tag, after.status)
    assert after.left_wh == sum(ref.wh for ref in after.slices), after
    OFFERS.put(state, offer_id, value=after)


def _split(slices: tuple[SliceRef, ...], wh: int) -> tuple[tuple[SliceRef, ...], tuple[SliceRef, ...]]:
    """The first ``wh`` of some slices, and the rest."""
    sold: list[SliceRef] = []
    for index, ref in enumerate(slices):
        if wh < ref.wh:
            cut = ref.first_wh + wh
            if wh:
                sold.append(replace(ref, end_wh=cut))
            return tuple(sold), (replace(ref, first_wh=cut), *slices[index + 1 :])
        sold.append(ref)
        wh -= ref.wh
    return tuple(sold), ()
