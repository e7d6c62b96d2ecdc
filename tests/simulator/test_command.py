"""The search by hand: it tells how far it is, goes on where one ended, and stops with the words to replay a failure."""

from __future__ import annotations

import sys

import pytest

from tests.consensus.mutants import MUTANTS
from tests.simulator import __main__ as command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["simulator", *arguments])
    return command.main()


def test_a_search_ends_at_its_count_and_tells_the_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--directed", "--first", "5", "--count", "3") == 0
    assert capsys.readouterr().out.startswith("3 seeds, from 5 to 7, without a failure in ")


def test_a_file_gets_lines_that_say_where_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "LINE_SECONDS", 0)
    run(monkeypatch, "--directed", "--family", "weather", "--first", "9", "--count", "3")
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("1 seeds without a failure")
    assert "next is 10" in first
    assert last.startswith("3 seeds, from 9 to 11")


def test_a_search_stops_at_the_first_failure_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bug = next(mutant for mutant in MUTANTS if mutant.name == "journal_after_send")
    with bug.apply():
        assert run(monkeypatch, "--directed", "--count", "10") == 1
    assert "replay: python -m tests.simulator --directed --family twins --seed 0" in capsys.readouterr().out


def test_one_storm_is_replayed_by_kind_and_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--storm", "byzantine", "--seed", "4") == 0
    assert capsys.readouterr().out == "seed 4: every promise held\n"


def test_the_long_run_tells_rounds_times_and_who_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as short:
        short.setattr("tests.simulator.stories.check_the_guilty_are_named", lambda _: None)  # two heights are too few
        assert run(monkeypatch, "--long-run", "2") == 0
    out = capsys.readouterr().out
    assert out.startswith("2 heights in ")
    assert "Byzantine [" in out
    assert out.endswith("one chain, every promise held\n")


def test_what_does_not_go_together_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (
        ("--family", "twins"),
        ("--storm", "weather", "--directed"),
        ("--storm", "liars", "--validators", "3"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, *wrong)
    told = capsys.readouterr().err
    assert "--family goes with --directed" in told
    assert "--storm liars takes 4 validators or more" in told
