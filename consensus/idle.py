"""When the first round of a height may begin: there is work, or silence has lasted a heartbeat; never too soon.

No empty blocks but a heartbeat. Between the proposals of two heights lies at least the block interval.
"""

from __future__ import annotations

from consensus.parameters import ConsensusParameters


class IdleClock:
    """Counts from the parent's block time, so that the interval does not grow by the time a decision takes."""

    __slots__ = ("_armed_ms", "_has_work", "_heartbeat_ms", "_start_ms")

    def __init__(self, parameters: ConsensusParameters, *, now_ms: int, parent_time_ms: int) -> None:
        # The parent's time comes from another clock: never wait longer than the whole span from now.
        interval, heartbeat = parameters.block_interval_ms, parameters.heartbeat_ms
        self._start_ms = min(parent_time_ms, now_ms) + interval
        self._heartbeat_ms = min(parent_time_ms, now_ms) + heartbeat
        self._has_work = False
        self._armed_ms: int | None = None

    def note_work(self) -> None:
        """Transactions wait, or a peer has begun."""
        self._has_work = True

    def note_fired(self) -> None:
        """A timer that `arm` asked for has elapsed."""
        self._armed_ms = None

    def is_due(self, now_ms: int) -> bool:
        """Whether the first round begins now."""
        return now_ms >= self._get_due_ms()

    def arm(self, now_ms: int) -> int | None:
        """The delay of a timer to set, in ms, or None if one that fires early enough is set."""
        due_ms = self._get_due_ms()
        if self._armed_ms is not None and self._armed_ms <= due_ms:
            return None
        self._armed_ms = due_ms
        return max(due_ms - now_ms, 0)

    def _get_due_ms(self) -> int:
        return self._start_ms if self._has_work else self._heartbeat_ms
