"""The simulated world around many cores: one virtual clock, one seed, a network and disks that misbehave.

Owns time and faults. Everything random comes from one ``Random``; a run with the same seed is the same run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from p2p.messages import PeerMessage, decode_frame, encode_frame


@dataclass(slots=True)
class Faults:
    """How badly the network treats messages. Chances are per mille."""

    delay_ms_least: int = 1
    delay_ms_most: int = 40
    drop_permille: int = 0
    duplicate_permille: int = 0


class Timeline:
    """A virtual clock with a queue of what happens when; ties go in the order of planning."""

    def __init__(self, start_ms: int) -> None:
        self.now_ms = start_ms
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._planned = 0

    def plan(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Let something happen after a delay."""
        self._planned += 1
        heapq.heappush(self._queue, (self.now_ms + max(delay_ms, 0), self._planned, action))

    def step(self) -> bool:
        """Let the next thing happen; False when nothing is planned."""
        if not self._queue:
            return False
        self.now_ms, _, action = heapq.heappop(self._queue)
        action()
        return True

    def run_until(self, end_ms: int, *, stop: Callable[[], bool] = lambda: False) -> bool:
        """Let everything up to a time happen, or until ``stop``; whether it stopped early."""
        while not stop():
            if not self._queue or self._queue[0][0] > end_ms:
                self.now_ms = end_ms
                return stop()
            self.step()
        return True


class SimulatedNetwork:
    """Carries messages between nodes by number: late, twice, in another order, or not at all."""

    def __init__(self, timeline: Timeline, random: Random, deliver: Callable[[int, int, PeerMessage], None]) -> None:
        self.faults = Faults()
        self.groups: list[set[int]] | None = None  # None: everybody reaches everybody
        self._timeline = timeline
        self._random = random
        self._deliver = deliver

    def send(self, sender: int, receiver: int, message: PeerMessage) -> None:
        """Put a message on its way, through the real encoding."""
        if self._random.randrange(1000) < self.faults.drop_permille:
            return
        copies = 2 if self._random.randrange(1000) < self.faults.duplicate_permille else 1
        frame = encode_frame(message)
        for _ in range(copies):
            delay_ms = self._random.randint(self.faults.delay_ms_least, self.faults.delay_ms_most)
            self._timeline.plan(delay_ms, lambda: self._arrive(sender, receiver, frame))

    def is_reachable(self, sender: int, receiver: int) -> bool:
        """Whether the partition of the moment lets one reach the other."""
        return self.groups is None or any({sender, receiver} <= group for group in self.groups)

    def _arrive(self, sender: int, receiver: int, frame: bytes) -> None:
        if self.is_reachable(sender, receiver):
            message = decode_frame(frame)
            assert isinstance(message, PeerMessage)
            self._deliver(sender, receiver, message)
