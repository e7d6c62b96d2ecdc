"""Questions about how the authorities govern themselves.

Owns the answers of ``governance_get``, ``governance_list`` and ``governance_offences``.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from contracts_native.evidence import OFFENCES, Offence, OffenceKind
from contracts_native.governance import PROPOSALS, Proposal, ProposalStatus
from contracts_native.members import list_silent
from ledger.fields import JsonOf, KeyText, Shown, to_json
from ledger.primitives import PUBLIC_KEY_BYTES
from ledger.validators import VALIDATORS
from node import chain_store
from node.answers import Merged, Named, merge
from node.queries.errors import NotFound
from node.queries.view import LIMIT_DEFAULT, Limit, ObjectId, Paged, View, make_page, read_id, scan_table


class ProposalKey(TypedDict):
    """Which proposal it is."""

    proposal: ObjectId


class Silent(TypedDict):
    """Members that do not count for a change of members."""

    silent: list[KeyText]


class OffenceKey(TypedDict):
    """Who did what at which height."""

    offender: KeyText
    height: int
    kind: Annotated[str, JsonOf(OffenceKind)]


ProposalRow = Annotated[Merged[ProposalKey, Shown[Proposal]], Named("ProposalRow")]
ProposalAnswer = Annotated[Merged[ProposalRow, Silent], Named("ProposalAnswer")]
OffenceRow = Annotated[Merged[OffenceKey, Shown[Offence]], Named("OffenceRow")]


class ProposalList(Paged):
    """Proposals."""

    proposals: list[ProposalRow]


class OffenceList(Paged):
    """What was proven of validators."""

    offences: list[OffenceRow]


def governance_get(view: View, *, proposal: str) -> ProposalAnswer:
    """A proposal with its votes. Raises ``NotFound`` (``proposal_not_found``).

    ``silent``: members that have let their last turns to propose pass, and do not count for a change of members.
    """
    proposal_id = read_id(proposal, name="proposal")
    found = PROPOSALS.find(view.state, proposal_id)
    if found is None:
        raise NotFound("proposal_not_found", proposal)
    record = VALIDATORS.get(view.state)
    silent = list_silent(view.state, record, chain_store.read_head_height(view.reader) + 1)
    return merge(_show((proposal_id, found)), {"silent": [key.hex() for key in sorted(silent)]})


def governance_list(
    view: View, *, status: ProposalStatus | None = None, limit: Limit = LIMIT_DEFAULT, cursor: str | None = None
) -> ProposalList:
    """Proposals by id, perhaps only those in one status."""
    rows = ((key, (key, one)) for key, one in scan_table(view, PROPOSALS, cursor))
    page = make_page(rows, limit, _show, keep=lambda row: status in (None, row[1].status))
    return {"proposals": page.items, "next_cursor": page.next_cursor}


def governance_offences(view: View, *, limit: Limit = LIMIT_DEFAULT, cursor: str | None = None) -> OffenceList:
    """What was proven of validators, by key and height: who said two things that no honest one says."""
    rows = ((key, (key, one)) for key, one in scan_table(view, OFFENCES, cursor))
    page = make_page(rows, limit, _show_offence)
    return {"offences": page.items, "next_cursor": page.next_cursor}


def _show(row: tuple[bytes, Proposal]) -> ProposalRow:
    return merge({"proposal": row[0].hex()}, to_json(row[1]))


def _show_offence(row: tuple[bytes, Offence]) -> OffenceRow:
    offender, height, kind = row[0][:PUBLIC_KEY_BYTES], row[0][PUBLIC_KEY_BYTES:][:8], row[0][PUBLIC_KEY_BYTES + 8 :]
    name: OffenceKey = {
        "offender": offender.hex(),
        "height": int.from_bytes(height, "big"),
        "kind": kind.rstrip(b"\0").decode(),
    }
    return merge(name, to_json(row[1]))
