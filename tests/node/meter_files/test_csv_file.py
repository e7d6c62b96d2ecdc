"""CSV: gaps, flags, directions, and every way in which a row can be wrong."""

from __future__ import annotations

import pytest

from contracts_native.readings import Flag
from node.meter_files.csv_file import read_csv
from node.meter_files.model import MeterFileError, collect_channels, make_meter_file
from tests.node.meter_files.reading_words import collect, get_refusal, sum_up

GOOD = """start_utc,production_wh,consumption_wh
2016-06-06T00:00:00Z,5,1
2016-06-06T00:15:00Z,6,
2016-06-06T01:00:00Z,7,3
"""


def test_a_row_that_is_not_there_and_an_empty_cell_are_gaps() -> None:
    production, consumption = sum_up(GOOD)
    assert production == {
        "source": "x",
        "point": "x",
        "direction": "production",
        "unit": "Wh",
        "interval_s": 900,
        "intervals": 3,
        "first_start": "2016-06-06T00:00:00Z",
        "last_end": "2016-06-06T01:15:00Z",
        "total_wh": 18,
    }
    assert (consumption["intervals"], consumption["total_wh"]) == (2, 4)


def test_windows_line_ends_a_mark_and_a_missing_last_line_feed_are_read() -> None:
    assert sum_up("\ufeff" + GOOD.replace("\n", "\r\n").rstrip()) == sum_up(GOOD)


def test_a_column_of_any_name_is_a_point_and_may_say_its_direction() -> None:
    rows = "start_utc,roof_production_wh,barn\n2016-06-06T00:00:00Z,5,1\n2016-06-06T01:00:00Z,6,2\n"
    assert [(one["point"], one["direction"]) for one in sum_up(rows)] == [("roof", "production"), ("barn", None)]


def test_a_column_of_flags_says_how_the_values_came_about() -> None:
    rows = "start_utc,a_wh,flag\n2016-06-06T00:00:00Z,5,measured\n2016-06-06T01:00:00Z,6,substituted\n"
    assert [value.flag for value in collect(rows)[0].values] == [Flag.MEASURED, Flag.SUBSTITUTED]
    assert get_refusal(rows.replace("measured", "guessed")).startswith("quality_unknown: x:2: guessed")


def test_only_the_wanted_columns_are_read_and_one_row_needs_the_length_of_its_interval() -> None:
    file = make_meter_file("x", b"start_utc,a,b\n2016-06-06T00:00:00Z,5,x\n")
    (only,) = collect_channels(read_csv(file, columns=["a"], interval_s=900))
    assert (only.interval_s, only.values[0].wh) == (900, 5)
    with pytest.raises(MeterFileError, match="column_unknown: x:1: c"):
        list(read_csv(file, columns=["c"]))


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "header_missing: x:1"),
        ("time,wh\n", "header_missing: x:1"),
        ("start_utc\n2016-06-06T00:00:00Z\n", "header_missing: x:1"),
        ("start_utc,a,a\n", "column_named_twice: x:1: a"),
        ("start_utc,a\n", "values_missing: x:1"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n", "interval_length_unknown: x:2"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:15:00,1\n", "time_without_offset: x:3"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\nnonsenseZ,1\n", "time_invalid: x:3"),
        ("start_utc,a\n2016-06-31T00:00:00Z,1\n", "time_invalid: x:2"),
        ("start_utc,a\n2016-06-06T00:15:00Z,1\n2016-06-06T00:00:00Z,1\n", "time_not_rising: x:3"),
        ("start_utc,a\n2016-06-06T00:15:00Z,1\n2016-06-06T00:15:00Z,1\n", "interval_overlaps: x:3"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:15:00Z,1,1\n", "row_malformed: x:3"),
        ('start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:15:00Z,"1\n', "row_malformed: x:3"),
        ("start_utc,a\n2016-06-06T00:00:00Z,1\n2016-06-06T00:15:00Z,1.5\n", "value_not_a_number: x:3: a"),
        ("start_utc,a\n2016-06-06T00:00:00Z,-1\n2016-06-06T00:15:00Z,1\n", "value_not_a_number: x:2: a"),
        ("start_utc,a\n2016-06-06T00:00:00Z,²\n2016-06-06T00:15:00Z,1\n", "value_not_a_number: x:2"),
        ("start_utc,a\n2016-06-06T00:00:00Z,9999999999999\n2016-06-06T00:15:00Z,1\n", "value_too_large: x:2"),
        ("start_utc,a\n" + "x" * 70_000, "line_too_long: x:2"),
        (b"start_utc,a\n\xff", "text_not_utf8: x:2"),
        ("start_utc," + ",".join(f"c{n}" for n in range(1_001)) + "\n", "channels_too_many: x:1"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_reason(text: str | bytes, refusal: str) -> None:
    assert get_refusal(text, "csv").startswith(refusal)
