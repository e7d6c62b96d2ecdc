"""What a soak has shown: the promises, each kept or broken, and the figures behind them.

Pure: from samples and faults alone, so that it can be tested on ones that were made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tests.integration.soak.faults import Fault
from tests.integration.soak.samples import Sample

WARM_UP_S: Final = 20  # of a process, until its connections are made and its code is loaded
SOCKETS_GROWTH_MAX: Final = 12  # clients that come and go keep a few open
FILES_GROWTH_MAX: Final = 40  # the database opens its tables as they grow in number, up to its own limit
LAST_SAMPLES: Final = 4  # the very last is taken when the clients have gone
SILENCE_S_MAX: Final = 60  # without any word, while at most one validator is at fault


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that must hold, and the figure that it was judged by."""

    what: str
    holds: bool
    figure: str


def compute_growth(samples: Sequence[Sample], name: str) -> dict[int, int]:
    """Node → by how much a figure of its last process has grown, from when it was warm until the end."""
    grown = {}
    for node in sorted({sample.node for sample in samples}):
        own = [sample for sample in samples if sample.node == node]
        last = [sample for sample in own if sample.pid is not None and sample.pid == own[-1].pid]
        warm = [sample for sample in last if sample.at_s >= last[0].at_s + WARM_UP_S]
        figures = [value for sample in warm if (value := getattr(sample, name)) is not None]
        if figures:
            grown[node] = max(figures[-LAST_SAMPLES:]) - figures[0]
    return grown


def find_longest_silence_s(word_times_s: Sequence[float], faults: Sequence[Fault]) -> float:
    """The longest time without a word, less what of it the network was in halves: there none is due."""
    longest = 0.0
    for before, after in pairwise(word_times_s):
        halved = sum(
            max(0.0, min(after, fault.ended_s) - max(before, fault.began_s))
            for fault in faults
            if fault.kind == "halves"
        )
        longest = max(longest, after - before - halved)
    return longest


def judge(
    *,
    samples: Sequence[Sample],
    silence_s: float,
    forks: Sequence[int],
    lost: Sequence[str],
    heights: int,
    words: int,
) -> list[Promise]:
    """Every promise, and whether the run kept it."""
    sockets, files = compute_growth(samples, "sockets"), compute_growth(samples, "files")
    return [
        Promise("one block and one state root at every height", not forks and heights > 0, f"{heights:,} heights"),
        Promise("no committed transaction is lost", not lost and words > 0, f"{words:,} transactions"),
        Promise("finality comes back after each fault", silence_s <= SILENCE_S_MAX, f"{silence_s:.1f} s without it"),
        Promise("sockets do not grow", max(sockets.values()) <= SOCKETS_GROWTH_MAX, f"by node {sockets}"),
        Promise("open files do not grow", max(files.values()) <= FILES_GROWTH_MAX, f"by node {files}"),
    ]
