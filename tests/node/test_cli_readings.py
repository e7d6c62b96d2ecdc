"""Readings from CSV files: what is in them, every refusal by file and line, and the reports that are signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts_native.meters import Channel
from contracts_native.readings import Flag, SubmitReadings, make_report_message
from ledger.primitives import is_valid_meter_signature
from node.cli.csv_readings import ReadingFileError, parse_csv, read_csv
from node.cli.groups.reading import INTERVALS_PER_TRANSACTION_MAX, make_reports, split_reports
from node.keystore import MeterSigningKey, save_key_unencrypted
from tests.node.fake_node import CHAIN_ID, FakeNode, get_one, make_key_file

METER = "ab" * 16
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
GOOD = """start_utc,production_wh,consumption_wh
2016-06-06T00:00:00Z,5,1
2016-06-06T00:15:00Z,6,
2016-06-06T01:00:00Z,7,3
"""


@pytest.fixture
def node() -> FakeNode:
    last = {"production": {"sequence": 4, "end_ms": 0, "register_wh": 100}, "consumption": None}
    return FakeNode({"meter_get": {"meter": METER, "last_accepted": last}})


def test_a_dry_run_lists_each_channel_and_asks_no_node(node: FakeNode, tmp_path: Path) -> None:
    node.is_there = False
    path = tmp_path / "june.csv"
    path.write_text(GOOD)
    production, consumption = node.run_json("reading", "submit", path, "--dry-run")
    assert production == {
        "source": str(path),
        "point": None,
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
        message = make_report_message(
            CHAIN_ID,
            meter=one.meter,
            channel=one.channel,
            sequence=one.sequence,
            start_ms=one.start_ms,
            interval_s=one.interval_s,
            values_wh=one.values_wh,
            register_start_wh=one.register_start_wh,
            register_end_wh=one.register_end_wh,
            flag=one.flag,
        )
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


@pytest.mark.parametrize(
    ("text", "reason", "place"),
    [
        ("", "header_wrong", ":1"),
        ("time,wh\n", "header_wrong", ":1"),
        ("start_utc\n2016-06-06T00:00:00Z\n", "header_wrong", ":1"),
        ("start_utc,a,a\n", "column_named_twice", ":1"),
        ("start_utc,a\n", "file_has_no_values", "x.csv"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n", "interval_length_unknown", "--interval-s"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:15:00,1\n", "time_invalid", ":3"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\nnonsenseZ,1\n", "time_invalid", ":3"),
        ("start_utc,a\n2016-06-06T00:15:00Z,1\n2016-06-06T00:00:00Z,1\n", "time_not_rising", ":3"),
        ("start_utc,a\n2016-06-06T00:15:00Z,1\n2016-06-06T00:15:00Z,1\n", "time_not_rising", ":3"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:15:00Z,1,1\n", "row_wrong", ":3"),
        ('start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:15:00Z,"1\n', "row_wrong", ":3"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:15:00Z,1.5\n", "value_not_whole_wh", ":3: column a"),
        ("start_utc,a\n2016-06-06T00:00:00Z,-1\n2016-06-06T00:15:00Z,1\n", "value_not_whole_wh", ":2: column a"),
        ("start_utc,a\n2016-06-06T00:00:00Z,²\n2016-06-06T00:15:00Z,1\n", "value_not_whole_wh", ":2: column a"),
        ("start_utc,a\n2016-06-06T00:00:00Z,9999999999999\n2016-06-06T00:15:00Z,1\n", "value_not_whole_wh", ":2"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:07:00Z,1\n", "interval_length_not_allowed", "420 s"),
        ("start_utc,a\n2016-06-06T00:05:00Z,1\n2016-06-06T00:20:00Z,1\n", "interval_not_aligned", ":2"),
        ("start_utc,a\n2016-06-06T00:00:00Z,\n2016-06-06T00:15:00Z,\n", "file_has_no_values", "column a"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_reason(text: str, reason: str, place: str) -> None:
    with pytest.raises(ReadingFileError) as refused:
        parse_csv(text, source="x.csv")
    assert refused.value.reason == reason
    assert refused.value.item.startswith("x.csv")
    assert place in refused.value.item


def test_a_column_that_is_not_there_and_a_file_that_is_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadingFileError, match=r"column_missing: x\.csv:1: b"):
        parse_csv(GOOD, source="x.csv", columns=["b"])
    (tmp_path / "bad.csv").write_bytes(b"start_utc,a\n\xff")
    with pytest.raises(ReadingFileError, match=r"file_not_utf8: .*bad\.csv:2"):
        read_csv(tmp_path / "bad.csv")
    with pytest.raises(ReadingFileError, match="file_not_readable"):
        read_csv(tmp_path)


def test_transactions_stay_below_the_largest(tmp_path: Path) -> None:
    assert tmp_path
    rows = "".join(f"{start},1\n" for start in make_starts(2_500))
    data = parse_csv("start_utc,production_wh\n" + rows, source="x.csv")
    meter = {"meter": METER, "last_accepted": {"production": None}}
    reports = make_reports(data, meter, CHAIN_ID, MeterSigningKey.from_seed(bytes([9] * 32)), Flag.MEASURED)
    batches = split_reports(reports * 10)
    assert [len(batch) for batch in batches] == [8, 2]
    assert all(sum(len(one.values_wh) for one in batch) <= INTERVALS_PER_TRANSACTION_MAX for batch in batches)


def make_starts(count: int) -> list[str]:
    return [
        f"2016-{1 + i // 2_688:02}-{1 + i % 2_688 // 96:02}T{i % 96 // 4:02}:{i % 4 * 15:02}:00Z" for i in range(count)
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_files_have_the_totals_that_their_readme_tells() -> None:
    (factory,) = read_csv(SHARED / "consumption" / "factory_kr_2018h1_15min.csv")
    assert (factory.direction, factory.interval_s) == (Channel.CONSUMPTION, 900)
    community = read_csv(SHARED / "community" / "community_rural2_2016jun_15min.csv")
    assert sum(sum(one.values_wh) for one in community) == 340_564_749 + 11_701_112
    prosumer = read_csv(SHARED / "prosumer" / "home_fr_spring_summer2024_30min.csv")
    assert [one.interval_s for one in prosumer] == [1_800, 1_800]
