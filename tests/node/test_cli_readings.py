"""Readings from files: the dry run, what is chosen, and the reports that are signed. The formats: ``meter_files/``."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts_native.meters import Channel
from contracts_native.readings import Flag, SubmitReadings, make_report_message
from ledger.primitives import is_valid_meter_signature
from node.cli.groups.reading import INTERVALS_PER_TRANSACTION_MAX, fit_channels, make_reports, split_reports
from node.keystore import MeterSigningKey, save_key_unencrypted
from node.meter_files.csv_file import read_csv
from node.meter_files.model import collect_channels, make_meter_file
from tests.node.fake_node import CHAIN_ID, FakeNode, get_one, make_key_file

METER = "ab" * 16
CHANNELS = [{"channel": name, "capacity_w": 5_000, "interval_s": 900} for name in ("production", "consumption")]
DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
GOOD = """start_utc,production_wh,consumption_wh
2016-06-06T00:00:00Z,5,1
2016-06-06T00:15:00Z,6,
2016-06-06T01:00:00Z,7,3
"""


@pytest.fixture
def node() -> FakeNode:
    last = {"production": {"sequence": 4, "end_ms": 0, "register_wh": 100}, "consumption": None}
    return FakeNode({"meter_get": {"meter": METER, "last_accepted": last, "channels": CHANNELS}})


def test_a_dry_run_lists_each_channel_and_asks_no_node(node: FakeNode, tmp_path: Path) -> None:
    node.is_there = False
    path = tmp_path / "june.csv"
    path.write_text(GOOD)
    production, consumption = node.run_json("reading", "submit", path, "--dry-run")
    assert production == {
        "source": str(path),
        "point": "june",
        "direction": "production",
        "unit": "Wh",
        "interval_s": 900,
        "intervals": 3,
        "first_start": "2016-06-06T00:00:00Z",
        "last_end": "2016-06-06T01:15:00Z",
        "total_wh": 18,
    }
    assert (consumption["intervals"], consumption["total_wh"]) == (2, 4)


def test_values_are_signed_by_the_meter_and_go_on_from_where_it_stands(node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "june.csv").write_text(GOOD)
    key = MeterSigningKey.from_seed(bytes([9] * 32), "p256")
    save_key_unencrypted(tmp_path / "meter.key.json", key)
    oracle, _ = make_key_file(tmp_path, "oracle", 1)
    words = ["--meter", METER, "--meter-key", tmp_path / "meter.key.json", "--key", oracle]
    node.run_json("reading", "submit", tmp_path / "june.csv", *words)
    payload = get_one(node.submitted).payload
    assert isinstance(payload, SubmitReadings)
    seen = [
        (one.channel, one.sequence, one.values_wh, one.register_start_wh, one.register_end_wh)
        for one in payload.reports
    ]
    assert seen == [
        (Channel.PRODUCTION, 5, (5, 6), 100, 111),
        (Channel.PRODUCTION, 6, (7,), 111, 118),
        (Channel.CONSUMPTION, 1, (1,), 0, 1),
        (Channel.CONSUMPTION, 2, (3,), 1, 4),
    ]
    for one in payload.reports:
        message = make_report_message(CHAIN_ID, one)
        assert is_valid_meter_signature(key.public_key, message, one.signature)


def test_only_a_part_of_the_time_is_taken_when_asked(node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "june.csv").write_text(GOOD)
    words = ["--from", "2016-06-06T00:15:00Z", "--until", "2016-06-06T01:00:00Z", "--column", "production_wh"]
    (only,) = node.run_json("reading", "submit", tmp_path / "june.csv", "--dry-run", *words)
    assert (only["intervals"], only["total_wh"]) == (1, 6)


def test_a_column_of_any_name_needs_its_direction(node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "june.csv").write_text("start_utc,roof\n2016-06-06T00:00:00Z,5\n2016-06-06T00:15:00Z,6\n")
    path, _ = make_key_file(tmp_path, "meter", 1)
    words = ["--meter", METER, "--meter-key", path, "--key", path]
    result = node.run("reading", "submit", tmp_path / "june.csv", *words)
    assert (result.exit_code, "say --direction" in result.stderr) == (2, True)
    node.run_json("reading", "submit", tmp_path / "june.csv", *words, "--direction", "production")
    assert len(node.submitted) == 1


@pytest.mark.parametrize("words", [["--dry-run"], []])
def test_a_wrong_file_is_one_line_with_its_place_and_reason(node: FakeNode, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "june.csv").write_text(GOOD + "2016-06-06T01:15:00Z,x,1\n")
    if not words:
        path, _ = make_key_file(tmp_path, "meter", 1)
        words = ["--meter", METER, "--meter-key", str(path), "--key", str(path)]
    result = node.run("reading", "submit", tmp_path / "june.csv", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"wattprint: value_not_a_number: {tmp_path / 'june.csv'}:5: june: x")
    assert node.submitted == []


def test_files_of_several_formats_are_told_apart_and_their_quality_is_kept(node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "june.csv").write_text(GOOD)
    (tmp_path / "day.txt").write_text(make_nem12("B1", "0.001", "F14"))
    assert len(node.run_json("reading", "submit", tmp_path / "june.csv", tmp_path / "day.txt", "--dry-run")) == 3
    path, _ = make_key_file(tmp_path, "meter", 1)
    words = ["--meter", METER, "--meter-key", path, "--key", path]
    node.run_json("reading", "submit", tmp_path / "day.txt", *words, "--format", "nem12", "--flag", "measured")
    payload = get_one(node.submitted).payload
    assert isinstance(payload, SubmitReadings)
    assert [(one.flag, one.interval_s, one.values_wh) for one in payload.reports] == [
        (Flag.SUBSTITUTED, 900, (3,) * 96)
    ]


def test_only_the_wanted_point_is_taken(node: FakeNode, tmp_path: Path) -> None:
    (tmp_path / "day.txt").write_text(make_nem12("B1", "0.001", "A") + make_nem12("E1", "0.002", "A"))
    words = ["--dry-run", "--point", "NMI1234567/E1"]
    (only,) = node.run_json("reading", "submit", tmp_path / "day.txt", *words)
    assert (only["point"], only["direction"], only["total_wh"]) == ("NMI1234567/E1", "consumption", 576)
    result = node.run("reading", "submit", tmp_path / "day.txt", "--dry-run", "--column", "a")
    assert (result.exit_code, "is nem12: --column" in result.stderr) == (2, True)


def make_nem12(suffix: str, value: str, quality: str) -> str:
    values = ",".join([value] * 288)
    return f"100,NEM12,1,2,3\n200,NMI1234567,B1E1,1,{suffix},,M,kWh,5,\n300,20230301,{values},{quality},,,\n900\n"


def test_transactions_stay_below_the_largest() -> None:
    rows = "".join(f"{start},1\n" for start in make_starts(2_500))
    data = collect_channels(read_csv(make_meter_file("x.csv", f"start_utc,production_wh\n{rows}".encode())))
    meter = {"meter": METER, "last_accepted": {"production": None}, "channels": CHANNELS[:1]}
    reports = make_reports(fit_channels(data, meter), meter, CHAIN_ID, MeterSigningKey.from_seed(bytes([9] * 32)))
    batches = split_reports(reports * 10)
    assert [len(batch) for batch in batches] == [8, 2]
    assert all(sum(len(one.values_wh) for one in batch) <= INTERVALS_PER_TRANSACTION_MAX for batch in batches)


def make_starts(count: int) -> list[str]:
    return [
        f"2016-{1 + i // 2_688:02}-{1 + i % 2_688 // 96:02}T{i % 96 // 4:02}:{i % 4 * 15:02}:00Z" for i in range(count)
    ]


def test_a_community_of_real_files_has_the_totals_that_its_readme_tells(node: FakeNode) -> None:
    found = node.run_json("reading", "submit", DATA / "community_rural2_2016jun_15min.csv", "--dry-run")
    assert sum(one["total_wh"] for one in found) == 340_564_749 + 11_701_112
