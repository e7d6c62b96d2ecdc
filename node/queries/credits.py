"""Questions about money: credits, redemptions, deposits, bills and dues.

Owns the answers of ``credit_balance``, ``redemption_list``, ``escrow_get``, ``escrow_list``, ``bill_get``,
``bill_list`` and ``bill_dues``.
"""

from __future__ import annotations

from contracts_native.bills import (
    BILL_LINES,
    BILLS,
    Bill,
    BillStatus,
    compute_dues_cents,
    compute_overdue_cents,
    get_open_bills,
)
from contracts_native.credits import ISSUERS, REDEMPTIONS, Redemption, RedemptionStatus, get_balance_cents
from contracts_native.escrow import ESCROWS, Escrow, EscrowStatus
from ledger.fields import Json, to_json
from ledger.primitives import parse_address
from node.index import List
from node.queries.energy import get_head_time_ms
from node.queries.errors import NotFound
from node.queries.participants import get_known_participant
from node.queries.view import (
    LIMIT_DEFAULT,
    JsonObject,
    Limit,
    View,
    make_page,
    merge_json,
    read_id,
    read_optional_address,
    scan_objects,
)


def credit_balance(view: View, *, holder: str) -> JsonObject:
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
) -> JsonObject:
    """Redemptions: of a holder oldest first, otherwise by id; perhaps only those in a status."""
    rows = scan_objects(view, REDEMPTIONS, ((List.REDEMPTIONS_OF_HOLDER, read_optional_address(holder)),), cursor)
    page = make_page(rows, limit, _show_redemption, keep=lambda row: status in (None, row[1].status))
    return page.to_json("redemptions")


def escrow_get(view: View, *, escrow: str) -> JsonObject:
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
) -> JsonObject:
    """Deposits: of a consumer or a utility oldest first, otherwise by id; perhaps only those in a status."""
    of_consumer, of_utility = read_optional_address(consumer), read_optional_address(utility)

    def keep(row: tuple[bytes, Escrow]) -> bool:
        one = row[1]
        return (
            of_consumer in (None, one.consumer) and of_utility in (None, one.utility) and status in (None, one.status)
        )

    lists = ((List.ESCROWS_OF_CONSUMER, of_consumer), (List.ESCROWS_OF_UTILITY, of_utility))
    return make_page(scan_objects(view, ESCROWS, lists, cursor), limit, _show_escrow, keep=keep).to_json("escrows")


def bill_get(view: View, *, bill: str) -> JsonObject:
    """A bill with its lines and what is outstanding. Raises ``NotFound`` (``bill_not_found``)."""
    bill_id = read_id(bill, name="bill")
    found = BILLS.find(view.state, bill_id)
    if found is None:
        raise NotFound("bill_not_found", bill)
    lines: list[Json] = [to_json(line) for line in BILL_LINES.get(view.state, bill_id).lines]
    return {**_show_bill((bill_id, found)), "lines": lines}


def bill_list(
    view: View,
    *,
    consumer: str | None = None,
    utility: str | None = None,
    status: BillStatus | None = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: str | None = None,
) -> JsonObject:
    """Bills without their lines: of a consumer or a utility oldest first, otherwise by id."""
    of_consumer, of_utility = read_optional_address(consumer), read_optional_address(utility)

    def keep(row: tuple[bytes, Bill]) -> bool:
        one = row[1]
        return (
            of_consumer in (None, one.consumer) and of_utility in (None, one.utility) and status in (None, one.status)
        )

    lists = ((List.BILLS_OF_CONSUMER, of_consumer), (List.BILLS_OF_UTILITY, of_utility))
    return make_page(scan_objects(view, BILLS, lists, cursor), limit, _show_bill, keep=keep).to_json("bills")


def bill_dues(view: View, *, consumer: str, utility: str) -> JsonObject:
    """What a consumer owes a utility: all that is outstanding, what of it is overdue, and the open bills."""
    of_consumer, of_utility = parse_address(consumer), parse_address(utility)
    get_known_participant(view, of_consumer)
    get_known_participant(view, of_utility)
    state = view.state
    bills: list[Json] = [_show_bill(pair) for pair in get_open_bills(state, of_consumer, of_utility)]
    return {
        "consumer": consumer,
        "utility": utility,
        "dues_cents": compute_dues_cents(state, of_consumer, of_utility),
        "overdue_cents": compute_overdue_cents(state, of_consumer, of_utility, time_ms=get_head_time_ms(view)),
        "bills": bills,
    }


def _show_redemption(row: tuple[bytes, Redemption]) -> JsonObject:
    return merge_json({"redemption": row[0].hex()}, row[1])


def _show_escrow(row: tuple[bytes, Escrow]) -> JsonObject:
    return merge_json({"escrow": row[0].hex()}, row[1])


def _show_bill(row: tuple[bytes, Bill]) -> JsonObject:
    return merge_json({"bill": row[0].hex()}, row[1], outstanding_cents=row[1].outstanding_cents)
