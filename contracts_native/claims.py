"""Claims: the final use of watt-hours.

Owns that a claim cancels its slices for ever, that its statement number is used once, and that an hourly claim never
goes beyond what the beneficiary's meter recorded: for each consumption interval Σ claims ≤ recorded Wh.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import le
from typing import Annotated, Final

from contracts_native import lots
from contracts_native.lots import INTERVALS_PER_REPORT_MAX, Lot, LotId, SliceRef, SliceRefs
from contracts_native.meters import Channel, MeterId, find_channel, get_meter
from contracts_native.participants import check_not_frozen
from contracts_native.readings import ReportRecord, find_report_after, find_report_at
from contracts_native.sites import InstantMs, get_site
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Amount, Length
from ledger.parameters import get_parameters
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction

PURPOSE_BYTES_MAX: Final = 256
STATEMENT_BYTES_MAX: Final = 64
SCORE_SCALE: Final = 10_000  # a matching score is in hundredths of a percent


class ClaimStatus(enum.StrEnum):
    """`claimed → impaired → replaced | void`."""

    CLAIMED = "claimed"
    IMPAIRED = "impaired"
    REPLACED = "replaced"
    VOID = "void"


Interval = tuple[ReportRecord, int]  # one value of a report, by its index
ClaimId = Annotated[bytes, Length(16, 16)]
Purpose = Annotated[str, Length(PURPOSE_BYTES_MAX)]
Statement = Annotated[str, Length(STATEMENT_BYTES_MAX, 1)]


@dataclass(frozen=True, slots=True)
class Claim:
    """Slices that were used, by whom, for what. Without a consumption meter the claim is volumetric."""

    claimant: Address
    beneficiary: Address
    purpose: Purpose
    statement: Statement
    period_start_ms: int
    period_end_ms: int
    slices: SliceRefs
    wh: Amount
    consumption_meter: MeterId | None
    claimed_ms: int
    status: ClaimStatus

    @property
    def is_hourly(self) -> bool:
        """Whether every slice is matched to consumption of its own interval or matching period."""
        return self.consumption_meter is not None


@dataclass(frozen=True, slots=True)
class ClaimedWh:
    """What is claimed of each interval of a consumption report, in the order of its values."""

    wh: Annotated[tuple[int, ...], Length(INTERVALS_PER_REPORT_MAX, 1)]


@dataclass(frozen=True, slots=True)
class UsedStatement:
    """The claim that has a statement number of a beneficiary."""

    claim: ClaimId


CLAIMS: Table[Claim] = Table("cl", Claim, missing="claim_unknown")
CLAIMED: Table[ClaimedWh] = Table("ch", ClaimedWh, missing="consumption_not_claimed")  # meter, start of the report
STATEMENTS: Table[UsedStatement] = Table("ct", UsedStatement, missing="statement_unknown")  # beneficiary, statement


@event("energy.claimed")
@dataclass(frozen=True, slots=True)
class EnergyClaimed(Event):
    """A range of a lot was used for good."""

    claim: ClaimId
    lot: LotId
    first_wh: int
    end_wh: int
    claimant: Address
    beneficiary: Address
    is_hourly: bool
    consumption_meter: MeterId | None


def get_claim(state: State, claim: bytes) -> Claim:
    """A claim by its id. Raises ``RuleViolated`` (``claim_unknown``)."""
    return CLAIMS.get(state, claim)


def get_claimed_wh(state: State, meter: bytes, record: ReportRecord) -> tuple[int, ...]:
    """What is claimed hourly of each interval of a consumption report, in the order of its values."""
    claimed = CLAIMED.find(state, meter, record.start_ms)
    return (0,) * len(record.values_wh) if claimed is None else claimed.wh


def compute_matching_score(consumed_wh: Sequence[int], claimed_wh: Sequence[int]) -> int:
    """The part of consumption that claims of the same period cover, in hundredths of a percent, rounded down.

    The sequences are parallel, one item a period; what is claimed beyond a period's consumption does not count.
    """
    covered_wh = sum(min(pair) for pair in zip(consumed_wh, claimed_wh, strict=True))
    total_wh = sum(consumed_wh)
    return SCORE_SCALE if total_wh == 0 else covered_wh * SCORE_SCALE // total_wh


@transaction("energy.claim", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class ClaimEnergy(Payload):
    """Use watt-hours for a beneficiary, for good. With its ``consumption_meter`` the claim is hourly.

    The id: ``tx.make_id("claim")``.
    """

    slices: SliceRefs
    beneficiary: Address
    purpose: Purpose
    period_start_ms: InstantMs
    period_end_ms: InstantMs
    statement: Statement
    consumption_meter: MeterId | None = None

    def apply(self, state: State, tx: TxContext) -> None:
        check_not_frozen(state, self.beneficiary)
        if self.period_start_ms >= self.period_end_ms:
            raise RuleViolated("claim_period_empty", f"{self.period_start_ms} … {self.period_end_ms}")
        if STATEMENTS.find(state, self.beneficiary, self.statement) is not None:
            raise RuleViolated("statement_already_used", self.statement)
        claim_id = tx.make_id("claim")
        matching = None
        if self.consumption_meter is not None:
            matching = _Matching(state, self.consumption_meter, beneficiary=self.beneficiary)
        for ref in self.slices:
            lot = lots.claim(state, ref, owner=tx.sender, reference=claim_id, time_ms=tx.time_ms)
            if lot.start_ms < self.period_start_ms or lot.end_ms > self.period_end_ms:
                raise RuleViolated("claim_outside_period", ref)
            if matching is not None:
                matching.match(lot, ref.end_wh - ref.first_wh)
            self._emit(state, claim_id, ref, tx.sender)
        if matching is not None:
            matching.write()
        self._put(state, claim_id, tx)

    def _emit(self, state: State, claim_id: bytes, ref: SliceRef, claimant: Address) -> None:
        meter = self.consumption_meter
        state.emit(
            EnergyClaimed(
                claim_id, ref.lot, ref.first_wh, ref.end_wh, claimant, self.beneficiary, meter is not None, meter
            )
        )

    def _put(self, state: State, claim_id: bytes, tx: TxContext) -> None:
        claim = Claim(
            claimant=tx.sender,
            beneficiary=self.beneficiary,
            purpose=self.purpose,
            statement=self.statement,
            period_start_ms=self.period_start_ms,
            period_end_ms=self.period_end_ms,
            slices=self.slices,
            wh=sum(ref.end_wh - ref.first_wh for ref in self.slices),
            consumption_meter=self.consumption_meter,
            claimed_ms=tx.time_ms,
            status=ClaimStatus.CLAIMED,
        )
        CLAIMS.put(state, claim_id, value=claim)
        STATEMENTS.put(state, self.beneficiary, self.statement, value=UsedStatement(claim_id))


class _Matching:
    """Fits the slices of one claim into what a consumption meter recorded; written once, when all fit."""

    def __init__(self, state: State, meter_id: bytes, *, beneficiary: Address) -> None:
        """Raises ``RuleViolated`` or ``NotPermitted`` if the meter cannot stand for the beneficiary's consumption."""
        meter = get_meter(state, meter_id)
        site = get_site(state, meter.site)
        if site.owner != beneficiary:
            raise NotPermitted("consumption_meter_not_of_beneficiary", format_address(beneficiary))
        spec = find_channel(meter, Channel.CONSUMPTION)
        if spec is None:
            raise RuleViolated("meter_channel_unknown", f"{meter_id.hex()} {Channel.CONSUMPTION}")
        parameters = get_parameters(state)
        self._state = state
        self._meter_id = meter_id
        self._zones = {first for first, second in parameters.zone_pairs if second == site.zone} | {site.zone}
        self._zone = site.zone
        self._period_ms = parameters.matching_period_s * 1_000
        self._interval_s = spec.interval_s
        self._reports: dict[int, tuple[ReportRecord, list[int]]] = {}  # start → report, claimed of each interval
        self._periods: dict[int, deque[Interval]] = {}  # start → intervals that may have room left
        self._latest: ReportRecord | None = None

    def match(self, lot: Lot, wh: int) -> None:
        """Set ``wh`` of consumption against a lot. Raises ``RuleViolated``."""
        if lot.zone not in self._zones:
            raise RuleViolated("zone_pair_not_allowed", f"{lot.zone} → {self._zone}: {lot.lot}")
        record = self._find_report_at(lot.start_ms)
        if record is None and lot.interval_s <= self._interval_s:
            raise RuleViolated("consumption_not_recorded", lot.lot)
        if record is not None:
            length_ms = record.interval_s * 1_000
            index = (lot.start_ms - record.start_ms) // length_ms
            if lot.end_ms <= record.start_ms + (index + 1) * length_ms:
                if index in record.quarantined:
                    raise RuleViolated("consumption_quarantined", lot.lot)
                self._fill(deque([(record, index)]), lot, wh)
                return
        self._fill(self._get_period(lot), lot, wh)

    def write(self) -> None:
        """Put down what was claimed of each report."""
        for start_ms, (record, claimed_wh) in self._reports.items():
            assert all(map(le, claimed_wh, record.values_wh)), "claims never exceed what was recorded"
            CLAIMED.put(self._state, self._meter_id, start_ms, value=ClaimedWh(tuple(claimed_wh)))

    def _fill(self, intervals: deque[Interval], lot: Lot, wh: int) -> None:
        """Use up the intervals in their order; those with no room left are dropped from the front."""
        while wh:
            if not intervals:
                raise RuleViolated("consumption_exceeded", f"{lot.lot}: {wh} Wh too much")
            record, index = intervals[0]
            claimed_wh = self._get_claimed_wh(record)
            part_wh = min(wh, record.values_wh[index] - claimed_wh[index])
            claimed_wh[index] += part_wh
            wh -= part_wh
            if wh:
                intervals.popleft()

    def _get_period(self, lot: Lot) -> deque[Interval]:
        """The consumption intervals within the matching period that a lot lies in. Raises ``RuleViolated``."""
        start_ms = lot.start_ms - lot.start_ms % self._period_ms
        if lot.end_ms > start_ms + self._period_ms:
            raise RuleViolated("consumption_not_recorded", f"{lot.lot} is longer than a matching period")
        intervals = self._periods.get(start_ms)
        if intervals is None:
            found = list_intervals(self._state, self._meter_id, start_ms, start_ms + self._period_ms)
            if not found:
                raise RuleViolated("consumption_not_recorded", lot.lot)
            intervals = self._periods[start_ms] = deque(found)
        return intervals

    def _find_report_at(self, instant_ms: int) -> ReportRecord | None:
        latest = self._latest  # slices mostly come in order, many to a report
        if latest is None or not latest.start_ms <= instant_ms < latest.end_ms:
            latest = self._latest = find_report_at(self._state, self._meter_id, Channel.CONSUMPTION, instant_ms)
        return latest

    def _get_claimed_wh(self, record: ReportRecord) -> list[int]:
        known = self._reports.get(record.start_ms)
        if known is None:
            known = record, list(get_claimed_wh(self._state, self._meter_id, record))
            self._reports[record.start_ms] = known
        return known[1]


def list_intervals(state: State, meter: bytes, from_ms: int, until_ms: int) -> list[Interval]:
    """The consumption intervals of a meter that lie within [``from_ms``, ``until_ms``), less those quarantined."""
    found = find_report_at(state, meter, Channel.CONSUMPTION, from_ms)
    intervals: list[Interval] = []
    record = found or find_report_after(state, meter, Channel.CONSUMPTION, from_ms)
    while record is not None and record.start_ms < until_ms:
        length_ms = record.interval_s * 1_000
        first = max(0, -((record.start_ms - from_ms) // length_ms))
        stop = min(len(record.values_wh), (until_ms - record.start_ms) // length_ms)
        intervals.extend((record, index) for index in range(first, stop) if index not in record.quarantined)
        record = find_report_after(state, meter, Channel.CONSUMPTION, record.start_ms)
    return intervals
