"""Whether a certificate is true: asked of the file and of the genesis document, of nobody else.

Owns the order of the questions. Who are the validators, from genesis on? Did they finalise this header? Does its state
root cover every record? Did the meters sign? Do the records add up to the subject, with none too many?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from consensus.light_client import HeaderLink, LightBlock, verify_light_block
from consensus.messages import ChainContext, CommitCertificate, CommitSignature
from consensus.validators import Validator, ValidatorSet
from contracts_native.batteries import Source
from contracts_native.claims import ClaimKind, ClaimStatus
from contracts_native.lots import FIRST_VERSION, LotId, Mint, Reissue, SliceRef
from contracts_native.meters import Channel
from contracts_native.readings import UNSIGNED, Flag, Report, ReportRecord, make_report_message
from contracts_native.sites import Technology
from contracts_native.slices import Slice, SliceStatus, is_partition, make_first_slices
from ledger.block import Header, compute_block_id
from ledger.errors import Malformed, Rejected
from ledger.fields import Json
from ledger.genesis import GenesisDocument, GenesisValidator, compute_genesis_hash
from ledger.primitives import Address, Height, is_valid_meter_signature
from node.certificates.format import (
    Certificate,
    ClaimPart,
    CommitPart,
    HoldingPart,
    LotPart,
    ReportPart,
    ValidatorChange,
    compute_id,
    read_certificate,
)
from node.certificates.pruned_tree import PrunedTree
from node.certificates.records import list_entries

_TOO_MUCH: Final = "certificate_has_more_than_it_needs"


@dataclass(frozen=True, slots=True)
class CertifiedLot:
    """A lot as the certificate proves it: what it was made of, and how it is cut."""

    lot: LotId
    technology: Technology
    zone: str
    interval_s: int
    wh: int
    slices: tuple[Slice, ...]
    sources: tuple[Source, ...]

    @property
    def end_ms(self) -> int:
        """When its production ended."""
        return self.lot.start_ms + self.interval_s * 1_000


Lots = Mapping[LotId, CertifiedLot]


@dataclass(frozen=True, slots=True)
class Verified:
    """A certificate that is true, with what was worked out by the way. ``refs``: the parts of lots that it is about."""

    certificate: Certificate
    lots: Lots
    refs: tuple[SliceRef, ...]
    wh: int
    validators_count: int


def verify_certificate(data: Json, genesis: GenesisDocument) -> Verified:
    """Check the JSON of a certificate against the genesis document.

    Raises ``Rejected``; docs/certificates.md lists the reasons.
    """
    certificate = read_certificate(data)
    context = ChainContext(genesis.chain_id, compute_genesis_hash(genesis))
    if (certificate.chain.chain_id, certificate.chain.genesis_hash) != (context.chain_id, context.genesis_hash):
        raise Rejected("certificate_of_another_chain", certificate.chain.chain_id)
    validators = follow_validators(certificate.validator_changes, genesis, context, height=certificate.header.height)
    verify_final(certificate.header, certificate.commit, validators, context)
    state = certificate.state
    tree = PrunedTree(certificate.header.state_root, nodes=state.nodes, buckets=state.buckets)
    for key, value in list_entries(certificate):
        tree.check(key, value)
    tree.check_nothing_unused()
    for report in certificate.reports:
        _verify_report(report, context.chain_id)
    lots = _verify_lots(certificate)
    refs, people = _verify_subject(certificate, lots)
    _check_exactly("lots", lots, {ref.lot for ref in refs} | _verify_charges(certificate.charges, lots))
    people |= {one.correction.corrected_by for one in certificate.lots if one.correction is not None}
    _check_exactly("participants", [one.address for one in certificate.participants], people)
    _verify_places(certificate)
    if compute_id(data) != certificate.id:
        raise Rejected("certificate_id_differs", certificate.id.hex())
    return Verified(certificate, lots, refs, sum(ref.wh for ref in refs), len(validators))


def follow_validators(
    changes: Iterable[ValidatorChange], genesis: GenesisDocument, context: ChainContext, *, height: int
) -> ValidatorSet:
    """The set that decides a height: from the genesis set over every change to it. Raises ``Rejected``."""
    validators = _make_set(genesis.validators)
    before = 0
    for change in changes:
        header = change.header
        if header.height <= before:
            raise Rejected("validator_changes_not_in_order", f"height {header.height}")
        verify_final(header, change.commit, validators, context)
        if header.next_validators_hash == header.validators_hash:
            raise Rejected(_TOO_MUCH, f"no validator changes at height {header.height}")
        validators = _make_set(change.next_validators)
        if validators.compute_hash() != header.next_validators_hash:
            raise Rejected("validators_not_announced", f"height {header.height}")
        before = header.height
    if height <= before:
        raise Rejected("validator_changes_not_in_order", f"height {height}")
    return validators


def _make_set(members: Iterable[GenesisValidator]) -> ValidatorSet:
    validators = tuple(Validator(one.public_key, one.moniker) for one in members)
    if len({one.public_key for one in validators}) != len(validators):
        raise Malformed("validator_named_twice")
    return ValidatorSet(validators)


def verify_final(header: Header, commit: CommitPart, validators: ValidatorSet, context: ChainContext) -> None:
    """A quorum of these very validators precommitted this header on this chain. Raises as ``light_client`` does."""
    if header.chain_id != context.chain_id:
        raise Rejected("certificate_of_another_chain", header.chain_id)
    height, block_id = Height(header.height), compute_block_id(header)
    link = HeaderLink(height, block_id, header.parent_id, header.validators_hash, header.next_validators_hash)
    signatures = tuple(CommitSignature(one.voter, one.signature) for one in commit.signatures)
    certificate = CommitCertificate(context.compute_hash(), height, commit.round, block_id, signatures)
    verify_light_block(LightBlock(link, certificate, validators), context)


def make_meter_message(chain_id: str, meter: bytes, record: ReportRecord) -> bytes:
    """What a meter signed for a production report that was accepted."""
    report = Report(
        meter,
        Channel.PRODUCTION,
        record.sequence,
        record.start_ms,
        record.interval_s,
        record.values_wh,
        record.register_start_wh,
        record.register_end_wh,
        record.flag,
        UNSIGNED,
    )
    return make_report_message(chain_id, report)


def _verify_report(part: ReportPart, chain_id: str) -> None:
    if not is_valid_meter_signature(part.key, make_meter_message(chain_id, part.meter, part.record), part.signature):
        raise Rejected("meter_signature_invalid", f"{part.meter.hex()} from {part.record.start_ms}")


def _verify_lots(certificate: Certificate) -> dict[LotId, CertifiedLot]:
    """Every lot with its report; every report, and every mint, serves a lot."""
    lots: dict[LotId, CertifiedLot] = {}
    unused = {(one.meter, one.record.start_ms) for one in certificate.reports}
    unused_mints = {(one.meter, one.record.start_ms) for one in certificate.reports if one.mint is not None}
    for part in certificate.lots:
        report = _find_report(certificate.reports, part.lot)
        place = report.meter, report.record.start_ms
        unused.discard(place)
        if part.lot.version == FIRST_VERSION:
            unused_mints.discard(place)
            lots[part.lot] = _read_minted(part, report)
        else:
            lots[part.lot] = _read_reissued(part, report)
    if unused or unused_mints:
        raise Rejected(_TOO_MUCH, "a report or a mint")
    return lots


def _find_report(reports: Iterable[ReportPart], lot: LotId) -> ReportPart:
    for report in reports:
        if report.meter == lot.meter and report.record.start_ms <= lot.start_ms < report.record.end_ms:
            return report
    raise Rejected("report_missing", lot)


def _read_minted(part: LotPart, report: ReportPart) -> CertifiedLot:
    """A lot of version 1: the report itself minted it."""
    record, mint = report.record, report.mint
    if mint is None:
        raise Rejected("mint_missing", part.lot)
    if part.reissue is not None or part.correction is not None:
        raise Rejected(_TOO_MUCH, f"a correction of {part.lot}")
    index, rest = divmod(part.lot.start_ms - record.start_ms, record.interval_s * 1_000)
    shape = (record.start_ms, record.interval_s, len(record.values_wh), FIRST_VERSION, 0)
    if shape != (mint.start_ms, mint.interval_s, len(mint.wh), mint.version, rest):
        raise Rejected("mint_differs_from_report", part.lot)
    _check_measured(
        part.lot,
        mint.wh[index],
        record.values_wh[index],
        is_measured=record.flag is Flag.MEASURED and index not in record.quarantined,
        is_stored=mint.technology is Technology.STORAGE,
    )
    return _make_lot(part, mint, mint.wh[index])


def _read_reissued(part: LotPart, report: ReportPart) -> CertifiedLot:
    """A lot of a later version: the measurement body corrected the interval of the report."""
    record, correction = part.reissue, part.correction
    if record is None or correction is None:
        raise Rejected("mint_missing", part.lot)
    if record.interval_s != report.record.interval_s:
        raise Rejected("mint_differs_from_report", part.lot)
    _check_measured(
        part.lot,
        record.wh,
        correction.wh,
        is_measured=correction.flag is Flag.MEASURED and not correction.is_quarantined,
        is_stored=record.technology is Technology.STORAGE,
    )
    return _make_lot(part, record, record.wh)


def _check_measured(lot: LotId, wh: int, measured_wh: int, *, is_measured: bool, is_stored: bool) -> None:
    """What was minted is what was measured; of a storage, no more than that."""
    if not is_measured or not 0 < wh <= measured_wh or (wh < measured_wh and not is_stored):
        raise Rejected("mint_differs_from_report", lot)


def _make_lot(part: LotPart, minted: Mint | Reissue, wh: int) -> CertifiedLot:
    slices = make_first_slices(wh, minted.shares) if part.slices is None else part.slices.slices
    if not slices or not is_partition(slices, wh):
        raise Rejected("slices_do_not_make_the_lot", part.lot)
    sources = () if part.sources is None else part.sources.sources
    if (minted.technology is Technology.STORAGE) != (part.sources is not None):
        raise Rejected("certificate_lacks_a_record" if part.sources is None else _TOO_MUCH, f"sources of {part.lot}")
    if sources and sum(one.wh for one in sources) != wh:
        raise Rejected("sources_do_not_make_the_lot", part.lot)
    return CertifiedLot(part.lot, minted.technology, minted.zone, minted.interval_s, wh, slices, sources)


def _verify_subject(certificate: Certificate, lots: Lots) -> tuple[tuple[SliceRef, ...], set[Address]]:
    """The parts of lots that the certificate is about, and the participants whom it names."""
    claim, holding = certificate.claim, certificate.holding
    if claim is not None and holding is None and certificate.parameters is None:
        _verify_claim(claim, lots)
        return claim.record.slices, {claim.record.claimant, claim.record.beneficiary}
    if holding is not None and claim is None and certificate.parameters is not None:
        expired_ms = certificate.header.time_ms - certificate.parameters.lot_lifetime_s * 1_000
        _verify_holding(holding, lots, expired_ms=expired_ms)
        return holding.slices, {holding.holder}
    raise Malformed("certificate_subject_unclear", "one of claim and holding; parameters with a holding")


def _verify_claim(part: ClaimPart, lots: Lots) -> None:
    record = part.record
    if record.status is not ClaimStatus.CLAIMED:
        raise Rejected("claim_not_in_force", f"{part.claim.hex()}: {record.status}")
    status = SliceStatus.CHARGED if record.kind is ClaimKind.CHARGE else SliceStatus.CLAIMED
    for ref in record.slices:
        covering = [one for one in _get_lot(lots, ref).slices if one.first_wh <= ref.first_wh < one.end_wh]
        is_claimed = [one.status is status and one.reference == part.claim for one in covering]
        if is_claimed != [True] or not ref.first_wh < ref.end_wh <= covering[0].end_wh:
            raise Rejected("slice_not_of_the_subject", ref)
    _check_apart(record.slices)
    if sum(ref.wh for ref in record.slices) != record.wh:
        raise Rejected("claim_sum_differs", record.wh)


def _verify_charges(charges: Iterable[ClaimPart], lots: Lots) -> set[LotId]:
    """What every storage was charged with; the lots of that."""
    by_id = {one.claim: one.record for one in charges}
    needed: set[bytes] = set()
    for lot in lots.values():
        for source in lot.sources:
            needed.add(source.charge)
            charge = by_id.get(source.charge)
            if charge is not None and (charge.kind, charge.consumption_meter) != (ClaimKind.CHARGE, lot.lot.meter):
                raise Rejected("charge_of_another_storage", lot.lot)
    _check_exactly("charges", by_id, needed)
    for part in charges:
        _verify_claim(part, lots)
    return {ref.lot for record in by_id.values() for ref in record.slices}


def _verify_holding(part: HoldingPart, lots: Lots, *, expired_ms: int) -> None:
    """All that the holder may still use of the lots that it names, none of which ended by ``expired_ms``."""
    if list(part.slices) != sorted(part.slices, key=_get_place):
        raise Malformed("certificate_list_not_in_order", "slices")
    _check_apart(part.slices)
    for ref in part.slices:
        if _get_lot(lots, ref).end_ms <= expired_ms:
            raise Rejected("lot_expired", ref)
    held = {
        SliceRef(lot, one.first_wh, one.end_wh)
        for lot in {ref.lot for ref in part.slices}
        for one in lots[lot].slices
        if one.holder == part.holder and one.status in (SliceStatus.ACTIVE, SliceStatus.RESERVED)
    }
    different = held.symmetric_difference(part.slices)
    if different:
        raise Rejected("slice_not_of_the_subject", next(iter(different)))


def _get_lot(lots: Lots, ref: SliceRef) -> CertifiedLot:
    found = lots.get(ref.lot)
    if found is None:
        raise Rejected("certificate_lacks_a_record", f"lot {ref.lot}")
    return found


def _check_apart(refs: Iterable[SliceRef]) -> None:
    for before, after in pairwise(sorted(refs, key=_get_place)):
        if before.lot == after.lot and before.end_wh > after.first_wh:
            raise Rejected("slice_named_twice", after)


def _get_place(ref: SliceRef) -> tuple[bytes, int, int, int]:
    return ref.lot.meter, ref.lot.start_ms, ref.lot.version, ref.first_wh


def _verify_places(certificate: Certificate) -> None:
    """The meters are those of the lots and of the consumption, the sites those of the meters."""
    meters = {one.lot.meter for one in certificate.lots}
    if certificate.claim is not None and certificate.claim.record.consumption_meter is not None:
        meters.add(certificate.claim.record.consumption_meter)
    _check_exactly("meters", [one.meter for one in certificate.meters], meters)
    _check_exactly("sites", [one.site for one in certificate.sites], {one.record.site for one in certificate.meters})


def _check_exactly(name: str, given: Iterable[object], needed: set[LotId] | set[Address] | set[bytes]) -> None:
    """Nothing that the subject needs is missing, nothing is there that it does not need."""
    found = set(given)
    if needed - found:
        raise Rejected("certificate_lacks_a_record", name)
    if found - needed:
        raise Rejected(_TOO_MUCH, name)
