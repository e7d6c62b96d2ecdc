"""Questions about offers.

Owns the answers of ``offer_get`` and ``offer_list``.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from contracts_native.offers import OFFERS, Offer, OfferStatus
from ledger.fields import Shown, to_json
from node.answers import Merged, Named, Without, leave_out, merge
from node.index import List
from node.queries.energy import get_head_time_ms
from node.queries.errors import NotFound
from node.queries.lot_ids import LotRange, show_lot_id
from node.queries.view import (
    LIMIT_DEFAULT,
    Limit,
    ObjectId,
    Paged,
    View,
    make_page,
    read_id,
    read_optional_address,
    scan_objects,
)


class OfferKey(TypedDict):
    """Which offer it is."""

    offer: ObjectId


class OfferNow(TypedDict):
    """``is_over``: it may no longer be accepted, and anyone may cancel it."""

    is_over: bool
    slices_count: int


class OfferedRanges(TypedDict):
    """The slices that are still for sale."""

    slices: list[LotRange]


OfferRow = Annotated[Merged[Merged[OfferKey, Without[Shown[Offer], Literal["slices"]]], OfferNow], Named("OfferRow")]
OfferAnswer = Annotated[Merged[OfferRow, OfferedRanges], Named("OfferAnswer")]


class OfferList(Paged):
    """Offers without their slices."""

    offers: list[OfferRow]


def offer_get(view: View, *, offer: str) -> OfferAnswer:
    """An offer with the slices that it still has for sale. Raises ``NotFound`` (``offer_not_found``)."""
    offer_id = read_id(offer, name="offer")
    found = OFFERS.find(view.state, offer_id)
    if found is None:
        raise NotFound("offer_not_found", offer)
    slices: list[LotRange] = [
        {**show_lot_id(ref.lot), "first_wh": ref.first_wh, "end_wh": ref.end_wh} for ref in found.slices
    ]
    return merge(_show(offer_id, found, time_ms=get_head_time_ms(view)), {"slices": slices})


def offer_list(
    view: View,
    *,
    holder: str | None = None,
    status: OfferStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> OfferList:
    """Offers without their slices: of a seller (``holder``) oldest first, otherwise by id."""
    seller = read_optional_address(holder)
    time_ms = get_head_time_ms(view)
    rows = scan_objects(view, OFFERS, ((List.OFFERS_OF_SELLER, seller),), cursor)
    page = make_page(
        rows,
        limit,
        lambda row: _show(row[0], row[1], time_ms=time_ms),
        keep=lambda row: status in (None, row[1].status),
    )
    return {"offers": page.items, "next_cursor": page.next_cursor}


def _show(offer_id: bytes, offer: Offer, *, time_ms: int) -> OfferRow:
    is_over = offer.status is OfferStatus.OPEN and time_ms >= offer.valid_until_ms
    key: OfferKey = {"offer": offer_id.hex()}
    now: OfferNow = {"is_over": is_over, "slices_count": len(offer.slices)}
    return merge(merge(key, leave_out(to_json(offer), "slices")), now)
