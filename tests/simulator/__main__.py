"""Search by hand: ``--seconds 60`` tries new seeds for a while, ``--seed 7`` replays one.

Without ``--directed`` whole nodes run under random faults; with it, engines under directed scenarios.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from tests.simulator.directed import FAMILIES, build_scenario, list_scenarios
from tests.simulator.minimise import ScenarioFailed, judge_all
from tests.simulator.stories import run_seed

PROGRESS_SECONDS = 0.5


def main() -> int:
    """Run one seed, or as many as fit in the time; stops at the first that fails, prints it, and returns 1."""
    options = parse_options()
    run = pick_runner(options)
    try:
        if options.seed is not None:
            run(options.seed)
            sys.stdout.write(f"seed {options.seed}: every promise held\n")
        else:
            search(run, first=options.first, seconds=options.seconds)
    except ScenarioFailed as failure:
        sys.stdout.write(f"\n{failure}\n")
        return 1
    return 0


def parse_options() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--directed", action="store_true", help="directed scenarios instead of random faults")
    parser.add_argument("--family", choices=sorted(FAMILIES), help="with --directed: only this family")
    parser.add_argument("--validators", type=int, default=4, help="without --directed: how many nodes")
    parser.add_argument("--seed", type=int, help="replay this one seed; with --directed, name its family as well")
    parser.add_argument("--first", type=int, default=0, help="the first seed of a longer run")
    parser.add_argument("--seconds", type=int, default=60, help="how long to go on")
    options = parser.parse_args()
    if options.family and not options.directed:
        parser.error("--family goes with --directed")
    return options


def pick_runner(options: argparse.Namespace) -> Callable[[int], object]:
    """What one seed means. The runner raises if a promise is broken."""
    if not options.directed:
        return lambda seed: run_seed(seed, validators=options.validators)
    if options.family:
        return lambda seed: judge_all([build_scenario(options.family, seed)])
    return lambda seed: judge_all(list_scenarios(seed, 1))


def search(run: Callable[[int], object], *, first: int, seconds: int) -> None:
    """Seed after seed, with a line that tells how far it is."""
    began = time.monotonic()
    said, seed = 0.0, first
    while (passed := time.monotonic() - began) < seconds:
        run(seed)
        seed += 1
        if passed - said > PROGRESS_SECONDS:
            said = passed
            done = seed - first
            sys.stdout.write(f"\r{done:,} seeds without a failure, {done / passed:.0f} a second, {passed:.0f} s")
            sys.stdout.flush()
    sys.stdout.write(f"\r{seed - first:,} seeds, from {first} to {seed - 1}, without a failure in {seconds} s\n")


if __name__ == "__main__":
    sys.exit(main())
