"""Certificates of provenance, as files that anybody can check without a node.

Owns the answer of ``certificate_get``; node/certificates/ owns what is in it.
"""

from __future__ import annotations

from typing import Any, cast

from contracts_native.claims import CLAIMS
from contracts_native.lots import SLICES_PER_TRANSACTION_MAX, LotId, SliceRef
from contracts_native.slices import SliceStatus
from ledger.errors import Malformed, Rejected
from ledger.fields import Shown, from_json
from ledger.primitives import parse_address
from node.certificates.format import Certificate
from node.certificates.issue import issue_claim, issue_holding
from node.queries.energy import energy_slices
from node.queries.errors import NotFound
from node.queries.view import LIMIT_MAX, TimeMs, View, read_id


def certificate_get(
    view: View,
    *,
    claim: str | None = None,
    holder: str | None = None,
    from_ms: TimeMs | None = None,
    until_ms: TimeMs | None = None,
) -> Shown[Certificate]:
    """The certificate of provenance of a claim, or of what a holder has of lots that start in a period.

    It is as of the last block. Raises ``NotFound``, or ``Rejected`` (``claim_not_in_force``, ``nothing_to_certify``,
    ``too_much_to_certify``, ``block_not_final``).
    """
    if (claim is None) == (holder is None):
        raise Malformed("parameters_conflict", "give claim or holder")
    if claim is not None:
        if (from_ms, until_ms) != (None, None):
            raise Malformed("parameters_conflict", "a period is for a holder")
        claim_id = read_id(claim, name="claim")
        if CLAIMS.find(view.state, claim_id) is None:
            raise NotFound("claim_not_found", claim)
        return issue_claim(view, claim_id)
    address = parse_address(holder or "")
    return issue_holding(view, address, _choose_slices(view, holder or "", from_ms, until_ms))


def _choose_slices(view: View, holder: str, from_ms: int | None, until_ms: int | None) -> list[SliceRef]:
    """What a holder has and may still use, as many as one certificate takes, by meter and time."""
    chosen: list[SliceRef] = []
    cursor: str | None = None
    while True:
        page = energy_slices(view, holder=holder, from_ms=from_ms, until_ms=until_ms, limit=LIMIT_MAX, cursor=cursor)
        for one in cast("list[dict[str, Any]]", page["slices"]):
            if one["status"] in (SliceStatus.ACTIVE, SliceStatus.RESERVED):
                chosen.append(SliceRef(from_json(LotId, one["lot_id"]), one["first_wh"], one["end_wh"]))
        cursor = page["next_cursor"]
        if len(chosen) > SLICES_PER_TRANSACTION_MAX:
            item = f"more than {SLICES_PER_TRANSACTION_MAX} slices; choose a shorter period"
            raise Rejected("too_much_to_certify", item)
        if cursor is None:
            break
    if not chosen:
        raise Rejected("nothing_to_certify", "no slice in this period")
    return sorted(chosen, key=lambda ref: (ref.lot.meter, ref.lot.start_ms, ref.lot.version, ref.first_wh))
