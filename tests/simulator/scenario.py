"""A directed scenario as data: who is faulty, and every single thing that goes wrong, one move each.

Moves are independent of each other, so that `minimise.py` can take one away and play the rest again. Nodes are named
by number: 0 to n − 1 are the validators, the numbers from n on are the second copies of the twins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import TypeAlias

from consensus.messages import Message, Prevote, SignedProposal, SignedVote, Step


class Kind(IntEnum):
    """What a round consists of."""

    PROPOSAL = 0
    PREVOTE = 1
    PRECOMMIT = 2


class Behaviour(Enum):
    """What a Byzantine validator does all the time; `byzantine.py` performs it."""

    EQUIVOCATE = "equivocate"  # says one thing to some, and another to the others
    WITHHOLD = "withhold"  # speaks to some only
    LIE_ABOUT_VALIDITY = "lie about validity"  # takes good blocks for bad ones, and bad ones for good
    REPLAY = "replay"  # sends old messages of anybody again
    AMNESIA = "amnesia"  # votes for each new proposal, whatever it is locked on
    FORGE = "forge"  # certificates with wrong signatures, repeated signers, stolen votes
    SPAM = "spam"  # a flood of votes for many rounds and many values


@dataclass(frozen=True, slots=True)
class Lose:
    """Messages of one kind in one round are lost on these (sender, receiver) links; kind None: of every kind."""

    round: int
    kind: Kind | None
    links: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Slow:
    """A link takes this long, also after healing."""

    sender: int
    receiver: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Crash:
    """The node's power fails when it reaches a step, after so many effects of that moment, for so long."""

    node: int
    round: int
    step: Step
    effects: int
    down_ms: int


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A validator shows a behaviour, at so many chances in a hundred, towards these nodes."""

    node: int
    behaviour: Behaviour
    percent: int
    towards: frozenset[int]


@dataclass(frozen=True, slots=True)
class Weather:
    """From a moment on, the whole network is like this. Groups empty: everybody reaches everybody."""

    at_ms: int
    drop_percent: int
    duplicate_percent: int
    delay_ms_max: int
    groups: tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True)
class PowerCut:
    """At a moment the power of a node fails, for so long."""

    at_ms: int
    node: int
    down_ms: int


@dataclass(frozen=True, slots=True)
class SayProposal:
    """A puppet proposes; ``block`` as in `SayVote`. ``lead_ms`` moves the time of a made-up block."""

    by: int
    round: int
    block: int
    valid_round: int
    to: frozenset[int]
    polka: str  # "true", "forged" or "none"
    lead_ms: int = 0
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class SayVote:
    """A puppet votes. ``block`` ≥ 0: the first one proposed in that round; < 0: a made-up one; None: nil."""

    by: int
    round: int
    kind: Kind
    block: int | None
    valid_round: int
    to: frozenset[int]


AttackMove: TypeAlias = Lose | Crash | SayProposal | SayVote  # those that whole nodes know as well
Move: TypeAlias = AttackMove | Slow | Corrupt | Weather | PowerCut


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that a run depends on. ``twins`` have two copies, ``puppets`` none: the moves speak for them."""

    family: str
    seed: int
    validators: int
    first_height: int = 8
    heights: int = 1
    rounds: int = 6  # the faults end once an honest node has come this far
    twins: tuple[int, ...] = ()
    puppets: tuple[int, ...] = ()
    corrupt: tuple[int, ...] = ()
    clock_offsets_ms: tuple[int, ...] = ()
    delay_ms_max: int = 40
    faults_ms: int = 60_000  # the faults end at the latest after this long
    has_gossip: bool = False  # whether nodes tell each other where they stand while faults last
    moves: tuple[Move, ...] = ()

    @property
    def command(self) -> str:
        """What replays it whole."""
        return f"python -m tests.simulator --directed --family {self.family} --seed {self.seed}"

    def list_plainer(self) -> tuple[Callable[[Scenario], Scenario], ...]:
        """Ways to make it plainer beside taking moves away."""
        return (
            lambda scenario: replace(scenario, heights=1),
            lambda scenario: replace(scenario, clock_offsets_ms=()),
            lambda scenario: replace(scenario, delay_ms_max=1),
        )

    @property
    def faulty(self) -> frozenset[int]:
        """Validators that are not honest."""
        return frozenset((*self.twins, *self.puppets, *self.corrupt))


def classify(message: Message) -> tuple[int, Kind | None]:
    """The round and kind by which a `Lose` finds a message; kind None if it is more, or none, of the three."""
    match message:
        case SignedVote(vote):
            return vote.round, Kind.PREVOTE if isinstance(vote, Prevote) else Kind.PRECOMMIT
        case SignedProposal(proposal):
            return proposal.round, Kind.PROPOSAL
        case _:
            return getattr(message, "round", -1), None


class Losses:
    """Which links lose a message: those that the moves name for its round and kind, and for all kinds of its round."""

    def __init__(self, moves: Iterable[object]) -> None:
        self._lost: dict[tuple[int, Kind | None], list[frozenset[tuple[int, int]]]] = {}
        for move in moves:
            if isinstance(move, Lose):
                self._lost.setdefault((move.round, move.kind), []).append(move.links)

    def list_links(self, message: Message) -> list[frozenset[tuple[int, int]]]:
        """The links that lose this one."""
        round_, kind = classify(message)
        slots = ((round_, kind), (round_, None)) if kind is not None else ((round_, None),)
        return [links for slot in slots for links in self._lost.get(slot, ())]
