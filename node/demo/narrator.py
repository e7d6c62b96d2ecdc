"""What a person sees while the demo works: a bar per step on a terminal, a line per step anywhere else.

Touches the world (a clock for the time of each step). Says nothing at all when a program reads the output.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ledger.fields import Json

TITLE_WIDTH: Final = 17
TEXT_WIDTH_LEAST: Final = 40
NS_PER_MS: Final = 1_000_000


@dataclass(slots=True)
class Step:
    """A step that is under way. ``text`` is what it came to."""

    title: str
    progress: Progress | None
    text: str = ""
    elapsed_ms: int = 0

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        if self.progress is not None:
            self.progress.update(self.progress.task_ids[-1], advance=count)

    def to_json(self) -> dict[str, Json]:
        """The step as the document has it."""
        return {"title": self.title, "text": self.text, "elapsed_ms": self.elapsed_ms}


class Narrator:
    """Tells the steps on a console. ``is_silent``: only keeps them."""

    def __init__(self, console: Console, *, is_silent: bool, is_animated: bool) -> None:
        self.steps: list[Step] = []
        self._console = console
        self._is_silent = is_silent
        self._is_animated = is_animated and console.is_terminal and not is_silent

    def say(self, text: str = "", style: str = "") -> None:
        """A line between the steps."""
        if not self._is_silent:
            self._console.print(text, style=style or None, highlight=False, markup=False)

    @contextmanager
    def step(self, title: str, total: int) -> Iterator[Step]:
        """A step of so many parts: its bar while it lasts, its line when it is done."""
        started_ns = time.monotonic_ns()
        with self._show_bar(title, total) as progress:
            step = Step(title, progress)
            yield step
        step.elapsed_ms = (time.monotonic_ns() - started_ns) // NS_PER_MS
        self.steps.append(step)
        if not self._is_silent:
            self._print(step)

    @contextmanager
    def _show_bar(self, title: str, total: int) -> Iterator[Progress | None]:
        if not self._is_animated:
            yield None
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            progress.add_task(f"{escape(title):<{TITLE_WIDTH}}", total=total)
            yield progress

    def _print(self, step: Step) -> None:
        number = f"{len(self.steps):>2}"
        room = max(TEXT_WIDTH_LEAST, self._console.width - TITLE_WIDTH - 14)
        for index, line in enumerate(_wrap(step.text, room)):
            head = Text(f" {number}  ", style="dim") if index == 0 else Text(" " * 5)
            head.append(f"{step.title if index == 0 else '':<{TITLE_WIDTH}} ", style="bold")
            head.append(f"{line:<{room}}")
            if index == 0:
                head.append(f"{step.elapsed_ms // 1_000:>4}.{step.elapsed_ms % 1_000 // 100} s", style="dim")
            self._console.print(head, overflow="ignore", no_wrap=True, crop=False)


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` letters, broken between words."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
