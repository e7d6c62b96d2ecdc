"""What puppets are up to: the storms in which they attack one height of a cluster of whole nodes.

A kind and a seed give one, always the same. As many puppets as the protocol bears aim at locks; with as many as it
takes they part the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.simulator.cluster import ACCOUNTS
from tests.simulator.directed import draw_lock_attack
from tests.simulator.scenario import AttackMove, Behaviour, Corrupt, Kind, SayProposal, SayVote
from tests.simulator.storm import Pay, Split, Storm, StormMove

ATTACKED_MAX: Final = 4  # the highest height that is attacked
ATTACK_MS_MAX: Final = 60_000
ROUNDS: Final = 6
PLOT_VALIDATORS_LEAST: Final = 4  # fewer bear no puppet
# A flood is not among them: more than f of it take the honest to whatever round they like.
LIES: Final = (Behaviour.EQUIVOCATE, Behaviour.WITHHOLD, Behaviour.REPLAY, Behaviour.AMNESIA, Behaviour.FORGE)


def build_lock_attack(seed: int, validators: int) -> Storm:
    """The arena's attack on locks, by as many puppets as the protocol bears."""
    random = Random(f"lock_attack {seed}")
    puppets = tuple(random.sample(range(validators), (validators - 1) // 3))
    attacked = random.randint(1, ATTACKED_MAX)
    moves = draw_lock_attack(validators, puppets, attacked, random)
    return Storm(
        "lock_attack",
        seed,
        validators,
        duration_ms=ATTACK_MS_MAX,
        attacked=attacked,
        puppets=puppets,
        has_gossip=random.randrange(4) == 0,
        moves=(*_pay_everywhere(validators), *moves),
    )


def build_liars(seed: int, validators: int) -> Storm:
    """So many liars that two parts of the honest hold a quorum each with their help, and lies to lead them apart."""
    random = Random(f"liars {seed}")
    plot = _draw_plot(validators, random)
    together = frozenset(plot.liars)
    moves: list[StormMove] = [Split(0, (plot.parts[0] | together, plot.parts[1] | together))]
    moves.extend(_pay_everywhere(validators))
    moves.extend(plot.draw_lies(random))
    for liar in plot.liars if random.randrange(2) else ():
        for behaviour in random.sample(LIES, random.randint(1, 2)):
            towards = frozenset(random.sample(sorted(plot.everybody), random.randint(1, len(plot.everybody))))
            moves.append(Corrupt(liar, behaviour, random.choice((5, 20)), towards))
    return Storm(
        "liars",
        seed,
        validators,
        duration_ms=ATTACK_MS_MAX,
        attacked=plot.height,
        puppets=plot.liars,
        are_reformed=random.randrange(4) > 0,
        has_gossip=random.randrange(4) == 0,
        moves=tuple(moves),
    )


def _pay_everywhere(validators: int) -> Iterable[Pay]:
    """Something for the blocks to differ by."""
    return (Pay(0, number, 0, 1 + number % (ACCOUNTS - 1), number + 1) for number in range(validators))


@dataclass(frozen=True, slots=True)
class _Plot:
    """Who lies to whom at which height. Careful liars say one thing a round, to everybody alike."""

    height: int
    validators: int
    liars: tuple[int, ...]
    parts: tuple[frozenset[int], frozenset[int]]  # of the honest
    are_careful: bool

    @property
    def everybody(self) -> frozenset[int]:
        """Whom they lie to."""
        return self.parts[0] | self.parts[1]

    def draw_lies(self, random: Random) -> Iterable[AttackMove]:
        """Help one part to a decision, then mostly the other. A lying proposer may have a block for each, at once."""
        for round_ in range(ROUNDS):
            proposer = (self.height + round_) % self.validators
            helped = self.parts[0] if round_ == 0 else random.choice((self.parts[0], self.parts[1], self.parts[1]))
            if proposer not in self.liars:
                helped = next(part for part in self.parts if proposer in part)
                yield from self._draw_votes(round_, round_, helped, random)
                continue
            yield from self._draw_proposal(round_, -1 - round_, helped, random)
            yield from self._draw_votes(round_, -1 - round_, helped, random)
            if not self.are_careful and random.randrange(2):
                others = self.everybody - helped
                yield from self._draw_proposal(round_, -20 - round_, others, random)
                yield from self._draw_votes(round_, -20 - round_, others, random)

    def _draw_proposal(self, round_: int, block: int, to: frozenset[int], random: Random) -> Iterable[AttackMove]:
        proposer, valid_round = (self.height + round_) % self.validators, random.choice((-1, -1, round_ - 1))
        yield SayProposal(proposer, round_, block, valid_round, to, random.choice(("true", "forged")))

    def _draw_votes(self, round_: int, block: int, helped: frozenset[int], random: Random) -> Iterable[AttackMove]:
        """For a block to those who are helped, nil to the others. Many prevotes name a polka that never was."""
        told = self.everybody if self.are_careful else helped
        for liar in self.liars:
            claimed = random.choice((-1, round_ - 1, random.randrange(round_ + 1) - 1))
            claimed = round_ - 1 if self.are_careful else claimed
            yield SayVote(liar, round_, Kind.PREVOTE, block, claimed, told)
            yield SayVote(liar, round_, Kind.PRECOMMIT, block, -1, told)
            for kind in (Kind.PREVOTE, Kind.PRECOMMIT):
                yield SayVote(liar, round_, kind, None, -1, self.everybody - told)


def _draw_plot(validators: int, random: Random) -> _Plot:
    faulty_max = (validators - 1) // 3
    liars = tuple(random.sample(range(validators), validators - 2 * faulty_max))
    honest = [number for number in range(validators) if number not in liars]
    random.shuffle(honest)
    parts = (frozenset(honest[:faulty_max]), frozenset(honest[faulty_max:]))
    return _Plot(random.randint(1, ATTACKED_MAX), validators, liars, parts, random.randrange(2) == 0)


PLOTS: Final[dict[str, Callable[[int, int], Storm]]] = {
    "lock_attack": build_lock_attack,
    "liars": build_liars,
}
