"""Search by hand: ``--seconds 60`` tries new seeds for a while, ``--count 1000`` so many, ``--seed 7`` replays one.

Without ``--directed`` whole nodes run under random faults; with it, engines under directed scenarios. A terminal sees
one live line; a file gets a line a minute, whose last number is where a later run goes on with ``--first``.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable

from tests.simulator.directed import FAMILIES, build_scenario, list_scenarios
from tests.simulator.minimise import ScenarioFailed, judge_all
from tests.simulator.stories import run_seed

LIVE_SECONDS = 0.5
LINE_SECONDS = 60
GARBAGE_THRESHOLD = 100_000  # a scenario makes much garbage and little of it is cyclic: look for it seldom


def main() -> int:
    """Run one seed, or as many as fit in the time; stops at the first that fails, prints it, and returns 1."""
    options = parse_options()
    run = pick_runner(options)
    try:
        if options.seed is not None:
            run(options.seed)
            sys.stdout.write(f"seed {options.seed}: every promise held\n")
        else:
            search(run, first=options.first, seconds=options.seconds, count=options.count)
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
    parser.add_argument("--seconds", type=int, help="how long to go on; a minute, unless --count is given")
    parser.add_argument("--count", type=int, help="how many seeds at the most")
    options = parser.parse_args()
    if options.family and not options.directed:
        parser.error("--family goes with --directed")
    if options.seconds is None and options.count is None:
        options.seconds = 60
    return options


def pick_runner(options: argparse.Namespace) -> Callable[[int], object]:
    """What one seed means. The runner raises if a promise is broken."""
    if not options.directed:
        return lambda seed: run_seed(seed, validators=options.validators)
    if options.family:
        return lambda seed: judge_all([build_scenario(options.family, seed)])
    return lambda seed: judge_all(list_scenarios(seed, 1))


def search(run: Callable[[int], object], *, first: int, seconds: int | None, count: int | None) -> None:
    """Seed after seed, with a line that tells how far it is."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    limit = math.inf if seconds is None else seconds
    began = time.monotonic()
    is_live = sys.stdout.isatty()
    said, seed = 0.0, first
    while (passed := time.monotonic() - began) < limit and seed - first != count:
        run(seed)
        seed += 1
        if passed - said > (LIVE_SECONDS if is_live else LINE_SECONDS):
            said = passed
            done = seed - first
            line = f"{done:,} seeds without a failure, {done / passed:.0f} a second, {passed:.0f} s, next is {seed}"
            sys.stdout.write(f"\r{line}" if is_live else f"{line}\n")
            sys.stdout.flush()
    end = "\r" if is_live else ""
    sys.stdout.write(f"{end}{seed - first:,} seeds, from {first} to {seed - 1}, without a failure in {passed:.0f} s\n")


if __name__ == "__main__":
    sys.exit(main())
