"""Questions about participants.

Owns the answers of ``participant_get`` and ``participant_list``.
"""

from __future__ import annotations

from contracts_native.participants import PARTICIPANTS, Participant, Role
from ledger.errors import Malformed
from ledger.primitives import ADDRESS_BYTES, Address, format_address, parse_address
from node.queries.errors import NotFound
from node.queries.view import LIMIT_DEFAULT, JsonObject, View, make_page, merge_json, scan_from


def participant_get(view: View, *, participant: str) -> JsonObject:
    """A participant: key in force, roles, registrar, KYC status. Raises ``NotFound``."""
    address = parse_address(participant)
    return _show(address, get_known_participant(view, address))


def participant_list(
    view: View, *, role: str | None = None, limit: int = LIMIT_DEFAULT, cursor: str | None = None
) -> JsonObject:
    """Participants by address, perhaps only those with a role."""
    wanted = None if role is None else _read_role(role)
    rows = scan_from(view, PARTICIPANTS, (), cursor)
    return make_page(rows, limit, _show, keep=lambda one: wanted is None or wanted in one.roles).to_json("participants")


def get_known_participant(view: View, address: Address) -> Participant:
    """A registered participant. Raises ``NotFound`` (``participant_not_found``)."""
    found = PARTICIPANTS.find(view.state, address)
    if found is None:
        raise NotFound("participant_not_found", format_address(address))
    return found


def _read_role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError as error:
        raise Malformed("role_unknown", ascii(text[:60])) from error


def _show(key: bytes, participant: Participant) -> JsonObject:
    assert len(key) == ADDRESS_BYTES
    return merge_json({"participant": format_address(Address(key))}, participant)
