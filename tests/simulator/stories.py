"""Storms over a cluster of whole nodes: a kind and a seed give one, always the same, and it is played in two phases.

Safety under faults, then liveness with everything healed; Byzantine nodes stay Byzantine in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from random import Random
from typing import Final

from contracts_native.credits import IssueCredits, TransferCredits
from ledger.primitives import Height
from node import chain_store
from tests.simulator.attack import Attack
from tests.simulator.checkers import (
    check_all,
    check_finality,
    check_liveness,
    check_memory,
    check_no_honest_node_is_blamed,
    check_the_guilty_are_named,
    list_named,
)
from tests.simulator.cluster import ACCOUNTS, Cluster
from tests.simulator.governance import follow, show_readiness, vote_on_everything
from tests.simulator.governance import propose as propose_change
from tests.simulator.overrun import run_overrun
from tests.simulator.plots import PLOTS
from tests.simulator.scenario import Behaviour, Corrupt
from tests.simulator.storm import Cut, Govern, Pay, Split, Storm, StormMove, Turn
from tests.simulator.world import Faults

STORM_STEPS: Final = 16
STEP_MS: Final = 400
LONG_RUN_VALIDATORS: Final = 7
LONG_STEP_MS: Final = 500
LOOK_BLOCKS: Final = 50
FINALITY_MS_MAX: Final = 30_000  # of virtual time, between one height and the next
WORDS: Final = ("add", "remove", "parameters", "ready", "vote", "vote", "vote")


def run_seed(seed: int, *, validators: int = 4, kind: str = "weather") -> Cluster:
    """Draw a storm and play it. Raises ``Broken`` with the command that replays it."""
    return run_storm(build_storm(kind, seed, validators))


def build_storm(kind: str, seed: int, validators: int) -> Storm:
    """The storm of a kind with a seed."""
    return KINDS[kind](seed, validators)


def play_storm(storm: Storm) -> Cluster:
    """The first phase, unjudged: until the faults end."""
    corrupt = [move for move in storm.moves if isinstance(move, Corrupt)]
    cluster = Cluster(storm.validators, storm.seed, followers=storm.followers, corrupt=corrupt, puppets=storm.puppets)
    cluster.replay = storm.command
    if storm.clock_offsets_ms:
        cluster.clock_offsets_ms = list(storm.clock_offsets_ms)
    if storm.attacked:
        cluster.run_until(height=storm.attacked - 1)
        cluster.attack = Attack(cluster, Height(storm.attacked), storm.moves, has_gossip=storm.has_gossip)
    for move in storm.moves:
        if isinstance(move, Turn | Split | Cut | Pay | Govern):
            cluster.timeline.plan(move.at_ms, partial(_perform, cluster, move))
    end_ms, attack = cluster.timeline.now_ms + storm.duration_ms, cluster.attack
    cluster.timeline.run_until(end_ms, stop=lambda: attack is not None and attack.is_over())
    return cluster


def run_storm(storm: Storm) -> Cluster:
    """Play it, and judge. Raises ``Broken`` if a promise fails, and whatever a node trips over."""
    cluster = play_storm(storm)
    if len(cluster.guilty) > (storm.validators - 1) // 3:
        run_overrun(cluster, are_reformed=storm.are_reformed)
        return cluster
    check_all(cluster)
    cluster.heal()
    if storm.followers:
        vote_on_everything(cluster)
    check_liveness(cluster)
    if storm.followers:
        vote_on_everything(cluster)
        cluster.run_until(height=max(node.height for node in cluster.honest) + 8, within_ms=120_000)
    check_all(cluster)
    for node in cluster.honest:
        follow(cluster, node.number)
    return cluster


def run_long(seed: int, heights: int) -> Cluster:
    """Seven validators, two of them Byzantine in every way all the time, over many heights; payments meanwhile.

    Raises ``Broken`` if a promise fails, if the chain stands still for longer than ``FINALITY_MS_MAX``, or if evidence
    on the chain of an honest node names anybody but these two, or not both.
    """
    random = Random(f"long run {seed}")
    guilty = random.sample(range(LONG_RUN_VALIDATORS), 2)
    honest = [number for number in range(LONG_RUN_VALIDATORS) if number not in guilty]
    corrupt = [
        Corrupt(number, behaviour, random.choice([5, 20, 50]), frozenset(random.sample(honest, 3)))
        for number in guilty
        for behaviour in Behaviour
    ]
    cluster = Cluster(LONG_RUN_VALIDATORS, seed, corrupt=corrupt)
    cluster.replay = f"python -m tests.simulator --long-run {heights} --seed {seed}"
    while (height := min(node.height for node in cluster.honest)) < heights:
        cluster.submit_something()
        cluster.run_for(LONG_STEP_MS)
        check_memory(cluster)
        check_finality(cluster, within_ms=FINALITY_MS_MAX)
        if height % LOOK_BLOCKS == 0:
            check_no_honest_node_is_blamed(cluster)
    check_all(cluster)
    check_the_guilty_are_named(cluster)
    for node in cluster.honest:
        follow(cluster, node.number)
    return cluster


def describe_run(cluster: Cluster) -> str:
    """What a long run came to: rounds, times to finality, and who is named."""
    node = max(cluster.honest, key=lambda one: one.height)
    certificates = (chain_store.find_certificate(node.store, height) for height in range(1, node.height + 1))
    rounds = [certificate.round for certificate in certificates if certificate is not None]
    moments = [ms for _, ms in sorted(cluster.observed.decided_ms.items())]
    waits = sorted(later - earlier for earlier, later in pairwise(moments))
    named = [sorted(list_named(cluster, one)) for one in cluster.honest]
    p95_ms = waits[len(waits) * 95 // 100]
    return (
        f"virtual {(moments[-1] - moments[0]) // 1000} s, rounds up to {max(rounds)}, a height took "
        f"{waits[len(waits) // 2]} ms (median), {p95_ms} (p95), {waits[-1]} (most); "
        f"Byzantine {sorted(cluster.guilty)}, named on chain by each honest node {named}"
    )


def _perform(cluster: Cluster, move: Turn | Split | Cut | Pay | Govern) -> None:
    if cluster.is_healed:
        return
    match move:
        case Turn(_, drop, duplicate, delay_ms_max):
            cluster.network.faults = Faults(1, delay_ms_max, drop, duplicate)
        case Split(_, groups):
            cluster.network.groups = [set(group) for group in groups] or None
        case Cut(_, node, effects, down_ms):
            cluster[node].effects_left, cluster[node].down_ms = effects, down_ms
        case Pay():
            _pay(cluster, move)
        case Govern():
            _govern(cluster, move)


def _pay(cluster: Cluster, move: Pay) -> None:
    sender, recipient = cluster.accounts[move.sender], cluster.accounts[move.recipient].address
    if move.sender == 0:
        cluster.submit(move.node, IssueCredits(recipient, move.cents, f"at {move.at_ms}"), by=sender)
    else:
        cluster.submit(move.node, TransferCredits(recipient, move.cents, ""), by=sender)


def _govern(cluster: Cluster, move: Govern) -> None:
    match move.word:
        case "add":
            propose_change(cluster, move.node, add=move.other, ahead=move.value)
        case "remove":
            propose_change(cluster, move.node, remove=move.other, ahead=move.value)
        case "parameters":
            propose_change(cluster, move.node, parameters={"block_transactions_max": move.value}, ahead=5)
        case "ready":
            show_readiness(cluster, move.node)
        case _:
            vote_on_everything(cluster)


def _weather(seed: int, validators: int) -> Storm:
    """Loss, duplicates, delays, partitions, power cuts; payments meanwhile."""
    random = Random(f"weather {seed}")
    return _draw_storm("weather", seed, validators, random)


def _byzantine(seed: int, validators: int) -> Storm:
    """As many Byzantine whole nodes as the protocol bears, in rather mild weather."""
    random = Random(f"byzantine {seed}")
    storm = _draw_storm("byzantine", seed, validators, random, losses=(0, 0, 20, 100))
    numbers = random.sample(range(validators), (validators - 1) // 3)
    moves = [move for number in numbers for move in draw_behaviours(number, validators, random)]
    kept = [move for move in storm.moves if not (isinstance(move, Cut) and move.node in numbers)]
    return replace(storm, moves=(*moves, *kept))


def _changing(seed: int, validators: int) -> Storm:
    """The authorities keep changing who they are, in random weather."""
    random = Random(f"changing {seed}")
    storm = _draw_storm("changing", seed, validators, random, followers=1)
    words: list[StormMove] = []
    for _ in range(2 * STORM_STEPS):
        at_ms, node, other = random.randrange(storm.duration_ms), *random.choices(range(validators + 1), k=2)
        words.append(Govern(at_ms, node, random.choice(WORDS), other, random.randint(2, 15)))
    return replace(storm, moves=(*storm.moves, *words))


def draw_behaviours(number: int, validators: int, random: Random) -> Iterable[Corrupt]:
    """Some ways in which a validator misbehaves."""
    for behaviour in random.sample(list(Behaviour), random.randint(1, 4)):
        others = [other for other in range(validators) if other != number]
        towards = frozenset(random.sample(others, random.randint(1, len(others))))
        yield Corrupt(number, behaviour, random.choice([5, 20, 60]), towards)


def _draw_storm(
    kind: str,
    seed: int,
    validators: int,
    random: Random,
    *,
    followers: int = 0,
    losses: tuple[int, ...] = (0, 0, 50, 300),
) -> Storm:
    numbers = list(range(validators + followers))
    moves: list[StormMove] = []
    at_ms = 0
    for _ in range(STORM_STEPS):
        moves.append(
            Turn(at_ms, random.choice(losses), random.choice((0, 0, 100)), random.choice((20, 40, 300, 1_500)))
        )
        moves.extend(_draw_split(at_ms, numbers, random))
        for _ in range(random.choice((0, 0, 0, 1, 1, 3))):
            effects = random.randrange(40)
            moves.append(
                Cut(at_ms + random.randrange(STEP_MS), random.choice(numbers), effects, random.randint(1, 2_000))
            )
        for _ in range(random.randrange(4)):
            sender, recipient = random.sample(range(ACCOUNTS), 2)
            moves.append(Pay(at_ms, random.choice(numbers), sender, recipient, random.randint(1, 1_000)))
        at_ms += random.randint(1, 2 * STEP_MS)
    if random.randrange(4) == 0:
        moves.extend(Cut(at_ms, number, random.randrange(20), 3_000) for number in numbers)  # all at once
    offsets = tuple(random.randint(-400, 400) for _ in numbers)
    return Storm(
        kind,
        seed,
        validators,
        followers,
        duration_ms=at_ms + STEP_MS,
        clock_offsets_ms=offsets,
        moves=tuple(moves),
    )


def _draw_split(at_ms: int, numbers: list[int], random: Random) -> Iterable[Split]:
    places = random.sample(numbers, len(numbers))
    match random.randrange(4):
        case 0:
            cut = random.randint(1, len(places))
            yield Split(at_ms, (frozenset(places[:cut]), frozenset(places[cut:])))
        case 1:
            yield Split(at_ms, (frozenset(places[1:]), frozenset(places[:1])))
        case 2:
            yield Split(at_ms, ())
        case _:
            pass  # it stays as it is


KINDS: Final[dict[str, Callable[[int, int], Storm]]] = {
    "weather": _weather,
    "byzantine": _byzantine,
    "changing": _changing,
    **PLOTS,
}
