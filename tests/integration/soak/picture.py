"""The picture of a soak: one SVG with a panel for each figure, a line for each node, and a band for each fault.

Pure. Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tests.integration.soak.faults import Fault
from tests.integration.soak.samples import Sample

WIDTH: Final = 1_200
LEFT, RIGHT, TOP, BOTTOM = 78, 20, 150, 40
PANEL_HEIGHT: Final = 130
GAP: Final = 34
COLOURS: Final = ("#2f5d8a", "#4f8f6b", "#e0b040", "#b4553d")
BAND: Final = "#e9e6df"
LABELLED_FAULTS_MAX: Final = 70
TICKS: Final = 4
STYLE: Final = "text{font:12px sans-serif;fill:#333}.small{font-size:10px;fill:#666}.title{font-size:15px}"
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure over time: what it is called, and how a sample tells it (None: not at that time)."""

    title: str
    read: Callable[[Sample], float | None]


PANELS: Final = (
    Panel("time to finality, 95th percentile (s)", lambda one: None if one.p95_ms is None else one.p95_ms / 1000),
    Panel("height (blocks)", lambda one: one.height),
    Panel("memory (MiB)", lambda one: None if one.memory_bytes is None else one.memory_bytes / MIB),
    Panel("disk (MiB)", lambda one: one.disk_bytes / MIB),
    Panel("sockets", lambda one: one.sockets),
    Panel("other open files", lambda one: one.files),
)


def draw(samples: Sequence[Sample], faults: Iterable[Fault], *, began_s: float, title: str) -> str:
    """The SVG document."""
    end_s = max((sample.at_s for sample in samples), default=1.0)
    height = TOP + len(PANELS) * (PANEL_HEIGHT + GAP) + BOTTOM
    shapes = [f'<text x="{LEFT}" y="22" class="title">{escape(title)}</text>', *_draw_legend(samples)]
    shapes += _draw_bands(list(faults), began_s, end_s, bottom=height - BOTTOM - GAP)
    for number, panel in enumerate(PANELS):
        shapes += _draw_panel(panel, samples, end_s, top=TOP + number * (PANEL_HEIGHT + GAP))
    shapes += _draw_minutes(end_s, y=height - BOTTOM)
    inner = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f'<style>{STYLE}</style>\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n{inner}\n</svg>\n'
    )


def _compute_x(at_s: float, end_s: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at_s / end_s, 0.0), 1.0)


def _draw_legend(samples: Sequence[Sample]) -> list[str]:
    shapes = []
    for node in sorted({sample.node for sample in samples}):
        x = WIDTH - RIGHT - 320 + node * 80
        shapes.append(f'<rect x="{x}" y="13" width="12" height="12" fill="{_get_colour(node)}"/>')
        shapes.append(f'<text x="{x + 17}" y="23">node{node}</text>')
    return shapes


def _get_colour(node: int) -> str:
    return COLOURS[node % len(COLOURS)]


def _draw_bands(faults: Sequence[Fault], began_s: float, end_s: float, *, bottom: int) -> list[str]:
    shapes = []
    for fault in faults:
        x = _compute_x(fault.began_s - began_s, end_s)
        width = max(_compute_x(fault.ended_s - began_s, end_s) - x, 1.0)
        name = fault.kind if fault.node is None else f"node{fault.node} {fault.kind}"
        tip = f"<title>{escape(name)}</title>"
        shapes.append(
            f'<rect x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{bottom - TOP}" fill="{BAND}">{tip}</rect>'
        )
        if len(faults) <= LABELLED_FAULTS_MAX:
            turned = f'transform="rotate(-60 {x + width / 2:.1f} {TOP - 16})"'
            shapes.append(f'<text x="{x + width / 2:.1f}" y="{TOP - 16}" class="small" {turned}>{escape(name)}</text>')
    return shapes


def _draw_panel(panel: Panel, samples: Sequence[Sample], end_s: float, *, top: int) -> list[str]:
    values = [value for sample in samples if (value := panel.read(sample)) is not None]
    most = _round_up(max(values, default=1.0))
    shapes = [f'<text x="{LEFT}" y="{top - 6}">{escape(panel.title)}</text>']
    for tick in range(TICKS + 1):
        y = top + PANEL_HEIGHT * (1 - tick / TICKS)
        shapes.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        label = f"{most * tick / TICKS:,.10g}"
        shapes.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" class="small" text-anchor="end">{label}</text>')
    for node in sorted({sample.node for sample in samples}):
        points = [(sample.at_s, panel.read(sample)) for sample in samples if sample.node == node]
        for run in _split(points):
            places = " ".join(
                f"{_compute_x(at_s, end_s):.1f},{top + PANEL_HEIGHT * (1 - value / most):.1f}" for at_s, value in run
            )
            line = f'fill="none" stroke="{_get_colour(node)}" stroke-width="1.6" stroke-linecap="round"'
            shapes.append(f'<polyline points="{places}" {line}/>')
    return shapes


def _split(points: Iterable[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Runs without a gap: a node that is away has no figure."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at_s, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((at_s, value))
    return [run for run in runs if run]


def _round_up(most: float) -> float:
    """The end of an axis: 1, 2, 4 or 8 times a power of ten."""
    scale = 1.0
    while scale < most:
        scale *= 10
    while scale / 10 >= most:
        scale /= 10
    return next(scale * part / 10 for part in (1, 2, 4, 8, 10) if scale * part / 10 >= most)


def _draw_minutes(end_s: float, *, y: int) -> list[str]:
    step = next(step for step in (0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 360, 1_440) if end_s / 60 / step <= 15)
    marks = [step * number for number in range(int(end_s / 60 / step) + 1)]
    shapes = [
        f'<text x="{_compute_x(mark * 60, end_s):.1f}" y="{y - 14}" class="small" text-anchor="middle">{mark:g}</text>'
        for mark in marks
    ]
    return [*shapes, f'<text x="{WIDTH // 2}" y="{y + 6}" text-anchor="middle">minutes</text>']
