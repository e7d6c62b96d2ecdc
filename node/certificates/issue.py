"""How a certificate is made from a node's store: the records at the head, and what proves them.

Owns the gathering. Everything is read from one committed height, whose header and commit certificate go with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from contracts_native.batteries import LOT_SOURCES, list_sources
from contracts_native.claims import CLAIMS, Claim, ClaimStatus
from contracts_native.lots import FIRST_VERSION, MINTS, REISSUES, SLICES, LotId, SliceRef
from contracts_native.meters import PAST_KEYS, Channel, get_meter
from contracts_native.participants import get_participant
from contracts_native.readings import CORRECTIONS, REPORTS, ReportRecord, SubmitReadings
from contracts_native.sites import get_site
from ledger.errors import RuleViolated
from ledger.fields import Shown
from ledger.genesis import GenesisValidator, compute_genesis_hash
from ledger.parameters import get_parameters
from ledger.primitives import ZERO_HASH, Address, Hash, MeterKey, Signature, is_valid_meter_signature
from ledger.state_root import StateTree
from ledger.transaction import Transaction
from node import chain_store
from node.certificates.format import (
    FORMAT,
    LOTS_MAX,
    VALIDATOR_CHANGES_MAX,
    VERSION,
    Certificate,
    ChainPart,
    ClaimPart,
    CommitPart,
    HoldingPart,
    LotPart,
    MeterPart,
    ParticipantPart,
    ReportPart,
    SignaturePart,
    SitePart,
    StatePart,
    ValidatorChange,
    compute_id,
    write_certificate,
)
from node.certificates.pruned_tree import prune
from node.certificates.records import list_entries
from node.certificates.verify import make_meter_message
from node.queries.view import View

_NO_PROOF: Final = StatePart((), ())


def issue_claim(view: View, claim_id: bytes) -> Shown[Certificate]:
    """The certificate of a claim that is in force.

    Raises ``RuleViolated`` (``claim_unknown``, ``claim_not_in_force``), and as ``issue_holding``.
    """
    record = _get_claim_in_force(view, claim_id)
    draft = _make_draft(
        view,
        record.slices,
        people={record.claimant, record.beneficiary},
        meters=() if record.consumption_meter is None else (record.consumption_meter,),
    )
    return _seal(view, replace(draft, claim=ClaimPart(claim_id, record)))


def issue_holding(view: View, holder: Address, slices: Sequence[SliceRef]) -> Shown[Certificate]:
    """The certificate of whole slices that a participant holds, in the order of their lots.

    Raises ``RuleViolated`` (``block_not_final``: nothing was committed yet; ``too_much_to_certify``).
    """
    draft = _make_draft(view, slices, people={holder}, meters=())
    holding = HoldingPart(holder, tuple(slices))
    return _seal(view, replace(draft, holding=holding, parameters=get_parameters(view.state)))


def _make_draft(
    view: View, slices: Iterable[SliceRef], *, people: set[Address], meters: Iterable[bytes]
) -> Certificate:
    """All but the subject, the proof of the state and the id."""
    state = view.state
    lots, charges = _collect_lots(view, slices)
    parts = tuple(_make_lot(view, lot) for lot in lots)
    people = people | {part.correction.corrected_by for part in parts if part.correction is not None}
    known = {meter: get_meter(state, meter) for meter in sorted({*meters, *(lot.meter for lot in lots)})}
    sites = sorted({meter.site for meter in known.values()})
    header = chain_store.get_header(view.reader, chain_store.read_head_height(view.reader))
    genesis = chain_store.read_genesis_document(view.reader)
    return Certificate(
        format=FORMAT,
        version=VERSION,
        id=ZERO_HASH,
        chain=ChainPart(genesis.chain_id, compute_genesis_hash(genesis)),
        claim=None,
        holding=None,
        parameters=None,
        participants=tuple(ParticipantPart(one, get_participant(state, one)) for one in sorted(people)),
        sites=tuple(SitePart(site, get_site(state, site)) for site in sites),
        meters=tuple(MeterPart(meter_id, meter) for meter_id, meter in known.items()),
        reports=_collect_reports(view, lots),
        lots=parts,
        charges=charges,
        state=_NO_PROOF,
        header=header,
        commit=_make_commit(view, header.height),
        validator_changes=list_validator_changes(view, header.height),
    )


def list_validator_changes(view: View, height: int) -> tuple[ValidatorChange, ...]:
    """The chain of trust from the genesis set to the one that decided a height. Raises ``Rejected``."""
    heights = [before for before in chain_store.list_handovers(view.reader) if before < height]
    if len(heights) > VALIDATOR_CHANGES_MAX:
        raise RuleViolated("too_much_to_certify", f"more than {VALIDATOR_CHANGES_MAX} changes of validators")
    return tuple(_make_validator_change(view, height) for height in heights)


def _make_validator_change(view: View, height: int) -> ValidatorChange:
    header = chain_store.get_header(view.reader, height)
    members = chain_store.get_validator_set(view.reader, header.next_validators_hash).members
    named = tuple(GenesisValidator(one.public_key, one.moniker) for one in members)
    return ValidatorChange(header, _make_commit(view, height), named)


def _seal(view: View, draft: Certificate) -> Shown[Certificate]:
    """Add the proof of every record, and the id."""
    tree = view.tree
    if tree is None or tree.root != draft.header.state_root:  # a tree in memory may be a moment behind the store
        tree = chain_store.load_tree(view.reader)
    data = write_certificate(replace(draft, state=_prove(tree, draft)))
    data["id"] = compute_id(data).hex()
    return data


def _prove(tree: StateTree, draft: Certificate) -> StatePart:
    keys = dict.fromkeys(key for key, _ in list_entries(draft))
    nodes, buckets = prune((key, tree.prove(key)) for key in keys)
    return StatePart(nodes, buckets)


def _make_commit(view: View, height: int) -> CommitPart:
    certificate = chain_store.find_certificate(view.reader, height)
    if certificate is None:
        raise RuleViolated("block_not_final", f"height {height}")
    parts = [SignaturePart(one.voter, one.signature) for one in certificate.signatures]
    return CommitPart(certificate.round, tuple(sorted(parts, key=lambda part: part.voter)))


def _collect_lots(view: View, slices: Iterable[SliceRef]) -> tuple[list[LotId], tuple[ClaimPart, ...]]:
    """The lots of these slices and of every charge that stands behind one of them, and those charges; both sorted."""
    lots: set[LotId] = set()
    charges: dict[bytes, ClaimPart] = {}
    waiting = {ref.lot for ref in slices}
    while waiting:
        lot = waiting.pop()
        lots.add(lot)
        if len(lots) > LOTS_MAX:
            raise RuleViolated("too_much_to_certify", f"more than {LOTS_MAX} lots, those behind a storage included")
        for charge in {source.charge for source in list_sources(view.state, lot)} - charges.keys():
            record = _get_claim_in_force(view, charge)
            charges[charge] = ClaimPart(charge, record)
            waiting |= {ref.lot for ref in record.slices} - lots
    by_place = sorted(lots, key=lambda lot: (lot.meter, lot.start_ms, lot.version))
    return by_place, tuple(charges[charge] for charge in sorted(charges))


def _get_claim_in_force(view: View, claim_id: bytes) -> Claim:
    record = CLAIMS.get(view.state, claim_id)
    if record.status is not ClaimStatus.CLAIMED:
        raise RuleViolated("claim_not_in_force", f"{claim_id.hex()}: {record.status}")
    return record


def _make_lot(view: View, lot: LotId) -> LotPart:
    state, place = view.state, (lot.meter, lot.start_ms, lot.version)
    correction = CORRECTIONS.find(state, lot.meter, Channel.PRODUCTION, lot.start_ms, lot.version)
    return LotPart(
        lot,
        slices=SLICES.find(state, *place),
        reissue=REISSUES.find(state, *place),
        correction=correction,
        sources=LOT_SOURCES.find(state, *place),
    )


def _collect_reports(view: View, lots: Sequence[LotId]) -> tuple[ReportPart, ...]:
    """The report that each lot goes back to, each once, in the order of the lots; a mint where a lot is of it."""
    transactions: dict[Hash, Transaction] = {}
    parts: dict[tuple[bytes, int], ReportPart] = {}
    for lot in lots:
        found = REPORTS.find_floor(view.state, lot.meter, Channel.PRODUCTION, lot.start_ms)
        assert found is not None, "what was minted was reported"
        record = found[1]  # as the meter signed it, whatever was corrected
        place = lot.meter, record.start_ms
        if place not in parts:
            key, signature = _find_signature(view, lot.meter, record, transactions)
            parts[place] = ReportPart(lot.meter, key, signature, record, None)
        if lot.version == FIRST_VERSION and parts[place].mint is None:
            parts[place] = replace(parts[place], mint=MINTS.get(view.state, *place))
    return tuple(parts[place] for place in sorted(parts))


def _find_signature(
    view: View, meter: bytes, record: ReportRecord, transactions: dict[Hash, Transaction]
) -> tuple[MeterKey, Signature]:
    """The signature of an accepted report, and the meter's key that it is of: the present one or an earlier."""
    tx = transactions.get(record.tx_id)
    if tx is None:
        place = chain_store.find_transaction_place(view.reader, record.tx_id)
        assert place is not None, "what happened is committed"
        tx = transactions[record.tx_id] = chain_store.get_transaction(view.reader, place, view.table)
    assert isinstance(tx.payload, SubmitReadings), "a report comes with its transaction"
    (signature,) = [
        one.signature
        for one in tx.payload.reports
        if (one.meter, one.channel, one.start_ms) == (meter, Channel.PRODUCTION, record.start_ms)
    ]
    message = make_meter_message(tx.chain_id, meter, record)
    keys = [get_meter(view.state, meter).key, *(past.key for _, past in PAST_KEYS.scan(view.state, meter))]
    return next(key for key in keys if is_valid_meter_signature(key, message, signature)), signature
