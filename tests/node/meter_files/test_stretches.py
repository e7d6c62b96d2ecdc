"""Stretches for reports: no gap and one flag in each, whole days, registers that go on; and longer intervals."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files import model
from node.meter_files.model import ChannelData, IntervalValue, MeterFileError, collect_channels
from node.meter_files.stretches import DAY_MS, regroup, split_into_reports
from node.meter_files.summary import summarise

QUARTER_MS = 900_000


def make_channel(values: Iterable[IntervalValue], interval_s: int = 900) -> ChannelData:
    return ChannelData("x", "p", Channel.PRODUCTION, "Wh", interval_s, tuple(values))


def make_quarter(index: int, wh: int | None = 1, flag: Flag = Flag.MEASURED) -> IntervalValue:
    return IntervalValue(index * QUARTER_MS, 900, wh, flag)


def test_a_month_of_quarters_is_cut_at_midnights() -> None:
    channel = make_channel(make_quarter(index, index % 7) for index in range(50, 1_000))
    stretches = list(split_into_reports(channel, intervals_max=300, register_start_wh=10))
    assert [len(one.values_wh) for one in stretches] == [46 + 192, 288, 288, 136]
    assert all(one.start_ms % DAY_MS == 0 for one in stretches[1:])
    assert [one.register_start_wh for one in stretches] == [10, *(one.register_end_wh for one in stretches[:-1])]
    assert stretches[-1].register_end_wh - 10 == sum(index % 7 for index in range(50, 1_000))


def test_a_gap_a_null_value_and_a_change_of_flag_end_a_stretch() -> None:
    values = [make_quarter(0), make_quarter(1), make_quarter(3), make_quarter(4, None), make_quarter(5)]
    values += [make_quarter(6, 2, Flag.SUBSTITUTED), make_quarter(7)]
    stretches = list(split_into_reports(make_channel(values), intervals_max=3_000))
    seen = [(one.start_ms // QUARTER_MS, one.values_wh, one.flag) for one in stretches]
    assert seen == [
        (0, (1, 1), Flag.MEASURED),
        (3, (1,), Flag.MEASURED),
        (5, (1,), Flag.MEASURED),
        (6, (2,), Flag.SUBSTITUTED),
        (7, (1,), Flag.MEASURED),
    ]


@given(
    st.dictionaries(
        st.integers(0, 400), st.tuples(st.none() | st.integers(0, 50), st.sampled_from(Flag)), max_size=300
    ),
    st.integers(1, 200),
)
def test_stretches_have_every_value_once(found: dict[int, tuple[int | None, Flag]], intervals_max: int) -> None:
    channel = make_channel(make_quarter(index, *found[index]) for index in sorted(found))
    seen: dict[int, tuple[int, Flag]] = {}
    register_wh = 0
    for one in split_into_reports(channel, intervals_max=intervals_max):
        assert 1 <= len(one.values_wh) <= intervals_max
        assert one.register_start_wh == register_wh
        register_wh = one.register_end_wh
        seen |= {one.start_ms // QUARTER_MS + place: (wh, one.flag) for place, wh in enumerate(one.values_wh)}
    assert seen == {index: (wh, flag) for index, (wh, flag) in found.items() if wh is not None}
    assert register_wh == summarise([channel])[0]["total_wh"]


def test_what_no_meter_reports_is_refused() -> None:
    with pytest.raises(MeterFileError, match="interval_length_not_accepted: x: p: 86400 s"):
        list(split_into_reports(make_channel([IntervalValue(0, 86_400, 1, Flag.MEASURED)], 86_400), intervals_max=9))
    with pytest.raises(MeterFileError, match="interval_not_aligned"):
        list(split_into_reports(make_channel([IntervalValue(1_000, 900, 1, Flag.MEASURED)]), intervals_max=9))
    with pytest.raises(MeterFileError, match="interval_length_wrong"):
        list(split_into_reports(make_channel([IntervalValue(0, 800, 1, Flag.MEASURED)]), intervals_max=9))


def test_quarters_add_up_to_hours_and_an_hour_with_a_gap_stays_one() -> None:
    values = [make_quarter(index, index) for index in range(2, 16) if index != 9]
    values[2] = make_quarter(4, 4, Flag.ESTIMATED)
    hours = regroup(make_channel(values), 3_600)
    assert [(value.start_ms // 3_600_000, value.wh, value.flag) for value in hours.values] == [
        (1, 4 + 5 + 6 + 7, Flag.ESTIMATED),
        (3, 12 + 13 + 14 + 15, Flag.MEASURED),
    ]
    with pytest.raises(MeterFileError, match="interval_length_not_accepted"):
        regroup(make_channel(values), 600)


def test_a_null_value_leaves_its_hour_out() -> None:
    values = [make_quarter(index, None if index == 2 else 1) for index in range(8)]
    assert [value.start_ms for value in regroup(make_channel(values), 3_600).values] == [3_600_000]


def test_more_values_than_memory_is_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "VALUES_MAX", 3)
    channel = make_channel([])
    events = [(channel.channel_id, make_quarter(index)) for index in range(4)]
    assert len(collect_channels(events[:3])[0].values) == 3
    with pytest.raises(MeterFileError, match="values_too_many"):
        collect_channels(events)
