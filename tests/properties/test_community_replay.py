"""Two weeks of the community of thirty-one sites, block by block, with every sum of the domain after each.

Hourly claims, a co-operative's shares, a battery, an offer book and a correction with its replacements. What stands on
the ledger at the end is what the meter file says, watt-hour for watt-hour.
"""

from __future__ import annotations

import csv
from collections import Counter
from typing import Final

from contracts_native.batteries import STORED
from contracts_native.claims import CLAIMS, ClaimKind, ClaimStatus, VoidClaim, get_lost_wh
from contracts_native.corrections import CorrectReading
from contracts_native.lots import SliceRef, TransferEnergy, find_latest_lot, get_slices
from contracts_native.meters import Channel
from contracts_native.offers import OFFERS, OfferStatus
from contracts_native.readings import REPORTS, Flag
from contracts_native.slices import SliceStatus
from ledger.fields import Json
from ledger.transaction import Transaction
from node.demo.data import DATA_DIRECTORY, QUARTERS_PER_HOUR, SERIES_NAME, load_community
from node.queries import audit
from tests.contracts_native.harness import CAROL, DAY_0_MS, MEASURER, QUARTER_MS
from tests.node.query_answers import Answer, rows
from tests.properties.community import CHARGED_WH, COOPERATIVE, CommunityChain

DAYS: Final = 14
SITES: Final = 31
BLOCKS: Final = 126  # four a day, 66 in which the community settles, four of corrections; all are audited
ROOF: Final = "g01_solar"
REASON: Final = "wrong transformer ratio"


def read_file_sums() -> dict[str, int]:
    """The Wh of each column over the two weeks, read without the project's reader."""
    sums: Counter[str] = Counter()
    with (DATA_DIRECTORY / SERIES_NAME).open(newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            if number < DAYS * 96:
                sums.update({name: int(value) for name, value in row.items() if name != "start_utc"})
    return dict(sums)


def read_ledger_sums(town: CommunityChain) -> dict[str, int]:
    """What the reports of each meter say, as they were signed."""
    sums: Counter[str] = Counter()
    for name, meter in town.meters.items():
        for channel in Channel:
            for _, report in REPORTS.scan(town.chain.state, meter.meter_id, channel):
                sums[f"{name} {channel}" if name == "battery" else name] += sum(report.values_wh)
    return dict(sums)


def find_sum(answer: Answer, name: str) -> dict[str, Json]:
    (found,) = (one for one in rows(answer, "sums") if one["name"] == name)
    return found


def correct(town: CommunityChain) -> tuple[int, str, set[bytes]]:
    """The best quarter-hour of a roof was a tenth less, and a house used half: how much less, the house, the claims."""
    place = next(one for one in town.community.producers if one.name == ROOF)
    quarter = max(range(len(place.values_wh)), key=place.values_wh.__getitem__)
    wh = place.values_wh[quarter] * 9 // 10
    buyer = next(part.buyer for use in town.claimed.values() for part in use.parts if part.quarter == quarter)
    half_wh = town.get_wh(buyer, quarter) // 2
    payloads = [
        CorrectReading(
            town.meters[name].meter_id, channel, DAY_0_MS + quarter * QUARTER_MS, (value,), Flag.MEASURED, REASON
        )
        for name, channel, value in ((ROOF, Channel.PRODUCTION, wh), (buyer, Channel.CONSUMPTION, half_wh))
    ]
    for payload in payloads:
        town.commit([town.sign(payload, MEASURER)])
    impaired = {key[3:] for key, one in CLAIMS.scan(town.chain.state) if one.status is ClaimStatus.IMPAIRED}
    assert impaired
    assert impaired <= {key for key, use in town.claimed.items() if use.hour == quarter // QUARTERS_PER_HOUR}
    return place.values_wh[quarter] - wh, buyer, impaired


def make_good(town: CommunityChain, claim_id: bytes, taken_wh: int) -> tuple[Transaction, Transaction, int]:
    """The buyer gets wind of the same quarter-hour, after ``taken_wh`` of what is free, and claims it instead."""
    use = town.claimed[claim_id]
    claim = CLAIMS.get(town.chain.state, claim_id)
    lost_wh = get_lost_wh(town.chain.state, claim_id, claim)
    ref, wh = next((ref, lost) for ref, lost in zip(claim.slices, lost_wh, strict=True) if lost)
    lot = find_latest_lot(town.chain.state, town.meters[COOPERATIVE].meter_id, ref.lot.start_ms)
    assert lot is not None
    owner, buyer = town.people[COOPERATIVE], town.people[use.buyer]
    free = next(
        one
        for one in get_slices(town.chain.state, lot.lot)
        if (one.holder, one.status) == (owner.address, SliceStatus.ACTIVE) and one.wh >= taken_wh + wh
    )
    instead = SliceRef(lot.lot, free.first_wh + taken_wh, free.first_wh + taken_wh + wh)
    replacement = town.make_claim(use.buyer, use.hour, (instead,), f"instead, hour {use.hour}", claim_id)
    given = town.sign(TransferEnergy(buyer.address, (instead,), "made good"), owner)
    return given, town.sign(replacement, buyer), taken_wh + wh


def test_two_weeks_of_the_community_replay_and_every_sum_holds_after_every_block() -> None:
    town = CommunityChain(load_community(DATA_DIRECTORY, days=DAYS))
    assert len(town.community.places) == SITES
    town.settle()
    for day in range(DAYS):
        town.live(day)
    check_the_fortnight(town)
    less_wh, house, impaired = correct(town)
    of_house = {one for one in impaired if town.claimed[one].buyer == house}
    assert of_house < impaired, "the house has no room for more, the others are made good"
    town.commit([town.sign(VoidClaim(one), town.people[house]) for one in sorted(of_house)])
    transactions: list[Transaction] = []
    taken_wh = 0
    for claim_id in sorted(impaired - of_house):
        given, replacement, taken_wh = make_good(town, claim_id, taken_wh)
        transactions += given, replacement
    town.commit(transactions)
    ended = {claim_id: CLAIMS.get(town.chain.state, claim_id).status for claim_id in impaired}
    assert {one for one, status in ended.items() if status is ClaimStatus.VOID} == of_house
    assert {one for one, status in ended.items() if status is ClaimStatus.REPLACED} == impaired - of_house
    file_sums = read_file_sums()
    produced_wh = sum(wh for name, wh in file_sums.items() if name.startswith("g"))
    metered = find_sum(audit.chain_audit(town.chain.view), "metered_is_accounted_for")
    assert metered["left"] == produced_wh - less_wh + town.discharged_wh
    assert town.chain.height == BLOCKS


def check_the_fortnight(town: CommunityChain) -> None:
    """Before anything is corrected the ledger says exactly what the file says, and everything was used as planned."""
    file_sums, ledger_sums = read_file_sums(), read_ledger_sums(town)
    stored_wh, discharged_wh = (ledger_sums.pop(f"battery {one}") for one in ("consumption", "production"))
    assert ledger_sums == file_sums
    assert (stored_wh, discharged_wh) == (town.stored_wh, town.discharged_wh)
    assert stored_wh > CHARGED_WH * DAYS
    produced_wh = sum(wh for name, wh in file_sums.items() if name.startswith("g"))
    parts = find_sum(audit.chain_audit(town.chain.view), "metered_is_accounted_for")["right_parts"]
    minted_wh = produced_wh + discharged_wh - town.uncovered_wh
    assert parts == {"minted": minted_wh, "quarantined": 0, "not_minted": town.uncovered_wh}
    claims = [one for _, one in CLAIMS.scan(town.chain.state)]
    used_wh = sum(one.wh for one in claims if one.kind is ClaimKind.USE)
    assert used_wh == sum(part.wh for use in town.claimed.values() for part in use.parts)
    assert all(one.is_hourly and one.status is ClaimStatus.CLAIMED for one in claims)
    offers = [one for _, one in OFFERS.scan(town.chain.state)]
    assert {one.status for one in offers} == {OfferStatus.SOLD}
    assert sum(one.charged_wh for _, one in STORED.scan(town.chain.state)) == stored_wh
    assert any(one.holder == CAROL.address for one in get_slices(town.chain.state, town.make_lot(COOPERATIVE, 0)))
