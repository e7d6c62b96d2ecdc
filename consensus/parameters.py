"""The times that consensus is run with, in one place, with defaults for a wide-area network.

None of them touches safety; every node may have its own, but the block interval is best the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.messages import Step


@dataclass(frozen=True, slots=True)
class ConsensusParameters:
    """Milliseconds. A timeout of round r is its base + r × its delta, at most ``timeout_max_ms``."""

    propose_timeout_ms: int = 2_000
    propose_delta_ms: int = 500
    vote_timeout_ms: int = 1_000
    vote_delta_ms: int = 500
    timeout_max_ms: int = 60_000
    clock_skew_ms: int = 10_000  # how far a fresh proposal's time may lie from the voter's clock
    block_interval_ms: int = 500  # least time between the proposals of two heights
    heartbeat_ms: int = 10_000  # an empty block after this much silence

    def __post_init__(self) -> None:
        assert 0 <= self.block_interval_ms <= self.heartbeat_ms
        assert 0 < self.propose_timeout_ms <= self.timeout_max_ms
        assert 0 < self.vote_timeout_ms <= self.timeout_max_ms
        assert min(self.propose_delta_ms, self.vote_delta_ms, self.clock_skew_ms) > 0

    def compute_timeout_ms(self, step: Step, round_: int) -> int:
        """How long a round waits at a step; it grows with the round, until messages arrive in time."""
        if step is Step.PROPOSE:
            return min(self.propose_timeout_ms + round_ * self.propose_delta_ms, self.timeout_max_ms)
        return min(self.vote_timeout_ms + round_ * self.vote_delta_ms, self.timeout_max_ms)
