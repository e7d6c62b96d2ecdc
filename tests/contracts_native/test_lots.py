"""Whatever happens to a lot, its slices partition it, and only their holder moves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_native.lots import (
    LOT_SLICES_MAX,
    SLICES,
    SLICES_PER_TRANSACTION_MAX,
    EnergyMoved,
    LotId,
    LotSlices,
    SliceRef,
    TransferEnergy,
    claim,
    find_lot,
    get_lot,
    get_slices,
    get_slices_at,
    move,
    release,
    reserve,
)
from contracts_native.sites import Technology
from contracts_native.slices import Slice, SliceStatus, is_partition, make_first_slices, split_by_shares
from ledger.errors import Malformed, NotPermitted, Rejected, RuleViolated
from ledger.parameters import Parameters
from ledger.primitives import Address
from ledger.state import State
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    DAY_0_MS,
    NOW_MS,
    QUARTER_MS,
    STRANGER,
    Person,
    World,
    check_energy_conserved,
)

OFFER = b"an offer, 16 b.."
OTHER_OFFER = b"another, 16 b..."


def make_world(*values_wh: int) -> tuple[World, list[LotId]]:
    """Alice's plant, with the lots of its first intervals."""
    world = World()
    return world, world.produce(world.add_producer(ALICE), *values_wh)


def transfer(*refs: SliceRef, to: Person = BOB, reference: str = "") -> TransferEnergy:
    return TransferEnergy(to.address, refs, reference)


def list_held(world: World, lot: LotId) -> list[tuple[int, int, Address]]:
    return [(one.first_wh, one.end_wh, one.holder) for one in get_slices(world.state, lot)]


def test_a_transfer_splits_a_lot_and_says_so() -> None:
    world, (lot,) = make_world(100)
    applied = world.apply(transfer(SliceRef(lot, 20, 50), reference="order 7"), by=ALICE)
    assert list_held(world, lot) == [(0, 20, ALICE.address), (20, 50, BOB.address), (50, 100, ALICE.address)]
    assert applied.one(EnergyMoved) == EnergyMoved(lot, 20, 50, ALICE.address, BOB.address, "order 7")
    check_energy_conserved(world.state)


def test_slices_that_become_equal_merge_again() -> None:
    world, (lot,) = make_world(100)
    world.apply(transfer(SliceRef(lot, 20, 50)), by=ALICE)
    world.apply(transfer(SliceRef(lot, 50, 60)), by=ALICE)
    assert list_held(world, lot) == [(0, 20, ALICE.address), (20, 60, BOB.address), (60, 100, ALICE.address)]
    world.apply(transfer(SliceRef(lot, 20, 60), to=ALICE), by=BOB)
    assert list_held(world, lot) == [(0, 100, ALICE.address)]


def test_one_transfer_moves_slices_of_many_lots_or_none() -> None:
    world, lots = make_world(100, 200, 300)
    refs = [SliceRef(lot, 0, 100) for lot in lots]
    world.refuses(transfer(*refs, replace(refs[1], first_wh=199, end_wh=201)), "range_outside_lot", by=ALICE)
    assert len(get_slices(world.state, lots[2])) == 1
    world.apply(transfer(*refs), by=ALICE)
    assert all(get_slices(world.state, lot)[0].holder == BOB.address for lot in lots)


def test_a_lot_is_found_by_its_id_only() -> None:
    world, (lot, second) = make_world(100, 200)
    found = get_lot(world.state, second)
    assert (found.wh, found.start_ms, found.end_ms) == (200, DAY_0_MS + QUARTER_MS, DAY_0_MS + 2 * QUARTER_MS)
    assert (found.zone, found.technology, found.interval_s) == ("DE-LU", Technology.SOLAR, 900)
    for wrong in [
        replace(lot, version=2),
        replace(lot, start_ms=DAY_0_MS + 1),
        replace(lot, start_ms=DAY_0_MS - QUARTER_MS),
        replace(lot, start_ms=DAY_0_MS + 2 * QUARTER_MS),
        replace(lot, meter=bytes(16)),
    ]:
        assert find_lot(world.state, wrong) is None
        world.refuses(transfer(SliceRef(wrong, 0, 1)), "lot_unknown", by=ALICE)


@pytest.mark.parametrize(
    ("first_wh", "end_wh", "reason"),
    [
        (10, 10, "range_empty"),
        (11, 10, "range_empty"),
        (0, 0, "range_empty"),
        (0, 101, "range_outside_lot"),
        (100, 101, "range_outside_lot"),
    ],
)
def test_a_range_lies_in_its_lot(first_wh: int, end_wh: int, reason: str) -> None:
    world, (lot,) = make_world(100)
    world.refuses(transfer(SliceRef(lot, first_wh, end_wh)), reason, by=ALICE)


def test_nobody_moves_what_another_holds_not_even_in_part() -> None:
    world, (lot,) = make_world(100)
    world.refuses(transfer(SliceRef(lot, 0, 1), to=CAROL), "slice_not_held", by=BOB)
    world.apply(transfer(SliceRef(lot, 40, 60)), by=ALICE)
    for first_wh, end_wh in [(39, 41), (59, 61), (0, 100), (45, 55)]:
        world.refuses(transfer(SliceRef(lot, first_wh, end_wh), to=CAROL), "slice_not_held", by=ALICE)


def test_one_transfer_does_not_move_a_watt_hour_twice() -> None:
    world, (lot,) = make_world(100)
    world.refuses(transfer(SliceRef(lot, 0, 50), SliceRef(lot, 49, 60)), "slice_not_held", by=ALICE)


def test_a_transfer_goes_to_another_registered_participant() -> None:
    world, (lot,) = make_world(100)
    ref = SliceRef(lot, 0, 10)
    world.refuses(transfer(ref, to=ALICE), "recipient_is_sender", by=ALICE)
    world.refuses(transfer(ref, to=STRANGER), "participant_unknown", by=ALICE)


def test_a_frozen_holders_slices_stay_where_they_are() -> None:
    world, (lot,) = make_world(100)
    ref = SliceRef(lot, 0, 10)
    world.freeze(BOB)
    world.refuses(transfer(ref), "participant_frozen", by=ALICE)
    world.freeze(ALICE)
    world.refuses(transfer(ref, to=CAROL), "participant_frozen", by=ALICE)
    owner = ALICE.address
    frozen: list[Callable[[], object]] = [
        lambda: move(world.state, ref, owner=owner, to=CAROL.address, reference="", time_ms=NOW_MS),
        lambda: reserve(world.state, ref, owner=owner, reference=OFFER, time_ms=NOW_MS),
        lambda: claim(world.state, ref, owner=owner, reference=OFFER, time_ms=NOW_MS),
    ]
    for attempt in frozen:
        with pytest.raises(NotPermitted, match="participant_frozen"):
            attempt()


def test_an_expired_lot_neither_moves_nor_is_reserved_nor_claimed() -> None:
    world, (lot,) = make_world(100)
    ref = SliceRef(lot, 0, 10)
    world.apply(transfer(SliceRef(lot, 90, 100)), by=ALICE)
    expires_ms = DAY_0_MS + QUARTER_MS + Parameters().lot_lifetime_s * 1_000
    world.time_ms = expires_ms - 1
    world.apply(transfer(SliceRef(lot, 80, 90)), by=ALICE)
    assert {one.status for one in get_slices_at(world.state, lot, time_ms=expires_ms - 1)} == {SliceStatus.ACTIVE}
    reserve(world.state, SliceRef(lot, 10, 20), owner=ALICE.address, reference=OFFER, time_ms=expires_ms - 1)
    world.commit()
    world.time_ms = expires_ms
    world.refuses(transfer(ref), "lot_expired", by=ALICE)
    owner = ALICE.address
    with pytest.raises(RuleViolated, match="lot_expired"):
        reserve(world.state, ref, owner=owner, reference=OFFER, time_ms=expires_ms)
    with pytest.raises(RuleViolated, match="lot_expired"):
        claim(world.state, ref, owner=owner, reference=OFFER, time_ms=expires_ms)
    statuses = [one.status for one in get_slices_at(world.state, lot, time_ms=expires_ms)]
    expired, reserved = SliceStatus.EXPIRED, SliceStatus.RESERVED
    assert statuses == [expired, reserved, expired, expired]
    release(world.state, SliceRef(lot, 10, 20), owner=owner, reference=OFFER)


def test_a_reserved_slice_waits_for_its_own_release() -> None:
    world, (lot,) = make_world(100)
    ref = SliceRef(lot, 10, 20)
    owner = ALICE.address
    with pytest.raises(RuleViolated, match="slice_not_reserved"):
        release(world.state, ref, owner=owner, reference=OFFER)
    reserve(world.state, ref, owner=owner, reference=OFFER, time_ms=NOW_MS)
    world.commit()
    world.refuses(transfer(SliceRef(lot, 0, 11)), "slice_reserved", by=ALICE)
    with pytest.raises(RuleViolated, match="slice_reserved"):
        reserve(world.state, ref, owner=owner, reference=OTHER_OFFER, time_ms=NOW_MS)
    with pytest.raises(RuleViolated, match="slice_reserved"):
        claim(world.state, ref, owner=owner, reference=OTHER_OFFER, time_ms=NOW_MS)
    with pytest.raises(RuleViolated, match="slice_reserved_for_another"):
        release(world.state, ref, owner=owner, reference=OTHER_OFFER)
    with pytest.raises(RuleViolated, match="slice_not_held"):
        release(world.state, ref, owner=BOB.address, reference=OFFER)
    assert check_energy_conserved(world.state)[SliceStatus.RESERVED] == 10
    release(world.state, ref, owner=owner, reference=OFFER)
    world.commit()
    assert list_held(world, lot) == [(0, 100, owner)]


def test_a_claimed_slice_never_moves_again() -> None:
    world, (lot,) = make_world(100)
    ref = SliceRef(lot, 10, 20)
    owner = ALICE.address
    claim(world.state, ref, owner=owner, reference=OFFER, time_ms=NOW_MS)
    world.commit()
    world.refuses(transfer(ref), "slice_already_claimed", by=ALICE)
    world.refuses(transfer(SliceRef(lot, 0, 100)), "slice_already_claimed", by=ALICE)
    with pytest.raises(RuleViolated, match="slice_already_claimed"):
        claim(world.state, ref, owner=owner, reference=OTHER_OFFER, time_ms=NOW_MS)
    with pytest.raises(RuleViolated, match="slice_already_claimed"):
        release(world.state, ref, owner=owner, reference=OFFER)


def test_a_withdrawn_slice_does_not_move() -> None:
    world, (lot,) = make_world(100)
    withdrawn = Slice(0, 100, ALICE.address, SliceStatus.WITHDRAWN, b"")
    SLICES.put(world.state, lot.meter, lot.start_ms, lot.version, value=LotSlices((withdrawn,)))
    world.commit()
    world.refuses(transfer(SliceRef(lot, 0, 10)), "slice_withdrawn", by=ALICE)


def test_a_lot_has_a_limit_of_slices() -> None:
    world, (lot,) = make_world(2_000)
    refs = [SliceRef(lot, 2 * index + 1, 2 * index + 2) for index in range(512)]
    world.apply(transfer(*refs[:511]), by=ALICE)
    assert len(get_slices(world.state, lot)) == LOT_SLICES_MAX - 1
    world.refuses(transfer(refs[511]), "lot_too_fragmented", by=ALICE)
    world.apply(transfer(SliceRef(lot, 1_990, 2_000)), by=ALICE)
    assert len(get_slices(world.state, lot)) == LOT_SLICES_MAX
    world.apply(transfer(refs[0], to=CAROL), by=BOB)
    check_energy_conserved(world.state)


def test_a_transaction_has_a_limit_of_slices() -> None:
    world, (lot,) = make_world(2_000)
    refs = [SliceRef(lot, index, index + 1) for index in range(SLICES_PER_TRANSACTION_MAX + 1)]
    with pytest.raises(Malformed, match="array_length_out_of_range"):
        world.apply(transfer(*refs), by=ALICE)
    world.apply(transfer(*refs[:-1]), by=ALICE)
    assert list_held(world, lot)[0] == (0, 1_000, BOB.address)


weights = st.lists(st.integers(1, 10**6), min_size=1, max_size=256)


@settings(derandomize=True, database=None, deadline=None)
@given(st.integers(1, 10**12), weights)
def test_parts_by_largest_remainder_sum_exactly_and_are_fair_to_one_watt_hour(wh: int, parts: list[int]) -> None:
    shares = [(Address(index.to_bytes(20, "big")), weight) for index, weight in enumerate(parts)]
    split = split_by_shares(wh, shares)
    assert sum(split) == wh
    total = sum(parts)
    assert all(
        wh * weight // total <= part <= -(-wh * weight // total) for part, weight in zip(split, parts, strict=True)
    )
    assert is_partition(make_first_slices(wh, shares), wh)


def test_equal_remainders_go_by_order() -> None:
    shares = [(ALICE.address, 1), (BOB.address, 1), (CAROL.address, 1)]
    assert split_by_shares(5, shares) == [2, 2, 1]
    assert split_by_shares(1, shares) == [1, 0, 0]
    assert [one.holder for one in make_first_slices(1, shares)] == [ALICE.address]


def test_what_is_no_partition_is_seen() -> None:
    def make(*ranges: tuple[int, int]) -> list[Slice]:
        return [Slice(first_wh, end_wh, ALICE.address, SliceStatus.ACTIVE, b"") for first_wh, end_wh in ranges]

    assert is_partition(make((0, 4), (4, 9)), 9)
    for ranges in [((0, 4), (5, 9)), ((0, 5), (4, 9)), ((1, 9),), ((0, 8),), ((0, 4), (4, 4), (4, 9))]:
        assert not is_partition(make(*ranges), 9)


@pytest.mark.parametrize("seed", range(20))
def test_random_changes_agree_with_a_model_that_counts_single_watt_hours(seed: int) -> None:
    random = Random(seed)
    size_wh = 40
    world, (lot,) = make_world(size_wh)
    model = [(ALICE.address, SliceStatus.ACTIVE, b"")] * size_wh
    people = [ALICE.address, BOB.address, CAROL.address]
    for _ in range(150):
        first_wh = random.randrange(size_wh)
        ref = SliceRef(lot, first_wh, min(size_wh, first_wh + random.randrange(1, 8)))
        owner, to = random.choice(people), random.choice(people)
        verb = random.choices(["move", "reserve", "release", "claim"], [10, 4, 6, 1])[0]
        before = SliceStatus.RESERVED if verb == "release" else SliceStatus.ACTIVE
        needed = (owner, before, OFFER if verb == "release" else b"")
        allowed = all(one == needed for one in model[ref.first_wh : ref.end_wh])
        try:
            after = change(world.state, verb, ref, owner=owner, to=to)
        except Rejected:
            assert not allowed, f"{verb} {ref}"
        else:
            assert allowed, f"{verb} {ref}"
            model[ref.first_wh : ref.end_wh] = [after] * (ref.end_wh - ref.first_wh)
        slices = get_slices(world.state, lot)
        flat = [(one.holder, one.status, one.reference) for one in slices for _ in range(one.first_wh, one.end_wh)]
        assert flat == model
        assert is_partition(slices, size_wh)
    world.commit()
    check_energy_conserved(world.state)


def change(
    state: State, verb: str, ref: SliceRef, *, owner: Address, to: Address
) -> tuple[Address, SliceStatus, bytes]:
    if verb == "move":
        move(state, ref, owner=owner, to=to, reference="", time_ms=NOW_MS)
        return to, SliceStatus.ACTIVE, b""
    if verb == "reserve":
        reserve(state, ref, owner=owner, reference=OFFER, time_ms=NOW_MS)
        return owner, SliceStatus.RESERVED, OFFER
    if verb == "release":
        release(state, ref, owner=owner, reference=OFFER)
        return owner, SliceStatus.ACTIVE, b""
    claim(state, ref, owner=owner, reference=OTHER_OFFER, time_ms=NOW_MS)
    return owner, SliceStatus.CLAIMED, OTHER_OFFER
