"""The command that runs the targets by hand: what it says where it cannot, and that it follows decoders that exist."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.targets import TARGETS


def test_without_the_fuzzer_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--target", "wire"])
    assert command.main() == 2
    assert "make fuzz" in capsys.readouterr().out


def test_a_finding_is_shown_to_its_target_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "finding").write_bytes(b"\xff")
    monkeypatch.setattr(sys, "argv", ["fuzz", "--target", "wire", "--replay", str(tmp_path / "finding")])
    assert command.main() == 0
    assert capsys.readouterr().out == "refused: message_unknown\n"


@pytest.mark.parametrize("arguments", [["--target", "nothing"], ["--target", "wire", "--target", "csv"], []])
def test_an_unknown_target_or_none_to_replay_for_is_wrong_usage(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz", "--replay", "finding", *arguments])
    assert command.main() == 2
    said = capsys.readouterr().out
    assert all(name in said for name in TARGETS)


def test_every_decoder_whose_branches_guide_the_search_is_there() -> None:
    modules = set(command.list_modules())
    assert modules >= command.DECODERS
    assert all(any(name.startswith(package) for name in modules) for package in command.DECODER_PACKAGES)
