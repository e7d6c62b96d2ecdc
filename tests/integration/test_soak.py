"""What a soak makes of its samples: the verdict and the picture. The runs themselves are by hand (``make soak``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.integration.soak.__main__ import parse_options
from tests.integration.soak.faults import Fault
from tests.integration.soak.picture import PANELS, draw
from tests.integration.soak.samples import Sample
from tests.integration.soak.verdict import (
    FILES_GROWTH_MAX,
    SILENCE_S_MAX,
    SOCKETS_GROWTH_MAX,
    compute_growth,
    find_longest_silence_s,
    judge,
)

FAULTS = [Fault("killed", 1, 1_010.0, 1_020.0), Fault("halves", None, 1_030.0, 1_040.0)]


def make_sample(at_s: float, node: int, *, pid: int | None = 7, sockets: int = 10, files: int = 20) -> Sample:
    is_there = pid is not None
    return Sample(
        at_s=at_s,
        node=node,
        pid=pid,
        height=int(at_s) if is_there else None,
        memory_bytes=70 << 20 if is_there else None,
        sockets=sockets if is_there else None,
        files=files if is_there else None,
        disk_bytes=1 << 20,
        words=3 if is_there else 0,
        p95_ms=500 if is_there else None,
    )


CALM = [make_sample(at_s, node) for at_s in range(0, 60, 5) for node in range(4)]


def judge_calm(
    *,
    samples: Sequence[Sample] = CALM,
    silence_s: float = 1.0,
    forks: Sequence[int] = (),
    lost: Sequence[str] = (),
    heights: int = 60,
    words: int = 30,
) -> list[str]:
    """What is broken when one thing differs from a good run."""
    promises = judge(samples=samples, silence_s=silence_s, forks=forks, lost=lost, heights=heights, words=words)
    return [promise.what for promise in promises if not promise.holds]


def test_a_good_run_keeps_every_promise_and_each_is_broken_by_its_own_fault() -> None:
    assert judge_calm() == []
    assert judge_calm(forks=[7]) == ["one block and one state root at every height"]
    assert judge_calm(heights=0) == ["one block and one state root at every height"]
    assert judge_calm(lost=["ab"]) == ["no committed transaction is lost"]
    assert judge_calm(words=0) == ["no committed transaction is lost"]
    assert judge_calm(silence_s=SILENCE_S_MAX + 0.1) == ["finality comes back after each fault"]
    last = CALM[-1]
    leaking = [*CALM, replace(last, at_s=60.0, sockets=10 + SOCKETS_GROWTH_MAX + 1)]
    assert judge_calm(samples=leaking) == ["sockets do not grow"]
    leaking = [*CALM, replace(last, at_s=60.0, files=20 + FILES_GROWTH_MAX + 1)]
    assert judge_calm(samples=leaking) == ["open files do not grow"]


def test_growth_is_that_of_the_last_process_once_it_is_warm() -> None:
    old = [make_sample(at_s, 0, pid=1, sockets=40) for at_s in (0, 30)]
    gone = [make_sample(35, 0, pid=None)]
    new = [make_sample(at_s, 0, pid=2, sockets=sockets) for at_s, sockets in ((40, 1), (61, 9), (70, 11), (80, 10))]
    assert compute_growth([*old, *gone, *new], "sockets") == {0: 2}


def test_a_network_in_halves_owes_no_word() -> None:
    assert find_longest_silence_s([1_000.0, 1_004.0, 1_029.0], FAULTS) == 25.0
    assert find_longest_silence_s([1_028.0, 1_043.0], FAULTS) == 5.0


class Shapes(HTMLParser):
    """The names of a picture's elements, opened and closed, and its texts."""

    def __init__(self, picture: str) -> None:
        super().__init__()
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.texts: list[str] = []
        self.feed(picture)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "svg" or "NaN" not in str(attrs)
        self.opened[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self.closed[tag] += 1

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_picture_has_a_line_for_each_node_with_gaps_where_it_was_away() -> None:
    away = [replace(one, pid=None) if one.node == 1 and one.at_s == 15 else one for one in CALM]
    away = [make_sample(one.at_s, one.node, pid=one.pid) for one in away]
    shapes = Shapes(draw(away, FAULTS, began_s=1_000.0, title="a < b"))
    without_gap = 1  # the disk of a node that is away can still be measured
    assert shapes.opened["polyline"] == len(PANELS) * (4 + 1) - without_gap
    assert {"a < b", "node1 killed", "halves"} <= set(shapes.texts)
    assert shapes.opened == shapes.closed


def test_an_empty_picture_is_a_picture() -> None:
    assert Shapes(draw([], [], began_s=0.0, title="")).closed["svg"] == 1


def test_a_run_that_is_too_short_to_say_anything_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--minutes", "0.5"])
    assert "50 seconds at least" in capsys.readouterr().err
