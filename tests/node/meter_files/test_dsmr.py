"""Telegrams: checksums, clock changes, lost telegrams, and counters that must not run backwards."""

from __future__ import annotations

import pytest

from contracts_native.meters import Channel
from node.meter_files.dsmr import compute_crc
from node.meter_files.instants import format_utc
from node.meter_files.stretches import regroup
from tests.node.meter_files.reading_words import collect, get_refusal, sum_up


def make_telegram(time: str, wh: int, *, extra: str = "", end: str = "\r\n", has_crc: bool = True) -> str:
    clock = f"0-0:1.0.0({time})\r\n" if time else ""
    body = f"/ISK5\\2M550T-1012\r\n\r\n{clock}1-0:1.8.1({wh // 1_000:06}.{wh % 1_000:03}*kWh)\r\n{extra}!"
    return body + (f"{compute_crc(body.encode()):04X}" if has_crc else "") + end


def test_the_checksum_is_that_of_the_standard() -> None:
    assert compute_crc(b"123456789") == 0xBB3D  # CRC-16/ARC


def test_a_wrong_checksum_is_refused_with_its_line() -> None:
    wrong = make_telegram("190324150000W", 1).replace("000.001", "000.002")
    assert get_refusal(wrong).startswith("checksum_wrong: x:5: ")
    assert get_refusal(make_telegram("190324150000W", 1, has_crc=False, end="!!\r\n")).startswith("checksum_wrong")


def test_a_recording_that_lost_its_carriage_returns_is_read() -> None:
    assert sum_up(make_telegram("190324150000W", 1).replace("\r\n", "\n"))[0]["intervals"] == 0


def test_what_comes_before_the_first_and_after_the_last_whole_telegram_is_left_out() -> None:
    whole = [make_telegram(f"1903241500{second:02}W", 100 + second) for second in (0, 10, 20)]
    (only,) = collect("1-0:1.8.1(999999.000*kWh)\r\n!ABCD\r\n" + "".join(whole) + whole[0][:40])
    assert [value.wh for value in only.values] == [10, 10]


def test_a_telegram_that_was_cut_short_costs_no_energy() -> None:
    first, lost, third = (make_telegram(f"1903241500{second:02}W", 100 + second) for second in (0, 10, 20))
    (only,) = collect(first + lost[:40] + "\r\n" + third)
    assert [(value.length_s, value.wh) for value in only.values] == [(20, 20)]


def test_the_hour_that_comes_twice_in_autumn_is_two_hours() -> None:
    # 2019-10-27: 02:59 summer time is followed by 02:00 winter time.
    times = ["191027023000S", "191027024500S", "191027020000W", "191027021500W", "191027023000W"]
    (only,) = collect("".join(make_telegram(time, 100 * place) for place, time in enumerate(times)))
    assert [format_utc(value.start_ms)[11:16] for value in only.values] == ["00:30", "00:45", "01:00", "01:15"]
    assert {value.length_s for value in only.values} == {900}


def test_the_hour_that_is_missing_in_spring_is_no_gap() -> None:
    times = ["190331014500W", "190331030000S", "190331031500S"]
    (only,) = collect("".join(make_telegram(time, 100 * place) for place, time in enumerate(times)))
    assert [(format_utc(value.start_ms)[11:16], value.length_s) for value in only.values] == [
        ("00:45", 900),
        ("01:00", 900),
    ]


def test_quarter_hours_come_from_what_the_counter_showed_at_their_ends() -> None:
    # Telegrams every ten seconds, three seconds off the quarter; those of the second quarter are lost in the middle.
    seconds = [second for second in range(3, 2_800, 10) if not 1_000 < second < 1_700]
    text = "".join(make_telegram(f"19032415{at // 60:02}{at % 60:02}W", 5_000 + at) for at in seconds)
    (only,) = collect(text)
    quarters = regroup(only, 900)
    assert [(format_utc(value.start_ms)[11:16], value.wh) for value in quarters.values] == [
        ("14:00", 900),
        ("14:15", 900),
        ("14:30", 900),
    ]


def test_a_quarter_hour_whose_end_no_telegram_saw_is_a_gap() -> None:
    seconds = [second for second in range(0, 3_600, 10) if not 850 < second < 950]
    text = "".join(make_telegram(f"19032415{at // 60:02}{at % 60:02}W", at) for at in seconds)
    (only,) = collect(text + make_telegram("190324160000W", 3_600))
    assert [format_utc(value.start_ms)[11:16] for value in regroup(only, 900).values] == ["14:30", "14:45"]


def test_both_directions_and_the_sum_of_all_tariffs_are_told_apart() -> None:
    extra = "1-0:1.8.0(000000.009*kWh)\r\n1-0:2.8.1(2*Wh)\r\n1-0:2.8.2(0.003*kWh)\r\n1-0:3.8.0(7*kVArh)\r\n"
    channels = collect(make_telegram("190324150000W", 4, extra=extra))
    assert [(one.direction, one.registers[0].wh) for one in channels] == [
        (Channel.CONSUMPTION, 9),
        (Channel.PRODUCTION, 5),
    ]


def test_parts_of_a_watt_hour_are_not_lost_between_telegrams() -> None:
    texts = [make_telegram(f"19032415000{second}W", 0, extra=f"1-0:2.8.0({second}.7*Wh)\r\n") for second in range(4)]
    _, production = collect("".join(texts))
    assert [value.wh for value in production.values] == [1, 1, 1]
    assert [register.wh for register in production.registers] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("telegrams", "reason"),
    [
        ([make_telegram("190324150000W", 5), make_telegram("190324150010W", 4)], "register_runs_backwards"),
        ([make_telegram("190324150010W", 5), make_telegram("190324150000W", 6)], "time_not_rising"),
        ([make_telegram("190324150000W", 5), make_telegram("190324150000W", 6)], "interval_overlaps"),
        ([make_telegram("190324150000", 5)], "time_without_offset"),
        ([make_telegram("190332150000W", 5)], "time_invalid"),
        ([make_telegram("", 5, extra="1-0:1.8.1(1*kWh)\r\n")], "register_named_twice"),
        ([make_telegram("", 5, extra="1-0:2.8.1(x*kWh)\r\n")], "value_not_a_number"),
        ([make_telegram("", 5, extra="1-0:2.8.1(-1*kWh)\r\n")], "value_negative"),
        ([make_telegram("", 5, extra="1-0:2.8.1(1*kJ)\r\n")], "unit_unknown"),
        ([make_telegram("", 5, extra="0-0:96.13.0(1)\r\n" * 5_000)], "telegram_too_long"),
        (["/ISK5\\2M550T-1012\r\n\r\n1-0:1.8.1(1*kWh)\r\n"], "telegram_incomplete"),
    ],
)
def test_a_telegram_that_cannot_be_is_refused(telegrams: list[str], reason: str) -> None:
    assert get_refusal("".join(telegrams), "dsmr").partition(":")[0] == reason


def test_a_telegram_that_comes_twice_counts_once() -> None:
    twice = make_telegram("190324150000W", 5) * 2 + make_telegram("190324150010W", 8)
    (only,) = collect(twice)
    assert [value.wh for value in only.values] == [3]
