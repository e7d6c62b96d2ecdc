"""Rules of energy: reports, trade, claims, batteries, and what the measurement body takes back."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from contracts_native.claims import ClaimEnergy, VoidClaim
from contracts_native.corrections import CorrectReading, WithdrawEnergy
from contracts_native.lots import LotId, SliceRef, TransferEnergy
from contracts_native.meters import Channel
from contracts_native.offers import AcceptOffer, CancelOffer, OpenOffer
from contracts_native.readings import Flag, Report, SubmitReadings, make_report_message
from contracts_native.storage import ChargeStorage
from ledger.primitives import Address, MeterKey, Signature
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    CHAIN_ID,
    DAY_0_MS,
    DAY_MS,
    HOUR_MS,
    MEASURER,
    sign_as_meter,
)
from tests.properties.machine import LUCK, WRONG, Ground, Luck, N, pick
from tests.properties.model_energy import Claim, Told
from tests.properties.model_places import Meter

FIRST_REGISTER_WH: Final = 5_000
GAP_REGISTER_WH: Final = 20  # what a register moves on while nothing is reported
WH: Final = (8, 3, 0, 20, 13, 22, 5, 23)  # 22 is the most of a quarter-hour
TRADERS: Final = (ALICE, BOB, CAROL)


class ReadingRules(Ground):
    """Meters report, in order or not."""

    @rule(which=N, luck=LUCK)
    def readings(self, which: int, luck: Luck) -> None:
        rules = [self.report, self.report, self.correct]
        if self.model.lots:
            rules.append(self.withdraw)
        pick(rules, which)(luck)

    def report(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        values, more, gap = make_values(cut), make_values(cut + n), pick((0, 0, 0, 0, 1, 2), n // 4)
        channels = [(meter, Channel(one)) for meter in self.model.meters for one in meter.channels]
        first = pick(channels, n)
        reports = [self.make_report(*first, values, gap=gap, n=n, odd=odd)]
        if n % 5 == 0 and pick(channels, n + 1) != first:
            reports.append(self.make_report(*pick(channels, n + 1), more, gap=0, n=n, odd=0))
        by = self.someone(n)
        reasons = self.model.submit(by, reports)
        self.expect(SubmitReadings(tuple(report for report, _ in reports)), reasons, by=by)

    @initialize(values=st.lists(st.integers(0, 22), min_size=8, max_size=8))
    def report_two_hours(self, values: list[int]) -> None:
        """So that there is something to trade, and something to use it for."""
        self.settle()
        reports = []
        for meter in self.model.meters:
            channel = Channel.CONSUMPTION if "consumption" in meter.channels else Channel.PRODUCTION
            count = 2 * HOUR_MS // (meter.channels[channel][1] * 1_000)
            reports.append(self.make_report(meter, channel, values[:count], gap=0, n=0, odd=0))
        reasons = self.model.submit(BOB.address, reports)
        self.expect(SubmitReadings(tuple(report for report, _ in reports)), reasons, by=BOB.address)

    def make_report(
        self, meter: Meter, channel: Channel, values: list[int], *, gap: int, n: int, odd: int
    ) -> tuple[Report, bytes]:
        """A report with the key that signed it. Odd ones fill a gap, or have something wrong about them."""
        length_s = meter.channels[channel][1]
        told = sorted(self.model.told.get((meter.id, channel.value), []), key=lambda one: one.start_ms)
        start_ms, register_wh = DAY_0_MS, FIRST_REGISTER_WH
        if told:
            start_ms, register_wh = told[-1].end_ms, told[-1].register_end_wh
        start_ms += gap * length_s * 1_000
        register_wh += gap * GAP_REGISTER_WH
        if odd == 8:
            start_ms, register_wh, values = self.find_gap(told, length_s) or (start_ms, register_wh, values)
        report = Report(
            meter=meter.id,
            channel=channel,
            sequence=self.model.sequences.get((meter.id, channel.value), 0) + 1,
            start_ms=start_ms,
            interval_s=length_s,
            values_wh=tuple(values),
            register_start_wh=register_wh,
            register_end_wh=register_wh + sum(values),
            flag=pick((Flag.MEASURED, Flag.MEASURED, Flag.MEASURED, Flag.ESTIMATED, Flag.SUBSTITUTED), n // 3),
            signature=Signature(bytes(64)),
        )
        if odd >= WRONG:
            report = self.spoil_report(report, odd + n)
        key = meter.key_at(max(report.start_ms, meter.commissioned_ms)) if odd != 12 else pick([*self.meter_seeds], n)
        return self.sign_report(report, key), key

    def find_gap(self, told: list[Told], length_s: int) -> tuple[int, int, list[int]] | None:
        """The start of the first gap, the register there, and values that fill it or a part of it."""
        for before, after in pairwise(told):
            if before.end_ms < after.start_ms:
                count = (after.start_ms - before.end_ms) // (length_s * 1_000)
                wh = (after.register_start_wh - before.register_end_wh) // count
                return before.end_ms, before.register_end_wh, [wh] * count
        return None

    def spoil_report(self, report: Report, how: int) -> Report:
        length_ms = report.interval_s * 1_000
        start_wh, end_wh = report.register_start_wh, report.register_end_wh
        spoiled = (
            replace(report, start_ms=max(0, report.start_ms - length_ms)),
            replace(report, start_ms=report.start_ms + 60_000),
            replace(report, start_ms=report.start_ms + DAY_MS),
            replace(report, start_ms=DAY_0_MS - length_ms),
            replace(report, sequence=report.sequence - 1),
            replace(report, interval_s=1_800),
            replace(report, register_start_wh=start_wh + 1, register_end_wh=end_wh + 1),
            replace(report, register_end_wh=end_wh + 1),
        )
        return pick(spoiled, how)

    def sign_report(self, report: Report, key: bytes) -> Report:
        message = make_report_message(CHAIN_ID, report)
        return replace(report, signature=sign_as_meter(self.meter_seeds[MeterKey(key)], "ed25519", message))

    def correct(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        values = make_values(cut)[:3]
        meter_id, name, start_ms = pick(self.list_used() if odd < 6 else list(self.model.intervals), n)
        meter = next(one for one in self.model.meters if one.id == meter_id)
        if odd == 12:
            start_ms += 60_000
        by = self.rightly(MEASURER.address, odd, n)
        flag = pick((Flag.MEASURED, Flag.MEASURED, Flag.SUBSTITUTED), n // 2)
        payload = CorrectReading(meter_id, Channel(name), start_ms, tuple(values), flag, "wrong ratio")
        reasons = self.model.correct(by, meter, name, start_ms, values_wh=values, flag=flag.value)
        self.expect(payload, reasons, by=by)

    def list_used(self) -> list[tuple[bytes, str, int]]:
        """Intervals that claims stand on, or all if there are none."""
        produced = [(lot.meter, lot.start_ms) for lot in self.list_claimed()]
        used = [(meter, "production", start_ms) for meter, start_ms in produced]
        used += [(meter, "consumption", start_ms) for meter, start_ms in +self.model.taken]
        return used or list(self.model.intervals)

    def list_claimed(self) -> list[LotId]:
        """Lots of which a part is claimed, still in force."""
        return [
            lot.id
            for lot in self.model.lots.values()
            if not lot.is_withdrawn and any(unit.status == "claimed" for unit in lot.units)
        ]

    def withdraw(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        claimed = self.list_claimed()
        chosen = [pick(claimed if claimed and odd < 6 else list(self.model.lots), -1 - n)]
        if n % 4 == 0:
            chosen.append(pick(list(self.model.lots), n // 4))
        if odd == 12:
            chosen.append(replace(chosen[0], version=99))
        by = self.rightly(MEASURER.address, odd, n)
        reasons = self.model.withdraw(by, chosen)
        self.expect(WithdrawEnergy(tuple(chosen), "wired backwards"), reasons, by=by)


class TradeRules(Ground):
    """Watt-hours change hands, are set aside and are used."""

    @rule(which=N, luck=LUCK)
    def trade(self, which: int, luck: Luck) -> None:
        rules = [self.transfer_energy, self.open_offer] if self.model.lots else []
        is_open = any(one.status == "open" for one in self.model.offers)
        if is_open or (self.model.offers and luck.odd >= WRONG):
            rules += [self.accept_offer, self.accept_offer, self.cancel_offer]
        if rules:
            pick(rules, which)(luck)

    @rule(which=N, luck=LUCK)
    def uses(self, which: int, luck: Luck) -> None:
        rules = [self.claim, self.charge_storage, self.claim] if self.model.lots else []
        is_impaired = any(one.status == "impaired" for one in self.model.claims)
        if is_impaired or (self.model.claims and luck.odd >= WRONG):
            rules += [self.void_claim] * 2
        if rules:
            pick(rules, which)(luck)

    def pick_refs(self, luck: Luck, holder: bytes | None = None) -> tuple[list[SliceRef], Address]:
        """Parts of what somebody holds, mostly free to move; and who that is."""
        n, cut, odd = luck.n, luck.cut, luck.odd
        runs = [
            run
            for lot in self.model.lots.values()
            for run in self.list_runs(lot.id)
            if odd >= WRONG or (run[2] == "active" and holder in (None, run[1]))
        ]
        if not runs:
            return [SliceRef(next(iter(self.model.lots)), 0, 1)], TRADERS[0].address
        ref, owner, _ = pick(runs, n)
        refs = [self.cut(ref, cut)]
        if n % 3 == 0:
            refs += [self.cut(other, cut) for other, also, _ in runs if also == owner and other != ref][:1]
        if odd == 12:
            refs.append(replace(refs[0], end_wh=refs[0].end_wh + cut % 30))
        return refs, Address(owner)

    def list_runs(self, lot_id: LotId) -> list[tuple[SliceRef, bytes, str]]:
        runs: list[tuple[SliceRef, bytes, str]] = []
        units = self.model.lots[lot_id].units
        first = 0
        for place in range(1, len(units) + 1):
            here = units[first]
            if place == len(units) or (units[place].holder, units[place].status) != (here.holder, here.status):
                runs.append((SliceRef(lot_id, first, place), here.holder, here.status))
                first = place
        return runs

    def cut(self, ref: SliceRef, cut: int) -> SliceRef:
        """The whole for 0, else a part."""
        if cut % 4 == 0:
            return ref
        first_wh = ref.first_wh + cut % ref.wh
        return replace(ref, first_wh=first_wh, end_wh=first_wh + 1 + cut // 7 % (ref.end_wh - first_wh))

    def transfer_energy(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        refs, owner = self.pick_refs(luck)
        by = self.rightly(owner, odd, n)
        recipient = pick([one.address for one in TRADERS if one.address != by], n) if odd < 11 else self.someone(n)
        reasons = self.model.transfer(by, recipient, refs)
        self.expect(TransferEnergy(recipient, tuple(refs), ""), reasons, by=by)

    def claim(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        is_hourly, again = n % 3 > 0, n % 2 == 0
        impaired = [one for one in self.model.claims if one.status == "impaired" and not one.is_charge]
        replaces = pick(impaired, n) if impaired and again else None
        if odd == 10 and self.model.claims:
            replaces = pick(self.model.claims, n)
        refs, owner = self.pick_refs(luck, None if replaces is None else replaces.claimant)
        by = self.rightly(owner, odd, n)
        houses = [one for one in self.model.meters if "consumption" in one.channels] if odd < 11 else self.model.meters
        meter = pick(houses, n // 3) if is_hourly and houses else None
        beneficiary = Address(meter.site.owner) if meter is not None and odd < 11 else pick(TRADERS, n).address
        if replaces is not None and odd < 10:
            beneficiary = Address(replaces.beneficiary)
        period = (DAY_0_MS, DAY_0_MS + DAY_MS) if odd != 9 else (DAY_0_MS + n % 9 * HOUR_MS, DAY_0_MS + 4 * HOUR_MS)
        payload = ClaimEnergy(
            tuple(refs),
            beneficiary,
            "own use",
            *period,
            self.next_text() if odd != 8 else "1",
            None if meter is None else meter.id,
            None if replaces is None else replaces.id,
        )
        statement = payload.statement
        reasons = self.model.claim(
            by, refs, beneficiary=beneficiary, period=period, statement=statement, meter=meter, replaces=replaces
        )
        applied = self.expect(payload, reasons, by=by)
        if applied is not None:
            self.model.claims[-1].id = applied.make_id("claim")

    def void_claim(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        impaired: list[Claim] = [one for one in self.model.claims if one.status == "impaired"]
        claim = pick(impaired, n) if impaired and odd < WRONG else pick(self.model.claims, n)
        by = self.rightly(claim.claimant, odd, n)
        reasons = self.model.void_claim(by, claim)
        self.expect(VoidClaim(claim.id), reasons, by=by)

    def charge_storage(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        stores = [one for one in self.model.meters if one.site.technology == "storage"]
        meter = pick(stores, n) if odd < WRONG else pick(self.model.meters, n)
        refs, _ = self.pick_refs(luck, meter.site.owner)
        by = self.rightly(meter.site.owner, odd, n)
        statement = self.next_text()
        reasons = self.model.charge(by, meter, refs, statement)
        applied = self.expect(ChargeStorage(meter.id, tuple(refs), statement), reasons, by=by)
        if applied is not None:
            self.model.claims[-1].id = applied.make_id("claim")

    def open_offer(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        price, hours = pick((10**6, 300_000, 1), n), cut * 7 % 40
        refs, owner = self.pick_refs(luck)
        by = self.rightly(owner, odd, n)
        until_ms = self.model.now_ms + hours * HOUR_MS
        total = 1 + n if n % 4 == 1 or odd == 11 else None
        per_mwh = price if total is None or odd == 11 else None
        payload = OpenOffer(tuple(refs), until_ms, per_mwh, total)
        reasons = self.model.open_offer(by, refs, until_ms, price=per_mwh, total=total)
        applied = self.expect(payload, reasons, by=by)
        if applied is not None:
            self.model.offers[-1].id = applied.make_id("offer")

    def accept_offer(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        open_ones = [one for one in self.model.offers if one.status == "open"]
        offer = pick(open_ones, n) if open_ones and odd < WRONG else pick(self.model.offers, n)
        wh = len(offer.units) if cut % 2 or offer.total is not None else 1 + cut % (len(offer.units) or 1)
        wh = max(1, wh if odd != 12 else wh + 1)
        buyers = [one.address for one in TRADERS if one.address != offer.seller] if odd < 11 else [self.someone(n)]
        by = pick(buyers, cut)
        reasons = self.model.accept_offer(by, offer, wh)
        self.expect(AcceptOffer(offer.id, wh), reasons, by=by)

    def cancel_offer(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        offer = pick(self.model.offers, n)
        by = self.rightly(offer.seller, odd, n)
        reasons = self.model.cancel_offer(by, offer)
        self.expect(CancelOffer(offer.id), reasons, by=by)

    @rule(hours=st.sampled_from((1, 1, 5, 20)))
    def wait(self, hours: int) -> None:
        self.pass_time(hours * HOUR_MS)


def make_values(cut: int) -> list[int]:
    """One to four values."""
    return [pick(WH, cut // 4 + place * (1 + cut % 3)) for place in range(1 + cut % 4)]
