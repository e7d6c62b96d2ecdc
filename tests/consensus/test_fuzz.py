"""Random faults: order, loss, duplicates, partitions, crashes in the midst of effects. Safety all the time, then
liveness after healing. A failing seed is replayed with `pytest tests/consensus/test_fuzz.py -k seed_N`.
"""

from __future__ import annotations

from random import Random
from typing import Final

import pytest

from tests.consensus.network import Faults, Net

SEEDS: Final = 200
LIVENESS_MS: Final = 120_000


def disturb(net: Net, random: Random) -> None:
    """One spell of bad weather."""
    numbers = list(range(len(net.nodes)))
    random.shuffle(numbers)
    cut = random.randrange(len(numbers))
    net.faults = Faults(
        drop_percent=random.choice([0, 5, 30, 60]),
        duplicate_percent=random.choice([0, 10]),
        delay_ms_max=random.choice([5, 200, 3_000]),
        groups=random.choice([(), (frozenset(numbers[:cut]), frozenset(numbers[cut:]))]),
    )
    net.crash_percent = random.choice([0, 0, 2])
    net.run(random.randrange(500, 8_000))


@pytest.mark.parametrize("seed", range(SEEDS), ids=lambda seed: f"seed_{seed}")
def test_faults_break_no_promise_and_healing_brings_progress(seed: int) -> None:
    random = Random(seed)
    net = Net(random.choice([1, 2, 4, 4, 4, 5, 7]), seed=seed, watchers=random.randrange(2))
    for _ in range(random.randrange(1, 5)):
        disturb(net, random)
    net.heal()
    highest = max(node.height for node in net.nodes)
    net.run_until(highest + 2, within_ms=LIVENESS_MS)
    assert not net.halted
