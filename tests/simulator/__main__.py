"""Search by hand: ``--seconds 60`` tries new seeds for a while, ``--count 1000`` so many, ``--seed 7`` replays one.

Without ``--directed`` whole nodes run under storms of all kinds; with it, engines under directed scenarios. A terminal
sees one live line; a file gets a line a minute, whose last number is where a later run goes on with ``--first``.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable

from tests.simulator.directed import FAMILIES, build_long_run, build_scenario, list_scenarios
from tests.simulator.minimise import ScenarioFailed, judge, judge_all
from tests.simulator.plots import PLOT_VALIDATORS_LEAST, PLOTS
from tests.simulator.stories import KINDS, build_storm, describe_run, run_long

LIVE_SECONDS = 0.5
LINE_SECONDS = 60
GARBAGE_THRESHOLD = 100_000  # a scenario makes much garbage and little of it is cyclic: look for it seldom


def main() -> int:
    """Run one seed, or as many as fit in the time; stops at the first that fails, prints it, and returns 1."""
    options = parse_options()
    run = pick_runner(options)
    try:
        if options.long_run is not None:
            long_run(options)
        elif options.seed is not None:
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
    parser.add_argument("--directed", action="store_true", help="directed scenarios of engines, not storms of nodes")
    parser.add_argument("--family", choices=sorted(FAMILIES), help="with --directed: only this family")
    parser.add_argument("--storm", choices=sorted(KINDS), help="without --directed: only this kind")
    parser.add_argument("--validators", type=int, default=4, help="without --directed: how many nodes")
    parser.add_argument("--seed", type=int, help="replay this one seed; name its family or its kind as well")
    parser.add_argument("--long-run", type=int, metavar="HEIGHTS", help="seven validators, two Byzantine throughout")
    parser.add_argument("--first", type=int, default=0, help="the first seed of a longer run")
    parser.add_argument("--seconds", type=int, help="how long to go on; a minute, unless --count is given")
    parser.add_argument("--count", type=int, help="how many seeds at the most")
    options = parser.parse_args()
    if options.family and not options.directed:
        parser.error("--family goes with --directed")
    if options.storm and options.directed:
        parser.error("--storm goes without --directed")
    if options.storm in PLOTS and options.validators < PLOT_VALIDATORS_LEAST:
        parser.error(f"--storm {options.storm} takes {PLOT_VALIDATORS_LEAST} validators or more")
    if options.seconds is None and options.count is None:
        options.seconds = 60
    return options


def pick_runner(options: argparse.Namespace) -> Callable[[int], object]:
    """What one seed means. The runner raises if a promise is broken."""
    if options.family:
        return lambda seed: judge_all([build_scenario(options.family, seed)])
    if options.directed:
        return lambda seed: judge_all(list_scenarios(seed, 1))
    possible = [kind for kind in KINDS if kind not in PLOTS or options.validators >= PLOT_VALIDATORS_LEAST]
    kinds = [options.storm] if options.storm else possible
    return lambda seed: judge(build_storm(kinds[seed % len(kinds)], seed, options.validators))


def long_run(options: argparse.Namespace) -> None:
    """Two Byzantine of seven, over many heights: whole nodes, or with --directed engines."""
    began, seed = time.monotonic(), options.seed or 1
    if options.directed:
        judge_all([build_long_run(seed, options.long_run)])
        sys.stdout.write(f"{options.long_run:,} heights of engines in {time.monotonic() - began:.0f} s: ")
    else:
        cluster = run_long(seed, options.long_run)
        sys.stdout.write(f"{options.long_run:,} heights in {time.monotonic() - began:.0f} s: {describe_run(cluster)}; ")
    sys.stdout.write("one chain, every promise held\n")


def search(run: Callable[[int], object], *, first: int, seconds: int | None, count: int | None) -> None:
    """Seed after seed, with a line that tells how far it is."""
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
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    sys.exit(main())
