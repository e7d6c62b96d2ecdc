"""The engine does what the specification in docs/spec does: its traces, input by input, replayed against `consensus/`.

A step of the model is one input of one node; after each, round, step, lock, valid value, decision and every vote are
compared. Skipped where Quint is not installed; docs/reliability.md tells how to.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeAlias

import pytest

from consensus.effects import BuildBlock, Decide
from consensus.inputs import BlockBuilt, Input, ProposalReceived, TimeoutElapsed, VoteReceived
from consensus.messages import Precommit, Prevote, Proposal, SignedProposal, SignedVote, Step
from ledger.primitives import Hash, sha256
from tests.consensus.harness import BAD, HEIGHT, KEYS, START_MS, Solo, only
from tests.consensus.mutants import MUTANTS

ROOT: Final = Path(__file__).resolve().parent.parent.parent
SPEC: Final = ROOT / "docs" / "spec"
QUINT: Final = ROOT / "build" / "spec" / "node_modules" / ".bin" / "quint"
TRACES: Final = 6
STEPS_MAX: Final = 70
QUINT_SECONDS_MAX: Final = 300
NIL: Final = -1
BAD_VALUE: Final = 99

Itf: TypeAlias = int | str | bool | list["Itf"] | dict[str, "Itf"]

# The project needs neither to run; .ci/run installs both, so there nothing is skipped.
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
    pytest.mark.skipif(not QUINT.exists(), reason="Quint is not installed in build/spec"),
]


def run_quint(*arguments: str) -> str:
    """What Quint prints. Fails with it if Quint does."""
    return asyncio.run(_run_quint(*arguments))


async def _run_quint(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(str(QUINT), *arguments, cwd=SPEC, stdout=PIPE, stderr=STDOUT)
    told, _ = await asyncio.wait_for(process.communicate(), QUINT_SECONDS_MAX)
    assert process.returncode == 0, told.decode()
    return told.decode()


@dataclass(frozen=True, slots=True)
class Event:
    """The input that led to a state of the model."""

    what: str
    node: int
    kind: int
    src: int
    round: int
    value: int
    vr: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a node stands, as model and engine must agree."""

    round: int
    step: int
    locked_round: int
    locked_value: int
    valid_round: int
    valid_value: int
    decision: int
    votes: frozenset[tuple[int, int, int, int]]  # our own: (kind, round, value, valid round)
    proposals: frozenset[tuple[int, int, int]]  # our own: (round, value, valid round)


Trace: TypeAlias = list[tuple[Event, dict[int, Standing]]]


def make_body(value: int) -> bytes:
    return (BAD if value == BAD_VALUE else b"") + b"block %d" % value


IDS: Final = {sha256(make_body(value)): value for value in (*range(8), BAD_VALUE)}


def to_value(block_id: Hash | None) -> int:
    return NIL if block_id is None else IDS[block_id]


def to_block_id(value: int) -> Hash | None:
    return None if value == NIL else sha256(make_body(value))


class ModelNode(Solo):
    """An engine that builds and checks at once, as the model's nodes do."""

    def tell(self, input_: Input) -> Self:
        """Hand over one fact, and answer for the block that it may ask for."""
        before = len(self.log)
        super().tell(input_)
        for build in only(self.log[before:], BuildBlock):
            body = make_body(build.round)
            super().tell(BlockBuilt(build.height, build.round, sha256(body), build.time_ms, body))
        return self

    def play(self, event: Event) -> None:
        """The input that an event of the model is."""
        block_id, key = to_block_id(event.value), KEYS[max(event.src, 0)]
        match event.what:
            case "timeout":
                self.tell(TimeoutElapsed(HEIGHT, event.round, Step(event.kind), self.now_ms))
            case "vote":
                vote: Prevote | Precommit = Precommit(HEIGHT, event.round, block_id)
                if event.kind == Step.PREVOTE:
                    vote = Prevote(HEIGHT, event.round, block_id, event.vr)
                self.tell(VoteReceived(key.vote(vote), self.now_ms))
            case "proposal":
                assert block_id is not None
                signed = key.propose(Proposal(HEIGHT, event.round, block_id, event.vr, START_MS))
                self.tell(ProposalReceived(signed, make_body(event.value), None, self.now_ms))
            case other:
                raise AssertionError(other)

    def get_standing(self) -> Standing:
        """Where the engine stands."""
        state = self.state
        votes = [signed.vote for signed in self.sent(SignedVote)]
        proposals = [signed.proposal for signed in self.sent(SignedProposal)]
        decided = [decide.block_id for decide in only(self.log, Decide)]
        return Standing(
            state.round,
            int(state.step),
            state.locked_round,
            to_value(state.locked_block),
            state.valid_round,
            to_value(state.valid_block),
            to_value(decided[0]) if decided else NIL,
            frozenset(
                (2, vote.round, to_value(vote.block_id), vote.valid_round)
                if isinstance(vote, Prevote)
                else (3, vote.round, to_value(vote.block_id), NIL)
                for vote in votes
            ),
            frozenset((p.round, to_value(p.block_id), p.valid_round) for p in proposals),
        )


def replay(trace: Trace) -> None:
    """Play a trace of the model on engines. Raises at the first step after which they differ."""
    _, first = trace[0]
    nodes = {number: ModelNode(me=number) for number in first}
    for node in nodes.values():
        node.start()
    for place, (event, standings) in enumerate(trace):
        if event.what != "init":
            nodes[event.node].play(event)
        for number, standing in standings.items():
            assert nodes[number].get_standing() == standing, f"step {place}, {event}, node {number}"


def replay_all(traces: list[Trace]) -> None:
    for trace in traces:
        replay(trace)


def read_trace(path: Path) -> Trace:
    """A trace in the Informal Trace Format."""
    states = get_list(json.loads(path.read_text())["states"])
    return [read_state(get_dict(state)) for state in states]


def read_state(qualified: dict[str, Itf]) -> tuple[Event, dict[int, Standing]]:
    state = {name.rpartition("::")[2]: value for name, value in qualified.items()}
    last = get_dict(state["last"])
    what = last["what"]
    assert isinstance(what, str)
    fields = ("node", "kind", "src", "round", "value", "vr")
    event = Event(what, *(get_int(last[name]) for name in fields))
    pairs = [get_list(pair) for pair in get_list(get_dict(state["nodes"])["#map"])]
    return event, {get_int(number): read_standing(get_dict(node)) for number, node in pairs}


def read_standing(node: dict[str, Itf]) -> Standing:
    me = get_int(node["id"])
    votes = [get_dict(vote) for vote in get_list(get_dict(node["votes"])["#set"])]
    proposals = [get_dict(proposal) for proposal in get_list(get_dict(node["proposals"])["#set"])]
    own_votes = [vote for vote in votes if get_int(vote["src"]) == me]
    own_proposals = [proposal for proposal in proposals if get_int(proposal["src"]) == me]
    return Standing(
        round=get_int(node["round"]),
        step=get_int(node["step"]),
        locked_round=get_int(node["lockedRound"]),
        locked_value=get_int(node["lockedValue"]),
        valid_round=get_int(node["validRound"]),
        valid_value=get_int(node["validValue"]),
        decision=get_int(node["decision"]),
        votes=frozenset(
            (get_int(vote["kind"]), get_int(vote["round"]), get_int(vote["value"]), get_int(vote["vr"]))
            for vote in own_votes
        ),
        proposals=frozenset(
            (get_int(proposal["round"]), get_int(proposal["value"]), get_int(proposal["vr"]))
            for proposal in own_proposals
        ),
    )


def get_int(value: Itf) -> int:
    if isinstance(value, dict):
        text = value["#bigint"]
        assert isinstance(text, str)
        return int(text)
    assert isinstance(value, int)
    return value


def get_dict(value: Itf) -> dict[str, Itf]:
    assert isinstance(value, dict)
    return value


def get_list(value: Itf) -> list[Itf]:
    assert isinstance(value, list)
    return value


def make_traces(folder: Path, module: str, seed: int) -> list[Trace]:
    """Random runs of the model that keep all its invariants."""
    run_quint(
        *("run", "--backend=typescript", f"--main={module}", "--invariant=safety", f"--seed={seed}", "--mbt"),
        *(f"--max-steps={STEPS_MAX}", f"--max-samples={TRACES}", f"--n-traces={TRACES}"),
        *(f"--out-itf={folder}/{module}_{{seq}}.itf.json", "tendermint.qnt"),
    )
    return [read_trace(path) for path in sorted(folder.glob("*.itf.json"))]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Trace]]:
    """Traces by module of the specification."""
    return {
        module: make_traces(tmp_path_factory.mktemp(module), module, seed)
        for module, seed in (("four_one_faulty", 1), ("four_honest", 2))
    }


def test_specification_has_the_right_types_and_passes_its_own_tests() -> None:
    run_quint("typecheck", "tendermint_test.qnt")  # imports the other
    for module, tests in (("tendermint_test", 8), ("fork_test", 1)):
        told = run_quint("test", "--backend=typescript", f"--main={module}", "tendermint_test.qnt")
        assert f"{tests} passing" in told


@pytest.mark.parametrize("module", ["four_one_faulty", "four_honest"])
def test_engine_follows_the_traces_of_the_specification(module: str, traces: dict[str, list[Trace]]) -> None:
    assert len(traces[module]) == TRACES
    replay_all(traces[module])


def test_traces_go_far_enough_to_tell_something(traces: dict[str, list[Trace]]) -> None:
    last = [standing for of_module in traces.values() for trace in of_module for standing in trace[-1][1].values()]
    assert any(standing.decision != NIL for standing in last)
    assert any(standing.locked_round != NIL for standing in last)
    assert any(standing.round >= 2 for standing in last)


@pytest.mark.parametrize("name", ["skip_polka_check", "quorum_minus_one", "no_jump_at_f_plus_one"])
def test_engine_with_a_bug_leaves_the_traces(name: str, traces: dict[str, list[Trace]]) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    every = [trace for of_module in traces.values() for trace in of_module]
    with mutant.apply(), pytest.raises(AssertionError):
        replay_all(every)
