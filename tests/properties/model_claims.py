"""The model's claims: what consumption each watt-hour is set against, and what a correction takes back.

Also charges of batteries, which are claims against what the battery took in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contracts_native.lots import LotId, SliceRef
from tests.properties.model import Reasons, gather
from tests.properties.model_energy import Claim, Energy, Interval, Lot, Offer, Part, Stored, Unit
from tests.properties.model_places import Meter


@dataclass(eq=False)
class Claims(Energy):
    """Uses, charges, corrections and withdrawals."""

    def _match(
        self, refs: Sequence[SliceRef], meter: Meter, beneficiary: bytes, *, is_charge: bool
    ) -> tuple[Reasons, list[Part]]:
        """Set each watt-hour against the first consumption that has room for it."""
        reasons = gather(
            (meter.site.owner != beneficiary, "consumption_meter_not_of_beneficiary"),
            ("consumption" not in meter.channels, "meter_channel_unknown"),
        )
        parts: list[Part] = []
        if reasons:
            return reasons, parts
        more: Counter[int] = Counter()
        for ref in refs:
            lot = self.lots.get(ref.lot)
            if lot is None:
                continue
            zone = meter.site.at(lot.start_ms).zone
            if lot.zone != zone and (is_charge or (lot.zone, zone) not in self.zone_pairs):
                reasons.add("zone_pair_not_allowed")
            fit, starts_ms, is_by_period = self._list_fitting(lot, meter, is_charge=is_charge)
            reasons |= fit
            against: list[int | None] = []
            for start_ms in starts_ms:
                room_wh = self.intervals[meter.id, "consumption", start_ms].wh
                room_wh -= self.taken[meter.id, start_ms] + more[start_ms]
                used_wh = max(0, min(room_wh, ref.wh - len(against)))
                against += [start_ms] * used_wh
                more[start_ms] += used_wh
            reasons |= gather((len(against) < ref.wh and not fit, "consumption_exceeded"))
            parts.append(Part(ref, against, is_by_period))
        return reasons, parts

    def _list_fitting(self, lot: Lot, meter: Meter, *, is_charge: bool) -> tuple[Reasons, list[int], bool]:
        """The consumption intervals that a lot may be set against, and whether by the matching period."""
        length_ms = meter.channels["consumption"][1] * 1_000
        if lot.end_ms - lot.start_ms <= length_ms:
            start_ms = lot.start_ms - lot.start_ms % length_ms
            found = self.intervals.get((meter.id, "consumption", start_ms))
            if found is None:
                return {"consumption_not_recorded"}, [], False
            return gather((found.is_quarantined, "consumption_quarantined")), [start_ms], False
        if is_charge:
            return {"charge_not_recorded"}, [], True
        first_ms = lot.start_ms - lot.start_ms % self.period_ms
        end_ms = first_ms + self.period_ms
        starts_ms = [start_ms for start_ms in range(first_ms, end_ms, length_ms) if self._counts(meter, start_ms)]
        if lot.end_ms > end_ms:
            starts_ms = []
        return gather((not starts_ms, "consumption_not_recorded")), starts_ms, True

    def _counts(self, meter: Meter, start_ms: int) -> bool:
        found = self.intervals.get((meter.id, "consumption", start_ms))
        return found is not None and not found.is_quarantined

    def claim(
        self,
        sender: bytes,
        refs: Sequence[SliceRef],
        *,
        beneficiary: bytes,
        period: tuple[int, int],
        statement: str,
        meter: Meter | None,
        replaces: Claim | None,
    ) -> Reasons:
        reasons = self.may_sign("energy.claim", sender) | self.may_be_given(beneficiary)
        reasons |= self.judge_units(refs, sender, twice="slice_already_claimed")
        reasons |= gather(
            (period[0] >= period[1], "claim_period_empty"),
            ((beneficiary, statement) in self.statements, "statement_already_used"),
        )
        for ref in refs:
            lot = self.lots.get(ref.lot)
            is_outside = lot is not None and (lot.start_ms < period[0] or lot.end_ms > period[1])
            reasons |= gather((is_outside, "claim_outside_period"))
        parts = [Part(ref, [None] * ref.wh) for ref in refs]
        if meter is not None:
            unmatched, parts = self._match(refs, meter, beneficiary, is_charge=False)
            reasons |= unmatched
        wh = sum(ref.wh for ref in refs)
        if replaces is not None:
            reasons |= self._judge_open(replaces, sender, "charge_cannot_be_replaced") | gather(
                (replaces.beneficiary != beneficiary, "replacement_for_another_beneficiary"),
                (
                    period[0] < replaces.period[0] or period[1] > replaces.period[1],
                    "replacement_outside_period",
                ),
                (wh > replaces.lost_wh - replaces.replaced_wh, "replacement_too_large"),
            )
        if not reasons:
            claim = Claim(sender, beneficiary, statement, period, parts, meter, self.now_ms, is_charge=False)
            self._use(claim, refs, "claimed")
            if replaces is not None:
                replaces.replaced_wh += wh
                replaces.status = "replaced"
        return reasons

    def _use(self, claim: Claim, refs: Sequence[SliceRef], status: str) -> None:
        self.claims.append(claim)
        self.statements.add((claim.beneficiary, claim.statement))
        for unit in self.list_units(refs):
            unit.status, unit.by = status, claim
        for part in claim.parts:
            for start_ms in part.against:
                if claim.meter is not None and start_ms is not None:
                    self.taken[claim.meter.id, start_ms] += 1

    def _judge_open(self, claim: Claim, sender: bytes, charge_reason: str) -> Reasons:
        return gather(
            (claim.claimant != sender, "claim_of_another_claimant"),
            (claim.status != "impaired", "claim_not_open_to_this"),
            (claim.is_charge, charge_reason),
        )

    def void_claim(self, sender: bytes, claim: Claim) -> Reasons:
        reasons = self.may_sign("energy.void_claim", sender)
        reasons |= self._judge_open(claim, sender, "charge_cannot_be_void")
        if not reasons:
            for part in claim.parts:
                self._lose(claim, part, len(part.against))
            claim.status = "void"
        return reasons

    def charge(self, sender: bytes, meter: Meter, refs: Sequence[SliceRef], statement: str) -> Reasons:
        reasons = self.may_sign("storage.charge", sender)
        reasons |= self.judge_units(refs, sender, twice="slice_already_charged")
        reasons |= gather(
            (meter.site.technology != "storage", "meter_of_no_storage"),
            (meter.site.owner != sender, "storage_of_another_operator"),
            ((sender, statement) in self.statements, "statement_already_used"),
        )
        unmatched, parts = self._match(refs, meter, sender, is_charge=True)
        reasons |= unmatched
        if not reasons:
            period = (min(ref.lot.start_ms for ref in refs), max(self.lots[ref.lot].end_ms for ref in refs))
            claim = Claim(sender, sender, statement, period, parts, meter, self.now_ms, is_charge=True)
            self._use(claim, refs, "charged")
            went_in = Counter(start_ms for part in parts for start_ms in part.against if start_ms is not None)
            length_ms = meter.channels["consumption"][1] * 1_000
            for start_ms, wh in went_in.items():
                efficiency = meter.site.at(start_ms).efficiency
                self.stored.setdefault(meter.id, []).append(Stored(claim, start_ms + length_ms, wh, efficiency))
        return reasons

    def withdraw(self, sender: bytes, lot_ids: Sequence[LotId]) -> Reasons:
        reasons = self.may_sign("energy.withdraw", sender)
        for place, lot_id in enumerate(lot_ids):
            lot = self.lots.get(lot_id)
            if lot is None:
                reasons.add("lot_unknown")
                continue
            reasons |= self._judge_own(lot.meter, sender)
            reasons |= gather((lot.is_withdrawn or lot_id in lot_ids[:place], "lot_already_withdrawn"))
        if not reasons:
            for lot_id in lot_ids:
                self._withdraw(self.lots[lot_id])
        return reasons

    def _judge_own(self, meter: Meter, sender: bytes) -> Reasons:
        gains = {meter.site.owner, *(holder for holder, _ in meter.site.shares)}
        return gather((sender in gains, "correction_of_own_site"))

    def _withdraw(self, lot: Lot) -> None:
        lot.is_withdrawn = True
        for stored, wh in lot.sources:
            stored.given_back_wh -= wh
        named = [unit.by for unit in lot.units]
        lot.units = [
            Unit(unit.holder, "withdrawn") if unit.status in ("active", "reserved") else unit for unit in lot.units
        ]
        for one in dict.fromkeys(named):
            if isinstance(one, Offer):
                one.units = [pair for pair in one.units if pair[0] is not lot]
                if not one.units or one.total is not None:
                    self._end_offer(one)
            elif isinstance(one, Claim):
                self._impair(one, lambda part: len(part.against) if part.ref.lot == lot.id else 0)

    def _impair(self, claim: Claim, compute_loss: Callable[[Part], int]) -> None:
        losses = [(part, wh) for part in claim.parts if (wh := compute_loss(part))]
        for part, wh in losses:
            self._lose(claim, part, wh)
        if losses:
            claim.status = "impaired"

    def _lose(self, claim: Claim, part: Part, wh: int, start_ms: int | None = None) -> None:
        """Take watt-hours off a part, the last ones; with ``start_ms`` only such as are set against that interval."""
        for _ in range(wh):
            place = max(at for at, one in enumerate(part.against) if start_ms is None or one == start_ms)
            gone = part.against.pop(place)
            if claim.meter is not None and gone is not None:
                self.taken[claim.meter.id, gone] -= 1
                for stored in self.stored.get(claim.meter.id, []):
                    length_ms = claim.meter.channels["consumption"][1] * 1_000
                    if stored.charge is claim and stored.end_ms == gone + length_ms:
                        stored.lost_wh += 1

    def correct(
        self, sender: bytes, meter: Meter, channel: str, start_ms: int, *, values_wh: Sequence[int], flag: str
    ) -> Reasons:
        reasons = self.may_sign("reading.correct", sender) | self._judge_own(meter, sender)
        if channel not in meter.channels:
            return reasons | {"meter_channel_unknown"}
        length_ms = meter.channels[channel][1] * 1_000
        found = [self.intervals.get((meter.id, channel, start_ms + i * length_ms)) for i in range(len(values_wh))]
        reasons |= gather(
            (None in found, "interval_not_recorded"),
            (
                all(
                    one is not None and (one.wh, one.flag) == (wh, flag)
                    for one, wh in zip(found, values_wh, strict=True)
                ),
                "correction_changes_nothing",
            ),
        )
        if not reasons:
            for place, wh in enumerate(values_wh):
                interval = found[place]
                if interval is not None and (interval.wh, interval.flag) != (wh, flag):
                    interval.wh, interval.flag = wh, flag
                    interval.version += 1
                    interval.is_quarantined = wh > self.most_wh(meter, channel)
                    self._follow(meter, channel, start_ms + place * length_ms, interval)
        return reasons

    def _follow(self, meter: Meter, channel: str, start_ms: int, interval: Interval) -> None:
        if channel == "consumption":
            self._fit_claims(meter, start_ms, 0 if interval.is_quarantined else interval.wh)
            return
        before = [lot for lot in self.lots.values() if (lot.id.meter, lot.start_ms) == (meter.id, start_ms)]
        shares, predecessor = meter.site.shares, 0
        if before:
            latest = max(before, key=lambda lot: lot.id.version)
            shares, predecessor = latest.shares, latest.id.version
            if not latest.is_withdrawn:
                self._withdraw(latest)
        self._mint(meter, start_ms, interval, shares=shares, predecessor=predecessor)

    def _fit_claims(self, meter: Meter, start_ms: int, room_wh: int) -> None:
        """The latest claims go first, and of each its last watt-hours; those matched by the hour after the others."""
        concerned = [claim for claim in self.claims if claim.meter is meter]
        for claim in sorted(concerned, key=lambda one: one.claimed_ms, reverse=True):
            late_first = claim.parts[::-1]
            late_first.sort(key=lambda one: one.is_by_period)
            for part in late_first:
                excess_wh = self.taken[meter.id, start_ms] - room_wh
                wh = min(max(0, excess_wh), part.against.count(start_ms))
                if wh:
                    self._lose(claim, part, wh, start_ms)
                    claim.status = "impaired"
