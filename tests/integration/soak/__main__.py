"""Four validators under constant load and random faults, for as long as it is told: ``make soak ARGS="--minutes 60"``.

A live line tells how far it is. In ``--directory`` it leaves ``samples.csv``, ``summary.json`` and ``picture.svg``, and
the homes of the nodes with their logs. The exit status is 0 if every promise was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random
from typing import Final

from node.client_errors import NodeUnreachable
from tests.integration.links import ProxyLinks
from tests.integration.load import Load, under_load
from tests.integration.processes import TIMEOUT_MS, Network, running_network
from tests.integration.soak.faults import Faults
from tests.integration.soak.picture import draw
from tests.integration.soak.samples import Auditor, Sample, Sampler
from tests.integration.soak.verdict import Promise, find_longest_silence_s, judge

SAMPLE_S: Final = 5
CALM_S: Final = 45  # without faults, at the end: what has grown shows best there
BLOCK_MS: Final = 500
PAID_IN_CENTS: Final = 10**11  # a cent goes with each transfer
ROOT: Final = Path(__file__).resolve().parent.parent.parent.parent


@dataclass(frozen=True, slots=True)
class Report:
    """All of a run that is told afterwards."""

    samples: list[Sample]
    faults: Faults
    failures: Counter[str]
    promises: list[Promise]
    began_s: float


class Soak:
    """One run. ``began_s`` and ``until_s`` are of the monotonic clock."""

    def __init__(self, network: Network, links: ProxyLinks, options: argparse.Namespace) -> None:
        self._network = network
        self._began_s = time.monotonic()
        self._until_s = self._began_s + 60 * options.minutes
        self._faults = Faults(network, links, Random(options.seed))
        self._sampler = Sampler(network, self._began_s)
        self._auditor = Auditor(network)
        self._word_times_s = [self._began_s]

    async def run(self) -> Report:
        """Load and faults until the time is over, then everything is compared once more."""
        try:
            async with under_load(self._network) as load, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._faults.run(until_s=self._until_s - CALM_S))
                while time.monotonic() < self._until_s:
                    await asyncio.sleep(SAMPLE_S)
                    await self._look(load)
            await self._look(load)
            await self._finish()
        finally:
            await self._sampler.close()
        silence_s = find_longest_silence_s(self._word_times_s, self._faults.done)
        auditor, samples = self._auditor, self._sampler.samples
        promises = judge(
            samples=samples,
            silence_s=silence_s,
            forks=auditor.forks,
            lost=auditor.lost,
            heights=auditor.height,
            words=auditor.words,
        )
        return Report(samples, self._faults, load.failures, promises, self._began_s)

    async def _look(self, load: Load) -> None:
        words = load.take_words()
        self._word_times_s += [word.at_s for word in words]
        self._auditor.note(words)
        taken = await self._sampler.look(words)
        heights = [sample.height for sample in taken if sample.height is not None]
        self._say(taken, max(heights, default=0))
        if len(heights) == len(taken):
            with contextlib.suppress(NodeUnreachable):  # a fault has begun meanwhile: what is left is compared later
                await self._auditor.advance(min(heights))

    async def _finish(self) -> None:
        """Every node has the last transaction; every height and every word is compared."""
        last = await self._network.issue(1)
        await self._network.wait(last.tx_id)
        assert last.height is not None
        while self._auditor.height < last.height or self._auditor.unchecked:
            await self._auditor.advance(last.height)

    def _say(self, taken: Sequence[Sample], height: int) -> None:
        passed_s, all_s = int(taken[0].at_s), int(self._until_s - self._began_s)
        p95_ms = max((sample.p95_ms for sample in taken if sample.p95_ms is not None), default=None)
        memory = max((sample.memory_bytes for sample in taken if sample.memory_bytes is not None), default=0) >> 20
        words = self._auditor.words + self._auditor.unchecked
        line = (
            f"{passed_s // 60}:{passed_s % 60:02} of {all_s // 60}:{all_s % 60:02}  height {height:,}  "
            f"{words:,} transfers  p95 {'—' if p95_ms is None else f'{p95_ms:,} ms'}  {memory} MiB  "
            f"{self._faults.now or 'quiet'}"
        )
        sys.stdout.write(f"\r{line:<110}")
        sys.stdout.flush()


async def soak(options: argparse.Namespace) -> Report:
    """Start the network, run, stop it."""
    directory = options.directory / "net"
    if directory.exists():
        await asyncio.to_thread(shutil.rmtree, directory)
    async with ProxyLinks(seed=options.seed) as links:
        running = running_network(directory, block_ms=BLOCK_MS, prepare=links.wire)
        async with running as network:
            issued = await network.issue(PAID_IN_CENTS)
            await network.wait(issued.tx_id)
            return await Soak(network, links, options).run()


def write(report: Report, options: argparse.Namespace) -> None:
    """The three files of a run."""
    directory: Path = options.directory
    with (directory / "samples.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Sample)])
        writer.writeheader()
        writer.writerows(asdict(sample) | {"at_s": round(sample.at_s, 1)} for sample in report.samples)
    done = report.faults.done
    summary = {
        "minutes": options.minutes,
        "seed": options.seed,
        "promises": [asdict(promise) for promise in report.promises],
        "faults": [
            {
                "kind": fault.kind,
                "node": fault.node,
                "began_s": round(fault.began_s - report.began_s, 1),
                "ended_s": round(fault.ended_s - report.began_s, 1),
            }
            for fault in done
        ],
        "clients_went_elsewhere": dict(report.failures),
    }
    (directory / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    title = f"Soak of {options.minutes:g} minutes, seed {options.seed}: {len(done)} faults"
    (directory / "picture.svg").write_text(draw(report.samples, done, began_s=report.began_s, title=title))


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="which faults, in which order (default: 1)")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "soak", help="where it leaves its files")
    options = parser.parse_args(arguments)
    if options.minutes * 60 < CALM_S + SAMPLE_S:
        parser.error(f"a run takes {CALM_S + SAMPLE_S} seconds at least")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run, write, and tell the verdict."""
    options = parse_options(arguments)
    options.directory.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"homes and logs in {options.directory / 'net'}; waiting up to {TIMEOUT_MS // 1000} s for them\n")
    report = asyncio.run(soak(options))
    write(report, options)
    kinds = Counter(fault.kind for fault in report.faults.done)
    sys.stdout.write("\n" + ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items())) + "\n")
    for promise in report.promises:
        sys.stdout.write(f"{'kept  ' if promise.holds else 'BROKEN'}  {promise.what} ({promise.figure})\n")
    sys.stdout.write(f"picture: {options.directory / 'picture.svg'}\n")
    return 0 if all(promise.holds for promise in report.promises) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
