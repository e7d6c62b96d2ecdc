"""Questions about participants.

Owns the answers of ``participant_get`` and ``participant_list``.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from contracts_native.kyc import KYC_RECORDS, KycRecord
from contracts_native.participants import PARTICIPANTS, Participant, Role
from ledger.fields import AddressText, Shown, to_json
from ledger.primitives import Address, format_address, parse_address
from node.answers import Merged, Named, merge
from node.queries.errors import NotFound
from node.queries.view import LIMIT_DEFAULT, Limit, Paged, View, make_page, scan_objects


class ParticipantKey(TypedDict):
    """Who it is."""

    participant: AddressText


class KycDecided(TypedDict):
    """The decision in force, if there is one."""

    kyc_record: Shown[KycRecord] | None


ParticipantRow = Annotated[Merged[ParticipantKey, Shown[Participant]], Named("ParticipantRow")]
ParticipantAnswer = Annotated[Merged[ParticipantRow, KycDecided], Named("ParticipantAnswer")]


class ParticipantList(Paged):
    """Participants by address."""

    participants: list[ParticipantRow]


def participant_get(view: View, *, participant: str) -> ParticipantAnswer:
    """A participant: key in force, roles, registrar, KYC status. Raises ``NotFound``.

    ``kyc_record``: the decision in force, and the document version that it was made on.
    """
    address = parse_address(participant)
    shown = _show((address, get_known_participant(view, address)))
    record = KYC_RECORDS.find(view.state, address)
    return merge(shown, {"kyc_record": None if record is None else to_json(record)})


def participant_list(
    view: View, *, role: Role | None = None, limit: Limit = LIMIT_DEFAULT, cursor: str | None = None
) -> ParticipantList:
    """Participants by address, perhaps only those with a role."""
    rows = scan_objects(view, PARTICIPANTS, (), cursor)
    page = make_page(rows, limit, _show, keep=lambda row: role is None or role in row[1].roles)
    return {"participants": page.items, "next_cursor": page.next_cursor}


def get_known_participant(view: View, address: Address) -> Participant:
    """A registered participant. Raises ``NotFound`` (``participant_not_found``)."""
    found = PARTICIPANTS.find(view.state, address)
    if found is None:
        raise NotFound("participant_not_found", format_address(address))
    return found


def _show(row: tuple[bytes, Participant]) -> ParticipantRow:
    return merge({"participant": format_address(Address(row[0]))}, to_json(row[1]))
