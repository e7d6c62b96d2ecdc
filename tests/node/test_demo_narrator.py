"""What the demo says while it works: a line per step where nobody watches, nothing where a program reads."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from node.demo.narrator import Narrator

WIDTH = 100


def tell(*, is_silent: bool) -> tuple[Narrator, str]:
    stream = io.StringIO()
    narrator = Narrator(Console(file=stream, width=WIDTH, color_system=None), is_silent=is_silent, is_animated=True)
    narrator.say("a line between")
    with narrator.step("Signed readings", 7) as step:
        step.advance(7)
        step.text = "many words of what it came to, " * 6
    return narrator, stream.getvalue()


def test_without_a_terminal_a_step_is_told_once_in_lines_that_fit() -> None:
    narrator, text = tell(is_silent=False)
    assert text.count("Signed readings") == 1
    assert "many words" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert narrator.steps[0].elapsed_ms >= 0


def test_a_program_that_reads_hears_nothing_but_the_steps_are_kept() -> None:
    narrator, text = tell(is_silent=True)
    assert text == ""
    assert [step.to_json()["title"] for step in narrator.steps] == ["Signed readings"]


def test_a_step_that_fails_is_not_told_as_done() -> None:
    narrator, _ = tell(is_silent=True)
    with pytest.raises(ValueError, match="broken"), narrator.step("Trade", 1):
        raise ValueError("broken")
    assert [step.title for step in narrator.steps] == ["Signed readings"]
