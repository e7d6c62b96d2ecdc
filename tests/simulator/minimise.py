"""From a run that fails to the least that still fails, and the words to replay it: scenarios and storms alike.

Moves are taken away in ever smaller pieces as long as the same promise stays broken; then what else is dispensable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar

from ledger.errors import CorruptStore, Rejected
from node.errors import LocalError
from tests.simulator.broken import Broken
from tests.simulator.copies import fast_signatures
from tests.simulator.liveness import run_scenario
from tests.simulator.scenario import Scenario
from tests.simulator.stories import run_storm
from tests.simulator.storm import Storm

TRIES_MAX: Final = 400  # some seconds; of a storm, a minute or two
TRIPPED: Final = (
    AssertionError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    CorruptStore,
    LocalError,
    Rejected,
)

Case = TypeVar("Case", Scenario, Storm)


class ScenarioFailed(AssertionError):
    """A run broke a promise; the message tells the command that replays it, and the least that breaks it."""


def find_failure(case: Scenario | Storm) -> tuple[str, str] | None:
    """Which promise breaks and how, or None if all hold. Whatever a node trips over counts as one."""
    try:
        if isinstance(case, Scenario):
            run_scenario(case)
        else:
            run_storm(case)
    except Broken as error:
        return error.promise, str(error)
    except TRIPPED as error:  # the program tripped, or does not believe its journal
        return type(error).__name__, repr(error)
    return None


def minimise(case: Case, fails: Callable[[Case], bool]) -> Case:
    """The least run of this kind for which ``fails`` is still true; it must be true for the one given."""
    tries = 0

    def still_fails(candidate: Case) -> bool:
        nonlocal tries
        tries += 1
        return tries <= TRIES_MAX and fails(candidate)

    for make_plainer in case.list_plainer():
        plainer = make_plainer(case)
        if plainer != case and still_fails(plainer):
            case = plainer
    size = max(len(case.moves) // 2, 1)
    while case.moves and tries < TRIES_MAX:
        smaller = _take_away(case, size, still_fails)
        if smaller is None and size == 1:
            break
        size = max(size // 2, 1) if smaller is None else min(size, max(len(smaller.moves), 1))
        case = smaller or case
    return case


def _take_away(case: Case, size: int, fails: Callable[[Case], bool]) -> Case | None:
    """The first run with ``size`` neighbouring moves less that still fails."""
    for start in range(0, len(case.moves), size):
        candidate = replace(case, moves=case.moves[:start] + case.moves[start + size :])
        if fails(candidate):
            return candidate
    return None


def explain(case: Case) -> str | None:
    """None if every promise holds; else how it fails, the command that replays it, and the least that fails."""
    failure = find_failure(case)
    if failure is None:
        return None
    promise, problem = failure

    def fails_alike(candidate: Case) -> bool:
        found = find_failure(candidate)
        return found is not None and found[0] == promise

    least = minimise(case, fails_alike)
    moves = "\n".join(f"    {move}" for move in least.moves)
    head = replace(least, moves=())
    return f"{problem}\nreplay: {case.command}\nleast that fails ({len(least.moves)} moves): {head}\n{moves}"


def judge_all(cases: Iterable[Case]) -> int:
    """Run scenarios; returns how many. Raises ``ScenarioFailed`` at the first that breaks a promise."""
    count = 0
    with fast_signatures():
        for case in cases:
            judge(case)
            count += 1
    return count


def judge(case: Case) -> None:
    """Run one. Raises ``ScenarioFailed`` if it breaks a promise. A storm signs in earnest."""
    problem = explain(case)
    if problem is not None:
        raise ScenarioFailed(problem)
