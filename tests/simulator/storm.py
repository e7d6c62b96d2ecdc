"""What happens to a cluster of whole nodes, as data: a list of moves, each at its moment, and each dispensable.

`stories.py` draws and plays them; `minimise.py` takes moves away as long as a run still fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from tests.simulator.scenario import AttackMove, Corrupt


@dataclass(frozen=True, slots=True)
class Turn:
    """From a moment on, the network treats messages like this. Chances are per mille."""

    at_ms: int
    drop_permille: int
    duplicate_permille: int
    delay_ms_max: int


@dataclass(frozen=True, slots=True)
class Split:
    """From a moment on, only nodes of one group reach each other; no group: everybody reaches everybody."""

    at_ms: int
    groups: tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """After a moment, the power of a node fails: after so many effects, and for so long."""

    at_ms: int
    node: int
    effects: int
    down_ms: int


@dataclass(frozen=True, slots=True)
class Pay:
    """Account 0 issues credits through a node, or another account transfers some. Much of it is refused."""

    at_ms: int
    node: int
    sender: int
    recipient: int
    cents: int


@dataclass(frozen=True, slots=True)
class Govern:
    """A node takes part in governance: `GOVERNING` of stories.py says which word of it this is."""

    at_ms: int
    node: int
    word: str
    other: int  # the node that it is about
    value: int


StormMove: TypeAlias = Turn | Split | Cut | Pay | Govern | Corrupt | AttackMove


@dataclass(frozen=True, slots=True)
class Storm:
    """All that a run of whole nodes depends on. A node with a `Corrupt` move is Byzantine, all the time.

    With an ``attacked`` height all is calm until the height before it is decided everywhere; moments count from there.
    The ``puppets`` are honest until then, and from there on the moves speak for them.
    """

    kind: str
    seed: int
    validators: int
    followers: int = 0
    duration_ms: int = 8_000
    clock_offsets_ms: tuple[int, ...] = ()
    attacked: int = 0
    puppets: tuple[int, ...] = ()
    are_reformed: bool = False  # once all is healed, the puppets' programs are heard again, and nothing is twisted
    has_gossip: bool = True  # whether nodes tell each other where they stand while they are attacked
    moves: tuple[StormMove, ...] = ()

    @property
    def command(self) -> str:
        """What replays it whole."""
        return f"python -m tests.simulator --storm {self.kind} --validators {self.validators} --seed {self.seed}"

    def list_plainer(self) -> tuple[Callable[[Storm], Storm], ...]:
        """Ways to make it plainer beside taking moves away."""
        return (
            lambda storm: replace(storm, clock_offsets_ms=()),
            lambda storm: replace(storm, duration_ms=storm.duration_ms // 2),
        )
