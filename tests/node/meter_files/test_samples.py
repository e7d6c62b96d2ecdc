"""Every sample file gives the sums that other programs found in it, and those that break their form are refused."""

from __future__ import annotations

import json
from collections import Counter
from typing import Final

import pytest

from contracts_native.readings import Flag
from node.meter_files.detection import detect_format, read_meter_file
from node.meter_files.dsmr import iterate_telegrams
from node.meter_files.instants import find_instant_s, format_utc
from node.meter_files.model import IntervalValue, MeterFileError, Skipped
from node.meter_files.opening import open_meter_file
from node.meter_files.quantities import PICO_PER_WH, parse_pico_wh
from node.meter_files.summary import summarise_events
from tests.node.meter_files.reading_words import SHARED, needs_samples, sum_up_sample

pytestmark = needs_samples
FORMS: Final = {"greenbutton": "greenbutton", "dsmr": "dsmr", "nem12": "nem12", "mscons": "mscons"}
# A file whose quarter hours are of 5 to 75 minutes, and one of them ends before it starts.
BROKEN: Final = {
    "greenbutton/abridged_gas.xml": "service_not_electricity",
    "nem12/Example_NEM13_consumption_data.csv": "format_has_no_intervals",
    "nem12/invalid/Example_NEM12_incomplete_interval.csv": "values_missing",
    "nem12/invalid/Example_NEM12_missing_header.csv": "header_missing",
    "mscons/month_quarter_hour_sample01.edi": "interval_length_wrong",
    "community/sites_rural2.csv": "file_not_recognised",
}


def load_expected(folder: str) -> dict[str, dict[str, object]]:
    path = SHARED / folder / "expected.json"
    loaded: dict[str, dict[str, object]] = json.loads(path.read_text()) if path.exists() else {}
    return {name: found for name, found in loaded.items() if f"{folder}/{name}" not in BROKEN}


@pytest.mark.parametrize("name", sorted(load_expected("greenbutton")))
def test_green_button_samples_have_the_expected_readings(name: str) -> None:
    expected = load_expected("greenbutton")[name]
    found = sum_up_sample(f"greenbutton/{name}")
    if not expected["interval_readings"]:
        assert found == []
        return
    (only,) = found
    first, last = expected["first_start"], expected["last_end"]
    assert isinstance(first, int)
    assert isinstance(last, int)
    assert (only["intervals"], only["total_wh"]) == (expected["interval_readings"], expected["raw_sum"])
    assert (only["first_start"], only["last_end"]) == (format_utc(first * 1_000), format_utc(last * 1_000))
    assert (only["direction"], only["unit"]) == ("consumption", "Wh")
    events = read_meter_file(open_meter_file(SHARED / "greenbutton" / name))
    values = [event[1] for event in events if not isinstance(event, Skipped)]
    durations = sorted({value.length_s for value in values if isinstance(value, IntervalValue)})
    assert durations == expected["durations"]


@pytest.mark.parametrize("name", sorted(load_expected("nem12")))
def test_nem12_samples_have_the_expected_sums(name: str) -> None:
    expected = load_expected("nem12")[name]
    found = {one["point"]: one for one in sum_up_sample(f"nem12/{name}")}
    energy = {
        point: wanted for point, wanted in expected.items() if isinstance(wanted, dict) and wanted["unit"] == "kWh"
    }
    assert set(found) == set(energy)
    for point, wanted in energy.items():
        one = found[point]
        total_wh = parse_pico_wh(str(wanted["sum"]), 3) // PICO_PER_WH
        assert (one["intervals"], one["total_wh"], one["unit"]) == (wanted["readings"], total_wh, "kWh")
        assert one["first_start"] == read_market_time(wanted["first_start"])
        assert one["last_end"] == read_market_time(wanted["last_end"])
        assert one["direction"] == ("consumption" if "/E" in point else "production")


def read_market_time(text: str) -> str:
    instant_s = find_instant_s(int(text[:4]), int(text[5:7]), int(text[8:10]), int(text[11:13]))
    assert instant_s is not None
    return format_utc((instant_s - 10 * 3_600) * 1_000)


@pytest.mark.parametrize("name", sorted(load_expected("dsmr")))
def test_telegrams_have_the_expected_registers_and_times(name: str) -> None:
    expected = load_expected("dsmr")[name]
    telegrams = list(iterate_telegrams(open_meter_file(SHARED / "dsmr" / name)))
    assert len(telegrams) == expected["telegrams"]
    for place, telegram in (("first", telegrams[0]), ("last", telegrams[-1])):
        wanted = expected.get(place)
        if not isinstance(wanted, dict):
            continue
        sums = sum_registers(wanted["registers_wh"])
        assert {direction.value: pico for direction, (pico, _) in telegram.registers.items()} == sums
        if "timestamp_utc" in wanted:
            assert telegram.time_ms is not None
            assert format_utc(telegram.time_ms) == wanted["timestamp_utc"]


def sum_registers(registers: dict[str, int | str]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    names = {"1": "consumption", "2": "production"}
    has_sum = {code[4] for code in registers if code.endswith(".8.0")}
    for code, wh in registers.items():
        if code[4] not in has_sum or code.endswith(".8.0"):
            sums[names[code[4]]] += parse_pico_wh(str(wh), 0)
    return dict(sums)


def test_five_minutes_of_a_meter_are_the_difference_of_its_registers() -> None:
    found = sum_up_sample("dsmr/stream_iskra_2019_part1.txt")
    seen = [(one["direction"], one["interval_s"], one["intervals"], one["total_wh"]) for one in found]
    assert seen == [("consumption", 1, 298, 42), ("production", 1, 298, 0)]
    assert (found[0]["first_start"], found[0]["last_end"]) == ("2019-03-24T14:05:19Z", "2019-03-24T14:10:18Z")


@pytest.mark.parametrize("name", sorted(load_expected("mscons")))
def test_mscons_samples_have_the_expected_sums(name: str) -> None:
    wanted = load_expected("mscons")[name]["series"]
    assert isinstance(wanted, list)
    (series,) = wanted
    (only,) = sum_up_sample(f"mscons/{name}")
    assert only["total_wh"] == parse_pico_wh(series["sum"], 3) // PICO_PER_WH
    assert (only["intervals"], only["point"]) == (series["quantities"], series["location"])
    assert only["direction"] == ("consumption" if series["obis"].startswith("1-1:1.") else "production")


@pytest.mark.parametrize(
    ("name", "intervals", "production_wh", "consumption_wh"),
    [
        ("generation/wind_lhb_R80711_2014q1_10min.csv", 12_524, 1_101_363_930, 328_963),
        ("generation/wind_lhb_R80736_2014q1_60min.csv", 2_088, 987_925_171, 169_613),
        ("generation/pv_serf_east_2016_15min.csv", 10_000, 2_941_908, 3_552),
        ("consumption/home_uk_a_2020_2021_60min.csv", 8_760, None, 1_452_470),
        ("consumption/factory_kr_2018h1_15min.csv", 17_376, None, 521_199_760),
        ("prosumer/home_fr_spring_summer2024_30min.csv", 7_133, 3_022_871, 2_132_040),
    ],
)
def test_csv_samples_have_the_totals_of_their_readme(
    name: str, intervals: int, production_wh: int | None, consumption_wh: int
) -> None:
    found = {one["direction"]: one for one in sum_up_sample(name)}
    assert found["consumption"]["total_wh"] == consumption_wh
    assert found.get("production", {}).get("total_wh") == production_wh
    assert {one["intervals"] for one in found.values()} == {intervals}


def test_substituted_values_of_a_sample_keep_their_flag() -> None:
    file = open_meter_file(SHARED / "nem12" / "Example_NEM12_multiple_quality.csv")
    (only,) = summarise_events(read_meter_file(file))
    assert only.by_flag == {Flag.SUBSTITUTED: 44, Flag.MEASURED: 4}


@pytest.mark.parametrize(("name", "reason"), BROKEN.items())
def test_a_sample_that_breaks_its_form_is_refused(name: str, reason: str) -> None:
    with pytest.raises(MeterFileError) as refused:
        sum_up_sample(name)
    assert refused.value.reason == reason
    assert refused.value.item.startswith(f"{SHARED / name}:")


@pytest.mark.parametrize("folder", FORMS)
def test_the_format_of_every_sample_is_recognised(folder: str) -> None:
    paths = [path for path in (SHARED / folder).rglob("*") if path.suffix in (".xml", ".txt", ".csv", ".edi")]
    assert paths
    assert {detect_format(open_meter_file(path)) for path in paths} == {FORMS[folder]}
