"""Run seeds by hand: ``python -m tests.simulator --seed 7`` replays one, ``--seconds 60`` runs new ones for a while."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulator.stories import run_seed


def main() -> int:
    """Run one seed, or as many as fit in the time; stops at the first that fails and prints it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--validators", type=int, default=4)
    parser.add_argument("--seed", type=int, help="replay this one seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed of a longer run")
    parser.add_argument("--seconds", type=int, default=60, help="how long to go on")
    options = parser.parse_args()
    if options.seed is not None:
        cluster = run_seed(options.seed, validators=options.validators)
        sys.stdout.write(f"seed {options.seed}: heights {[node.height for node in cluster.nodes]}, every check held\n")
        return 0
    began = time.monotonic()
    seed = options.first
    while time.monotonic() - began < options.seconds:
        run_seed(seed, validators=options.validators)
        seed += 1
        sys.stdout.write(f"\r{seed - options.first} seeds without a failure, {time.monotonic() - began:.0f} s")
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
