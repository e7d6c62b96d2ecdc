"""What the parameters of JSON-RPC methods mean: one line for each name, the same in every method.

Owns the words that the OpenRPC document and the command line's help show. A parameter without a line here is
refused when the table is built, so that none stays unexplained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PARAMETER_SUMMARIES: Final[Mapping[str, str]] = {
    "beneficiary": "Address of whom the energy was used for, wp1….",
    "bill": "Id of a bill, hex.",
    "block_id": "Id of a block, hex.",
    "channel": "production or consumption; by default both.",
    "claim": "Id of a claim, hex.",
    "claimant": "Address of whoever signed the claim, wp1….",
    "consumer": "Address of a consumer, wp1….",
    "by": "What the rows are: who has the energy, or the hours of its production.",
    "cursor": "next_cursor of the page before; left out for the first page.",
    "depositor": "Address of whoever lodged the deposit, wp1….",
    "document": "Id of a document, hex.",
    "escrow": "Id of an escrow, hex.",
    "filter": "Fields that an item must have, with their values; participant: an address that it mentions.",
    "from_ms": "Start of the period, milliseconds since the epoch, inclusive.",
    "height": "Height of a block; by default the last.",
    "holder": "Address of a holder, wp1….",
    "key": "Full key of the state, hex.",
    "kind": "Only of this kind.",
    "limit": "How many items a page has at most.",
    "lot": "Id of a lot, meter:start_ms:version.",
    "meter": "Id of a meter, hex.",
    "offer": "Id of an offer, hex.",
    "owner": "Address of an owner, wp1….",
    "participant": "Address of a participant, wp1….",
    "reader": "Address of whoever has the key of the latest version, wp1….",
    "proposal": "Id of a proposal, hex.",
    "redemption": "Id of a redemption, hex.",
    "role": "Only participants with this role.",
    "site": "Id of a site, hex.",
    "status": "Only what stands in this status.",
    "subject": "Address of a participant that a document is about, wp1….",
    "subscription": "Id that subscribe gave.",
    "technology": "Only of this technology.",
    "timeout_ms": "How long to wait for the commit, milliseconds.",
    "topic": "What to hear of.",
    "transaction": "Signed envelope, hex.",
    "transactions": "Signed envelopes, hex, in the order in which they are to be admitted.",
    "tx_id": "Id of a transaction, hex.",
    "until_ms": "End of the period, milliseconds since the epoch, exclusive.",
    "utility": "Address of a utility, wp1….",
    "version": "Number of a version; by default the latest.",
    "wait": "Answer when admitted, or when committed.",
    "zone": "Only of this grid zone.",
}
