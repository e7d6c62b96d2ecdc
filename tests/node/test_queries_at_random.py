"""What a node derives stays true through corrections, offers and batteries: index, audit, traces, residual mix."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from contracts_native.claims import CLAIMS, ClaimKind, get_lost_wh
from contracts_native.kyc import DecideKyc, KycDecision
from contracts_native.lots import SliceRef, get_slices
from contracts_native.meters import Channel
from contracts_native.offers import CancelOffer, OfferStatus, OpenOffer
from contracts_native.slices import SliceStatus
from contracts_native.storage import ChargeStorage
from ledger.parameters import Parameters
from ledger.primitives import Address, format_address
from ledger.storage import MemoryStore
from node import index
from node.chain_store import get_header, get_receipts
from node.queries import audit, energy, mix, offers, participants, readings, trace, trace_lot
from node.queries.errors import NotFound
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    DAY_0_MS,
    DAY_MS,
    HOUR_MS,
    NOW_MS,
    QUARTER_MS,
    UTILITY,
    list_lots,
)
from tests.contracts_native.papers import DAVE, add_dave, add_papers, cite
from tests.contracts_native.town import PARAMETERS, Town
from tests.contracts_native.trade import make_market
from tests.node.query_answers import rows
from tests.node.query_chain import QueryChain
from tests.node.test_index import ALL_DAYS, list_entries

Place = tuple[bytes, Address, int, str]  # meter, holder, hour since the epoch, status
STATUSES = {
    SliceStatus.ACTIVE: "held",
    SliceStatus.RESERVED: "reserved",
    SliceStatus.WITHDRAWN: "withdrawn",
}


def read_index(town: Town) -> Counter[Place]:
    found: Counter[Place] = Counter()
    for meter in (town.plant, town.battery):
        for day, holder, holding in index.scan_source(town.world.store, meter.meter_id, ALL_DAYS):
            for name in index.Holding.__slots__:
                for hour, wh in enumerate(getattr(holding, name)):
                    if name != "used_for_others":
                        found[meter.meter_id, holder, day * index.HOURS + hour, name] += wh
    return +found


def read_lots(town: Town) -> Counter[Place]:
    """The same, by reading every slice and every claim."""
    found: Counter[Place] = Counter()
    for lot in list_lots(town.world.state):
        for one in get_slices(town.world.state, lot.lot):
            if one.status in STATUSES:
                found[lot.lot.meter, one.holder, lot.start_ms // HOUR_MS, STATUSES[one.status]] += one.wh
    for key, claim in CLAIMS.scan(town.world.state):
        counts = "claimed" if claim.kind is ClaimKind.USE else "charged"
        lost_wh = get_lost_wh(town.world.state, key[3:], claim)
        for ref, lost in zip(claim.slices, lost_wh, strict=True):
            place = ref.lot.meter, claim.beneficiary, ref.lot.start_ms // HOUR_MS
            found[*place, counts] += ref.wh - lost
            found[*place, "impaired"] += lost
    return +found


@pytest.mark.parametrize("seed", range(4))
def test_index_audit_and_traces_hold_after_everything_that_can_happen(seed: int) -> None:
    chain = QueryChain(PARAMETERS)
    town = Town(seed, chain)
    town.run(100, check=lambda: None)
    assert read_index(town) == read_lots(town)
    answer = audit.chain_audit(chain.view)
    assert answer["holds"] is True, [one for one in rows(answer, "sums") if not one["holds"]]
    for meter in (town.plant, town.battery):
        assert trace.trace_source(chain.view, meter=meter.meter_id.hex())["holds"] is True
    for person in (ALICE, BOB, CAROL):
        energy.energy_balance(chain.view, holder=format_address(person.address))
    rebuilt = MemoryStore()
    for height in range(1, chain.height + 1):
        receipts = get_receipts(chain.store, height, chain.table)
        rebuilt.write(index.compute_index_changes(rebuilt, receipts, get_header(chain.store, height)))
    assert list_entries(rebuilt) == list_entries(chain.store)


def test_a_corrected_interval_shows_who_corrected_it_and_what_it_minted() -> None:
    chain = QueryChain()
    market = make_market(world=chain)
    (lot,) = market.buy(100)
    market.correct(90)
    (row,) = rows(readings.reading_list(chain.view, meter=lot.meter.hex()), "readings")
    assert (row["wh"], row["state"], row["minted_wh"]) == (90, "minted", 90)
    assert row["lot"] == f"{lot.meter.hex()}:{lot.start_ms}:2"
    assert isinstance(row["correction"], dict)
    assert (row["correction"]["version"], row["correction"]["reason"]) == (2, "wrong transformer ratio")
    slices = rows(energy.energy_slices(chain.view, holder=format_address(BOB.address)), "slices")
    assert [(one["status"], one["wh"]) for one in slices] == [("withdrawn", 100)]


def test_a_claim_says_what_it_lost_and_what_was_made_good() -> None:
    chain = QueryChain()
    market = make_market(world=chain)
    lots = market.buy(100, 100, 100)
    claim = market.claim(SliceRef(lots[0], 0, 40), SliceRef(lots[1], 0, 40), hourly=False)
    market.withdraw(lots[1])
    market.claim(SliceRef(lots[2], 0, 30), hourly=False, replaces=claim)
    shown = energy.claim_get(chain.view, claim=claim.hex())
    assert (shown["status"], shown["lost_wh"], shown["replaced_wh"]) == ("replaced", 40, 30)
    assert [one["lost_wh"] for one in rows(shown, "slices")] == [0, 40]
    balance = energy.energy_balance(chain.view, holder=format_address(BOB.address))
    assert (balance["claimed_wh"], balance["impaired_wh"], balance["withdrawn_wh"]) == (70, 40, 60)


def test_a_participant_shows_the_version_on_which_it_was_decided() -> None:
    chain = QueryChain()
    add_dave(chain)
    add_papers(chain, DAVE)
    dave = format_address(DAVE.address)
    assert participants.participant_get(chain.view, participant=dave)["kyc_record"] is None
    chain.apply(DecideKyc(DAVE.address, KycDecision.APPROVED, cite(1)), by=UTILITY)
    answer = participants.participant_get(chain.view, participant=dave)
    record = answer["kyc_record"]
    assert isinstance(record, dict)
    assert (answer["kyc"], record["citation"]) == ("approved", {"document": cite(1).document.hex(), "version": 1})


def test_slices_of_two_versions_are_paged_without_loss() -> None:
    chain = QueryChain()
    market = make_market(world=chain)
    lots = chain.produce(market.producer, 10, 20, 30)
    market.correct(11, 21)
    market.correct(12)
    found: list[object] = []
    cursor: str | None = None
    while True:
        page = energy.energy_slices(chain.view, holder=format_address(ALICE.address), limit=1, cursor=cursor)
        found += [(one["lot"], one["wh"]) for one in rows(page, "slices")]
        if page["next_cursor"] is None:
            break
        cursor = str(page["next_cursor"])
    wanted = [(0, 1, 10), (0, 2, 11), (0, 3, 12), (1, 1, 20), (1, 2, 21), (2, 1, 30)]
    assert found == [(str(replace(lots[place], version=version)), wh) for place, version, wh in wanted]


def test_offers_are_listed_and_say_when_they_are_over() -> None:
    chain = QueryChain()
    market = make_market(world=chain)
    (lot,) = market.buy(100)
    payload = OpenOffer((SliceRef(lot, 0, 40),), NOW_MS + DAY_MS, 5_000)
    offer = chain.apply(payload, by=BOB).make_id("offer")
    seller = format_address(BOB.address)
    (shown,) = rows(offers.offer_list(chain.view, holder=seller), "offers")
    assert (shown["offer"], shown["left_wh"], shown["is_over"]) == (offer.hex(), 40, False)
    assert energy.energy_balance(chain.view, holder=seller)["reserved_wh"] == 40
    chain.time_ms = NOW_MS + DAY_MS
    chain.consume(market.consumer, 1)
    one = offers.offer_get(chain.view, offer=offer.hex())
    assert (one["is_over"], len(rows(one, "slices"))) == (True, 1)
    chain.apply(CancelOffer(offer), by=ALICE)
    assert rows(offers.offer_list(chain.view, status=OfferStatus.OPEN), "offers") == []
    with pytest.raises(NotFound, match="offer_not_found"):
        offers.offer_get(chain.view, offer=bytes(16).hex())


def test_the_residual_mix_is_what_nobody_claimed_in_time() -> None:
    chain = QueryChain(Parameters(lot_lifetime_s=31 * DAY_MS // 1_000))
    market = make_market(world=chain)
    lots = market.buy(100, 200, 300, 400, 500)
    market.claim(SliceRef(lots[0], 0, 60), hourly=False)
    market.withdraw(lots[1])
    other = chain.add_producer(CAROL, zone="FR")
    chain.produce(other, 7)
    assert mix.energy_residual_mix(chain.view, zone="DE-LU")["wh"] == 0
    chain.time_ms = DAY_0_MS + HOUR_MS + 31 * DAY_MS
    chain.consume(market.consumer, 1)
    answer = mix.energy_residual_mix(chain.view, zone="DE-LU")
    assert (answer["wh"], answer["by_technology"]) == (740, {"solar": 740})
    assert [(one["start_ms"], one["wh"]) for one in rows(answer, "hours")] == [(DAY_0_MS, 740)]
    assert mix.energy_residual_mix(chain.view, zone="FR")["wh"] == 7
    assert mix.energy_residual_mix(chain.view, zone="NL")["wh"] == 0
    later = mix.energy_residual_mix(chain.view, zone="DE-LU", from_ms=DAY_0_MS + HOUR_MS)
    assert later["wh"] == 0
    chain.time_ms += HOUR_MS
    chain.consume(market.consumer, 1)
    assert mix.energy_residual_mix(chain.view, zone="DE-LU")["wh"] == 1_240


def test_a_battery_is_seen_through() -> None:
    chain = QueryChain()
    town = Town(0, chain)
    (lot,) = chain.produce(chain.add_producer(CAROL), 1_000)
    chain.consume(town.battery, 1_000)
    payload = ChargeStorage(town.battery.meter_id, (SliceRef(lot, 0, 1_000),), "charge 1")
    charge = chain.apply(payload, by=CAROL).make_id("claim")
    start_ms = DAY_0_MS + 4 * QUARTER_MS
    chain.submit(town.battery.report(Channel.PRODUCTION, (500, 500), start_ms=start_ms))
    intervals = rows(readings.reading_list(chain.view, meter=town.battery.meter_id.hex()), "readings")
    assert [(one["wh"], one["state"], one["minted_wh"]) for one in intervals[1:]] == [
        (500, "minted", 500),
        (500, "minted", 350),
    ]
    source = trace.trace_source(chain.view, meter=town.battery.meter_id.hex())
    assert (source["metered_wh"], source["minted_wh"], source["not_minted_wh"]) == (1_000, 850, 150)
    assert source["holds"] is True
    assert energy.energy_balance(chain.view, holder=format_address(CAROL.address))["charged_wh"] == 1_000
    answer = trace_lot.trace_lot(chain.view, lot=f"{town.battery.meter_id.hex()}:{start_ms}:1")
    (behind,) = rows(answer, "sources")
    assert (behind["charge"], behind["wh"], behind["status"]) == (charge.hex(), 500, "claimed")
    (went_in,) = rows(behind, "charged_with")
    assert (went_in["lot"], went_in["technology"]) == (str(lot), "solar")
    assert (went_in["first_wh"], went_in["end_wh"]) == (0, 1_000)
    assert rows(trace_lot.trace_lot(chain.view, lot=str(lot)), "sources") == []
    assert audit.chain_audit(chain.view)["holds"] is True


def test_a_lot_tells_of_its_versions_and_why_it_was_withdrawn() -> None:
    chain = QueryChain()
    market = make_market(world=chain)
    (lot,) = market.buy(100)
    market.claim(SliceRef(lot, 0, 40), hourly=False)
    market.correct(90)
    market.correct(80)
    names = [str(replace(lot, version=version)) for version in (1, 2, 3)]
    told = [trace_lot.trace_lot(chain.view, lot=name) for name in names]
    assert [(one["predecessor"], one["successor"]) for one in told] == [
        (None, names[1]),
        (names[0], names[2]),
        (names[1], None),
    ]
    assert isinstance(told[0]["withdrawal"], dict)
    assert told[0]["withdrawal"]["reason"] == "wrong transformer ratio"
    assert told[2]["withdrawal"] is None
    happened = [one["event"] for one in rows(told[0], "movements")]
    wanted = ["energy.moved", "energy.claimed", "energy.lot_withdrawn", "energy.withdrawn", "energy.claim_impaired"]
    assert happened == wanted
