"""Which part of a file is meant: points, a stretch of time, and what the file does not say itself.

Owns the choices of a person who submits readings; values pass through one at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.model import Event, IntervalValue, Skipped
from node.meter_files.stretches import WORST_FIRST


@dataclass(frozen=True, slots=True)
class Choice:
    """``points``: only these, or all. ``direction``: of channels that do not say theirs. ``flag``: the best that a
    value may have. Intervals that start in [``from_ms``, ``until_ms``) are taken, registers read in [``from_ms``,
    ``until_ms``]."""

    points: Collection[str] = ()
    direction: Channel | None = None
    flag: Flag = Flag.MEASURED
    from_ms: int | None = None
    until_ms: int | None = None


EVERYTHING: Final = Choice()


def choose(events: Iterable[Event], choice: Choice) -> Iterator[Event]:
    """The chosen ones of a file's values."""
    if choice == EVERYTHING:
        yield from events
        return
    for event in events:
        if isinstance(event, Skipped):
            yield event
            continue
        channel, value = event
        if choice.points and channel.point not in choice.points:
            continue
        if channel.direction is None and choice.direction is not None:
            channel = replace(channel, direction=choice.direction)
        if isinstance(value, IntervalValue):
            if _is_outside(value.start_ms, choice, is_end_in=False):
                continue
            value = value._replace(flag=get_worse(value.flag, choice.flag))
        elif value.time_ms is not None and _is_outside(value.time_ms, choice, is_end_in=True):
            continue
        yield channel, value


def get_worse(one: Flag, other: Flag) -> Flag:
    """The flag that claims less: nothing makes a substituted value a measured one."""
    return next(flag for flag in WORST_FIRST if flag in (one, other))


def _is_outside(instant_ms: int, choice: Choice, *, is_end_in: bool) -> bool:
    if choice.from_ms is not None and instant_ms < choice.from_ms:
        return True
    return choice.until_ms is not None and (
        instant_ms > choice.until_ms if is_end_in else instant_ms >= choice.until_ms
    )
