"""Questions about money: credits, redemptions, deposits, bills and dues.

Owns the answers of ``credit_balance``, ``redemption_list``, ``escrow_get``, ``escrow_list``, ``bill_get``,
``bill_list`` and ``bill_dues``.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from contracts_native.bills import (
    BILL_LINES,
    BILLS,
    Bill,
    BillLine,
    BillStatus,
    compute_dues_cents,
    compute_overdue_cents,
    get_open_bills,
)
from contracts_native.credits import ISSUERS, REDEMPTIONS, Issuer, Redemption, RedemptionStatus, get_balance_cents
from contracts_native.escrow import ESCROWS, Escrow, EscrowStatus
from ledger.fields import AddressText, Shown, to_json
from ledger.primitives import parse_address
from node.answers import Merged, Named, merge
from node.index import List
from node.queries.energy import get_head_time_ms
from node.queries.errors import NotFound
from node.queries.participants import get_known_participant
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


class CreditBalance(TypedDict):
    """The credits that a participant may spend; of an issuer also its limit and what is outstanding."""

    holder: AddressText
    balance_cents: int
    issuer: Shown[Issuer] | None


class RedemptionKey(TypedDict):
    """Which redemption it is."""

    redemption: ObjectId


class EscrowKey(TypedDict):
    """Which deposit it is."""

    escrow: ObjectId


class BillKey(TypedDict):
    """Which bill it is."""

    bill: ObjectId


class BillNow(TypedDict):
    """What is left to pay of a bill."""

    outstanding_cents: int


class BilledLines(TypedDict):
    """The lines of a bill."""

    lines: list[Shown[BillLine]]


RedemptionRow = Annotated[Merged[RedemptionKey, Shown[Redemption]], Named("RedemptionRow")]
EscrowRow = Annotated[Merged[EscrowKey, Shown[Escrow]], Named("EscrowRow")]
BillRow = Annotated[Merged[Merged[BillKey, Shown[Bill]], BillNow], Named("BillRow")]
BillAnswer = Annotated[Merged[BillRow, BilledLines], Named("BillAnswer")]


class RedemptionList(Paged):
    """Redemptions."""

    redemptions: list[RedemptionRow]


class EscrowList(Paged):
    """Deposits."""

    escrows: list[EscrowRow]


class BillList(Paged):
    """Bills without their lines."""

    bills: list[BillRow]


class BillDues(TypedDict):
    """What a consumer owes a utility, and the open bills."""

    consumer: AddressText
    utility: AddressText
    dues_cents: int
    overdue_cents: int
    bills: list[BillRow]


def credit_balance(view: View, *, holder: str) -> CreditBalance:
    """The credits that a participant may spend; of an issuer also its limit. Raises ``NotFound``."""
    address = parse_address(holder)
    get_known_participant(view, address)
    issuer = ISSUERS.find(view.state, address)
    return {
        "holder": holder,
        "balance_cents": get_balance_cents(view.state, address),
        "issuer": None if issuer is None else to_json(issuer),
    }


def redemption_list(
    view: View,
    *,
    holder: str | None = None,
    status: RedemptionStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> RedemptionList:
    """Redemptions: of a holder oldest first, otherwise by id; perhaps only those in a status."""
    rows = scan_objects(view, REDEMPTIONS, ((List.REDEMPTIONS_OF_HOLDER, read_optional_address(holder)),), cursor)
    page = make_page(rows, limit, _show_redemption, keep=lambda row: status in (None, row[1].status))
    return {"redemptions": page.items, "next_cursor": page.next_cursor}


def escrow_get(view: View, *, escrow: str) -> EscrowRow:
    """A deposit. Raises ``NotFound`` (``escrow_not_found``)."""
    escrow_id = read_id(escrow, name="escrow")
    found = ESCROWS.find(view.state, escrow_id)
    if found is None:
        raise NotFound("escrow_not_found", escrow)
    return _show_escrow((escrow_id, found))


def escrow_list(
    view: View,
    *,
    consumer: str | None = None,
    utility: str | None = None,
    status: EscrowStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> EscrowList:
    """Deposits: of a consumer or a utility oldest first, otherwise by id; perhaps only those in a status."""
    of_consumer, of_utility = read_optional_address(consumer), read_optional_address(utility)

    def keep(row: tuple[bytes, Escrow]) -> bool:
        one = row[1]
        return (
            of_consumer in (None, one.consumer) and of_utility in (None, one.utility) and status in (None, one.status)
        )

    lists = ((List.ESCROWS_OF_CONSUMER, of_consumer), (List.ESCROWS_OF_UTILITY, of_utility))
    page = make_page(scan_objects(view, ESCROWS, lists, cursor), limit, _show_escrow, keep=keep)
    return {"escrows": page.items, "next_cursor": page.next_cursor}


def bill_get(view: View, *, bill: str) -> BillAnswer:
    """A bill with its lines and what is outstanding. Raises ``NotFound`` (``bill_not_found``)."""
    bill_id = read_id(bill, name="bill")
    found = BILLS.find(view.state, bill_id)
    if found is None:
        raise NotFound("bill_not_found", bill)
    lines = [to_json(line) for line in BILL_LINES.get(view.state, bill_id).lines]
    return merge(_show_bill((bill_id, found)), {"lines": lines})


def bill_list(
    view: View,
    *,
    consumer: str | None = None,
    utility: str | None = None,
    status: BillStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> BillList:
    """Bills without their lines: of a consumer or a utility oldest first, otherwise by id."""
    of_consumer, of_utility = read_optional_address(consumer), read_optional_address(utility)

    def keep(row: tuple[bytes, Bill]) -> bool:
        one = row[1]
        return (
            of_consumer in (None, one.consumer) and of_utility in (None, one.utility) and status in (None, one.status)
        )

    lists = ((List.BILLS_OF_CONSUMER, of_consumer), (List.BILLS_OF_UTILITY, of_utility))
    page = make_page(scan_objects(view, BILLS, lists, cursor), limit, _show_bill, keep=keep)
    return {"bills": page.items, "next_cursor": page.next_cursor}


def bill_dues(view: View, *, consumer: str, utility: str) -> BillDues:
    """What a consumer owes a utility: all that is outstanding, what of it is overdue, and the open bills."""
    of_consumer, of_utility = parse_address(consumer), parse_address(utility)
    get_known_participant(view, of_consumer)
    get_known_participant(view, of_utility)
    state = view.state
    return {
        "consumer": consumer,
        "utility": utility,
        "dues_cents": compute_dues_cents(state, of_consumer, of_utility),
        "overdue_cents": compute_overdue_cents(state, of_consumer, of_utility, time_ms=get_head_time_ms(view)),
        "bills": [_show_bill(pair) for pair in get_open_bills(state, of_consumer, of_utility)],
    }


def _show_redemption(row: tuple[bytes, Redemption]) -> RedemptionRow:
    return merge({"redemption": row[0].hex()}, to_json(row[1]))


def _show_escrow(row: tuple[bytes, Escrow]) -> EscrowRow:
    return merge({"escrow": row[0].hex()}, to_json(row[1]))


def _show_bill(row: tuple[bytes, Bill]) -> BillRow:
    key: BillKey = {"bill": row[0].hex()}
    return merge(merge(key, to_json(row[1])), {"outstanding_cents": row[1].outstanding_cents})
