"""What the demo promises, each as a comparison of two values that a person can follow.

Owns no promise itself: the steps add theirs, the summary lists them all, and the exit status is whether all hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from ledger.fields import Json

Value: TypeAlias = int | str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two values that must stand in a relation: ``=``, ``≤`` or ``<``."""

    title: str
    left: Value
    right: Value
    relation: str
    unit: str

    @property
    def holds(self) -> bool:
        """Whether they do."""
        if self.relation == "=":
            return type(self.left) is type(self.right) and self.left == self.right
        assert isinstance(self.left, int), self
        assert isinstance(self.right, int), self
        return self.left < self.right or (self.relation == "≤" and self.left == self.right)

    def to_json(self) -> dict[str, Json]:
        """The comparison with its verdict."""
        return {
            "title": self.title,
            "left": self.left,
            "relation": self.relation,
            "right": self.right,
            "unit": self.unit,
            "holds": self.holds,
        }


@dataclass(slots=True)
class Checklist:
    """Every comparison that was made, in order."""

    comparisons: list[Comparison] = field(default_factory=list)

    def compare(self, title: str, left: Value, right: Value, *, relation: str = "=", unit: str = "") -> None:
        """Add a comparison; whether it holds shows in the summary and in the exit status."""
        self.comparisons.append(Comparison(title, left, right, relation, unit))

    @property
    def holds(self) -> bool:
        """Whether there are comparisons and all of them hold."""
        return bool(self.comparisons) and all(one.holds for one in self.comparisons)

    def to_json(self) -> list[Json]:
        """All of them."""
        return [one.to_json() for one in self.comparisons]
