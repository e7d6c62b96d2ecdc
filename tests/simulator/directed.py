"""The generators of directed scenarios: each family aims at one way in which a consensus is known to break.

A seed and a family give one scenario, always the same. Random faults alone find almost none of these: they lose
messages, but hardly ever exactly those that leave one node locked and the others ignorant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from random import Random
from typing import Final

from consensus.messages import Step
from tests.simulator.scenario import (
    AttackMove,
    Behaviour,
    Corrupt,
    Crash,
    Kind,
    Lose,
    Move,
    PowerCut,
    SayProposal,
    SayVote,
    Scenario,
    Slow,
    Weather,
)

Generator = Callable[[int, Random], Scenario]
ROUNDS: Final = 5
HEIGHT_MS_MAX: Final = 60_000  # of the long run


def build_scenario(family: str, seed: int) -> Scenario:
    """The scenario of a family with a seed."""
    return FAMILIES[family](seed, Random(f"{family} {seed}"))


def list_scenarios(first: int, count: int) -> Iterable[Scenario]:
    """``count`` directed scenarios from number ``first`` on; the families take turns, the strongest most often."""
    return (build_scenario(TURNS[number % len(TURNS)], number) for number in range(first, first + count))


def build_long_run(seed: int, heights: int) -> Scenario:
    """Seven validators, two of them Byzantine in every way all the time, over many heights."""
    random = Random(f"long run {seed}")
    corrupt = tuple(random.sample(range(7), 2))
    honest = frozenset(range(7)) - frozenset(corrupt)
    moves = tuple(
        Corrupt(number, behaviour, random.choice([5, 20, 50]), frozenset(random.sample(sorted(honest), 3)))
        for number in corrupt
        for behaviour in Behaviour
    )
    return Scenario(
        "long_run",
        seed,
        7,
        heights=heights,
        rounds=1_000,
        corrupt=corrupt,
        faults_ms=heights * HEIGHT_MS_MAX,
        has_gossip=True,
        moves=moves,
    )


def _twins(seed: int, random: Random) -> Scenario:
    """Two honest copies share one key, and each round has its own partition."""
    count = random.choice([4, 4, 4, 7])
    twins = tuple(random.sample(range(count), (count - 1) // 3))
    copies = list(range(count + len(twins)))
    moves: list[Move] = []
    for round_ in range(ROUNDS):
        if random.randrange(3) == 0:
            moves.append(Lose(round_, None, _partition(copies, twins, random)))
            continue
        # Some do not see the proposal, so that there are votes for nil; then some miss the vote that would tell.
        moves.append(Lose(round_, Kind.PROPOSAL, _partition(copies, twins, random)))
        moves.append(Lose(round_, Kind.PREVOTE, _draw_links(copies, random.choice([5, 15, 25]), random)))
        moves.append(Lose(round_, Kind.PRECOMMIT, _draw_links(copies, random.choice([5, 15]), random)))
    honest = [index for index in range(count) if index not in twins]
    moves.extend(_draw_crashes(honest, random))
    return Scenario("twins", seed, count, random.randint(1, 8), rounds=ROUNDS, twins=twins, moves=tuple(moves))


def _lock_attack(seed: int, random: Random) -> Scenario:
    """A puppet helps some to a lock that the others do not see, then pushes another block."""
    count, puppets = 4, (random.randrange(4),)
    first_height = random.randint(1, 8)
    moves = draw_lock_attack(count, puppets, first_height, random)
    return Scenario("lock_attack", seed, count, first_height, rounds=ROUNDS, puppets=puppets, moves=moves)


def draw_lock_attack(count: int, puppets: tuple[int, ...], first_height: int, random: Random) -> tuple[AttackMove, ...]:
    """The moves of an attack on locks by f puppets; without them, the honest are just a quorum."""
    honest = [index for index in range(count) if index not in puppets]
    moves: list[AttackMove] = []
    for round_ in range(ROUNDS):
        lockers = frozenset(random.sample(honest, random.choice([1, 2, 2, 3])))
        moves.extend(_hide_polka(round_, lockers, honest, random))
        block = random.choice([round_, round_, random.randrange(round_ + 1), -1 - round_])
        proposer = (first_height + round_) % count
        if proposer in puppets:
            moves.extend(_attack_as_proposer(proposer, round_, block, honest, random))
        valid_round = random.choice([-1, -1, random.randrange(-1, max(round_, 0))])
        others = frozenset(honest) - lockers
        for puppet in puppets:
            moves.append(SayVote(puppet, round_, Kind.PREVOTE, block, valid_round, lockers))
            moves.append(SayVote(puppet, round_, Kind.PREVOTE, random.choice([None, None, -9]), -1, others))
            told = frozenset(index for index in honest if random.randrange(2))
            moves.append(SayVote(puppet, round_, Kind.PRECOMMIT, random.choice([block, block, None]), -1, told))
            moves.append(SayVote(puppet, round_, Kind.PRECOMMIT, None, -1, frozenset(honest) - told))
    if random.randrange(2):
        moves.extend(_draw_crashes(honest, random))
    return tuple(moves)


def _hide_polka(round_: int, lockers: frozenset[int], honest: list[int], random: Random) -> Iterable[AttackMove]:
    """Whoever is no locker misses one honest prevote, so that the puppet alone lets it go on."""
    links = {(random.choice([other for other in honest if other != index]), index) for index in honest}
    yield Lose(round_, Kind.PREVOTE, frozenset(link for link in links if link[1] not in lockers))
    if random.randrange(3):
        deaf = {(one, other) for one, other in product(honest, honest) if one != other and random.randrange(3) == 0}
        yield Lose(round_, Kind.PRECOMMIT, frozenset(deaf))


def _attack_as_proposer(
    puppet: int, round_: int, block: int, honest: list[int], random: Random
) -> Iterable[AttackMove]:
    """A lying proposal: an old block, a made-up one, a polka that never was, a wrong time, two at once."""
    block = random.choice([-1 - round_, block if block < round_ else -1 - round_])
    valid_round = random.choice([-1, random.randrange(-1, max(round_, 0))])
    some = frozenset(index for index in honest if random.randrange(4))
    polka = random.choice(["true", "forged", "none"])
    lead_ms = random.choice([0, 0, 0, 40_000, -40_000])
    is_bad = random.randrange(6) == 0
    yield SayProposal(puppet, round_, block, valid_round, some, polka, lead_ms, is_bad)
    if random.randrange(3) == 0:
        yield SayProposal(puppet, round_, -20 - round_, -1, frozenset(honest) - some, "none")


def _skewed_rounds(seed: int, random: Random) -> Scenario:
    """A puppet takes two others through many rounds while the fourth hears nothing, and then falls silent.

    After healing the three honest need each other, and stand rounds apart.
    """
    puppet, left, *others = random.sample(range(4), 4)
    rounds = random.randint(4, 8)
    everybody = frozenset(product(range(4), range(4)))
    apart = frozenset(link for link in everybody if (link[0] == left) != (link[1] == left))
    moves: list[Move] = []
    for round_ in range(rounds):
        moves.append(Lose(round_, None, apart))
        # Nobody sees the proposal, or one does and its prevote is alone; round 0 may even give a lock.
        unseen = everybody if random.randrange(3) else frozenset((one, others[0]) for one in range(4))
        moves.append(Lose(round_, Kind.PROPOSAL, unseen))
        for kind in (Kind.PREVOTE, Kind.PRECOMMIT):
            moves.append(SayVote(puppet, round_, kind, None, -1, frozenset(others)))
    return Scenario(
        "skewed_rounds", seed, 4, random.randint(1, 8), rounds=rounds, puppets=(puppet,), moves=tuple(moves)
    )


def _lying_proposer(seed: int, random: Random) -> Scenario:
    """The first proposer lies: about the time, the validity, a polka; and votes for its own lie."""
    puppet = random.randrange(4)
    honest = [index for index in range(4) if index != puppet]
    first_height = 4 + puppet
    moves: list[Move] = []
    for round_ in (0, 4):
        block = -1 - round_
        valid_round = random.choice([-1, -1, random.randrange(-1, max(round_, 0))])
        is_bad = random.randrange(3) == 0
        lead_ms = 0 if is_bad else random.choice([0, 13_000, 40_000, -13_000, -40_000])
        polka = random.choice(["true", "forged", "none"])
        moves.append(SayProposal(puppet, round_, block, valid_round, frozenset(honest), polka, lead_ms, is_bad))
        for kind in (Kind.PREVOTE, Kind.PRECOMMIT):
            some = frozenset(honest if random.randrange(2) else random.sample(honest, 2))
            moves.append(SayVote(puppet, round_, kind, block, valid_round, some))
    offsets = tuple(random.randrange(-2_000, 2_000) for _ in range(4))
    return Scenario(
        "lying_proposer",
        seed,
        4,
        first_height,
        rounds=ROUNDS,
        puppets=(puppet,),
        clock_offsets_ms=offsets,
        moves=(*moves, *_draw_crashes(honest, random)),
    )


def _slow_links(seed: int, random: Random) -> Scenario:
    """Some links, or all, take longer than the first timeouts, and stay so."""
    count = random.choice([4, 4, 5])
    pairs = [(one, other) for one, other in product(range(count), range(count)) if one != other]
    slow = pairs if random.randrange(2) else random.sample(pairs, len(pairs) // 2)
    delay_ms = random.randint(500, 4_000)
    moves = tuple(Slow(one, other, delay_ms + random.randrange(500)) for one, other in slow)
    return Scenario("slow_links", seed, count, random.randint(1, 8), rounds=3, moves=moves)


def _late_blocks(seed: int, random: Random) -> Scenario:
    """Two lock a block that two others never saw a quorum for; then so many rounds fail that it is old by the clock."""
    numbers = random.sample(range(4), 4)
    locked, ignorant, deaf = numbers[:2], numbers[2], numbers[3]
    first_height = next(height for height in range(1, 9) if height % 4 not in {deaf, ignorant} or random.randrange(3))
    proposer = first_height % 4
    everybody = frozenset(product(range(4), range(4)))
    moves: list[Move] = [
        Lose(0, Kind.PROPOSAL, frozenset({(proposer, deaf)})),
        Lose(0, Kind.PREVOTE, frozenset({(locked[0], ignorant), (locked[0], deaf)})),
    ]
    rounds = random.randint(2, ROUNDS)
    moves.extend(Lose(round_, Kind.PROPOSAL, everybody) for round_ in range(1, rounds))
    offsets = tuple(random.randrange(-4_000, 4_000) for _ in range(4))
    return Scenario("late_blocks", seed, 4, first_height, rounds=rounds, clock_offsets_ms=offsets, moves=tuple(moves))


def _crashes(seed: int, random: Random) -> Scenario:
    """Power fails at the very moments that matter, for one or for all, while links lose messages."""
    count = random.choice([1, 4, 4, 5])
    numbers = list(range(count))
    moves: list[Move] = [
        Crash(number, random.randrange(3), random.choice(list(Step)[1:4]), random.randrange(6), random.randrange(4_000))
        for number in numbers
        for _ in range(random.randrange(3))
    ]
    for round_ in range(3):
        links = {(one, other) for one, other in product(numbers, numbers) if random.randrange(3) == 0}
        moves.append(Lose(round_, random.choice(list(Kind)), frozenset(links)))
    first_height = random.randint(1, 8)
    if random.randrange(2):
        moves.extend(_crash_while_proposing(first_height % count, numbers, random))
    return Scenario("crashes", seed, count, first_height, rounds=3, has_gossip=True, moves=tuple(moves))


def _crash_while_proposing(proposer: int, numbers: list[int], random: Random) -> Iterable[Move]:
    """A proposal is made and half written; after the restart another one is said, and then the power fails again."""
    for effects in (1, random.randint(3, 5)):
        yield Crash(proposer, 0, Step.PREVOTE, effects, random.randrange(1_000))
    yield Lose(0, Kind.PROPOSAL, frozenset((proposer, other) for other in numbers if random.randrange(3)))


def _byzantine(seed: int, random: Random) -> Scenario:
    """Validators that run the honest program, and twist what it says."""
    count = random.choice([4, 4, 4, 7])
    corrupt = tuple(random.sample(range(count), (count - 1) // 3))
    honest = [number for number in range(count) if number not in corrupt]
    moves: list[Move] = []
    for number in corrupt:
        for behaviour in random.sample(list(Behaviour), random.randint(1, 3)):
            towards = frozenset(random.sample(honest, random.randint(1, len(honest))))
            moves.append(Corrupt(number, behaviour, random.choice([20, 60, 100]), towards))
    for round_ in range(2):
        links = {(one, other) for one, other in product(range(count), range(count)) if random.randrange(4) == 0}
        moves.append(Lose(round_, random.choice(list(Kind)), frozenset(links)))
    moves.extend(_draw_crashes(honest, random))
    return Scenario(
        "byzantine",
        seed,
        count,
        random.randint(1, 8),
        heights=random.choice([1, 1, 2]),
        rounds=3,
        corrupt=corrupt,
        has_gossip=random.randrange(2) == 0,
        moves=tuple(moves),
    )


def _overrun(seed: int, random: Random) -> Scenario:
    """More faulty ones than the protocol bears, twins or liars: it may fork, but then the guilty are known."""
    if random.randrange(2):
        return _overrun_of_liars(seed, random)
    count = 4
    twins = tuple(random.sample(range(count), 2))
    copies = list(range(count + len(twins)))
    moves = tuple(Lose(round_, None, _partition(copies, twins, random)) for round_ in range(ROUNDS))
    return Scenario("overrun", seed, count, random.randint(1, 8), rounds=ROUNDS, twins=twins, moves=moves)


def _overrun_of_liars(seed: int, random: Random) -> Scenario:
    """Two puppets help one honest node to a decision that the other does not see, then the other to another one.

    Most of their later prevotes name a polka that never was, so that they do not look as if they had forgotten theirs.
    Careful ones say one thing a round, so that no two statements of theirs prove anything.
    """
    first, second, *puppets = random.sample(range(4), 4)
    first_height = random.randint(1, 8)
    apart = frozenset({(first, second), (second, first)})
    are_careful = random.randrange(2) == 0
    moves: list[Move] = []
    for round_ in range(ROUNDS):
        moves.append(Lose(round_, None, apart))
        helped = random.choice([first, second, second]) if round_ else first
        told = frozenset({first, second}) if are_careful else frozenset({helped})
        block = round_
        if (first_height + round_) % 4 in puppets:
            block = -1 - round_
            proposer, valid_round = (first_height + round_) % 4, random.choice([-1, -1, round_ - 1])
            polka = random.choice(["true", "forged"])
            moves.append(SayProposal(proposer, round_, block, valid_round, frozenset({helped}), polka))
        for puppet in puppets:
            claimed = round_ - 1 if are_careful else random.choice([-1, round_ - 1, random.randrange(round_ + 1) - 1])
            moves.append(SayVote(puppet, round_, Kind.PREVOTE, block, claimed, told))
            moves.append(SayVote(puppet, round_, Kind.PRECOMMIT, block, -1, told))
            for kind in (Kind.PREVOTE, Kind.PRECOMMIT):
                moves.append(SayVote(puppet, round_, kind, None, -1, frozenset({first, second}) - told))
    return Scenario("overrun", seed, 4, first_height, rounds=ROUNDS, puppets=tuple(puppets), moves=tuple(moves))


def _weather(seed: int, random: Random) -> Scenario:
    """Random faults: loss, duplicates, delays, partitions, power cuts, at random moments."""
    count = random.choice([1, 2, 4, 4, 4, 5, 7])
    numbers = list(range(count))
    moves: list[Move] = []
    at_ms = 0
    for _ in range(random.randrange(1, 5)):
        random.shuffle(numbers)
        cut = random.randrange(count)
        groups: tuple[frozenset[int], ...] = ()
        if random.randrange(2):
            groups = (frozenset(numbers[:cut]), frozenset(numbers[cut:]))
        drop, duplicate = random.choice([0, 5, 30, 60]), random.choice([0, 10])
        moves.append(Weather(at_ms, drop, duplicate, random.choice([5, 200, 3_000]), groups))
        for _ in range(random.choice([0, 0, 1, 3])):
            moves.append(PowerCut(at_ms + random.randrange(3_000), random.choice(numbers), random.randrange(5_000)))
        at_ms += random.randrange(500, 4_000)
    return Scenario(
        "weather",
        seed,
        count,
        random.randint(1, 8),
        heights=3,
        rounds=100,
        faults_ms=at_ms,
        has_gossip=True,
        moves=tuple(moves),
    )


def _partition(copies: list[int], twins: tuple[int, ...], random: Random) -> frozenset[tuple[int, int]]:
    """The links between groups of a random partition; mostly one that leaves some group able to go on."""
    groups = random.choice([2, 2, 2, 3])
    place = {copy: random.randrange(groups) for copy in copies}
    if random.randrange(4):
        # Twins on both sides: with them, both may hold a quorum.
        place.update({twin: number % 2 for number, twin in enumerate(twins)})
        place.update({copy: 1 - number % 2 for number, copy in enumerate(copies[len(copies) - len(twins) :])})
        loner = random.choice(copies)
        for copy in copies:
            if copy not in twins and copy < len(copies) - len(twins):
                place[copy] = int(copy == loner)
    return frozenset((one, other) for one, other in product(copies, copies) if place[one] != place[other])


def _draw_links(copies: list[int], percent: int, random: Random) -> frozenset[tuple[int, int]]:
    return frozenset(link for link in product(copies, copies) if random.randrange(100) < percent)


def _draw_crashes(honest: list[int], random: Random) -> Iterable[AttackMove]:
    for _ in range(random.choice([0, 1, 2])):
        step = random.choice([Step.PREVOTE, Step.PRECOMMIT, Step.PRECOMMIT])
        node, round_ = random.choice(honest), random.randrange(ROUNDS)
        yield Crash(node, round_, step, random.randrange(6), random.randrange(2_000))


DIRECTED: Final[dict[str, Generator]] = {
    "twins": _twins,
    "lock_attack": _lock_attack,
    "skewed_rounds": _skewed_rounds,
    "lying_proposer": _lying_proposer,
    "slow_links": _slow_links,
    "late_blocks": _late_blocks,
    "crashes": _crashes,
    "byzantine": _byzantine,
    "overrun": _overrun,
}
FAMILIES: Final[dict[str, Generator]] = {**DIRECTED, "weather": _weather}
TURNS: Final = (
    *("twins", "lock_attack", "crashes", "byzantine"),
    *("twins", "lock_attack", "late_blocks", "skewed_rounds"),
    *("twins", "lock_attack", "lying_proposer", "byzantine"),
    *("twins", "lock_attack", "overrun", "slow_links"),
)
