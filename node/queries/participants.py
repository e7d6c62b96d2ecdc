"""Questions about participants.

Owns the answers of ``participant_get`` and ``participant_list``.
"""

from __future__ import annotations

from contracts_native.kyc import KYC_RECORDS
from contracts_native.participants import PARTICIPANTS, Participant, Role
from ledger.fields import to_json
from ledger.primitives import Address, format_address, parse_address
from node.queries.errors import NotFound
from node.queries.view import LIMIT_DEFAULT, JsonObject, Limit, View, make_page, merge_json, scan_objects


def participant_get(view: View, *, participant: str) -> JsonObject:
    """A participant: key in force, roles, registrar, KYC status. Raises ``NotFound``.

    ``kyc_record``: the decision in force, and the document version that it was made on.
    """
    address = parse_address(participant)
    shown = _show((address, get_known_participant(view, address)))
    record = KYC_RECORDS.find(view.state, address)
    return {**shown, "kyc_record": None if record is None else to_json(record)}


def participant_list(
    view: View, *, role: Role | None = None, limit: Limit = LIMIT_DEFAULT, cursor: str | None = None
) -> JsonObject:
    """Participants by address, perhaps only those with a role."""
    rows = scan_objects(view, PARTICIPANTS, (), cursor)
    page = make_page(rows, limit, _show, keep=lambda row: role is None or role in row[1].roles)
    return page.to_json("participants")


def get_known_participant(view: View, address: Address) -> Participant:
    """A registered participant. Raises ``NotFound`` (``participant_not_found``)."""
    found = PARTICIPANTS.find(view.state, address)
    if found is None:
        raise NotFound("participant_not_found", format_address(address))
    return found


def _show(row: tuple[bytes, Participant]) -> JsonObject:
    return merge_json({"participant": format_address(Address(row[0]))}, row[1])
