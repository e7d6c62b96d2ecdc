"""Random weather for a cluster: what a seed does to the nodes before it heals them.

Owns the generator of faults. Two phases: safety under faults, then liveness with everybody healed.
"""

from __future__ import annotations

from typing import Final

from tests.simulator.checkers import check_all, check_liveness
from tests.simulator.cluster import Cluster

STORM_STEPS: Final = 16
STEP_MS: Final = 400


def run_seed(seed: int, *, validators: int = 4) -> Cluster:
    """One whole run under a seed. Raises ``AssertionError`` with the command that replays it."""
    cluster = Cluster(validators=validators, seed=seed)
    random = cluster.random
    cluster.clock_offsets_ms = [random.randint(-400, 400) for _ in cluster.nodes]
    for _ in range(STORM_STEPS):
        change_weather(cluster)
        for _ in range(random.randint(0, 3)):
            cluster.submit_something()
        cluster.run_for(random.randint(1, 2 * STEP_MS))
    check_all(cluster)
    cluster.heal()
    check_liveness(cluster)
    check_all(cluster)
    return cluster


def change_weather(cluster: Cluster) -> None:
    """Another network and other chances of power cuts, from now on."""
    random = cluster.random
    faults = cluster.faults
    faults.drop_permille = random.choice((0, 0, 50, 300))
    faults.duplicate_permille = random.choice((0, 0, 100))
    faults.delay_ms_most = random.choice((20, 40, 300, 1_500))
    cluster.power_cut_permille = random.choice((0, 0, 5, 30))
    numbers = list(range(len(cluster.nodes)))
    random.shuffle(numbers)
    match random.randrange(4):
        case 0:
            cut = random.randint(1, len(numbers))
            cluster.split(set(numbers[:cut]), set(numbers[cut:]))
        case 1:
            cluster.isolate(numbers[0])
        case 2:
            cluster.network.groups = None
        case _:
            pass  # the weather stays
    for node in cluster.nodes:
        # Whoever lay down while power cuts were part of the weather comes back when they no longer are.
        if node.core is None and not cluster.power_cut_permille and random.randrange(2):
            cluster.restart(node.number)
