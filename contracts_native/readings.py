"""Readings: what meters measured and signed.

Owns which reports are accepted, and the record of every interval, as reported and as corrected. A report is one state
entry, however many intervals it has; a channel keeps its latest end, so that a report that continues it looks at no
neighbour. Corrections stand beside the report (corrections.py writes them); nothing that a meter signed is edited.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Final

from contracts_native import batteries, lots
from contracts_native.lots import FIRST_VERSION, INTERVALS_PER_REPORT_MAX, LotId, Reason
from contracts_native.meters import (
    CHANNELS,
    Channel,
    ChannelRecord,
    ChannelSpec,
    Meter,
    MeterId,
    find_channel,
    get_key,
    get_meter,
)
from contracts_native.remembered import Remembered
from contracts_native.sites import InstantMs, Site, SiteId, Technology, get_site_throughout
from ledger.encoding import encode
from ledger.errors import RuleViolated
from ledger.fields import Bounds, Length
from ledger.parameters import Parameters, get_parameters
from ledger.primitives import (
    SIGNATURE_BYTES,
    Address,
    Hash,
    MeterKey,
    Signature,
    is_valid_meter_signature,
    sha256,
)
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction

REPORT_TAG: Final = b"wattprint/report/1\0"
REPORTS_PER_TRANSACTION_MAX: Final = 1_000
INTERVAL_WH_MAX: Final = 10**12
REGISTER_WH_MAX: Final = 2**62
SIGNATURES_REMEMBERED_MAX: Final = 8_192  # about 1 MB; more reports than a few full blocks hold


UNSIGNED: Final = Signature(bytes(SIGNATURE_BYTES))


class Flag(enum.StrEnum):
    """How the values came about. Only measured production mints."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    SUBSTITUTED = "substituted"


class IntervalState(enum.StrEnum):
    """What became of one interval of an accepted report."""

    MINTED = "minted"
    QUARANTINED = "quarantined"
    NOT_MINTED = "not_minted"
    RECORDED = "recorded"
    WITHDRAWN = "withdrawn"


RegisterWh = Annotated[int, Bounds(0, REGISTER_WH_MAX)]
ValuesWh = Annotated[tuple[Annotated[int, Bounds(0, INTERVAL_WH_MAX)], ...], Length(INTERVALS_PER_REPORT_MAX, 1)]
Indices = Annotated[tuple[int, ...], Length(INTERVALS_PER_REPORT_MAX)]


@dataclass(frozen=True, slots=True)
class Report:
    """Consecutive intervals of one channel; ``signature`` is the meter's, of ``make_report_message``.

    The registers are read at the start of the first interval and at the end of the last.
    """

    meter: MeterId
    channel: Channel
    sequence: int
    start_ms: InstantMs
    interval_s: int
    values_wh: ValuesWh
    register_start_wh: RegisterWh
    register_end_wh: RegisterWh
    flag: Flag
    signature: Signature

    @property
    def end_ms(self) -> int:
        """The end of the last interval."""
        return self.start_ms + len(self.values_wh) * self.interval_s * 1_000

    def __str__(self) -> str:
        return f"{self.meter.hex()} {self.channel} from {self.start_ms}"


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """An accepted report. ``quarantined``: indices of the values above what the channel can measure."""

    start_ms: int
    interval_s: int
    values_wh: Annotated[tuple[int, ...], Length(INTERVALS_PER_REPORT_MAX, 1)]
    register_start_wh: int
    register_end_wh: int
    flag: Flag
    sequence: int
    quarantined: Indices
    tx_id: Hash

    @property
    def end_ms(self) -> int:
        """The end of the last interval."""
        return self.start_ms + len(self.values_wh) * self.interval_s * 1_000


@dataclass(frozen=True, slots=True)
class Revision:
    """The latest correction of one interval of a report: the value at ``index`` counts as this from now on."""

    index: int
    version: int
    wh: int
    flag: Flag
    is_quarantined: bool


@dataclass(frozen=True, slots=True)
class Revisions:
    """The corrected intervals of a report, by index."""

    intervals: Annotated[tuple[Revision, ...], Length(INTERVALS_PER_REPORT_MAX, 1)]


@dataclass(frozen=True, slots=True)
class Correction:
    """One version of an interval: what the measurement body said it was, and why."""

    wh: int
    flag: Flag
    is_quarantined: bool
    reason: Reason
    corrected_by: Address
    corrected_ms: int
    tx_id: Hash


@dataclass(frozen=True, slots=True)
class IntervalFact:
    """One interval as it counts now, and what became of it. ``lot``: what it minted, unless that was withdrawn.

    ``minted_wh`` is ``wh`` where there is a lot, or less where it left a storage and not all was covered.
    """

    start_ms: int
    wh: int
    flag: Flag
    version: int
    state: IntervalState
    lot: LotId | None
    minted_wh: int


REPORTS: Table[ReportRecord] = Table("rr", ReportRecord, missing="report_unknown")  # meter, channel, start
REVISIONS: Table[Revisions] = Table("rv", Revisions, missing="report_not_corrected")  # meter, channel, start
CORRECTIONS: Table[Correction] = Table("rh", Correction, missing="interval_not_corrected")  # … of interval, version


@event("reading.accepted")
@dataclass(frozen=True, slots=True)
class ReadingAccepted(Event):
    """A report stands on the ledger."""

    meter: MeterId
    site: SiteId
    channel: Channel
    start_ms: int
    interval_s: int
    values_wh: Annotated[tuple[int, ...], Length(INTERVALS_PER_REPORT_MAX, 1)]
    flag: Flag
    quarantined: Indices


def make_report_message(chain_id: str, report: Report) -> bytes:
    """What a meter signs, whatever signature the report bears: bound to the chain, so that it counts on one only."""
    return REPORT_TAG + encode(
        (
            chain_id,
            report.meter,
            report.channel.value,
            report.sequence,
            report.start_ms,
            report.interval_s,
            report.values_wh,
            report.register_start_wh,
            report.register_end_wh,
            report.flag.value,
        )
    )


def sign_report(report: Report, chain_id: str, sign: Callable[[bytes], Signature]) -> Report:
    """The report with its meter's signature in place of the one it bears (``UNSIGNED``, as a rule)."""
    return replace(report, signature=sign(make_report_message(chain_id, report)))


def get_interval_state(channel: Channel, flag: Flag, *, is_quarantined: bool) -> IntervalState:
    """What became of an interval, from what its report says."""
    if is_quarantined:
        return IntervalState.QUARANTINED
    if channel is Channel.CONSUMPTION:
        return IntervalState.RECORDED
    return IntervalState.MINTED if flag is Flag.MEASURED else IntervalState.NOT_MINTED


def find_report_at(state: State, meter: bytes, channel: Channel, instant_ms: int) -> ReportRecord | None:
    """The accepted report of a channel that covers an instant, as corrected, or None."""
    found = REPORTS.find_floor(state, meter, channel, instant_ms)
    if found is None or found[1].end_ms <= instant_ms:
        return None
    return apply_revisions(state, meter, channel, found[1])


def find_report_after(state: State, meter: bytes, channel: Channel, instant_ms: int) -> ReportRecord | None:
    """The first accepted report of a channel that starts after an instant, as corrected, or None."""
    found = REPORTS.find_above(state, meter, channel, instant_ms)
    return None if found is None else apply_revisions(state, meter, channel, found[1])


def apply_revisions(state: State, meter: bytes, channel: Channel, record: ReportRecord) -> ReportRecord:
    """A report with the values that count now. Its registers and its flag stay those that the meter signed."""
    found = REVISIONS.find(state, meter, channel, record.start_ms)
    if found is None:
        return record
    values_wh, quarantined = list(record.values_wh), set(record.quarantined)
    for one in found.intervals:
        values_wh[one.index] = one.wh
        (quarantined.add if one.is_quarantined else quarantined.discard)(one.index)
    return replace(record, values_wh=tuple(values_wh), quarantined=tuple(sorted(quarantined)))


def list_facts(state: State, meter: bytes, channel: Channel, record: ReportRecord) -> Iterator[IntervalFact]:
    """Every interval of a report in order; ``record`` is as corrected."""
    found = REVISIONS.find(state, meter, channel, record.start_ms)
    revisions = {} if found is None else {one.index: one for one in found.intervals}
    quarantined = frozenset(record.quarantined)
    mint = lots.MINTS.find(state, meter, record.start_ms) if channel is Channel.PRODUCTION else None
    for index, wh in enumerate(record.values_wh):
        start_ms = record.start_ms + index * record.interval_s * 1_000
        revision = revisions.get(index)
        flag = record.flag if revision is None else revision.flag
        version = FIRST_VERSION if revision is None else revision.version
        became = get_interval_state(channel, flag, is_quarantined=index in quarantined)
        lot, minted_wh = None, 0
        if became is IntervalState.MINTED and wh:
            if revision is None:
                minted_wh = 0 if mint is None else mint.wh[index]
            else:
                reissued = lots.find_lot(state, LotId(meter, start_ms, version))
                minted_wh = 0 if reissued is None else reissued.wh
            lot = LotId(meter, start_ms, version) if minted_wh else None
            if lot is None:
                became = IntervalState.NOT_MINTED
            elif lots.is_withdrawn(state, lot):
                became, lot, minted_wh = IntervalState.WITHDRAWN, None, 0
        yield IntervalFact(start_ms, wh, flag, version, became, lot, minted_wh)


def get_interval_wh(state: State, meter: bytes, channel: Channel, instant_ms: int) -> int:
    """The Wh of the interval that covers an instant. Raises as ``get_recorded_wh`` does."""
    record = _get_report_at(state, meter, channel, instant_ms)
    return get_value_wh(record, (instant_ms - record.start_ms) // (record.interval_s * 1_000))


def get_recorded_wh(state: State, meter: bytes, channel: Channel, *, from_ms: int, until_ms: int) -> int:
    """The Wh that a channel recorded in [``from_ms``, ``until_ms``), whose ends are ends of intervals.

    Raises ``RuleViolated``: ``interval_not_recorded`` for a gap or an end inside an interval, and
    ``interval_quarantined`` for a value that is not to be relied on.
    """
    total_wh = 0
    instant_ms = from_ms
    while instant_ms < until_ms:
        record = _get_report_at(state, meter, channel, instant_ms)
        length_ms = record.interval_s * 1_000
        first, rest = divmod(instant_ms - record.start_ms, length_ms)
        stop, stop_rest = divmod(min(until_ms, record.end_ms) - record.start_ms, length_ms)
        if rest or stop_rest:
            raise RuleViolated("interval_not_recorded", f"an interval is longer: {instant_ms if rest else until_ms}")
        if record.quarantined:
            total_wh += sum(get_value_wh(record, index) for index in range(first, stop))
        else:
            total_wh += sum(record.values_wh[first:stop])
        instant_ms = record.end_ms
    return total_wh


def get_value_wh(record: ReportRecord, index: int) -> int:
    """One value of a report. Raises ``RuleViolated`` (``interval_quarantined``)."""
    if index in record.quarantined:
        raise RuleViolated("interval_quarantined", record.start_ms + index * record.interval_s * 1_000)
    return record.values_wh[index]


def _get_report_at(state: State, meter: bytes, channel: Channel, instant_ms: int) -> ReportRecord:
    record = find_report_at(state, meter, channel, instant_ms)
    if record is None:
        raise RuleViolated("interval_not_recorded", f"{meter.hex()} {channel} at {instant_ms}")
    return record


@transaction("reading.submit", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class SubmitReadings(Payload):
    """Put reports of meters on the ledger, and mint what they produced. Who relays them does not matter."""

    reports: Annotated[tuple[Report, ...], Length(REPORTS_PER_TRANSACTION_MAX, 1)]

    def apply(self, state: State, tx: TxContext) -> None:
        limits = get_parameters(state)
        for report in self.reports:
            _accept(state, tx, report, limits)


def _accept(state: State, tx: TxContext, report: Report, limits: Parameters) -> None:
    meter = get_meter(state, report.meter)
    spec = find_channel(meter, report.channel)
    if spec is None:
        raise RuleViolated("meter_channel_unknown", report)
    _check_time(report, meter, spec, latest_ms=tx.time_ms + limits.reading_skew_s * 1_000)
    key = get_key(state, report.meter, meter, start_ms=report.start_ms, end_ms=report.end_ms)
    if not _is_signed(report, key, tx.block.chain_id):
        raise RuleViolated("reading_signature_invalid", report)
    if report.register_end_wh - report.register_start_wh != sum(report.values_wh):
        raise RuleViolated("registers_do_not_add_up", report)
    channel = CHANNELS.find(state, report.meter, report.channel)
    if channel is not None:
        if report.sequence <= channel.sequence:
            raise RuleViolated("sequence_not_rising", f"{report}: {report.sequence} after {channel.sequence}")
        _check_neighbours(state, report, channel)
    _record(state, tx, report, meter.site, channel, most_wh=compute_most_wh(spec, limits))


def _check_time(report: Report, meter: Meter, spec: ChannelSpec, *, latest_ms: int) -> None:
    if report.interval_s != spec.interval_s:
        raise RuleViolated("interval_length_wrong", f"{report}: {report.interval_s} s, not {spec.interval_s} s")
    if report.start_ms % (report.interval_s * 1_000):
        raise RuleViolated("interval_not_aligned", report)
    if report.start_ms < meter.commissioned_ms:
        raise RuleViolated("reading_before_commissioning", report)
    if report.end_ms > latest_ms:
        raise RuleViolated("reading_in_the_future", f"{report} until {report.end_ms}")


def _check_neighbours(state: State, report: Report, channel: ChannelRecord) -> None:
    """No interval is reported twice, and the registers go on from report to report."""
    if report.start_ms >= channel.end_ms:  # goes on after all others, as nearly every report does
        _check_registers(
            report,
            channel.register_wh,
            report.register_start_wh,
            is_adjacent=report.start_ms == channel.end_ms,
        )
        return
    before = REPORTS.find_floor(state, report.meter, report.channel, report.start_ms)
    after = REPORTS.find_above(state, report.meter, report.channel, report.start_ms)
    if before is not None:
        if before[1].end_ms > report.start_ms:
            raise RuleViolated("interval_already_reported", report)
        is_adjacent = before[1].end_ms == report.start_ms
        _check_registers(report, before[1].register_end_wh, report.register_start_wh, is_adjacent=is_adjacent)
    if after is not None:
        if after[1].start_ms < report.end_ms:
            raise RuleViolated("interval_already_reported", report)
        is_adjacent = after[1].start_ms == report.end_ms
        _check_registers(report, report.register_end_wh, after[1].register_start_wh, is_adjacent=is_adjacent)


def _check_registers(report: Report, earlier_wh: int, later_wh: int, *, is_adjacent: bool) -> None:
    if later_wh < earlier_wh or (is_adjacent and later_wh != earlier_wh):
        raise RuleViolated("registers_not_continuous", f"{report}: {earlier_wh} then {later_wh} Wh")


def compute_most_wh(spec: ChannelSpec, limits: Parameters) -> int:
    """What one interval can hold at most: capacity × length × margin."""
    return spec.capacity_w * spec.interval_s * limits.reading_margin_percent // (3_600 * 100)


def _record(
    state: State, tx: TxContext, report: Report, site_id: bytes, channel: ChannelRecord | None, *, most_wh: int
) -> None:
    values_wh = report.values_wh
    quarantined: tuple[int, ...] = ()
    if max(values_wh) > most_wh:
        quarantined = tuple([index for index, value_wh in enumerate(values_wh) if value_wh > most_wh])
    record = ReportRecord(
        report.start_ms,
        report.interval_s,
        values_wh,
        report.register_start_wh,
        report.register_end_wh,
        report.flag,
        report.sequence,
        quarantined,
        tx.tx_id,
    )
    REPORTS.put(state, report.meter, report.channel, report.start_ms, value=record)
    if channel is None or report.end_ms > channel.end_ms:
        after = ChannelRecord(report.sequence, report.end_ms, report.register_end_wh)
    else:
        after = ChannelRecord(report.sequence, channel.end_ms, channel.register_wh)
    CHANNELS.put(state, report.meter, report.channel, value=after)
    state.emit(
        ReadingAccepted(
            report.meter,
            site_id,
            report.channel,
            report.start_ms,
            report.interval_s,
            values_wh,
            report.flag,
            quarantined,
        )
    )
    if report.channel is Channel.PRODUCTION:
        site = get_site_throughout(state, site_id, start_ms=report.start_ms, end_ms=report.end_ms)
        if report.flag is Flag.MEASURED:
            _mint(state, report, site_id, site, quarantined)


def _mint(state: State, report: Report, site_id: bytes, site: Site, quarantined: tuple[int, ...]) -> None:
    wh = report.values_wh
    if quarantined:
        refused = frozenset(quarantined)
        wh = tuple([0 if index in refused else value_wh for index, value_wh in enumerate(wh)])
    if site.technology is Technology.STORAGE:
        wh = _cover(state, report, wh)
    lots.mint(state, report.meter, site_id, site, start_ms=report.start_ms, interval_s=report.interval_s, wh=wh)


def _cover(state: State, report: Report, wh: tuple[int, ...]) -> tuple[int, ...]:
    """Of what a storage gave back, that which charges stand behind."""
    meter, start_ms, interval_s = report.meter, report.start_ms, report.interval_s
    covered = batteries.cover(state, meter, start_ms=start_ms, interval_s=interval_s, wh=wh, version=FIRST_VERSION)
    uncovered = tuple([whole - part for whole, part in zip(wh, covered, strict=True)])
    if any(uncovered):
        state.emit(batteries.DischargeUncovered(meter, start_ms, interval_s, uncovered))
    return covered


# A report is checked at the door and again in the block. Digests only: messages of a month are 9 kB each.
remembered_signatures: Final = Remembered(SIGNATURES_REMEMBERED_MAX)


def _is_signed(report: Report, key: MeterKey, chain_id: str) -> bool:
    message = make_report_message(chain_id, report)
    digest = sha256(len(key).to_bytes(1, "big") + key + report.signature + message)
    if digest in remembered_signatures:
        return True
    if not is_valid_meter_signature(key, message, report.signature):
        return False
    remembered_signatures.add(digest)
    return True
