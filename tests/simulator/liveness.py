"""The run of a scenario in two phases, and the judges of liveness: what must happen once the faults have ended.

Safety is judged all the time by `invariants.py`. A run that breaks a promise raises `Broken`.
"""

from __future__ import annotations

from typing import Final

from consensus.messages import Step
from consensus.round import BLOCKS_MAX
from consensus.votes import EVIDENCE_MAX, FREE_VALUES_MAX, ROUNDS_AHEAD_MAX
from tests.consensus.harness import START_MS
from tests.simulator.arena import Arena
from tests.simulator.broken import Broken
from tests.simulator.copies import Copy
from tests.simulator.invariants import SAFETY, SAFETY_ALWAYS, ForkNamesTheGuilty
from tests.simulator.scenario import Crash, PowerCut, Scenario

LOOK_MS: Final = 250
SPREAD_MS: Final = 4_000  # on fast links, rounds are within one of each other by then
FAST_MS: Final = 500
ROUNDS_PER_VALIDATOR: Final = 2  # to decide after healing: every proposer has had two turns
HEALING_MS_MAX: Final = 300_000  # no run needs as long; one that does is stuck


def run_scenario(scenario: Scenario, *, real_signatures: bool = False) -> Arena:
    """Play it. Raises ``Broken`` if a promise fails, ``AssertionError`` if the engine trips over itself."""
    arena = Arena(scenario, real_signatures=real_signatures)
    if len(scenario.faulty) > arena.validators.f:
        return _run_overrun(arena)
    arena.watch(*(judge(arena) for judge in SAFETY))
    play_faults(arena)
    if arena.undecided:
        _run_healed(arena)
    judge_memory(arena)
    return arena


def _run_overrun(arena: Arena) -> Arena:
    """More than f are faulty: forks may happen, but not unnoticed."""
    fork = ForkNamesTheGuilty(arena)
    arena.watch(*(judge(arena) for judge in SAFETY_ALWAYS), fork)
    play_faults(arena)
    fork.finish()
    return arena


def play_faults(arena: Arena) -> None:
    """The first phase: until all have decided, or the faults end."""
    scenario = arena.scenario
    end_ms = START_MS + scenario.faults_ms
    arena.start()
    while arena.step(end_ms) and arena.highest_round < scenario.rounds and arena.undecided:
        pass


def list_rounds(arena: Arena) -> list[int]:
    """The rounds of the honest nodes that still decide the lowest height."""
    states = [copy.state for copy in arena.copies if copy.is_honest]
    lowest = min(state.height for state in states)
    return [state.round for state in states if state.height == lowest and state.step is not Step.COMMIT]


def list_begun(arena: Arena) -> dict[int, int]:
    """The highest round of an honest node at each height: one may be a height behind the others."""
    begun: dict[int, int] = {}
    for copy in arena.copies:
        if copy.is_honest:
            begun[copy.state.height] = max(begun.get(copy.state.height, 0), copy.state.round)
    return begun


def _run_healed(arena: Arena) -> None:
    arena.heal()
    healed_ms = arena.now_ms
    begun = list_begun(arena)
    bound = ROUNDS_PER_VALIDATOR * arena.scenario.validators + 2
    is_fast = arena.scenario.delay_ms_max <= FAST_MS and not arena.has_slow_links
    is_spread_judged = False
    end_ms, next_look_ms = healed_ms + HEALING_MS_MAX, healed_ms
    while arena.undecided:
        if not arena.step(end_ms):
            raise Broken(name_liveness(arena), f"no decision {HEALING_MS_MAX} ms after healing")
        if arena.now_ms < next_look_ms:
            continue
        next_look_ms = arena.now_ms + LOOK_MS
        height = min(copy.state.height for copy in arena.copies if copy.is_honest)
        rounds = list_rounds(arena)
        if max([0, *rounds]) > begun.get(height, 0) + bound:
            raise Broken(name_liveness(arena), f"round {max(rounds)} at height {height}, healed for long")
        if is_fast and not is_spread_judged and arena.now_ms >= healed_ms + SPREAD_MS:
            is_spread_judged = True
            judge_spread(rounds)


def judge_spread(rounds: list[int]) -> None:
    """Liveness 2: rounds of honest nodes come within one of each other."""
    if rounds and max(rounds) - min(rounds) > 1:
        raise Broken("rounds come together", f"rounds {rounds}, {SPREAD_MS} ms after healing")


def name_liveness(arena: Arena) -> str:
    """Which promise of progress it is that fails: liveness 1, 3 or 5."""
    crashed = {move.node for move in arena.scenario.moves if isinstance(move, Crash | PowerCut)}
    if len(crashed) > arena.validators.f:
        return "recovery after crashes"
    behind = [copy for copy in arena.copies if copy.is_honest and len(copy.chain) < arena.scenario.heights]
    if 0 < len(behind) <= arena.validators.f and not any(copy.restarts_after_healing for copy in behind):
        return "laggards catch up"
    return "all decide"


def judge_memory(arena: Arena) -> None:
    """Liveness 6: what a node keeps of one height is bounded, whatever was sent."""
    for copy in arena.copies:
        state = copy.state
        if len(state.blocks) > BLOCKS_MAX or len(state.votes.evidence) > EVIDENCE_MAX:
            raise Broken("memory is bounded", f"node {copy.number}: {len(state.blocks)} blocks, or evidence")
        held, most = count_votes(copy), compute_votes_max(copy, arena.scenario.validators)
        if held > most:
            raise Broken("memory is bounded", f"node {copy.number} holds {held} votes, at most {most}")


def count_votes(copy: Copy) -> int:
    """How many votes a copy holds in its tallies."""
    votes = copy.state.votes
    return sum(len(votes.list_round(round_)) for round_ in range(copy.state.round + ROUNDS_AHEAD_MAX + 1))


def compute_votes_max(copy: Copy, validators: int) -> int:
    """A bound on them: two kinds a round, each sender a few values of its own and those that others chose."""
    rounds = copy.state.round + ROUNDS_AHEAD_MAX + 1
    return 2 * rounds * validators * (FREE_VALUES_MAX * validators + 1)
