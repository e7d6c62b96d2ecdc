"""Matching: which watt-hours of consumption a claim is set against.

Owns that hourly claims never go beyond what a meter recorded: for each consumption interval Σ claims ≤ recorded Wh.
It remembers what each claim took, so that a correction finds the claims it concerns and frees exactly what they had.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import le
from typing import Annotated, Final

from contracts_native.lots import INTERVALS_PER_REPORT_MAX, Lot, SliceRef
from contracts_native.meters import Channel, find_channel, get_meter
from contracts_native.readings import ReportRecord, find_report_after, find_report_at
from contracts_native.sites import get_site, get_zone_at
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Length
from ledger.parameters import get_parameters
from ledger.primitives import Address, format_address
from ledger.state import State
from ledger.tables import Table

CLAIM_ID_BYTES: Final = 16
PERIOD_PARTS_MAX: Final = 4_096  # of one claim: its slices, cut where they fill several intervals of a period

Interval = tuple[ReportRecord, int]  # one value of a report, by its index


@dataclass(frozen=True, slots=True)
class ClaimedWh:
    """What is claimed of each interval of a consumption report, in the order of its values."""

    wh: Annotated[tuple[int, ...], Length(INTERVALS_PER_REPORT_MAX, 1)]


@dataclass(frozen=True, slots=True)
class ClaimOn:
    """What one claim has of a consumption report."""

    wh: int


@dataclass(frozen=True, slots=True)
class Part:
    """Watt-hours of a claim's slice, by its place among them, that are set against the interval at ``start_ms``."""

    position: int
    start_ms: int
    wh: int


@dataclass(frozen=True, slots=True)
class PeriodParts:
    """The slices of a claim that were matched by the period, and where; all others lie within one interval."""

    parts: Annotated[tuple[Part, ...], Length(PERIOD_PARTS_MAX, 1)]


CLAIMED: Table[ClaimedWh] = Table("ch", ClaimedWh, missing="consumption_not_claimed")  # meter, start of the report
CLAIMS_ON: Table[ClaimOn] = Table("co", ClaimOn, missing="consumption_not_claimed")  # meter, start of report, claim
PERIOD_PARTS: Table[PeriodParts] = Table("cq", PeriodParts, missing="claim_unknown")  # claim


def get_claimed_wh(state: State, meter: bytes, record: ReportRecord) -> tuple[int, ...]:
    """What is claimed hourly of each interval of a consumption report, in the order of its values."""
    claimed = CLAIMED.find(state, meter, record.start_ms)
    return (0,) * len(record.values_wh) if claimed is None else claimed.wh


def list_parts(
    state: State, claim: bytes, meter: bytes, slices: Sequence[SliceRef], lost_wh: Sequence[int]
) -> list[Part]:
    """Where the slices of a claim are set against a meter's consumption; ``lost_wh`` of each is set against none."""
    found = PERIOD_PARTS.find(state, claim)
    by_period = frozenset(part.position for part in (() if found is None else found.parts))
    parts = [part for part in (() if found is None else found.parts) if part.wh]
    latest: ReportRecord | None = None
    for position, (ref, lost) in enumerate(zip(slices, lost_wh, strict=True)):
        if position in by_period or ref.wh == lost:
            continue
        if latest is None or not latest.start_ms <= ref.lot.start_ms < latest.end_ms:
            latest = find_report_at(state, meter, Channel.CONSUMPTION, ref.lot.start_ms)
        assert latest is not None, "what was matched was recorded"
        length_ms = latest.interval_s * 1_000
        start_ms = ref.lot.start_ms - (ref.lot.start_ms - latest.start_ms) % length_ms
        parts.append(Part(position, start_ms, ref.wh - lost))
    return parts


def free(state: State, claim: bytes, meter: bytes, parts: Iterable[Part]) -> None:
    """Consumption that a claim no longer counts against may be claimed again."""
    freed: Counter[tuple[int, int]] = Counter()  # position, interval → Wh
    by_report: dict[int, tuple[ReportRecord, list[int], int]] = {}
    for part in parts:
        freed[part.position, part.start_ms] += part.wh
        record = find_report_at(state, meter, Channel.CONSUMPTION, part.start_ms)
        assert record is not None, "what was matched was recorded"
        known = by_report.get(record.start_ms) or (record, list(get_claimed_wh(state, meter, record)), 0)
        known[1][(part.start_ms - record.start_ms) // (record.interval_s * 1_000)] -= part.wh
        by_report[record.start_ms] = known[0], known[1], known[2] + part.wh
    for start_ms, (_, claimed_wh, wh) in by_report.items():
        assert min(claimed_wh) >= 0, "no more is freed than was claimed"
        CLAIMED.put(state, meter, start_ms, value=ClaimedWh(tuple(claimed_wh)))
        left_wh = CLAIMS_ON.get(state, meter, start_ms, claim).wh - wh
        if left_wh:
            CLAIMS_ON.put(state, meter, start_ms, claim, value=ClaimOn(left_wh))
        else:
            CLAIMS_ON.delete(state, meter, start_ms, claim)
    found = PERIOD_PARTS.find(state, claim)
    if found is not None:
        # A part that is used up stays with 0 Wh: it says that its slice was matched by the period.
        left = [Part(one.position, one.start_ms, one.wh - freed[one.position, one.start_ms]) for one in found.parts]
        PERIOD_PARTS.put(state, claim, value=PeriodParts(tuple(left)))


class Matching:
    """Fits the slices of one claim into what a consumption meter recorded; written once, when all fit."""

    def __init__(self, state: State, meter_id: bytes, *, beneficiary: Address, is_charge: bool = False) -> None:
        """``is_charge``: only the same zone and the enclosing interval count.

        Raises ``RuleViolated`` or ``NotPermitted`` if the meter cannot stand for the beneficiary's consumption.
        """
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
        self._site_id = meter.site
        self._zone_pairs = frozenset() if is_charge else frozenset(parameters.zone_pairs)
        self._period_ms = 0 if is_charge else parameters.matching_period_s * 1_000
        self._interval_s = spec.interval_s
        self._reports: dict[int, tuple[ReportRecord, list[int]]] = {}  # start → report, claimed of each interval
        self._taken: Counter[int] = Counter()  # start of a report → Wh of this claim
        self._periods: dict[int, deque[Interval]] = {}  # start → intervals that may have room left
        self._period_parts: list[Part] = []
        self._latest: ReportRecord | None = None

    def match(self, lot: Lot, wh: int, position: int) -> None:
        """Set ``wh`` of consumption against a lot, the claim's slice at ``position``. Raises ``RuleViolated``."""
        zone = get_zone_at(self._state, self._site_id, lot.start_ms)
        if lot.zone != zone and (lot.zone, zone) not in self._zone_pairs:
            raise RuleViolated("zone_pair_not_allowed", f"{lot.zone} → {zone}: {lot.lot}")
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
        self._period_parts += [
            Part(position, start_ms, part_wh) for start_ms, part_wh in self._fill(self._get_period(lot), lot, wh)
        ]
        if len(self._period_parts) > PERIOD_PARTS_MAX:
            raise RuleViolated("claim_too_fragmented", f"{PERIOD_PARTS_MAX} parts of consumption intervals")

    def write(self, claim: bytes) -> None:
        """Put down what was claimed of each report, and by whom."""
        for start_ms, (record, claimed_wh) in self._reports.items():
            assert all(map(le, claimed_wh, record.values_wh)), "claims never exceed what was recorded"
            CLAIMED.put(self._state, self._meter_id, start_ms, value=ClaimedWh(tuple(claimed_wh)))
        for start_ms, wh in self._taken.items():
            CLAIMS_ON.put(self._state, self._meter_id, start_ms, claim, value=ClaimOn(wh))
        if self._period_parts:
            PERIOD_PARTS.put(self._state, claim, value=PeriodParts(tuple(self._period_parts)))

    def _fill(self, intervals: deque[Interval], lot: Lot, wh: int) -> list[tuple[int, int]]:
        """Use up the intervals in their order; those with no room left are dropped from the front.

        The answer is (start of the interval, Wh) of each that was used.
        """
        used: list[tuple[int, int]] = []
        while wh:
            if not intervals:
                raise RuleViolated("consumption_exceeded", f"{lot.lot}: {wh} Wh too much")
            record, index = intervals[0]
            claimed_wh = self._get_claimed_wh(record)
            part_wh = min(wh, max(0, record.values_wh[index] - claimed_wh[index]))
            if part_wh:
                claimed_wh[index] += part_wh
                self._taken[record.start_ms] += part_wh
                used.append((record.start_ms + index * record.interval_s * 1_000, part_wh))
                wh -= part_wh
            if wh:
                intervals.popleft()
        return used

    def _get_period(self, lot: Lot) -> deque[Interval]:
        """The consumption intervals within the matching period that a lot lies in. Raises ``RuleViolated``."""
        if not self._period_ms:
            raise RuleViolated("charge_not_recorded", f"{lot.lot} lies in no interval of the storage")
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
