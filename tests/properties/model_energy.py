"""The model's energy, one object for each watt-hour of a lot: readings, lots, claims, offers and batteries.

A watt-hour has a holder, a status and what it is set aside or used for. Whatever the ledger does with ranges must give
the same as doing it to each watt-hour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts_native.lots import LotId, SliceRef
from contracts_native.readings import Report
from tests.properties.model import Reasons, gather
from tests.properties.model_places import Meter, Places, Shares


@dataclass(eq=False)
class Unit:
    """One watt-hour."""

    holder: bytes
    status: str = "active"
    by: Claim | Offer | None = None


@dataclass(eq=False)
class Lot:
    """What an interval minted."""

    id: LotId
    zone: str
    end_ms: int
    shares: Shares
    units: list[Unit]
    meter: Meter
    sources: list[tuple[Stored, int]]
    predecessor: int
    is_withdrawn: bool = False

    @property
    def start_ms(self) -> int:
        return self.id.start_ms


@dataclass(eq=False)
class Part:
    """A slice of a claim. ``against``: for each watt-hour that still counts, the consumption interval it is set to."""

    ref: SliceRef
    against: list[int | None]
    is_by_period: bool = False

    @property
    def lost_wh(self) -> int:
        return self.ref.wh - len(self.against)


@dataclass(eq=False)
class Claim:
    """A final use, or a charge."""

    claimant: bytes
    beneficiary: bytes
    statement: str
    period: tuple[int, int]
    parts: list[Part]
    meter: Meter | None
    claimed_ms: int
    is_charge: bool
    status: str = "claimed"
    replaced_wh: int = 0
    id: bytes = b""

    @property
    def lost_wh(self) -> int:
        return sum(part.lost_wh for part in self.parts)


@dataclass(eq=False)
class Offer:
    """``units``: what is still reserved, in the order in which it is sold."""

    seller: bytes
    units: list[tuple[Lot, int]]
    price: int | None
    total: int | None
    until_ms: int
    status: str = "open"
    sold_wh: int = 0
    id: bytes = b""


@dataclass(eq=False)
class Stored:
    """What a charge put into a battery during one interval."""

    charge: Claim
    end_ms: int
    charged_wh: int
    efficiency: int
    lost_wh: int = 0
    given_back_wh: int = 0

    @property
    def left_wh(self) -> int:
        return max(0, (self.charged_wh - self.lost_wh) * self.efficiency // 1_000 - self.given_back_wh)


@dataclass(eq=False)
class Interval:
    """One interval of a channel as it counts now."""

    wh: int
    flag: str
    version: int
    is_quarantined: bool


@dataclass(eq=False)
class Told:
    """A report that was accepted: its stretch and its registers."""

    start_ms: int
    end_ms: int
    register_start_wh: int
    register_end_wh: int


@dataclass(eq=False)
class Energy(Places):
    """Every watt-hour."""

    zone_pairs: frozenset[tuple[str, str]] = frozenset()
    lifetime_ms: int = 0
    margin_percent: int = 110
    skew_ms: int = 60_000
    period_ms: int = 3_600_000  # within which what differs in length is matched
    told: dict[tuple[bytes, str], list[Told]] = field(default_factory=dict)
    sequences: dict[tuple[bytes, str], int] = field(default_factory=dict)
    intervals: dict[tuple[bytes, str, int], Interval] = field(default_factory=dict)
    lots: dict[LotId, Lot] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    statements: set[tuple[bytes, str]] = field(default_factory=set)
    taken: Counter[tuple[bytes, int]] = field(default_factory=Counter)  # meter, consumption interval → claimed Wh
    offers: list[Offer] = field(default_factory=list)
    stored: dict[bytes, list[Stored]] = field(default_factory=dict)

    def most_wh(self, meter: Meter, channel: str) -> int:
        capacity_w, length_s = meter.channels[channel]
        return capacity_w * length_s * self.margin_percent // 360_000

    def submit(self, sender: bytes, reports: Sequence[tuple[Report, bytes]]) -> Reasons:
        """``reports``: each with the key that signed it; no two of one channel."""
        reasons = self.may_sign("reading.submit", sender)
        for report, key in reports:
            reasons |= self._judge_report(report, key)
        if not reasons:
            for report, _ in reports:
                self._accept(report)
        return reasons

    def find_meter(self, meter_id: bytes) -> Meter | None:
        return next((meter for meter in self.meters if meter.id == meter_id), None)

    def _judge_report(self, report: Report, key: bytes) -> Reasons:
        meter = self.find_meter(report.meter)
        if meter is None or report.channel not in meter.channels:
            return {"meter_unknown" if meter is None else "meter_channel_unknown"}
        start_ms, end_ms = report.start_ms, report.end_ms
        length_s = meter.channels[report.channel][1]
        dates = [since_ms for since_ms, _ in meter.keys]
        reasons = gather(
            (report.interval_s != length_s, "interval_length_wrong"),
            (start_ms % (report.interval_s * 1_000) != 0, "interval_not_aligned"),
            (start_ms < meter.commissioned_ms, "reading_before_commissioning"),
            (end_ms > self.now_ms + self.skew_ms, "reading_in_the_future"),
            (any(start_ms < until and since < end_ms for since, until in meter.silent), "meter_not_active"),
            (any(start_ms < since_ms < end_ms for since_ms in dates), "reading_spans_key_change"),
            (
                report.register_end_wh - report.register_start_wh != sum(report.values_wh),
                "registers_do_not_add_up",
            ),
            (start_ms >= meter.commissioned_ms and key != meter.key_at(start_ms), "reading_signature_invalid"),
        )
        if report.channel == "production":
            amended = [since_ms for since_ms, _ in meter.site.looks[1:]]
            reasons |= gather((any(start_ms < one < end_ms for one in amended), "reading_spans_amendment"))
        return reasons | self._judge_neighbours(report)

    def _judge_neighbours(self, report: Report) -> Reasons:
        channel = report.meter, report.channel.value
        told = self.told.get(channel, [])
        reasons = gather((report.sequence <= self.sequences.get(channel, -1), "sequence_not_rising"))
        for one in told:
            if one.start_ms < report.end_ms and report.start_ms < one.end_ms:
                reasons.add("interval_already_reported")
            elif one.end_ms <= report.start_ms:
                gap_wh, is_next = report.register_start_wh - one.register_end_wh, one.end_ms == report.start_ms
                reasons |= gather((gap_wh < 0 or (is_next and gap_wh > 0), "registers_not_continuous"))
            else:
                gap_wh, is_next = one.register_start_wh - report.register_end_wh, one.start_ms == report.end_ms
                reasons |= gather((gap_wh < 0 or (is_next and gap_wh > 0), "registers_not_continuous"))
        return reasons

    def _accept(self, report: Report) -> None:
        meter = self.find_meter(report.meter)
        assert meter is not None
        channel = report.meter, report.channel.value
        told = Told(report.start_ms, report.end_ms, report.register_start_wh, report.register_end_wh)
        self.told.setdefault(channel, []).append(told)
        self.sequences[channel] = report.sequence
        meter.last_end_ms = max(meter.last_end_ms, report.end_ms)
        for index, wh in enumerate(report.values_wh):
            start_ms = report.start_ms + index * report.interval_s * 1_000
            is_quarantined = wh > self.most_wh(meter, report.channel)
            interval = Interval(wh, report.flag.value, 1, is_quarantined)
            self.intervals[meter.id, report.channel.value, start_ms] = interval
            if report.channel == "production":
                self._mint(meter, start_ms, interval, shares=meter.site.shares, predecessor=0)

    def _mint(self, meter: Meter, start_ms: int, interval: Interval, *, shares: Shares, predecessor: int) -> None:
        if interval.is_quarantined or interval.flag != "measured":
            return
        wh, sources = interval.wh, []
        if meter.site.technology == "storage":
            sources = self._take_out(meter, start_ms, wh)
            wh = sum(part_wh for _, part_wh in sources)
        if wh:
            lot_id = LotId(meter.id, start_ms, interval.version)
            end_ms = start_ms + meter.channels["production"][1] * 1_000
            units = [Unit(holder) for holder in split(wh, shares)]
            zone = meter.site.at(start_ms).zone
            self.lots[lot_id] = Lot(lot_id, zone, end_ms, shares, units, meter, sources, predecessor)

    def _take_out(self, meter: Meter, start_ms: int, wh: int) -> list[tuple[Stored, int]]:
        """First in, first out, of what was in by then."""
        sources = []
        for one in sorted(self.stored.get(meter.id, []), key=lambda one: (one.end_ms, one.charge.id)):
            part_wh = min(one.left_wh, wh)
            if part_wh and one.end_ms <= start_ms:
                one.given_back_wh += part_wh
                wh -= part_wh
                sources.append((one, part_wh))
        return sources

    def judge_units(self, refs: Sequence[SliceRef], owner: bytes, *, twice: str) -> Reasons:
        """Why an owner may not do something with ranges that must be active. ``twice``: if one is named again."""
        reasons: Reasons = set()
        seen: set[tuple[LotId, int]] = set()
        for ref in refs:
            lot = self.lots.get(ref.lot)
            if lot is None:
                reasons.add("lot_unknown")
                continue
            reasons |= gather(
                (ref.first_wh >= ref.end_wh, "range_empty"),
                (ref.end_wh > len(lot.units), "range_outside_lot"),
                (self.now_ms >= lot.end_ms + self.lifetime_ms, "lot_expired"),
            )
            for place in range(ref.first_wh, min(ref.end_wh, len(lot.units))):
                unit = lot.units[place]
                reasons |= gather(
                    ((ref.lot, place) in seen, twice),
                    (unit.status == "claimed", "slice_already_claimed"),
                    (unit.status == "charged", "slice_already_charged"),
                    (unit.status == "reserved", "slice_reserved"),
                    (unit.status == "withdrawn", "slice_withdrawn"),
                    (unit.holder != owner, "slice_not_held"),
                )
                seen.add((ref.lot, place))
        return reasons

    def list_units(self, refs: Sequence[SliceRef]) -> list[Unit]:
        return [unit for ref in refs for unit in self.lots[ref.lot].units[ref.first_wh : ref.end_wh]]

    def transfer(self, sender: bytes, recipient: bytes, refs: Sequence[SliceRef]) -> Reasons:
        reasons = self.may_sign("energy.transfer", sender) | self.may_be_given(recipient)
        reasons |= self.judge_units(refs, sender, twice="slice_not_held")
        reasons |= gather((sender == recipient, "recipient_is_sender"))
        if not reasons:
            for unit in self.list_units(refs):
                unit.holder = recipient
        return reasons

    def open_offer(
        self, sender: bytes, refs: Sequence[SliceRef], until_ms: int, *, price: int | None, total: int | None
    ) -> Reasons:
        reasons = self.may_sign("offer.open", sender) | self.judge_units(refs, sender, twice="slice_reserved")
        reasons |= gather(
            ((price is None) == (total is None), "offer_needs_one_price"),
            (until_ms <= self.now_ms, "offer_already_over"),
        )
        if not reasons:
            units = [(self.lots[ref.lot], place) for ref in refs for place in range(ref.first_wh, ref.end_wh)]
            offer = Offer(sender, units, price, total, until_ms)
            self.offers.append(offer)
            for unit in self.list_units(refs):
                unit.status, unit.by = "reserved", offer
        return reasons

    def accept_offer(self, sender: bytes, offer: Offer, wh: int) -> Reasons:
        cents = offer.total if offer.total is not None else -(-wh * (offer.price or 0) // 1_000_000)
        reasons = self.may_sign("offer.accept", sender) | self.may_be_given(offer.seller) | self.lacks(sender, cents)
        reasons |= gather(
            (offer.status != "open", "offer_not_open_to_this"),
            (offer.seller == sender, "offer_of_oneself"),
            (self.now_ms >= offer.until_ms, "offer_over"),
            (wh > len(offer.units), "quantity_above_offer"),
            (offer.total is not None and wh != len(offer.units), "offer_sold_whole_only"),
            (
                any(self.now_ms >= lot.end_ms + self.lifetime_ms for lot, _ in offer.units[:wh]),
                "lot_expired",
            ),
        )
        if not reasons:
            for lot, place in offer.units[:wh]:
                lot.units[place] = Unit(sender)
            del offer.units[:wh]
            offer.sold_wh += wh
            offer.status = "open" if offer.units else "sold"
            self.pay(sender, offer.seller, cents)
        return reasons

    def cancel_offer(self, sender: bytes, offer: Offer) -> Reasons:
        reasons = self.may_sign("offer.cancel", sender) | gather(
            (offer.status != "open", "offer_not_open_to_this"),
            (offer.seller != sender and self.now_ms < offer.until_ms, "offer_of_another_seller"),
        )
        if not reasons:
            self._end_offer(offer)
        return reasons

    def _end_offer(self, offer: Offer) -> None:
        for lot, place in offer.units:
            lot.units[place] = Unit(offer.seller)
        offer.units.clear()
        offer.status = "cancelled"


def split(wh: int, shares: Shares) -> list[bytes]:
    """The holder of each watt-hour: whole parts first, what is left one each to the largest remainders, then in order.

    In the order of the shares.
    """
    total = sum(weight for _, weight in shares)
    counts = [wh * weight // total for _, weight in shares]
    remainders = [(wh * weight % total, -place) for place, (_, weight) in enumerate(shares)]
    for _, place in sorted(remainders, reverse=True)[: wh - sum(counts)]:
        counts[-place] += 1
    return [holder for (holder, _), count in zip(shares, counts, strict=True) for _ in range(count)]
