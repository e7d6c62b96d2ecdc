"""The index says exactly what the lots say, at a few entries a report, and follows from the receipts alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple

import pytest

from contracts_native.lots import EnergyMinted, LotId, SliceRef, TransferEnergy
from contracts_native.meters import Channel
from contracts_native.readings import Flag
from contracts_native.slices import SliceStatus, make_first_slices
from ledger.primitives import Address, Hash
from ledger.receipt import Receipt
from ledger.storage import INDEXES, MemoryStore, compute_prefix_end
from node import index, index_sums
from node.chain_store import get_header, get_receipts
from node.index import DAY_MS, HOUR_MS, Balance, List, Movement, compute_index_changes, get_days
from tests.contracts_native.harness import ALICE, BOB, CAROL, DAY_0_MS, QUARTER_MS, UTILITY, SigningMeter
from tests.node.query_chain import PEOPLE, QueryChain, add_plants, get_beneficiary, list_slices, trade_at_random

ALL_DAYS = get_days(0, DAY_0_MS + 100 * DAY_MS)
Place = tuple[bytes, Address, int, str]  # meter, holder, hour since the epoch, status


def read_index(chain: QueryChain, meters: Sequence[SigningMeter]) -> Counter[Place]:
    """All Wh of the index, by meter, holder, hour and status."""
    found: Counter[Place] = Counter()
    for meter in meters:
        for day, holder, holding in index.scan_source(chain.store, meter.meter_id, ALL_DAYS):
            for hour in range(index.HOURS):
                place = meter.meter_id, holder, day * index.HOURS + hour
                found[*place, "held"] += holding.held[hour]
                found[*place, "claimed"] += holding.claimed[hour]
                found[*place, "used_for_others"] += holding.used_for_others[hour]
    return +found


def read_lots(chain: QueryChain, lots: Sequence[LotId]) -> Counter[Place]:
    """The same, by reading every slice of every lot."""
    found: Counter[Place] = Counter()
    for lot, one in list_slices(chain, lots):
        hour, wh = lot.start_ms // HOUR_MS, one.end_wh - one.first_wh
        if one.status is SliceStatus.CLAIMED:
            beneficiary = get_beneficiary(chain, one)
            found[lot.meter, beneficiary, hour, "claimed"] += wh
            if beneficiary != one.holder:
                found[lot.meter, one.holder, hour, "used_for_others"] += wh
        else:
            found[lot.meter, one.holder, hour, "held"] += wh
    return found


def list_entries(store: MemoryStore) -> dict[bytes, bytes]:
    return dict(store.scan(INDEXES, compute_prefix_end(INDEXES)))


@pytest.mark.parametrize("seed", range(4))
def test_index_equals_a_scan_of_all_lots_after_random_trades(seed: int) -> None:
    chain, random_ = QueryChain(), random.Random(seed)
    meters, lots = add_plants(chain, random_)
    assert read_index(chain, meters) == read_lots(chain, lots)
    trade_at_random(chain, lots, random_, steps=40)
    by_place = read_index(chain, meters)
    assert by_place == read_lots(chain, lots)
    for person in PEOPLE:
        sums = Counter(dict.fromkeys(Balance.__slots__, 0))
        for (_, holder, _, status), wh in by_place.items():
            if holder == person.address:
                sums[status] += wh
        assert index.get_balance(chain.store, person.address) == Balance(**sums)


@pytest.mark.parametrize("seed", range(2))
def test_entries_by_holder_are_those_by_source(seed: int) -> None:
    chain, random_ = QueryChain(), random.Random(seed)
    meters, lots = add_plants(chain, random_)
    trade_at_random(chain, lots, random_, steps=30)
    by_source = {
        (holder, day, meter.meter_id): holding
        for meter in meters
        for day, holder, holding in index.scan_source(chain.store, meter.meter_id, ALL_DAYS)
    }
    by_holder = {
        (person.address, day, meter): holding
        for person in PEOPLE
        for day, meter, holding in index.scan_holder(chain.store, person.address, ALL_DAYS)
    }
    assert by_holder == by_source


@pytest.mark.parametrize("seed", range(3))
def test_each_stretch_is_the_sum_of_its_days(seed: int) -> None:
    chain, random_ = QueryChain(), random.Random(200 + seed)
    meters, lots = add_plants(chain, random_)
    trade_at_random(chain, lots, random_, steps=40)
    days = index_sums.get_stretches(ALL_DAYS)
    for meter in meters:
        by_holder: dict[Address, list[int]] = {}
        for _, holder, holding in index.scan_source(chain.store, meter.meter_id, ALL_DAYS):
            wh = list(map(sum, astuple(holding)))
            by_holder[holder] = [a + b for a, b in zip(by_holder.get(holder, [0] * len(wh)), wh, strict=True)]
        stretches = dict(index_sums.scan_holders(chain.store, meter.meter_id, days))
        assert stretches == {holder: tuple(wh) for holder, wh in by_holder.items()}
        of_days = [astuple(day) for _, day in index.scan_source_days(chain.store, meter.meter_id, ALL_DAYS)]
        assert list(index_sums.scan_fates(chain.store, meter.meter_id, days)) == [
            tuple(sum(map(sum, groups)) for groups in zip(*of_days, strict=True))
        ]
        for stretch, holder in ((DAY_0_MS // DAY_MS // index_sums.STRETCH_DAYS, holder) for holder in by_holder):
            assert (stretch, meter.meter_id) in list(index_sums.scan_meters(chain.store, holder, days))


def test_stretches_of_days_are_whole_or_touched() -> None:
    assert index_sums.get_stretches(range(31, 64)) == range(2)
    assert index_sums.get_stretches(range(31, 65)) == range(3)
    assert list(index_sums.get_whole_stretches(range(31, 64))) == [1]
    assert list(index_sums.get_whole_stretches(range(1, 63))) == []
    assert list(index_sums.get_whole_stretches(range(33, 40))) == []


def test_replaying_the_receipts_gives_the_same_index() -> None:
    chain, random_ = QueryChain(), random.Random(7)
    _, lots = add_plants(chain, random_)
    trade_at_random(chain, lots, random_, steps=20)
    rebuilt = MemoryStore()
    for height in range(1, chain.height + 1):
        receipts = get_receipts(chain.store, height, chain.table)
        rebuilt.write(compute_index_changes(rebuilt, receipts, get_header(chain.store, height)))
    assert list_entries(rebuilt) == list_entries(chain.store)


def test_minted_energy_is_split_between_shareholders_as_the_lots_split_it() -> None:
    chain = QueryChain()
    shares = ((ALICE.address, 1), (BOB.address, 2), (CAROL.address, 4))
    wh = tuple(random.Random(1).randint(0, 50) for _ in range(8))
    event = EnergyMinted(bytes(16), bytes(16), DAY_0_MS, 900, 1, wh, shares)
    changes = compute_index_changes(chain.store, [Receipt(Hash(bytes(32)), (event,))], get_header(chain.store, 0))
    chain.store.write(changes)
    expected: Counter[tuple[Address, int]] = Counter()
    for place, one_wh in enumerate(wh):
        for one in make_first_slices(one_wh, shares):
            expected[one.holder, place // 4] += one.end_wh - one.first_wh
    found = {
        (holder, hour): held_wh
        for _, holder, holding in index.scan_source(chain.store, bytes(16), ALL_DAYS)
        for hour, held_wh in enumerate(holding.held)
        if held_wh
    }
    assert found == +expected
    assert sum(found.values()) == sum(wh)


def test_a_report_of_a_day_costs_seven_entries_whatever_its_intervals() -> None:
    chain = QueryChain()
    meter = chain.add_producer(ALICE)
    before = list_entries(chain.store)
    chain.produce(meter, *[100] * 96)
    added = set(list_entries(chain.store)) - set(before)
    assert sorted(key[1:2] for key in added) == [b"b", b"f", b"h", b"m", b"n", b"p", b"s"]
    before = list_entries(chain.store)
    chain.produce(meter, *[100] * 96, start_ms=DAY_0_MS + DAY_MS)
    added = set(list_entries(chain.store)) - set(before)
    assert sorted(key[1:2] for key in added) == [b"h", b"p", b"s"]


def test_who_has_given_all_away_is_gone_from_the_index() -> None:
    chain = QueryChain()
    meter = chain.add_producer(ALICE)
    (lot,) = chain.produce(meter, 500)
    chain.apply(TransferEnergy(BOB.address, (SliceRef(lot, 0, 500),), ""), by=ALICE)
    assert [holder for _, holder, _ in index.scan_source(chain.store, meter.meter_id, ALL_DAYS)] == [BOB.address]
    assert list(index.scan_holder(chain.store, ALICE.address, ALL_DAYS)) == []
    assert index.get_balance(chain.store, ALICE.address) == index.NO_BALANCE


def test_what_was_metered_is_minted_quarantined_or_not_minted() -> None:
    chain = QueryChain()
    meter = chain.add_producer(ALICE)
    most_wh = 10_000 // 4 * 110 // 100
    chain.produce(meter, 100, most_wh + 1, 300)
    estimated = meter.report(Channel.PRODUCTION, [40, most_wh + 2], flag=Flag.ESTIMATED)
    chain.submit(estimated)
    ((_, day),) = index.scan_source_days(chain.store, meter.meter_id, ALL_DAYS)
    assert sum(day.minted) == 400
    assert sum(day.quarantined) == 2 * most_wh + 3
    assert sum(day.not_minted) == 40
    assert sum(day.metered) == 400 + 2 * most_wh + 3 + 40
    columns = zip(day.metered, day.minted, day.quarantined, day.not_minted, strict=True)
    assert all(metered == sum(rest) for metered, *rest in columns)


def test_consumption_is_no_source() -> None:
    chain = QueryChain()
    meter = chain.add_consumer(BOB)
    chain.consume(meter, 10, 20)
    assert list(index.scan_source_days(chain.store, meter.meter_id, ALL_DAYS)) == []


def test_movements_of_a_day_name_their_transactions_in_order() -> None:
    chain = QueryChain()
    meter = chain.add_producer(ALICE)
    lots = chain.produce(meter, 100, 200)
    places = []
    for lot in lots:
        chain.apply(TransferEnergy(BOB.address, (SliceRef(lot, 0, 50),), ""), by=ALICE)
        places.append(Movement(chain.height, 0))
    day = DAY_0_MS // DAY_MS
    assert list(index.scan_movements(chain.store, meter.meter_id, day)) == places
    assert list(index.scan_movements(chain.store, meter.meter_id, day, after=places[0])) == places[1:]
    assert list(index.scan_movements(chain.store, meter.meter_id, day + 1)) == []


def test_lists_name_objects_of_their_parent_only() -> None:
    chain = QueryChain()
    first, second = chain.register_site(ALICE), chain.register_site(ALICE)
    meter = chain.register_meter(ALICE, second)
    sites = list(index.scan_list(chain.store, List.SITES_OF_OWNER, ALICE.address))
    assert [site for _, site in sites] == [first, second]
    assert list(index.scan_list(chain.store, List.SITES_OF_OWNER, ALICE.address, after=sites[0][0])) == sites[1:]
    assert list(index.scan_list(chain.store, List.SITES_OF_OWNER, UTILITY.address)) == []
    assert [one for _, one in index.scan_list(chain.store, List.METERS_OF_SITE, second)] == [meter.meter_id]


def test_days_of_a_period_are_those_it_touches() -> None:
    assert get_days(0, 1) == range(1)
    assert get_days(DAY_MS - 1, DAY_MS) == range(1)
    assert get_days(DAY_MS - 1, DAY_MS + QUARTER_MS) == range(2)
