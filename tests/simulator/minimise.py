"""From a scenario that fails to the least that still fails, and the words to replay it.

Moves are taken away in ever smaller pieces as long as the same promise stays broken; then what else is dispensable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from ledger.errors import CorruptStore
from node.errors import LocalError
from tests.simulator.copies import fast_signatures
from tests.simulator.invariants import Broken
from tests.simulator.liveness import run_scenario
from tests.simulator.scenario import Move, Scenario

TRIES_MAX: Final = 400  # some seconds
TRIPPED: Final = (AssertionError, LookupError, ValueError, TypeError, AttributeError, CorruptStore, LocalError)

Fails = Callable[[Scenario], bool]


class ScenarioFailed(AssertionError):
    """A scenario broke a promise; the message tells the command that replays it, and the least that breaks it."""


def find_failure(scenario: Scenario) -> tuple[str, str] | None:
    """Which promise breaks and how, or None if all hold. Whatever the engine raises counts as one."""
    try:
        run_scenario(scenario)
    except Broken as error:
        return error.promise, str(error)
    except TRIPPED as error:  # the engine tripped, or does not believe its journal
        return type(error).__name__, repr(error)
    return None


def minimise(scenario: Scenario, fails: Fails) -> Scenario:
    """The least scenario of this kind for which ``fails`` is still true; it must be true for the one given."""
    tries = 0

    def still_fails(candidate: Scenario) -> bool:
        nonlocal tries
        tries += 1
        return tries <= TRIES_MAX and fails(candidate)

    for plainer in _list_plainer(scenario):
        if plainer != scenario and still_fails(plainer):
            scenario = plainer
    size = max(len(scenario.moves) // 2, 1)
    while scenario.moves and tries < TRIES_MAX:
        smaller = _take_away(scenario, size, still_fails)
        if smaller is None and size == 1:
            break
        size = max(size // 2, 1) if smaller is None else min(size, max(len(smaller.moves), 1))
        scenario = smaller or scenario
    return scenario


def _list_plainer(scenario: Scenario) -> Iterable[Scenario]:
    yield replace(scenario, heights=1)
    yield replace(scenario, clock_offsets_ms=())
    yield replace(scenario, delay_ms_max=1)


def _take_away(scenario: Scenario, size: int, fails: Fails) -> Scenario | None:
    """The first scenario with ``size`` neighbouring moves less that still fails."""
    for start in range(0, len(scenario.moves), size):
        moves: tuple[Move, ...] = scenario.moves[:start] + scenario.moves[start + size :]
        candidate = replace(scenario, moves=moves)
        if fails(candidate):
            return candidate
    return None


def explain(scenario: Scenario) -> str | None:
    """None if every promise holds; else how it fails, the command that replays it, and the least that fails."""
    failure = find_failure(scenario)
    if failure is None:
        return None
    promise, problem = failure

    def fails_alike(candidate: Scenario) -> bool:
        found = find_failure(candidate)
        return found is not None and found[0] == promise

    least = minimise(scenario, fails_alike)
    command = f"python -m tests.simulator --directed --family {scenario.family} --seed {scenario.seed}"
    moves = "\n".join(f"    {move}" for move in least.moves)
    head = replace(least, moves=())
    return f"{problem}\nreplay: {command}\nleast that fails ({len(least.moves)} moves): {head}\n{moves}"


def judge_all(scenarios: Iterable[Scenario]) -> int:
    """Run them; returns how many. Raises ``ScenarioFailed`` at the first that breaks a promise."""
    count = 0
    with fast_signatures():
        for scenario in scenarios:
            problem = explain(scenario)
            if problem is not None:
                raise ScenarioFailed(problem)
            count += 1
    return count
