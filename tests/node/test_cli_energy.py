"""Moving and claiming energy by quantity: which slices are chosen, and what is signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts_native.claims import ClaimEnergy
from contracts_native.lots import SLICES_PER_TRANSACTION_MAX, LotId, SliceRef, TransferEnergy
from ledger.fields import Json
from node.cli.choosing import ChoiceError, Consumed, Held, choose_matching, choose_quantity
from tests.node.fake_node import FakeNode, get_one, make_key_file

METER = bytes.fromhex("ab" * 16)
QUARTER_MS = 900_000
HOUR_MS = 4 * QUARTER_MS


def make_held(*wh: int, length_ms: int = QUARTER_MS) -> list[Held]:
    return [
        Held(LotId(METER, i * length_ms, 1), i * length_ms, (i + 1) * length_ms, 0, one) for i, one in enumerate(wh)
    ]


def make_consumed(*room_wh: int, length_ms: int = QUARTER_MS) -> list[Consumed]:
    return [Consumed(i * length_ms, (i + 1) * length_ms, one) for i, one in enumerate(room_wh)]


def measure(refs: list[SliceRef]) -> list[tuple[int, int]]:
    return [(ref.lot.start_ms // QUARTER_MS, ref.end_wh - ref.first_wh) for ref in refs]


def test_a_quantity_is_taken_from_the_oldest_and_exactly() -> None:
    assert measure(choose_quantity(make_held(5, 7, 9), 8)) == [(0, 5), (1, 3)]
    assert measure(choose_quantity(make_held(5, 7, 9), 21)) == [(0, 5), (1, 7), (2, 9)]
    with pytest.raises(ChoiceError, match="energy_not_sufficient: 21 Wh"):
        choose_quantity(make_held(5, 7, 9), 22)


def test_a_match_takes_what_was_consumed_in_the_same_interval() -> None:
    chosen = choose_matching(make_held(5, 7, 9), make_consumed(3, 0, 20), period_ms=HOUR_MS)
    assert measure(chosen) == [(0, 3), (2, 9)]


def test_short_lots_share_a_longer_interval() -> None:
    chosen = choose_matching(make_held(5, 7, 9, 1, 4), make_consumed(13, 2, length_ms=HOUR_MS), period_ms=HOUR_MS)
    assert measure(chosen) == [(0, 5), (1, 7), (2, 1), (4, 2)]


def test_a_long_lot_is_set_against_the_intervals_of_its_period() -> None:
    held = make_held(20, 20, length_ms=HOUR_MS)
    chosen = choose_matching(held, make_consumed(1, 2, 3, 4, 50), period_ms=HOUR_MS)
    assert measure(chosen) == [(0, 10), (4, 20)]


def test_a_match_can_be_limited() -> None:
    assert measure(choose_matching(make_held(5, 7), make_consumed(9, 9), period_ms=HOUR_MS, wh_max=6)) == [
        (0, 5),
        (1, 1),
    ]


def show_slices(*wh: int) -> list[Json]:
    return [
        {
            "lot_id": {"meter": METER.hex(), "start_ms": i * QUARTER_MS, "version": 1},
            "start_ms": i * QUARTER_MS,
            "end_ms": (i + 1) * QUARTER_MS,
            "first_wh": 0,
            "end_wh": one,
        }
        for i, one in enumerate(wh)
    ]


def show_reading(start_ms: int, *, wh: int, claimed_wh: int) -> Json:
    shown: dict[str, Json] = {"channel": "consumption", "state": "recorded", "start_ms": start_ms, "interval_s": 900}
    return {**shown, "wh": wh, "claimed_wh": claimed_wh}


def test_transfer_by_quantity_reads_every_page(tmp_path: Path) -> None:
    rows = show_slices(5, 7, 9)

    def answer(params: dict[str, Json]) -> Json:
        first = int(str(params.get("cursor", "0")))
        return {"slices": rows[first : first + 1], "next_cursor": None if first == 2 else str(first + 1)}

    node = FakeNode({"energy_slices": answer})
    alice, _ = make_key_file(tmp_path, "alice", 1)
    bob, bob_key = make_key_file(tmp_path, "bob", 2)
    document = node.run_json("energy", "transfer", "--recipient", bob, "--wh", "15", "--key", alice)
    payload = get_one(node.submitted).payload
    assert isinstance(payload, TransferEnergy)
    assert payload.recipient == bob_key.address
    assert measure(list(payload.slices)) == [(0, 5), (1, 7), (2, 3)]
    assert (document["wh"], document["slices"], len(document["transactions"])) == (15, 3, 1)
    refused = node.run("energy", "transfer", "--recipient", bob, "--wh", "22", "--key", alice)
    assert (refused.exit_code, "energy_not_sufficient" in refused.stderr) == (1, True)


def test_more_slices_than_a_transaction_takes_go_in_several(tmp_path: Path) -> None:
    count = SLICES_PER_TRANSACTION_MAX + 1
    node = FakeNode({"energy_slices": {"slices": show_slices(*([2] * count)), "next_cursor": None}})
    alice, _ = make_key_file(tmp_path, "alice", 1)
    bob, _ = make_key_file(tmp_path, "bob", 2)
    node.run_json("energy", "transfer", "--recipient", bob, "--wh", 2 * count, "--key", alice)
    payloads = [tx.payload for tx in node.submitted]
    assert [len(one.slices) for one in payloads if isinstance(one, TransferEnergy)] == [SLICES_PER_TRANSACTION_MAX, 1]


def test_an_hourly_claim_fits_what_is_left_of_the_consumption(tmp_path: Path) -> None:
    readings = [show_reading(0, wh=9, claimed_wh=6), show_reading(QUARTER_MS, wh=50, claimed_wh=0)]
    node = FakeNode(
        {
            "energy_slices": {"slices": show_slices(5, 7), "next_cursor": None},
            "reading_list": {"readings": readings, "next_cursor": None},
            "chain_parameters": {"parameters": {"matching_period_s": 3_600, "transaction_lifetime_blocks": 100}},
        }
    )
    bob, bob_key = make_key_file(tmp_path, "bob", 2)
    words = ["--from", "1970-01-01", "--until", "1970-01-02", "--statement", "S-1", "--key", bob]
    node.run_json("energy", "claim", *words, "--consumption-meter", "cd" * 16)
    payload = get_one(node.submitted).payload
    assert isinstance(payload, ClaimEnergy)
    assert measure(list(payload.slices)) == [(0, 3), (1, 7)]
    assert (payload.beneficiary, payload.consumption_meter) == (bob_key.address, bytes.fromhex("cd" * 16))
    assert (payload.period_start_ms, payload.period_end_ms) == (0, 86_400_000)


def test_a_claim_names_its_period(tmp_path: Path) -> None:
    bob, _ = make_key_file(tmp_path, "bob", 2)
    result = FakeNode().run("energy", "claim", "--statement", "S-1", "--key", bob)
    assert (result.exit_code, "Missing option '--from'" in result.stderr) == (2, True)
