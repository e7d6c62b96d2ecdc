"""What one peer may use of us, and how its breaches are answered: limits that an operator may tune.

Pure: the time arrives as an argument. A budget of messages is counted in session.py and a ban kept in peers.py.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

TIME_BURST_MS: Final = 500  # of our time that a quiet peer may use at once, before its share applies
TIME_DEBT_MS_MAX: Final = 5_000  # the longest that a peer is left unread for what it has used


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLimits:
    """The limits for each peer, by its proven key."""

    budget_percent: int = 100  # of the counts and bytes a minute that p2p/messages.py gives each message type
    time_share_percent: int = 25  # of our processor time, by p2p/messages.py; guests have as much together
    faults_before_ban: int = 5  # a breach of the wire protocol is one too many at once
    ban_ms: int = 60_000  # the first; each lasts twice as long as the one before
    ban_ms_max: int = 3_600_000


DEFAULT_LIMITS: Final = PeerLimits()


class TimeBudget:
    """Processor time that one peer has used: within its share it is read at once, beyond it has to wait."""

    def __init__(self, share_percent: int, now_ms: int) -> None:
        self._share_percent = share_percent
        self._used_us = 0
        self._since_ms = now_ms

    def charge(self, used_us: int, now_ms: int) -> int:
        """Note what a message has used; for how many milliseconds the peer should not be read now (mostly 0)."""
        passed_ms = max(0, now_ms - self._since_ms)
        self._since_ms += passed_ms
        self._used_us = max(0, self._used_us - passed_ms * 10 * self._share_percent) + used_us
        over_us = self._used_us - TIME_BURST_MS * 1000
        if over_us <= 0:
            return 0
        return min(over_us // (10 * self._share_percent) + 1, TIME_DEBT_MS_MAX)


class TokenBuckets:
    """A rate for each of many keys (addresses of clients, say): so many at once, and so many a second from then on.

    At most ``keys_max`` are remembered; the one that was quiet for longest is forgotten first, and is full again.
    """

    def __init__(self, *, per_second: int, burst: int, keys_max: int) -> None:
        assert per_second > 0, "no rate at all is for the caller to leave out"
        self._per_second = per_second
        self._burst_milli = max(burst, 1) * 1000
        self._keys_max = keys_max
        self._buckets: OrderedDict[str, tuple[int, int]] = OrderedDict()  # key → thousandths left, as of ms

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now_ms: int, count: int = 1) -> bool:
        """Whether ``count`` more are within the rate of ``key``; if so, they are spent. 0 asks whether one would be."""
        is_within = self._refill(key, now_ms) >= 1000 * max(count, 1)
        if is_within:
            self.spend(key, now_ms, count)
        return is_within

    def spend(self, key: str, now_ms: int, count: int = 1) -> None:
        """Take ``count`` away, down to nothing left: for what is only known afterwards."""
        left = self._refill(key, now_ms)
        _, then_ms = self._buckets[key]
        self._buckets[key] = (max(0, left - 1000 * count), then_ms)

    def _refill(self, key: str, now_ms: int) -> int:
        left, then_ms = self._buckets.pop(key, (self._burst_milli, now_ms))
        left = min(self._burst_milli, left + max(0, now_ms - then_ms) * self._per_second)
        self._buckets[key] = (left, max(now_ms, then_ms))
        if len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)
        return left
