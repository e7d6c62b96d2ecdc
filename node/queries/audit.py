"""The conservation audit: each sum of DOMAIN.md with its two sides, computed from the state and from the index.

Owns the answer of ``chain_audit``. It reads every lot, report and balance: a question for auditors, not for a page
that refreshes itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby
from operator import le
from typing import Final, Literal, TypedDict

from contracts_native import bills, credits, escrow
from contracts_native.batteries import LOT_SOURCES, STORED
from contracts_native.lots import (
    MINTS,
    REISSUES,
    SLICES,
    WITHDRAWALS,
    LotId,
    LotSlices,
    Mint,
    Reissue,
    get_lot,
    is_withdrawn,
)
from contracts_native.matching import CLAIMED
from contracts_native.meters import METERS, Channel
from contracts_native.readings import (
    REPORTS,
    IntervalState,
    ReportRecord,
    apply_revisions,
    find_report_at,
    list_facts,
)
from contracts_native.sites import PER_MILLE, SITES, Technology
from contracts_native.slices import Slice, SliceStatus, is_partition
from ledger.block import Header
from ledger.fields import HashText
from ledger.parameters import get_parameters
from ledger.tables import Table
from node import chain_store, index
from node.queries.view import TIME_MS_MAX, V, View, scan_table

ID_BYTES: Final = 16
NUMBER_BYTES: Final = 8
FAULTS_SHOWN_MAX: Final = 100
ALL_DAYS: Final = index.get_days(0, TIME_MS_MAX)
Unit = Literal["wh", "cents"]
Relation = Literal["=", "≤"]
_Lot = tuple[bytes, int, int]  # meter, start, version


class AuditSum(TypedDict):
    """A sum as an auditor reads it; ``faults`` names at most a hundred of the objects that break it."""

    name: str
    unit: Unit
    relation: Relation
    left: int
    right: int
    left_parts: dict[str, int]
    right_parts: dict[str, int]
    faults: list[str]
    faults_count: int
    holds: bool


class Audit(TypedDict):
    """Every sum at a height, and whether all of them hold."""

    height: int
    state_root: HashText
    holds: bool
    sums: list[AuditSum]


@dataclass(frozen=True, slots=True)
class Check:
    """One sum. ``left`` and ``right`` name their parts; they are compared by the relation, ``=`` or ``≤``.

    ``faults`` names the objects for which it does not hold on their own, even if the sums happen to agree.
    """

    name: str
    unit: Unit
    left: dict[str, int]
    right: dict[str, int]
    relation: Relation = "="
    faults: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the sides stand in the relation, for every object."""
        left, right = sum(self.left.values()), sum(self.right.values())
        return not self.faults and (left == right if self.relation == "=" else left <= right)

    def to_json(self) -> AuditSum:
        """The check as an auditor reads it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "relation": self.relation,
            "left": sum(self.left.values()),
            "right": sum(self.right.values()),
            "left_parts": self.left,
            "right_parts": self.right,
            "faults": self.faults[:FAULTS_SHOWN_MAX],
            "faults_count": len(self.faults),
            "holds": self.holds,
        }


def chain_audit(view: View) -> Audit:
    """Every conservation sum of the domain, with its two sides and whether it holds; reads the whole state."""
    header = chain_store.get_header(view.reader, chain_store.read_head_height(view.reader))
    checks = [
        *_check_lots(view, header),
        *_check_credits(view),
        _check_bills(view),
        _check_claims(view),
        _check_charges(view),
        *_check_sources(view),
    ]
    return {
        "height": header.height,
        "state_root": header.state_root.hex(),
        "holds": all(one.holds for one in checks),
        "sums": [one.to_json() for one in checks],
    }


def _check_lots(view: View, header: Header) -> Iterator[Check]:
    """For each lot: Σ slices = minted Wh; over all lots: minted = the sum of all statuses that a slice can have."""
    last_expired_ms = header.time_ms - get_parameters(view.state).lot_lifetime_s * 1_000
    by_status: Counter[str] = Counter({status.value: 0 for status in SliceStatus})
    minted_wh, slices_wh, faults = 0, 0, []
    for untouched, touched in _walk_meters(view):
        minted_wh += sum(wh for wh, _ in untouched.values())
        for lot, slices in touched:
            wh, end_ms = untouched.pop(lot, (0, 0))
            if not is_partition(slices, wh):
                faults.append(f"{lot[0].hex()}:{lot[1]}:{lot[2]}")
            for one in slices:
                is_expired = one.status is SliceStatus.ACTIVE and end_ms <= last_expired_ms
                by_status[SliceStatus.EXPIRED.value if is_expired else one.status.value] += one.end_wh - one.first_wh
                slices_wh += one.end_wh - one.first_wh
        for wh, end_ms in untouched.values():  # a lot that nobody touched is active, or past its lifetime
            is_expired = end_ms <= last_expired_ms
            by_status[SliceStatus.EXPIRED.value if is_expired else SliceStatus.ACTIVE.value] += wh
            slices_wh += wh
    yield Check("slices_partition_each_lot", "wh", {"minted": minted_wh}, {"slices": slices_wh}, faults=faults)
    yield Check("minted_is_all_statuses", "wh", {"minted": minted_wh}, dict(by_status))


def _walk_meters(view: View) -> Iterator[tuple[dict[_Lot, tuple[int, int]], list[tuple[_Lot, tuple[Slice, ...]]]]]:
    """Meter after meter, so that no more is held than the lots of one: each with Wh and end, and those with slices."""
    # The keys of all three tables begin with the meter; of one meter, what was minted comes before what was touched.
    mints, reissues, slices = _scan(view, MINTS), _scan(view, REISSUES), _scan(view, SLICES)
    merged: Iterator[tuple[bytes, Mint | Reissue | LotSlices]] = merge(mints, reissues, slices, key=_read_meter)
    for _, rows in groupby(merged, key=_read_meter):
        lots: dict[_Lot, tuple[int, int]] = {}
        touched: list[tuple[_Lot, tuple[Slice, ...]]] = []
        for key, record in rows:
            match record:
                case Mint():
                    lots.update(_list_lots(key[:ID_BYTES], record))
                case Reissue():
                    lot = _read_lot_key(key)
                    lots[lot] = (record.wh, lot[1] + record.interval_s * 1_000)
                case LotSlices():
                    touched.append((_read_lot_key(key), record.slices))
        yield lots, touched


def _read_meter(row: tuple[bytes, object]) -> bytes:
    return row[0][:ID_BYTES]


def _check_credits(view: View) -> Iterator[Check]:
    """Issued − paid out = Σ balances + Σ escrow + Σ redemptions requested, and is what the issuers have outstanding."""
    sums = credits.compute_credit_sums(view.state)
    supply = {"issued": sums.issued_cents, "paid_out": -sums.paid_out_cents}
    places = {
        "balances": sums.balances_cents,
        "escrow": escrow.compute_held_cents(view.state),
        "redemptions_requested": sums.redemptions_requested_cents,
    }
    yield Check("credit_supply_is_where_credits_are", "cents", supply, places)
    issuers = {"issuers_outstanding": sums.issuers_outstanding_cents}
    yield Check("credit_supply_is_outstanding_of_issuers", "cents", supply, issuers)


def _check_bills(view: View) -> Check:
    """Billed = paid + credited + outstanding, and the open bills have all that is outstanding."""
    sums = bills.compute_bill_sums(view.state)
    parts = {
        "paid": sums.paid_cents,
        "credited": sums.credited_cents,
        "outstanding_on_open_bills": sums.outstanding_on_open_bills_cents,
    }
    return Check("billed_is_paid_credited_or_outstanding", "cents", {"billed": sums.billed_cents}, parts)


def _check_claims(view: View) -> Check:
    """For each consumption record: Σ hourly claims ≤ recorded Wh."""
    claimed_wh, recorded_wh, faults = 0, 0, []
    for key, claimed in _scan(view, CLAIMED):
        meter, start_ms = key[:ID_BYTES], int.from_bytes(key[ID_BYTES:], "big")
        report = find_report_at(view.state, meter, Channel.CONSUMPTION, start_ms)
        values_wh = () if report is None else report.values_wh
        if len(values_wh) != len(claimed.wh) or not all(map(le, claimed.wh, values_wh)):
            faults.append(f"{meter.hex()}:{start_ms}")
        claimed_wh += sum(claimed.wh)
        recorded_wh += sum(values_wh)
    left, right = {"claimed_hourly": claimed_wh}, {"recorded": recorded_wh}
    return Check("hourly_claims_are_within_consumption", "wh", left, right, relation="≤", faults=faults)


def _check_charges(view: View) -> Check:
    """For each charge: what was given back and what is left ≤ efficiency × charged Wh."""
    given_back: Counter[tuple[bytes, int, bytes]] = Counter()
    for key, discharged in _scan(view, LOT_SOURCES):
        if not is_withdrawn(view.state, LotId(*_read_lot_key(key))):
            for source in discharged.sources:
                given_back[key[:ID_BYTES], source.end_ms, source.charge] += source.wh
    left_wh, deliverable_wh, faults = 0, 0, []
    for key, stored in _scan(view, STORED):
        end_ms = int.from_bytes(key[ID_BYTES : ID_BYTES + NUMBER_BYTES], "big")
        charge = (key[:ID_BYTES], end_ms, key[-ID_BYTES:])
        most_wh = stored.charged_wh * stored.efficiency_per_mille // PER_MILLE
        if given_back[charge] + stored.left_wh > most_wh:
            faults.append(f"{charge[2].hex()} until {end_ms}")
        left_wh += stored.left_wh
        deliverable_wh += most_wh
    left = {"given_back": sum(given_back.values()), "left": left_wh}
    right = {"efficiency_times_charged": deliverable_wh}
    return Check("discharged_is_within_charged", "wh", left, right, relation="≤", faults=faults)


def _check_sources(view: View) -> Iterator[Check]:
    """For each site: metered = minted + quarantined + not minted, and the holders' list sums to what it minted.

    The first counts intervals as corrected, and lots that were not withdrawn; the second every lot there ever was.
    """
    metered, fates = _sum_production(view)
    minted, standing = _sum_mints(view)
    totals: Counter[str] = Counter({"minted": 0, "quarantined": 0, "not_minted": 0})
    held_wh, faults, holder_faults = 0, [], []
    for site, _ in _scan(view, SITES):
        accounted = Counter({"minted": standing[site], **fates[site]})
        totals.update(accounted)
        if metered[site] != sum(accounted.values()):
            faults.append(site.hex())
        has_wh = sum(
            sum(holding.sum_by_hour())
            for _, meter in index.scan_list(view.reader, index.List.METERS_OF_SITE, site)
            for _, _, holding in index.scan_source(view.reader, meter, ALL_DAYS)
        )
        held_wh += has_wh
        if has_wh != minted[site]:
            holder_faults.append(site.hex())
    metered_wh = sum(metered.values())
    yield Check("metered_is_accounted_for", "wh", {"metered": metered_wh}, dict(totals), faults=faults)
    left, right = {"minted": sum(minted.values())}, {"held_used_or_withdrawn": held_wh}
    yield Check("holders_of_each_source_have_what_it_minted", "wh", left, right, faults=holder_faults)


def _sum_mints(view: View) -> tuple[Counter[bytes], Counter[bytes]]:
    """Of each site: Wh of all lots, and of those that were not withdrawn."""
    minted: Counter[bytes] = Counter()
    standing: Counter[bytes] = Counter()
    for key, mint in _scan(view, MINTS):
        assert len(key) == ID_BYTES + NUMBER_BYTES, "meter, start"
        minted[mint.site] += sum(mint.wh)
    for _, reissue in _scan(view, REISSUES):
        minted[reissue.site] += reissue.wh
    standing.update(minted)
    for key, _ in _scan(view, WITHDRAWALS):
        lot = get_lot(view.state, LotId(*_read_lot_key(key)))
        standing[lot.site] -= lot.wh
    return minted, standing


def _sum_production(view: View) -> tuple[Counter[bytes], defaultdict[bytes, Counter[str]]]:
    """Of each site: metered Wh as corrected, and what became of what was not minted."""
    metered: Counter[bytes] = Counter()
    fates: defaultdict[bytes, Counter[str]] = defaultdict(Counter)
    for meter_id, meter in _scan(view, METERS):
        for _, stored in REPORTS.scan(view.state, meter_id, Channel.PRODUCTION):
            report = apply_revisions(view.state, meter_id, Channel.PRODUCTION, stored)
            metered[meter.site] += sum(report.values_wh)
            for fate, wh in _list_unminted(view, meter_id, meter.site, report):
                fates[meter.site][fate.value] += wh
    return metered, fates


def _list_unminted(view: View, meter: bytes, site: bytes, report: ReportRecord) -> Iterator[tuple[IntervalState, int]]:
    """What the report says was not minted, but for a storage: there, what no charge stands behind."""
    is_storage = SITES.get(view.state, site).technology is Technology.STORAGE
    for fact in list_facts(view.state, meter, Channel.PRODUCTION, report):
        if fact.state is IntervalState.QUARANTINED:
            yield fact.state, fact.wh
        elif fact.state is not IntervalState.MINTED:
            yield IntervalState.NOT_MINTED, fact.wh
        elif is_storage:
            yield IntervalState.NOT_MINTED, fact.wh - fact.minted_wh


def _read_lot_key(key: bytes) -> _Lot:
    start_ms, version = key[ID_BYTES : ID_BYTES + NUMBER_BYTES], key[-NUMBER_BYTES:]
    return key[:ID_BYTES], int.from_bytes(start_ms, "big"), int.from_bytes(version, "big")


def _list_lots(meter: bytes, mint: Mint) -> Iterator[tuple[_Lot, tuple[int, int]]]:
    length_ms = mint.interval_s * 1_000
    for place, wh in enumerate(mint.wh):
        if wh:
            start_ms = mint.start_ms + place * length_ms
            yield (meter, start_ms, mint.version), (wh, start_ms + length_ms)


def _scan(view: View, table: Table[V]) -> Iterator[tuple[bytes, V]]:
    return scan_table(view, table, None)
