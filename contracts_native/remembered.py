"""A bounded memory of digests, so that what was checked at the door is not checked again in the block.

Owns the limit: it forgets the older half at a time. Forgetting costs time and never changes an answer.
"""

from __future__ import annotations


class Remembered:
    """Digests that were seen not long ago, at least the latest ``most`` / 2 and at most ``most``."""

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._young or digest in self._old

    def count(self) -> int:
        """How many are held."""
        return len(self._young) + len(self._old)

    def add(self, digest: bytes) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, set()
        self._young.add(digest)
