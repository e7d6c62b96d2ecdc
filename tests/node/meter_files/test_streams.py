"""Any bytes give data or a refusal that names the file; a large file needs no more memory than a small one."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.meter_files.detection import READERS, detect_format, read_meter_file
from node.meter_files.dsmr import compute_crc
from node.meter_files.instants import find_instant_s, format_utc, parse_utc
from node.meter_files.model import MeterFile, MeterFileError, make_meter_file
from node.meter_files.opening import open_meter_file
from node.meter_files.summary import summarise_events

MEMORY_BYTES_MAX = 1024 * 1024  # an interval in memory takes 150 bytes or more
NEM12 = (
    b"100,NEM12,1,2,3\n200,VABD000163,E1,1,E1,N1,M,kWh,30,\n300,20040201," + b"1.5," * 48 + b"V,,,\n400,1,48,A\n900\n"
)
DSMR = b"/ISK5\\2M550T-1012\r\n\r\n0-0:1.0.0(190324150519W)\r\n1-0:1.8.1(003432.827*kWh)\r\n!\r\n"
ESPI = (
    b"<feed xmlns='http://www.w3.org/2005/Atom' xmlns:e='http://naesb.org/espi'><entry><content><e:UsagePoint>"
    b"<e:ServiceCategory><e:kind>0</e:kind></e:ServiceCategory></e:UsagePoint></content></entry><entry><e:MeterReading/>"
    b"</entry><entry><e:ReadingType><e:flowDirection>1</e:flowDirection><e:uom>72</e:uom></e:ReadingType></entry><entry>"
    b"<e:IntervalBlock><e:IntervalReading><e:timePeriod><e:duration>900</e:duration><e:start>900</e:start>"
    b"</e:timePeriod><e:value>7</e:value></e:IntervalReading></e:IntervalBlock></entry></feed>"
)
MSCONS = (
    b"UNA:+.? 'UNB+UNOC:3'UNH+1+MSCONS:D'LOC+172+CH1'PIA+5+1-1?:1.29.0:SRW'QTY+220:1.5'DTM+163:202001010000?+01:303'"
    b"DTM+164:202001010015?+01:303'UNT+1'UNZ+1'"
)
CSV = b"start_utc,production_wh,flag\n2016-06-06T00:00:00Z,5,measured\n2016-06-06T00:15:00Z,6,estimated\n"
GOOD = {"csv": CSV, "dsmr": DSMR, "greenbutton": ESPI, "mscons": MSCONS, "nem12": NEM12}


def check_answer(data: bytes, form: str | None) -> None:
    refusal: MeterFileError | None = None
    try:
        summarise_events(read_meter_file(make_meter_file("x", data), form))
    except MeterFileError as refused:
        refusal = refused
    if refusal is not None:
        assert refusal.reason.isidentifier()
        assert refusal.item.startswith("x:")
        assert len(refusal.item) < 200


@pytest.mark.parametrize("form", READERS)
def test_the_examples_of_these_tests_are_read(form: str) -> None:
    file = make_meter_file("x", GOOD[form])
    assert detect_format(file) == form
    assert summarise_events(read_meter_file(file))


@pytest.mark.parametrize("form", [*READERS, None])
@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_data_or_a_refusal(form: str | None, data: bytes) -> None:
    check_answer(data, form)


@pytest.mark.parametrize("form", READERS)
@given(st.data())
@settings(max_examples=250, deadline=None)
def test_a_damaged_file_is_data_or_a_refusal(form: str, data: st.DataObject) -> None:
    raw = bytearray(GOOD[form])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        cut = data.draw(st.integers(0, 6))
        piece = data.draw(
            st.sampled_from([b"", b"-", b"9" * 40, b"'", b"?", b"<", b"&", b'"', b"\n", b"\xff", b"\0", b"S"])
        )
        raw[place : place + cut] = piece
        if not raw:
            raw = bytearray(b" ")
    check_answer(bytes(raw), form)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


@pytest.mark.parametrize("form", READERS)
def test_it_does_not_matter_where_a_file_is_cut_into_chunks(form: str) -> None:
    data = GOOD[form]
    whole = list(read_meter_file(make_meter_file("x", data), form))
    for size in (1, 3, 7, 64):
        assert list(read_meter_file(MeterFile("x", partial(cut, data, size)), form)) == whole


def make_large_csv() -> Iterator[bytes]:
    yield b"start_utc,production_wh\n"
    for index in range(12_000):
        yield f"{format_utc(index * 900_000)},{index % 1_000}\n".encode()


def make_large_nem12() -> Iterator[bytes]:
    yield b"100,NEM12,1,2,3\n200,VABD000163,E1,1,E1,N1,M,kWh,5,\n"
    for day in range(60):
        date = format_utc((day + 1) * 86_400_000)[:10].replace("-", "")
        yield f"300,{date},{','.join(['0.125'] * 288)},A,,,\n".encode()
    yield b"900\n"


def make_large_dsmr() -> Iterator[bytes]:
    for index in range(5_000):
        clock = format_utc(1_546_300_800_000 + index * 10_000)
        time = f"{clock[2:4]}{clock[5:7]}{clock[8:10]}{clock[11:13]}{clock[14:16]}{clock[17:19]}W"
        body = f"/ISK5\\2M550T-1012\r\n\r\n0-0:1.0.0({time})\r\n1-0:1.8.1({index:09}*Wh)\r\n0-0:96.13.0()\r\n!".encode()
        yield body + f"{compute_crc(body):04X}\r\n".encode()


def make_large_feed() -> Iterator[bytes]:
    head, _, tail = ESPI.partition(b"<e:IntervalReading>")
    yield head
    for index in range(1, 10_000):
        times = f"<e:duration>900</e:duration><e:start>{index * 900}</e:start>"
        reading = f"<e:timePeriod>{times}</e:timePeriod><e:value>7</e:value>"
        yield f"<e:IntervalReading>{reading}</e:IntervalReading>\n".encode()
    yield tail.partition(b"</e:IntervalReading>")[2]


def make_large_mscons() -> Iterator[bytes]:
    head, _, tail = MSCONS.partition(b"QTY")
    yield head
    for index in range(8_000):
        clocks = [format_utc(at * 900_000)[:16].translate(str.maketrans("", "", "-T:")) for at in (index, index + 1)]
        yield f"QTY+220:1'DTM+163:{clocks[0]}?+00:303'DTM+164:{clocks[1]}?+00:303'".encode()
    yield b"UNT" + tail.partition(b"'UNT")[2]


@pytest.mark.parametrize(
    ("form", "make", "intervals"),
    [
        ("csv", make_large_csv, 12_000),
        ("nem12", make_large_nem12, 17_280),
        ("dsmr", make_large_dsmr, 4_999),
        ("greenbutton", make_large_feed, 9_999),
        ("mscons", make_large_mscons, 8_000),
    ],
)
def test_a_large_file_is_summed_up_in_little_memory(
    form: str, make: Callable[[], Iterator[bytes]], intervals: int
) -> None:
    file = MeterFile("large", make)
    tracemalloc.start()
    try:
        (only,) = summarise_events(read_meter_file(file, form))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert only.intervals == intervals
    assert peak_bytes < MEMORY_BYTES_MAX


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MeterFileError, match="file_not_readable"):
        detect_format(open_meter_file(tmp_path / "missing.csv"))
    with pytest.raises(MeterFileError, match="file_not_regular"):
        detect_format(open_meter_file(tmp_path))
    (tmp_path / "large.csv").write_bytes(CSV)
    monkeypatch.setattr("node.meter_files.opening.FILE_BYTES_MAX", 10)
    with pytest.raises(MeterFileError, match="file_too_large"):
        detect_format(open_meter_file(tmp_path / "large.csv"))
    monkeypatch.setattr("node.meter_files.lines.FILE_BYTES_MAX", 10)
    with pytest.raises(MeterFileError, match="file_too_large"):
        list(read_meter_file(make_meter_file("x", CSV)))


@given(st.integers(0, 253_402_300_799_999))
def test_the_calendar_goes_both_ways(instant_ms: int) -> None:
    whole_ms = instant_ms - instant_ms % 1_000
    assert parse_utc(format_utc(whole_ms)) == whole_ms


@pytest.mark.parametrize(
    "parts", [(1969, 12, 31), (2023, 2, 29), (1900, 2, 29), (2020, 13, 1), (2020, 4, 31), (2020, 1, 1, 24)]
)
def test_a_day_that_never_was_is_no_time(parts: tuple[int, int, int]) -> None:
    assert find_instant_s(*parts) is None


def test_known_days_are_found() -> None:
    assert find_instant_s(2024, 2, 29, 12, 30, 15) == 1_709_209_815
    assert format_utc(951_782_400_001) == "2000-02-29T00:00:00.001Z"
