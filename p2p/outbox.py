"""What waits to be sent to one peer: a bounded queue for each class, the consensus first.

Separate queues, so that a vote never waits behind the mempool; limits by count and by bytes, so that a peer that
stops reading costs a known amount of memory. What a full queue means is the caller's decision. What all outboxes hold
for one peer each is counted together: many who ask and do not read must not cost many times as much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from p2p.messages import QueueClass

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """How many frames, and how many bytes of them, may wait."""

    frames_max: int
    bytes_max: int


QUEUE_LIMITS: Final[Mapping[QueueClass, QueueLimit]] = {
    QueueClass.CONSENSUS: QueueLimit(4_096, 32 * _MIB),  # two of the largest proposals, or 4,096 votes
    QueueClass.BLOCKS: QueueLimit(256, 32 * _MIB),
    QueueClass.TRANSACTIONS: QueueLimit(1_024, 16 * _MIB),
}


@dataclass(slots=True)
class Held:
    """Bytes that the outboxes of one node hold for one peer alone; what all peers are sent is one copy."""

    size_bytes: int = 0


class Outbox:
    """Three queues in order of priority; within a queue, first in, first out."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.held_bytes = 0  # our part of it
        self._queues: Final[dict[QueueClass, deque[tuple[bytes, bool]]]] = {queue: deque() for queue in QueueClass}
        self._sizes: Final[dict[QueueClass, int]] = dict.fromkeys(QueueClass, 0)
        self._dropped: Final[dict[QueueClass, int]] = dict.fromkeys(QueueClass, 0)

    def offer(self, queue: QueueClass, frame: bytes, *, is_shared: bool = False) -> bool:
        """Append a frame; False, and counted as dropped, when its queue is full. A shared one waits for others too."""
        limit, waiting = QUEUE_LIMITS[queue], self._queues[queue]
        if len(waiting) >= limit.frames_max or self._sizes[queue] + len(frame) > limit.bytes_max:
            self._dropped[queue] += 1
            return False
        waiting.append((frame, is_shared))
        self._sizes[queue] += len(frame)
        if not is_shared:
            self._hold(len(frame))
        return True

    def take(self) -> bytes | None:
        """Remove the next frame by priority, or None when nothing waits."""
        for queue, waiting in self._queues.items():
            if waiting:
                frame, is_shared = waiting.popleft()
                self._sizes[queue] -= len(frame)
                if not is_shared:
                    self._hold(-len(frame))
                return frame
        return None

    def clear(self) -> None:
        """Nothing of it is to be sent any more."""
        for queue, waiting in self._queues.items():
            waiting.clear()
            self._sizes[queue] = 0
        self._hold(-self.held_bytes)

    def get_waiting(self) -> Mapping[QueueClass, int]:
        """Frames that wait, by class."""
        return {queue: len(waiting) for queue, waiting in self._queues.items()}

    def get_dropped(self) -> Mapping[QueueClass, int]:
        """Frames that a full queue refused since the connection began, by class."""
        return dict(self._dropped)

    def _hold(self, size: int) -> None:
        self.held_bytes += size
        self._held.size_bytes += size
