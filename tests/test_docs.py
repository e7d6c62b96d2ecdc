"""The documents keep up with the house: every relative link leads to a file, and every `make` target named exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENTS: Final = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)
LINK: Final = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
TARGET: Final = re.compile(r"^([a-z]+):", re.MULTILINE)
NAMED_TARGET: Final = re.compile(r"^make ([a-z]+)|`make ([a-z]+)", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [match[1] for match in LINK.finditer(text) if not match[1].startswith(("http://", "https://", "mailto:"))]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_is_named_exists(document: str) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    named = {first or second for first, second in NAMED_TARGET.findall((ROOT / document).read_text())}
    assert named <= targets
