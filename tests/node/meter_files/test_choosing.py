"""What a person chooses of a file: points, a stretch of time, a direction; never a better quality than the file's."""

from __future__ import annotations

import pytest

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.choosing import Choice, choose, get_worse
from node.meter_files.model import ChannelId, Event, IntervalValue, RegisterValue, Skipped

BARN = ChannelId("x", "barn", None, "Wh", 900)
ROOF = ChannelId("x", "roof", Channel.PRODUCTION, "Wh", 900)
EVENTS: list[Event] = [
    (BARN, IntervalValue(0, 900, 1, Flag.MEASURED)),
    (ROOF, RegisterValue(900_000, 5)),
    (ROOF, IntervalValue(900_000, 900, 2, Flag.SUBSTITUTED)),
    (ROOF, RegisterValue(1_800_000, 7)),
    Skipped("x", "heat", "no electricity"),
]


def test_everything_is_what_nobody_chose_from() -> None:
    assert list(choose(EVENTS, Choice())) == EVENTS


def test_only_the_named_points_are_left_and_what_was_skipped_is_still_said() -> None:
    assert list(choose(EVENTS, Choice(points=("roof",)))) == EVENTS[1:]


def test_a_direction_is_given_only_to_a_channel_without_one() -> None:
    channels = [
        event[0]
        for event in choose(EVENTS[:3], Choice(direction=Channel.CONSUMPTION))
        if not isinstance(event, Skipped)
    ]
    assert [channel.direction for channel in channels] == [Channel.CONSUMPTION, Channel.PRODUCTION, Channel.PRODUCTION]


def test_a_stretch_of_time_has_the_registers_at_both_its_ends() -> None:
    assert list(choose(EVENTS, Choice(from_ms=900_000, until_ms=1_800_000))) == EVENTS[1:]
    assert list(choose(EVENTS[:4], Choice(until_ms=900_000))) == EVENTS[:2]


@pytest.mark.parametrize(
    ("one", "other", "worse"),
    [
        (Flag.MEASURED, Flag.MEASURED, Flag.MEASURED),
        (Flag.MEASURED, Flag.ESTIMATED, Flag.ESTIMATED),
        (Flag.SUBSTITUTED, Flag.MEASURED, Flag.SUBSTITUTED),
        (Flag.SUBSTITUTED, Flag.ESTIMATED, Flag.SUBSTITUTED),
    ],
)
def test_nothing_makes_a_value_better_than_it_is(one: Flag, other: Flag, worse: Flag) -> None:
    assert get_worse(one, other) is get_worse(other, one) is worse
