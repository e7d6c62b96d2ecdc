"""Questions about how the authorities govern themselves.

Owns the answers of ``governance_get``, ``governance_list`` and ``governance_offences``.
"""

from __future__ import annotations

from contracts_native.evidence import OFFENCES, Offence
from contracts_native.governance import PROPOSALS, Proposal, ProposalStatus
from contracts_native.members import list_silent
from ledger.fields import Json
from ledger.primitives import PUBLIC_KEY_BYTES
from ledger.validators import VALIDATORS
from node import chain_store
from node.queries.errors import NotFound
from node.queries.view import LIMIT_DEFAULT, JsonObject, Limit, View, make_page, merge_json, read_id, scan_table


def governance_get(view: View, *, proposal: str) -> JsonObject:
    """A proposal with its votes. Raises ``NotFound`` (``proposal_not_found``).

    ``silent``: members that have let their last turns to propose pass, and do not count for a change of members.
    """
    proposal_id = read_id(proposal, name="proposal")
    found = PROPOSALS.find(view.state, proposal_id)
    if found is None:
        raise NotFound("proposal_not_found", proposal)
    record = VALIDATORS.get(view.state)
    silent = list_silent(view.state, record, chain_store.read_head_height(view.reader) + 1)
    return {**_show((proposal_id, found)), "silent": [key.hex() for key in sorted(silent)]}


def governance_list(
    view: View, *, status: ProposalStatus | None = None, limit: Limit = LIMIT_DEFAULT, cursor: str | None = None
) -> JsonObject:
    """Proposals by id, perhaps only those in one status."""
    rows = ((key, (key, one)) for key, one in scan_table(view, PROPOSALS, cursor))
    page = make_page(rows, limit, _show, keep=lambda row: status in (None, row[1].status))
    return page.to_json("proposals")


def governance_offences(view: View, *, limit: Limit = LIMIT_DEFAULT, cursor: str | None = None) -> JsonObject:
    """What was proven of validators, by key and height: who said two things that no honest one says."""
    rows = ((key, (key, one)) for key, one in scan_table(view, OFFENCES, cursor))
    return make_page(rows, limit, _show_offence).to_json("offences")


def _show(row: tuple[bytes, Proposal]) -> JsonObject:
    return merge_json({"proposal": row[0].hex()}, row[1])


def _show_offence(row: tuple[bytes, Offence]) -> Json:
    offender, height, kind = row[0][:PUBLIC_KEY_BYTES], row[0][PUBLIC_KEY_BYTES:][:8], row[0][PUBLIC_KEY_BYTES + 8 :]
    name: JsonObject = {
        "offender": offender.hex(),
        "height": int.from_bytes(height, "big"),
        "kind": kind.rstrip(b"\0").decode(),
    }
    return merge_json(name, row[1])
