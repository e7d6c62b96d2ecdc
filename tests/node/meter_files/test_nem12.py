"""NEM12: qualities by range, days without summer time, and every record out of place."""

from __future__ import annotations

import pytest

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from tests.node.meter_files.reading_words import collect, get_refusal, sum_up

OPEN = "100,NEM12,200405011135,MDA1,Ret1\n"
CHANNEL = "200,VABD000163,E1B1,1,E1,N1,METSER123,kWh,30,\n"


def make_day(date: str, value: str = "0.5", quality: str = "A", *, count: int = 48) -> str:
    return f"300,{date},{','.join([value] * count)},{quality},,,20040202120025,20040202142516\n"


def test_qualities_become_flags_and_null_values_become_gaps() -> None:
    ranges = "400,1,10,A,,\n400,11,20,S14,1,\n400,21,30,F76,,\n400,31,40,E52,,\n400,41,48,N,,\n"
    (only,) = collect(OPEN + CHANNEL + make_day("20040201", quality="V") + ranges + "900\n")
    flags = [value.flag for value in only.values if value.wh is not None]
    assert flags == [Flag.MEASURED] * 10 + [Flag.SUBSTITUTED] * 20 + [Flag.ESTIMATED] * 10
    assert [value.wh for value in only.values[40:]] == [None] * 8
    (summary,) = sum_up(OPEN + CHANNEL + make_day("20040201", quality="V") + ranges + "900\n")
    assert (summary["intervals"], summary["total_wh"], summary["last_end"]) == (40, 20_000, "2004-02-01T10:00:00Z")


def test_every_day_of_the_market_has_24_hours() -> None:
    # New South Wales put its clocks forward on 2004-10-31; the market did not.
    days = "".join(make_day(f"200410{day}") for day in (30, 31)) + make_day("20041101")
    (only,) = collect(OPEN + CHANNEL + days + "900\n")
    assert all(
        later.start_ms - earlier.end_ms == 0 for earlier, later in zip(only.values, only.values[1:], strict=False)
    )
    assert len(only.values) == 144


def test_a_day_that_is_not_there_stays_a_gap() -> None:
    (summary,) = sum_up(OPEN + CHANNEL + make_day("20040201") + make_day("20040203") + "900\n")
    assert (summary["intervals"], summary["last_end"]) == (96, "2004-02-03T14:00:00Z")


def test_days_may_come_in_any_order() -> None:
    (only,) = collect(OPEN + CHANNEL + make_day("20040202", "2") + CHANNEL + make_day("20040201", "1") + "900\n")
    assert [value.wh for value in only.values] == [1_000] * 48 + [2_000] * 48


def test_only_what_goes_to_or_comes_from_the_customer_is_energy() -> None:
    text = OPEN
    for suffix, unit in (("E1", "kWh"), ("B1", "MWh"), ("Q1", "kVArh"), ("A1", "kWh"), ("E2", "kW")):
        text += f"200,VABD000163,E1B1Q1,1,{suffix},N1,METSER123,{unit},30,\n" + make_day("20040201", "1")
    channels = collect(text + "900\n")
    assert [(one.point, one.direction, one.values[0].wh) for one in channels] == [
        ("VABD000163/E1", Channel.CONSUMPTION, 1_000),
        ("VABD000163/B1", Channel.PRODUCTION, 1_000_000),
    ]


def test_parts_of_a_watt_hour_go_on_to_the_next_interval() -> None:
    (only,) = collect(OPEN + CHANNEL + make_day("20040201", "0.00025") + "900\n")
    assert [value.wh for value in only.values[:8]] == [0, 0, 0, 1, 0, 0, 0, 1]
    assert sum(value.wh or 0 for value in only.values) == 12


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (CHANNEL, "header_missing: x:1"),
        ("100,NEM13,1,2,3\n", "format_has_no_intervals: x:1"),
        (OPEN + OPEN, "record_out_of_place: x:2"),
        (OPEN + make_day("20040201"), "record_out_of_place: x:2"),
        (OPEN + CHANNEL + "400,1,2,A\n", "record_out_of_place: x:3"),
        (OPEN + CHANNEL + make_day("20040201"), "file_truncated: x:3"),
        (OPEN + CHANNEL + make_day("20040231") + "900\n", "time_invalid: x:3"),
        (OPEN + CHANNEL + make_day("20040201", count=47) + "900\n", "values_missing: x:3"),
        (OPEN + CHANNEL + "300,20040201,V,,,\n900\n", "values_missing: x:3"),
        (OPEN + CHANNEL + make_day("20040201") * 2 + "900\n", "interval_overlaps: x:4"),
        (OPEN + CHANNEL + make_day("20040201", "x") + "900\n", "value_not_a_number: x:3: value 1"),
        (OPEN + CHANNEL + make_day("20040201", "") + "900\n", "value_not_a_number: x:3"),
        (OPEN + CHANNEL + make_day("20040201", "1e3") + "900\n", "value_not_a_number: x:3"),
        (OPEN + CHANNEL + make_day("20040201", "-1") + "900\n", "value_negative: x:3"),
        (OPEN + CHANNEL + make_day("20040201", "9" * 12) + "900\n", "value_too_large: x:3"),
        (OPEN + CHANNEL + make_day("20040201", "0." + "1" * 16) + "900\n", "value_too_precise: x:3"),
        (OPEN + CHANNEL + make_day("20040201", quality="X") + "900\n", "quality_unknown: x:3"),
        (OPEN + CHANNEL + make_day("20040201", quality="V") + "400,1,47,A\n900\n", "quality_missing: x:3"),
        (OPEN + CHANNEL + make_day("20040201", quality="V") + "400,0,48,A\n900\n", "record_malformed: x:4"),
        (OPEN + CHANNEL + "301,x\n", "record_malformed: x:3"),
        (OPEN + CHANNEL.replace(",30,", ",7,"), "interval_length_wrong: x:2"),
        (OPEN + CHANNEL.replace("kWh", "therm"), "unit_unknown: x:2"),
        (OPEN + "200,N\n", "record_malformed: x:2"),
        ("", "header_missing: x:1"),
    ],
)
def test_a_wrong_record_is_refused_with_its_line(text: str, refusal: str) -> None:
    assert get_refusal(text, "nem12").startswith(refusal)
