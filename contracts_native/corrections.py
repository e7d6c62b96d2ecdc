"""Corrections: what the measurement body takes back, and what follows from it.

Owns ``reading.correct`` and ``energy.withdraw``. Nothing is edited: a correction is a new version of an interval, its
lot is withdrawn and another issued that names it, and claims that counted on what is gone are impaired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from contracts_native import batteries, lots, offers
from contracts_native.claims import CLAIMS, Claim, ClaimKind, get_claim, get_lost_wh, impair
from contracts_native.lots import FIRST_VERSION, LotId, Reason, Reissue, Withdrawal
from contracts_native.matching import CLAIM_ID_BYTES, CLAIMS_ON, Part, free, get_claimed_wh, list_parts
from contracts_native.meters import Channel, ChannelSpec, Meter, MeterId, find_channel, get_meter
from contracts_native.participants import Role
from contracts_native.readings import (
    CORRECTIONS,
    INTERVAL_WH_MAX,
    REVISIONS,
    Correction,
    Flag,
    IntervalState,
    ReportRecord,
    Revision,
    Revisions,
    compute_most_wh,
    find_report_at,
    get_interval_state,
)
from contracts_native.sites import InstantMs, Site, SiteId, Technology, get_site, get_site_throughout
from contracts_native.slices import SliceStatus
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Bounds, Length
from ledger.parameters import get_parameters
from ledger.primitives import format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.transaction import Payload, TxContext, transaction

CORRECTED_INTERVALS_MAX: Final = 500  # about five days of quarter-hours; each may impair many claims
WITHDRAWN_LOTS_MAX: Final = 500

CorrectedWh = Annotated[tuple[Annotated[int, Bounds(0, INTERVAL_WH_MAX)], ...], Length(CORRECTED_INTERVALS_MAX, 1)]


@event("reading.corrected")
@dataclass(frozen=True, slots=True)
class ReadingCorrected(Event):
    """An interval counts as another value from now on. What it minted before was withdrawn, as events beside it say."""

    meter: MeterId
    site: SiteId
    channel: Channel
    start_ms: int
    interval_s: int
    version: int
    before_wh: int
    was_quarantined: bool
    wh: int
    flag: Flag
    is_quarantined: bool
    reason: Reason


@event("energy.reissued")
@dataclass(frozen=True, slots=True)
class EnergyReissued(Event):
    """A corrected interval minted a lot; ``predecessor`` is the withdrawn lot that it stands for, if there was one."""

    lot: LotId
    wh: int
    predecessor: LotId | None


@transaction("energy.withdraw", roles=(Role.MEASUREMENT_BODY,))
@dataclass(frozen=True, slots=True)
class WithdrawEnergy(Payload):
    """Withdraw lots that were issued in error. What was used of them stays used, and its claims are impaired."""

    lots: Annotated[tuple[LotId, ...], Length(WITHDRAWN_LOTS_MAX, 1)]
    reason: Reason

    def apply(self, state: State, tx: TxContext) -> None:
        for lot_id in self.lots:
            _check_independent(get_site(state, lots.get_lot(state, lot_id).site), tx)
            _withdraw(state, lot_id, Withdrawal(self.reason, tx.sender, tx.time_ms), tag="energy.withdraw")


@transaction("reading.correct", roles=(Role.MEASUREMENT_BODY,))
@dataclass(frozen=True, slots=True)
class CorrectReading(Payload):
    """Say what consecutive intervals of a channel really were. An interval that stays the same is left alone.

    Registers are not part of it: they stay what the meter showed, which is what was wrong.
    """

    meter: MeterId
    channel: Channel
    start_ms: InstantMs
    values_wh: CorrectedWh
    flag: Flag
    reason: Reason

    def apply(self, state: State, tx: TxContext) -> None:
        meter = get_meter(state, self.meter)
        spec = find_channel(meter, self.channel)
        if spec is None:
            raise RuleViolated("meter_channel_unknown", f"{self.meter.hex()} {self.channel}")
        _check_independent(get_site(state, meter.site), tx)
        most_wh = compute_most_wh(spec, get_parameters(state))
        changed = position = 0
        instant_ms = self.start_ms
        while position < len(self.values_wh):
            record = find_report_at(state, self.meter, self.channel, instant_ms)
            if record is None or (instant_ms - record.start_ms) % (record.interval_s * 1_000):
                raise RuleViolated("interval_not_recorded", f"{self.meter.hex()} {self.channel} at {instant_ms}")
            index = (instant_ms - record.start_ms) // (record.interval_s * 1_000)
            values_wh = self.values_wh[position : position + len(record.values_wh) - index]
            changed += _ReportCorrection(state, tx, self, meter, spec, record, most_wh).correct(index, values_wh)
            position += len(values_wh)
            instant_ms = record.end_ms
        if not changed:
            raise RuleViolated("correction_changes_nothing", f"{self.meter.hex()} {self.channel} at {self.start_ms}")


@dataclass(frozen=True, slots=True)
class _ReportCorrection:
    """The correction of one report; ``record`` as it counted before."""

    state: State
    tx: TxContext
    payload: CorrectReading
    meter: Meter
    spec: ChannelSpec
    record: ReportRecord
    most_wh: int

    def correct(self, first: int, values_wh: Sequence[int]) -> int:
        """Give new versions to the intervals from ``first`` on; how many differ from what counted before."""
        payload, record = self.payload, self.record
        found = REVISIONS.find(self.state, payload.meter, payload.channel, record.start_ms)
        revisions = {} if found is None else {one.index: one for one in found.intervals}
        changed: list[Revision] = []
        for index, wh in enumerate(values_wh, first):
            before = revisions.get(index)
            flag = record.flag if before is None else before.flag
            if (wh, payload.flag) == (record.values_wh[index], flag):
                continue
            version = FIRST_VERSION + 1 if before is None else before.version + 1
            changed.append(Revision(index, version, wh, payload.flag, wh > self.most_wh))
        revisions.update({one.index: one for one in changed})
        if changed:
            in_order = tuple(revisions[index] for index in sorted(revisions))
            REVISIONS.put(self.state, payload.meter, payload.channel, record.start_ms, value=Revisions(in_order))
        for revision in changed:
            self._follow(revision)
        return len(changed)

    def _follow(self, revision: Revision) -> None:
        payload, record, tx = self.payload, self.record, self.tx
        start_ms = record.start_ms + revision.index * record.interval_s * 1_000
        correction = Correction(
            revision.wh,
            revision.flag,
            revision.is_quarantined,
            payload.reason,
            tx.sender,
            tx.time_ms,
            tx.tx_id,
        )
        CORRECTIONS.put(self.state, payload.meter, payload.channel, start_ms, revision.version, value=correction)
        self.state.emit(
            ReadingCorrected(
                payload.meter,
                self.meter.site,
                payload.channel,
                start_ms,
                record.interval_s,
                revision.version,
                record.values_wh[revision.index],
                revision.index in record.quarantined,
                revision.wh,
                revision.flag,
                revision.is_quarantined,
                payload.reason,
            )
        )
        if payload.channel is Channel.PRODUCTION:
            self._reissue(revision, start_ms)
        else:
            room_wh = 0 if revision.is_quarantined else revision.wh
            _fit_claims(self.state, payload.meter, record, revision.index, room_wh, reason=payload.reason)

    def _reissue(self, revision: Revision, start_ms: int) -> None:
        payload, state = self.payload, self.state
        before = lots.find_latest_lot(state, payload.meter, start_ms)
        if before is not None and not lots.is_withdrawn(state, before.lot):
            withdrawal = Withdrawal(payload.reason, self.tx.sender, self.tx.time_ms)
            _withdraw(state, before.lot, withdrawal, tag="reading.correct")
        became = get_interval_state(payload.channel, revision.flag, is_quarantined=revision.is_quarantined)
        if became is not IntervalState.MINTED or not revision.wh:
            return
        length_s = self.record.interval_s
        end_ms = start_ms + length_s * 1_000
        site = get_site_throughout(state, self.meter.site, start_ms=start_ms, end_ms=end_ms)
        wh = revision.wh
        if site.technology is Technology.STORAGE:
            (wh,) = batteries.cover(
                state,
                payload.meter,
                start_ms=start_ms,
                interval_s=length_s,
                wh=(wh,),
                version=revision.version,
            )
        if not wh:
            return
        lot = LotId(payload.meter, start_ms, revision.version)
        # The lot goes to whom its predecessor went, also if the shares have changed since.
        shares = site.shares if before is None else before.shares
        predecessor = 0 if before is None else before.lot.version
        lots.reissue(
            state,
            lot,
            Reissue(self.meter.site, site.technology, site.zone, length_s, wh, shares, predecessor),
        )
        state.emit(EnergyReissued(lot, wh, None if before is None else before.lot))


def _check_independent(site: Site, tx: TxContext) -> None:
    """Nobody corrects what they themselves gain by. Raises ``NotPermitted``."""
    if tx.sender == site.owner or tx.sender in dict(site.shares):
        raise NotPermitted("correction_of_own_site", format_address(tx.sender))


def _withdraw(state: State, lot_id: LotId, withdrawal: Withdrawal, *, tag: str) -> None:
    """Withdraw a lot, end what was offered of it, and impair the claims that count on it."""
    before = lots.withdraw(state, lot_id, withdrawal, tag=tag)
    batteries.give_back(state, lot_id)
    used = [one.reference for one in before if one.status in (SliceStatus.CLAIMED, SliceStatus.CHARGED)]
    offered = [one.reference for one in before if one.status is SliceStatus.RESERVED]
    for offer_id in dict.fromkeys(offered):
        offers.drop_lot(state, offer_id, lot_id, tag=tag)
    for claim_id in dict.fromkeys(used):
        _impair_by_lot(state, claim_id, lot_id, reason=withdrawal.reason, tag=tag)


def _impair_by_lot(state: State, claim_id: bytes, lot_id: LotId, *, reason: str, tag: str) -> None:
    """A claim loses what it has of a lot."""
    claim = get_claim(state, claim_id)
    lost_wh = get_lost_wh(state, claim_id, claim)
    losses = {
        position: ref.wh - lost
        for position, (ref, lost) in enumerate(zip(claim.slices, lost_wh, strict=True))
        if ref.lot == lot_id and ref.wh > lost
    }
    if not losses:
        return
    parts: list[Part] = []
    if claim.consumption_meter is not None:
        every = list_parts(state, claim_id, claim.consumption_meter, claim.slices, lost_wh)
        parts = [part for part in every if part.position in losses]
    _lose(state, claim_id, claim, parts, losses, reason=reason, tag=tag)


def _fit_claims(state: State, meter_id: bytes, record: ReportRecord, index: int, room_wh: int, *, reason: str) -> None:
    """Impair the claims, the latest first, that a consumption interval has no room for any more."""
    excess_wh = get_claimed_wh(state, meter_id, record)[index] - room_wh
    if excess_wh <= 0:
        return
    start_ms = record.start_ms + index * record.interval_s * 1_000
    ids = [key[-CLAIM_ID_BYTES:] for key, _ in CLAIMS_ON.scan(state, meter_id, record.start_ms)]
    for claim_id in sorted(ids, key=lambda one: (CLAIMS.get(state, one).claimed_ms, one), reverse=True):
        claim = get_claim(state, claim_id)
        lost_wh = get_lost_wh(state, claim_id, claim)
        losses: Counter[int] = Counter()
        parts: list[Part] = []
        for part in reversed(list_parts(state, claim_id, meter_id, claim.slices, lost_wh)):
            wh = min(part.wh, excess_wh) if part.start_ms == start_ms else 0
            if wh:
                parts.append(Part(part.position, part.start_ms, wh))
                losses[part.position] += wh
                excess_wh -= wh
        if losses:
            _lose(state, claim_id, claim, parts, losses, reason=reason, tag="reading.correct")
        if not excess_wh:
            return
    raise AssertionError(f"{excess_wh} Wh of {meter_id.hex()} at {start_ms} are claimed by nobody")


def _lose(
    state: State,
    claim_id: bytes,
    claim: Claim,
    parts: Sequence[Part],
    losses: dict[int, int],
    *,
    reason: str,
    tag: str,
) -> None:
    """Free the consumption that these parts of a claim count against, and impair the claim by its losses."""
    meter_id = claim.consumption_meter
    if meter_id is not None:
        free(state, claim_id, meter_id, parts)
        if claim.kind is ClaimKind.CHARGE:
            spec = find_channel(get_meter(state, meter_id), Channel.CONSUMPTION)
            assert spec is not None, "what was charged was metered"
            for part in parts:
                end_ms = part.start_ms + spec.interval_s * 1_000
                batteries.lose(state, meter_id, claim_id, end_ms=end_ms, wh=part.wh)
    impair(state, claim_id, losses, tag=tag, reason=reason)
