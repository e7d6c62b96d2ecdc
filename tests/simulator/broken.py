"""The one way in which a judge says that a promise did not hold."""

from __future__ import annotations


class Broken(AssertionError):
    """A promise did not hold."""

    def __init__(self, promise: str, problem: str) -> None:
        super().__init__(f"{promise}: {problem}")
        self.promise = promise
