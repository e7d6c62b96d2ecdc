"""The questions that the ledger is for: who bought the output of this source, and where did this buyer's come from.

Owns the answers of ``trace_source``, ``trace_holder`` and ``trace_lot``. The first two are read from the index
(node/index.py), whose grain is the hour: a period is widened to whole hours, and the answer says which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, cast

from contracts_native.batteries import Source, list_sources
from contracts_native.claims import (
    SCORE_SCALE,
    ClaimImpaired,
    EnergyClaimed,
    compute_matching_score,
    get_claim,
    get_lost_wh,
)
from contracts_native.lots import (
    FIRST_VERSION,
    WITHDRAWALS,
    EnergyMoved,
    EnergyReleased,
    EnergyReserved,
    EnergyWithdrawn,
    Lot,
    LotId,
    LotWithdrawn,
    find_latest_lot,
    find_lot,
    get_lot,
)
from contracts_native.meters import Channel, find_channel
from contracts_native.readings import CORRECTIONS, IntervalState, find_report_at
from contracts_native.slices import make_first_slices
from contracts_native.storage import EnergyCharged
from ledger.errors import Malformed, Rejected
from ledger.fields import Json, to_json
from ledger.primitives import Address, Hash, format_address, parse_address
from ledger.receipt import to_json as event_to_json
from node import index
from node.chain_store import TransactionPlace, find_transaction_place, get_header
from node.index import DAY_MS, HOUR_MS, Holding, Hours, Movement
from node.queries.chain import read_receipt
from node.queries.energy import show_lot, show_slices
from node.queries.lot_ids import format_lot_id, get_known_lot, parse_lot_id
from node.queries.participants import get_known_participant
from node.queries.readings import iterate_intervals
from node.queries.sites import get_known_meter, get_known_site, list_meters, list_sites
from node.queries.view import JsonObject, Limit, Period, TimeMs, View, make_page, read_cursor, read_id
from node.queries.view import read_period_in_hours as read_period

HOLDINGS_READ_MAX: Final = 50_000  # of a source: a year of a plant with 130 buyers
METER_DAYS_SHOWN_MAX: Final = 5_000  # of a holder, each up to 24 rows: a year of thirteen plants
INTERVALS_READ_MAX: Final = 200_000  # of a holder's consumption: a year of five meters
MOVEMENTS_LIMIT: Final = 100  # each reads the receipts of a block
_PLACE: Final = 8  # bytes of a height in a cursor; 4 more for the position
PER_MILLE: Final = 1_000
MOVEMENTS: Final = (
    EnergyMoved,
    EnergyClaimed,
    EnergyReserved,
    EnergyReleased,
    EnergyCharged,
    EnergyWithdrawn,
    LotWithdrawn,
    ClaimImpaired,
)


@dataclass(slots=True)
class _Sums:
    """Running sums of Wh, by what became of them: what is held is active, reserved, or past its lifetime."""

    held: int = 0
    claimed: int = 0
    impaired: int = 0
    charged: int = 0
    withdrawn: int = 0

    def add(self, other: _Sums) -> None:
        self.held += other.held
        self.claimed += other.claimed
        self.impaired += other.impaired
        self.charged += other.charged
        self.withdrawn += other.withdrawn

    @property
    def wh(self) -> int:
        """All of it."""
        return self.held + self.claimed + self.impaired + self.charged + self.withdrawn

    def to_json(self) -> JsonObject:
        return {
            "wh": self.wh,
            "held_wh": self.held,
            "claimed_wh": self.claimed,
            "impaired_wh": self.impaired,
            "charged_wh": self.charged,
            "withdrawn_wh": self.withdrawn,
        }


@dataclass(slots=True)
class _Fates:
    """What became of what a source metered, in Wh; ``withdrawn``: of what was minted."""

    metered: int = 0
    minted: int = 0
    quarantined: int = 0
    not_minted: int = 0
    withdrawn: int = 0


@dataclass(slots=True)
class _Source:
    """What a holder has of one meter."""

    sums: _Sums = field(default_factory=_Sums)
    hours: list[Json] = field(default_factory=list)


def trace_source(
    view: View,
    *,
    site: str | None = None,
    meter: str | None = None,
    from_ms: TimeMs | None = None,
    until_ms: TimeMs | None = None,
) -> JsonObject:
    """Who has the output of a site or a meter: every holder and beneficiary, and that the sums are complete.

    ``holds`` says that metered = minted − taken back + quarantined + not minted and that minted = Σ rows. The period
    is widened to whole hours. ``held_wh`` is active, reserved or past its lifetime; ``taken_back_wh`` are lots that
    were withdrawn, used or not. Raises ``NotFound``, or ``Rejected`` (``period_too_long``).
    """
    meters = _read_source(view, site, meter)
    period = read_period(from_ms, until_ms)
    rows: defaultdict[Address, _Sums] = defaultdict(_Sums)
    fates = _Fates()
    holdings_left = HOLDINGS_READ_MAX
    for one in meters:
        holdings_left = _add_holdings(view, one, period, rows, holdings_left)
        _add_fates(view, one, period, fates)
    accounted_wh = fates.minted - fates.withdrawn + fates.quarantined + fates.not_minted
    total = _sum_all(rows.values())
    ranked = sorted(rows.items(), key=lambda row: (-row[1].wh, row[0]))
    return {
        "site": site,
        "meter": meter,
        "meters": [one.hex() for one in meters],
        **period.to_json(),
        "metered_wh": fates.metered,
        "minted_wh": fates.minted,
        "quarantined_wh": fates.quarantined,
        "not_minted_wh": fates.not_minted,
        "taken_back_wh": fates.withdrawn,
        **total.to_json(),
        "holds": fates.metered == accounted_wh and fates.minted == total.wh,
        "rows": [{**_show_participant(view, address), **sums.to_json()} for address, sums in ranked],
    }


def trace_holder(
    view: View, *, participant: str, from_ms: TimeMs | None = None, until_ms: TimeMs | None = None
) -> JsonObject:
    """Where a participant's energy came from, by source and hour, and how well claims match its consumption.

    The period is widened to whole hours. Raises ``NotFound``, or ``Rejected`` (``period_too_long``).
    """
    address = parse_address(participant)
    get_known_participant(view, address)
    period = read_period(from_ms, until_ms)
    sources = _collect_sources(view, address, period)
    total = _sum_all(one.sums for one in sources.values())
    return {
        **_show_participant(view, address),
        **period.to_json(),
        **total.to_json(),
        "sources": [_show_source(view, meter, one) for meter, one in sources.items()],
        "consumption": _show_consumption(view, address, period),
    }


def trace_lot(view: View, *, lot: str, limit: Limit = MOVEMENTS_LIMIT, cursor: str | None = None) -> JsonObject:
    """What happened to a lot: its mint, each movement and use with its transaction, and the slices that it has now.

    ``sources``: for a lot that left a storage, the charges behind it with the lots that went in. ``predecessor`` and
    ``successor``: the lots of other versions, where the interval was corrected.
    A page reads ``limit`` transactions (at most 100) that touched the meter's day; not each of them touched this lot.
    """
    lot_id = parse_lot_id(lot)
    found = get_known_lot(view, lot_id)
    tx_id = _get_minting_transaction(view, lot_id)
    first: list[Json] = [
        {"holder": format_address(one.holder), "first_wh": one.first_wh, "end_wh": one.end_wh}
        for one in make_first_slices(found.wh, found.shares)
    ]
    movements, next_cursor = _list_movements(view, lot_id, min(limit, MOVEMENTS_LIMIT), cursor)
    return {
        **show_lot(found),
        **_show_history(view, found),
        "mint": {**_show_transaction(view, tx_id), "slices": first},
        "sources": [_show_lot_source(view, source) for source in list_sources(view.state, lot_id)],
        "movements": movements,
        "slices": show_slices(view, found),
        "next_cursor": next_cursor,
    }


def _get_minting_transaction(view: View, lot: LotId) -> Hash:
    if lot.version > FIRST_VERSION:
        return CORRECTIONS.get(view.state, lot.meter, Channel.PRODUCTION, lot.start_ms, lot.version).tx_id
    report = find_report_at(view.state, lot.meter, Channel.PRODUCTION, lot.start_ms)
    assert report is not None, "what was minted was reported"
    return report.tx_id


def _show_history(view: View, lot: Lot) -> JsonObject:
    """Where a lot stands among the versions of its interval, and why it was withdrawn."""
    lot_id = lot.lot
    withdrawal = WITHDRAWALS.find(view.state, lot_id.meter, lot_id.start_ms, lot_id.version)
    latest = find_latest_lot(view.state, lot_id.meter, lot_id.start_ms)
    successor = None
    while latest is not None and latest.lot.version > lot_id.version:
        successor = latest.lot
        latest = find_lot(view.state, replace(lot_id, version=latest.predecessor)) if latest.predecessor else None
    return {
        "predecessor": format_lot_id(replace(lot_id, version=lot.predecessor)) if lot.predecessor else None,
        "successor": None if successor is None else format_lot_id(successor),
        "withdrawal": None if withdrawal is None else to_json(withdrawal),
    }


def _show_lot_source(view: View, source: Source) -> JsonObject:
    """A charge behind a lot, with the slices that went into the storage then."""
    claim = get_claim(view.state, source.charge)
    lost_wh = get_lost_wh(view.state, source.charge, claim)
    slices: list[Json] = []
    for ref, lost in zip(claim.slices, lost_wh, strict=True):
        lot = get_lot(view.state, ref.lot)
        if lot.end_ms <= source.end_ms < lot.end_ms + HOUR_MS:
            range_wh: JsonObject = {"first_wh": ref.first_wh, "end_wh": ref.end_wh, "lost_wh": lost}
            slices.append({**show_lot(lot), **range_wh})
    charged: JsonObject = {
        "charge": source.charge.hex(),
        "status": claim.status.value,
        "charged_until_ms": source.end_ms,
    }
    return {**charged, "wh": source.wh, "charged_with": slices}


def _read_source(view: View, site: str | None, meter: str | None) -> list[bytes]:
    if (site is None) == (meter is None):
        raise Malformed("parameters_conflict", "give site or meter")
    if meter is not None:
        meter_id = read_id(meter, name="meter")
        get_known_meter(view, meter_id)
        return [meter_id]
    site_id = read_id(site or "", name="site")
    get_known_site(view, site_id)
    return list_meters(view, site_id)


def _add_holdings(
    view: View, meter: bytes, period: Period, rows: defaultdict[Address, _Sums], holdings_left: int
) -> int:
    """Add what each holder has of a meter; the answer is how many more entries may be read."""
    for day, holder, holding in index.scan_source(view.reader, meter, _get_days(period)):
        if holdings_left == 0:
            raise Rejected("period_too_long", f"more than {HOLDINGS_READ_MAX} daily entries")
        holdings_left -= 1
        within = _list_hours(day, period)
        sums = _sum_holding(holding, slice(within.start, within.stop))
        if sums.wh:
            rows[holder].add(sums)
    return holdings_left


def _add_fates(view: View, meter: bytes, period: Period, fates: _Fates) -> None:
    for day, one in index.scan_source_days(view.reader, meter, _get_days(period)):
        fates.metered += _sum_hours(day, one.metered, period)
        fates.minted += _sum_hours(day, one.minted, period)
        fates.quarantined += _sum_hours(day, one.quarantined, period)
        fates.not_minted += _sum_hours(day, one.not_minted, period)
        fates.withdrawn += _sum_hours(day, one.withdrawn, period)


def _sum_holding(holding: Holding, hours: slice) -> _Sums:
    return _Sums(
        held=sum(holding.held[hours]) + sum(holding.reserved[hours]),
        claimed=sum(holding.claimed[hours]),
        impaired=sum(holding.impaired[hours]),
        charged=sum(holding.charged[hours]),
        withdrawn=sum(holding.withdrawn[hours]),
    )


def _sum_all(parts: Iterable[_Sums]) -> _Sums:
    total = _Sums()
    for one in parts:
        total.add(one)
    return total


def _collect_sources(view: View, holder: Address, period: Period) -> dict[bytes, _Source]:
    sources: defaultdict[bytes, _Source] = defaultdict(_Source)
    for count, (day, meter, holding) in enumerate(index.scan_holder(view.reader, holder, _get_days(period))):
        if count == METER_DAYS_SHOWN_MAX:
            raise Rejected("period_too_long", f"more than {METER_DAYS_SHOWN_MAX} days of sources")
        for hour in _list_hours(day, period):
            one = _sum_holding(holding, slice(hour, hour + 1))
            if one.wh:
                source = sources[meter]
                source.sums.add(one)
                source.hours.append({"start_ms": day * DAY_MS + hour * HOUR_MS, **one.to_json()})
    return dict(sources)


def _show_source(view: View, meter: bytes, source: _Source) -> JsonObject:
    site_id = get_known_meter(view, meter).site
    site = get_known_site(view, site_id)
    return {
        "meter": meter.hex(),
        "site": site_id.hex(),
        "label": site.label,
        "technology": site.technology.value,
        "zone": site.zone,
        **source.sums.to_json(),
        "hours": source.hours,
    }


def _show_consumption(view: View, owner: Address, period: Period) -> JsonObject:
    """What the holder's own meters recorded, what hourly claims cover of it, and the score of that."""
    meters = [
        meter
        for site in list_sites(view, owner)
        for meter in list_meters(view, site)
        if find_channel(get_known_meter(view, meter), Channel.CONSUMPTION) is not None
    ]
    intervals = (one for meter in meters for one in iterate_intervals(view, meter, Channel.CONSUMPTION, period))
    hours: defaultdict[int, _Sums] = defaultdict(_Sums)  # held: consumed
    for count, one in enumerate(intervals):
        if count == INTERVALS_READ_MAX:
            raise Rejected("period_too_long", f"more than {INTERVALS_READ_MAX} consumption intervals")
        if one.fact.state is IntervalState.RECORDED:
            sums = hours[one.fact.start_ms - one.fact.start_ms % HOUR_MS]
            sums.held += one.fact.wh
            sums.claimed += one.claimed_wh
    consumed_wh = sum(sums.held for sums in hours.values())
    score = compute_matching_score([one.held for one in hours.values()], [one.claimed for one in hours.values()])
    return {
        "meters": [meter.hex() for meter in meters],
        "consumed_wh": consumed_wh,
        "claimed_hourly_wh": sum(sums.claimed for sums in hours.values()),
        "matching_score_per_mille": score * PER_MILLE // SCORE_SCALE if consumed_wh else None,
        "hours": [
            {"start_ms": start_ms, "consumed_wh": sums.held, "claimed_wh": sums.claimed}
            for start_ms, sums in sorted(hours.items())
        ],
    }


def _list_movements(view: View, lot: LotId, limit: int, cursor: str | None) -> tuple[list[Json], str | None]:
    past = read_cursor(cursor, length=_PLACE + 4)
    after = None
    if past is not None:
        after = Movement(int.from_bytes(past[:_PLACE], "big"), int.from_bytes(past[_PLACE:], "big"))
    places = index.scan_movements(view.reader, lot.meter, lot.start_ms // DAY_MS, after=after)
    rows = (
        (place.height.to_bytes(_PLACE, "big") + place.index.to_bytes(4, "big"), place)
        for place in islice(places, limit + 1)
    )
    page = make_page(rows, limit, lambda place: list(_show_movements(view, lot, place)))
    return [movement for shown in page.items if isinstance(shown, list) for movement in shown], page.next_cursor


def _show_movements(view: View, lot: LotId, place: Movement) -> Iterator[JsonObject]:
    receipt = read_receipt(view, TransactionPlace(place.height, place.index))
    for one in receipt.events:
        if isinstance(one, MOVEMENTS) and one.lot == lot:
            shown = cast(JsonObject, event_to_json(one))
            del shown["lot"]
            yield {"event": one.name, **_show_transaction(view, receipt.tx_id), **shown}


def _show_transaction(view: View, tx_id: Hash) -> JsonObject:
    place = find_transaction_place(view.reader, tx_id)
    assert place is not None, "what happened is committed"
    time_ms = get_header(view.reader, place.height).time_ms
    return {"tx_id": tx_id.hex(), "height": place.height, "index": place.index, "time_ms": time_ms}


def _show_participant(view: View, address: Address) -> JsonObject:
    return {"participant": format_address(address), "label": get_known_participant(view, address).label}


def _get_days(period: Period) -> range:
    return index.get_days(period.start_ms, period.end_ms)


def _list_hours(day: int, period: Period) -> range:
    """The hours of a day that lie within a period of whole hours."""
    start_ms = day * DAY_MS
    first = max(0, (period.start_ms - start_ms) // HOUR_MS)
    return range(first, min(index.HOURS, (period.end_ms - start_ms) // HOUR_MS))


def _sum_hours(day: int, hours: Hours, period: Period) -> int:
    within = _list_hours(day, period)
    return sum(hours[within.start : within.stop])
