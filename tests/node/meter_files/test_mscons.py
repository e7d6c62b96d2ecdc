"""MSCONS: marks of one's own, qualifiers, offsets over a clock change, and segments out of place."""

from __future__ import annotations

import pytest

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from tests.node.meter_files.reading_words import collect, get_refusal, sum_up

HEAD = "UNB+UNOC:3+1+2'UNH+1+MSCONS:D:04B:UN:2.2e'LOC+172+CH001'LIN+1'PIA+5+1-1?:1.29.0:SRW'"
TAIL = "UNT+9+1'UNZ+1+1'"


def make_value(value: str, start: str, end: str, qualifier: str = "220") -> str:
    return f"QTY+{qualifier}:{value}'DTM+163:{start}:303'DTM+164:{end}:303'"


ONE = make_value("1.5", "202001010000?+01", "202001010015?+01")


def test_a_file_may_bring_its_own_marks() -> None:
    text = (HEAD + ONE + TAIL).translate(str.maketrans("+:'?.", "|;~!,")).replace("!+", "!+")
    text = text.replace("01010000!|01", "01010000+01").replace("01010015!|01", "01010015+01")
    text = text.replace("1!;1,29,0", "1!:1.29.0")
    (only,) = collect("UNA;|,! ~\r\n" + text)
    assert (only.point, only.direction, only.values[0].wh) == ("CH001", Channel.CONSUMPTION, 1_500)


def test_line_feeds_between_segments_are_no_part_of_them() -> None:
    assert sum_up((HEAD + ONE + TAIL).replace("'", "'\r\n")) == sum_up(HEAD + ONE + TAIL)


def test_qualifiers_become_flags_and_gaps() -> None:
    values = [
        make_value("1", f"20200101{hour:02}00?+01", f"20200101{hour + 1:02}00?+01", qualifier)
        for hour, qualifier in enumerate(("220", "67", "201", "20"))
    ]
    (only,) = collect(HEAD + "".join(values) + TAIL)
    assert [value.flag for value in only.values[:3]] == [Flag.MEASURED, Flag.SUBSTITUTED, Flag.ESTIMATED]
    assert [value.wh for value in only.values] == [1_000, 1_000, 1_000, None]


def test_offsets_lead_through_the_change_of_the_clock() -> None:
    spring = make_value("1", "202003290145?+01", "202003290300?+02") + make_value(
        "1", "202003290300?+02", "202003290315?+02"
    )
    (only,) = collect(HEAD + spring + TAIL)
    assert only.values[0].end_ms == only.values[1].start_ms
    assert only.interval_s == 900


def test_reactive_energy_is_left_out_and_received_energy_is_production() -> None:
    text = HEAD + ONE + "LIN+2'PIA+5+1-1?:5.29.0'" + ONE + "LIN+3'PIA+5+1-1?:2.29.0*255'" + ONE + TAIL
    assert [one["direction"] for one in sum_up(text)] == ["consumption", "production"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEAD + ONE, "file_truncated"),
        (HEAD + ONE + "UNT+9", "file_truncated"),
        (HEAD.replace("MSCONS", "INVOIC") + ONE + TAIL, "message_not_mscons"),
        ("UNB+UNOC:3'UNZ+1'", "message_not_mscons"),
        ("UNA:::::::'", "header_missing"),
        (HEAD + ONE * 2 + TAIL, "interval_overlaps"),
        (HEAD + ONE.replace("1.5", "x") + TAIL, "value_not_a_number"),
        (HEAD + ONE.replace("1.5", "-1") + TAIL, "value_negative"),
        (HEAD + ONE.replace("1.5", "1:KJO") + TAIL, "unit_unknown"),
        (HEAD + ONE.replace("220", "999") + TAIL, "quality_unknown"),
        (HEAD + ONE.replace("?+01", "") + TAIL, "time_without_offset"),
        (HEAD + ONE.replace("0101", "1301") + TAIL, "time_invalid"),
        (HEAD + make_value("1", "202001010015?+01", "202001010000?+01") + TAIL, "time_not_rising"),
        (HEAD + ONE + make_value("1", "202001010015?+01", "202001010045?+01") + TAIL, "interval_length_wrong"),
        (HEAD + "QTY+220:1'" + TAIL, "time_missing"),
        (HEAD.replace("PIA+5", "PIA+6") + ONE + TAIL, "record_out_of_place"),
        (HEAD.replace("LOC+172", "LOC+107") + ONE + TAIL, "record_out_of_place"),
        (HEAD.replace("1.29.0", "x") + ONE + TAIL, "record_malformed"),
        (HEAD + "FTX+" + "x" * 20_000, "segment_too_long"),
    ],
)
def test_a_message_that_cannot_be_is_refused(text: str, reason: str) -> None:
    assert get_refusal(text, "mscons").startswith(f"{reason}: x:1")
