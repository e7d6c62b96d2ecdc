"""When a peer that says nothing is pinged, and when it is taken for dead.

Pure: the ticks of a timer go in. Ticks are counted, not milliseconds, since a process that stood still itself gets one
tick for all that time: it calls nobody dead for what it has not yet had a turn to read.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

TICK_MS: Final = 2_500
PING_AFTER_TICKS: Final = 6  # 15 s without a byte
DEAD_AFTER_TICKS: Final = 9  # 7.5 s more, in which a ping was answered by nothing either


class Verdict(Enum):
    """What a tick asks for."""

    NOTHING = "nothing"
    PING = "ping"
    DEAD = "dead"


class Silence:
    """How long one peer has said nothing although we listened."""

    def __init__(self) -> None:
        self._ticks = 0
        self._heard = 0

    def tick(self, *, heard: int, is_listening: bool) -> Verdict:
        """Judge the time since the last tick. ``heard`` grows with whatever comes from the peer, be it half a frame.

        A peer that we leave unread may have said anything: its silence only begins when we listen again.
        """
        is_silent = is_listening and heard == self._heard
        self._heard = heard
        self._ticks = self._ticks + 1 if is_silent else 0
        if self._ticks >= DEAD_AFTER_TICKS:
            return Verdict.DEAD
        return Verdict.PING if self._ticks == PING_AFTER_TICKS else Verdict.NOTHING
