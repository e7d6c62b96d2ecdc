"""What an operator hears of a fork: log, readiness, metrics, JSON-RPC, a proof for outsiders; and how it is cleared."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import pytest

from consensus.codec import encode_message
from consensus.messages import VALID_ROUND_NONE, Proposal, SignedProposal, Status, Step, compute_signed_bytes
from consensus.parameters import ConsensusParameters
from contracts_native.table import load_table
from ledger.block import decode_block
from ledger.errors import CorruptStore, Rejected
from ledger.fields import Json, to_json
from ledger.primitives import Height
from ledger.storage import MemoryStore
from node import chain_store
from node.core import Core
from node.core_config import CoreConfig
from node.effects import Blame, Effect, Feed, ForkSeen, Halt, Send, WriteBlock
from node.fork_proof import ForkProof, read_proof, verify_proof
from node.forks import FORK_SEEN, FORKS, Fork, compute_fork_changes, list_fork_heights, list_forks, make_final_header
from node.inputs import BlockWritten, Input, MessageReceived, PeerUp, Started, Tick
from node.keystore import save_key_unencrypted
from node.launch import STORE_NAME, make_runtime, open_node
from node.leveldb_store import LevelDbStore
from node.metrics import NodeMetrics
from node.queries.forks import chain_forks
from node.queries.view import View
from node.rollback import roll_back
from node.rpc import find_unreadiness
from node.rpc_methods import METHODS
from node.sync import collect_blocks
from p2p.messages import BlockRequest, Blocks, ConsensusMessage, ProposalMessage
from tests.node.fake_node import FakeNode
from tests.node.fake_service import FakeService
from tests.node.fork_chain import CONTEXT, DOCUMENT, GENESIS_MS, KEYS, VALIDATORS, Branch, make_fork

PEER: Final = VALIDATORS[3].public_key
SEEN_MS: Final = GENESIS_MS + 5_000
NOW_MS: Final = GENESIS_MS + 100_000


def find_fork(mine: Branch, other: Branch, height: int = 4) -> Fork:
    """What a node with one branch keeps when a peer shows it the other."""
    ours, theirs = (read_final(branch.store, height) for branch in (mine, other))
    return Fork(PEER, SEEN_MS, ours, theirs)


def read_final(store: MemoryStore, height: int) -> Any:
    certificate = chain_store.find_certificate(store, height)
    assert certificate is not None
    return make_final_header(chain_store.get_header(store, height), certificate)


def make_forked(round_: int = 0) -> Branch:
    """A branch whose node has seen the other."""
    mine, other = make_fork(round_=round_)
    mine.store.write(compute_fork_changes(mine.store, find_fork(mine, other)))
    return mine


def ask_forks(store: MemoryStore) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", chain_forks(View(store, load_table()))["forks"])


# — the core —


class Bench:
    """A core over a branch, without a key; what it sends and says is kept."""

    def __init__(self, branch: Branch) -> None:
        self.store = branch.store
        config = CoreConfig(own_key=None, sign=None, consensus=ConsensusParameters())
        self.core = Core(config, self.store, load_table(), journal_frames=[])
        self.effects: list[Effect] = []
        self.tell(Started())

    def tell(self, input_: Input) -> list[Effect]:
        """Tell one fact and what follows from it; the effects of all of it."""
        queue, told = [input_], list[Effect]()
        while queue:
            for effect in self.core.handle(queue.pop(0), NOW_MS):
                told.append(effect)
                match effect:
                    case Feed(following):
                        queue.append(following)
                    case WriteBlock(height, changes):
                        self.store.write(changes)
                        queue.insert(0, BlockWritten(height))
                    case ForkSeen(_, changes):
                        self.store.write(changes)
                    case _:
                        pass
        self.effects += told
        return told

    def list_asked(self, effects: list[Effect]) -> list[tuple[int, int]]:
        asked = [one.message for one in effects if isinstance(one, Send)]
        return [(one.from_height, one.count) for one in asked if isinstance(one, BlockRequest)]

    def answer(self, branch: Branch, height: int, count: int = 1) -> list[Effect]:
        return self.tell(MessageReceived(PEER, Blocks(collect_blocks(branch.store, height, count))))


def test_a_final_block_on_another_one_stops_no_node_and_blames_nobody_but_raises_the_alarm() -> None:
    mine, other = make_fork(ours=1, theirs=3)
    bench = Bench(mine)
    assert bench.list_asked(bench.tell(PeerUp(PEER, 6))) == [(5, 2)]
    assert bench.list_asked(bench.answer(other, 5, 2)) == [(4, 1)]  # the next blocks stand on another than ours
    bench.answer(other, 4)
    assert [one for one in bench.effects if isinstance(one, Halt | Blame)] == []
    assert list_fork_heights(mine.store) == [4]
    assert bench.core.header.height == 4
    assert not bench.core.is_syncing
    assert bench.list_asked(bench.tell(Tick())) == []  # what it has is of no use to us


def test_catching_up_goes_on_beside_the_check() -> None:
    trunk = Branch().grow(3)
    ahead = trunk.copy().grow(2)
    bench = Bench(trunk)
    assert bench.list_asked(bench.tell(PeerUp(PEER, 5))) == [(4, 2)]
    bench.answer(ahead, 4, 2)
    assert bench.core.header.height == 5
    assert bench.list_asked(bench.tell(Tick())) == [(5, 1)]
    bench.answer(ahead, 5)
    assert list_fork_heights(trunk.store) == []
    assert [one for one in bench.effects if isinstance(one, Halt | Blame)] == []


def test_a_liar_loses_score_and_raises_no_alarm() -> None:
    mine, other = make_fork(ours=1, theirs=1)
    other.certify_again(4, replace(make_fork()[0].certificate(4), block_id=other.block_id(4)))
    bench = Bench(mine)
    bench.tell(PeerUp(PEER, 4))
    assert bench.list_asked(bench.tell(Tick())) == [(4, 1)]
    (blame,) = [one for one in bench.answer(other, 4) if isinstance(one, Blame)]
    assert (blame.peer, blame.reason) == (PEER, "certificate_signature_invalid")
    assert list_fork_heights(mine.store) == []


def test_a_proposal_on_another_block_makes_the_node_ask_for_that_block_at_once() -> None:
    mine, other = make_fork(ours=1, theirs=2)
    bench = Bench(mine)
    bench.tell(PeerUp(PEER, 0))
    assert bench.list_asked(bench.tell(propose(mine.copy().grow(), 5))) == []
    assert bench.list_asked(bench.tell(propose(other, 5))) == [(4, 1)]
    bench.answer(other, 4)
    assert list_fork_heights(mine.store) == [4]


def propose(branch: Branch, height: int) -> MessageReceived:
    """The block of a height, as its proposer sent it."""
    ((body, _),) = collect_blocks(branch.store, height, 1)
    said = Proposal(Height(height), 0, branch.block_id(height), VALID_ROUND_NONE, decode_block(body).header.time_ms)
    signature = KEYS[0].sign(compute_signed_bytes(CONTEXT, said))
    signed = SignedProposal(said, KEYS[0].public_key, signature)
    return MessageReceived(PEER, ProposalMessage(encode_message(signed), body))


def test_the_height_that_a_peer_is_at_now_is_compared_not_the_one_it_connected_with() -> None:
    trunk = Branch().grow(5)
    bench = Bench(trunk)
    bench.tell(PeerUp(PEER, 0))
    assert bench.list_asked(bench.tell(Tick())) == []
    status = Status(Height(5), 0, Step.PROPOSE, False, (), ())
    bench.tell(MessageReceived(PEER, ConsensusMessage(encode_message(status))))
    assert bench.list_asked(bench.tell(Tick())) == [(4, 1)]


# — what the operator sees —


def test_readiness_metrics_status_and_the_report_say_it() -> None:
    service = FakeService()
    metrics = NodeMetrics(service, METHODS)
    assert find_unreadiness(service) != FORK_SEEN
    assert b"wattprint_forks 0.0" in metrics.render()
    service.store = make_forked().store
    assert find_unreadiness(service) == FORK_SEEN
    assert b"wattprint_forks 1.0" in metrics.render()
    status = cast("dict[str, Json]", METHODS["chain_status"].handle(service))
    assert status["forks"] == [4]
    report = cast("dict[str, Any]", METHODS["chain_forks"].handle(service))
    assert [one["height"] for one in report["forks"]] == [4]


@pytest.mark.parametrize(("round_", "guilty", "suspects"), [(0, ["v1", "v2"], []), (1, [], ["v1", "v2"])])
def test_the_report_says_what_is_proven_and_what_is_not(round_: int, guilty: list[str], suspects: list[str]) -> None:
    mine = make_forked(round_)
    (shown,) = ask_forks(mine.store)
    assert (shown["height"], shown["is_first"], shown["seen_ms"]) == (4, True, SEEN_MS)
    assert (shown["peer"], shown["our_block_id"]) == (PEER.hex(), mine.block_id(4).hex())
    assert [one["moniker"] for one in shown["guilty"]] == guilty
    assert [one["moniker"] for one in shown["suspects"]] == suspects


def test_a_damaged_record_is_a_corrupt_store() -> None:
    mine = make_forked()
    ((key, value),) = mine.store.scan(FORKS, FORKS + b"\xff")
    mine.store.write({key: value[:-1]})
    with pytest.raises(CorruptStore, match="fork"):
        list(list_forks(mine.store))


def test_going_back_to_an_earlier_height_leaves_the_alarm_on() -> None:
    mine, target = make_forked(), MemoryStore()
    for _ in roll_back(mine.store, target, DOCUMENT, load_table(), until=3):
        pass
    assert chain_store.read_head_height(target) == 3
    assert list(list_forks(target)) == list(list_forks(mine.store))


# — the proof —


def make_proof() -> dict[str, Any]:
    (shown,) = ask_forks(make_forked().store)
    return cast("dict[str, Any]", json.loads(json.dumps(shown["proof"])))


def check_proof(data: Json) -> None:
    verify_proof(read_proof(data), DOCUMENT)


def test_a_proof_is_true_by_the_genesis_document_alone() -> None:
    culprits = verify_proof(read_proof(make_proof()), DOCUMENT)
    assert [one.moniker for one in culprits.guilty] == ["v1", "v2"]


def swap_theirs(proof: dict[str, Any]) -> None:
    proof["theirs"] = proof["ours"]


def take_another_height(proof: dict[str, Any]) -> None:
    mine, other = make_fork()
    proof["theirs"] = to_json(find_fork(mine, other, 5).theirs)


def drop_a_signature(proof: dict[str, Any]) -> None:
    proof["theirs"]["commit"]["signatures"].pop()


def repeat_a_signature(proof: dict[str, Any]) -> None:
    signatures = proof["theirs"]["commit"]["signatures"]
    signatures[0] = signatures[1]


def change_the_round(proof: dict[str, Any]) -> None:
    proof["theirs"]["commit"]["round"] = 1


def change_our_header(proof: dict[str, Any]) -> None:
    proof["ours"]["header"]["time_ms"] += 7


def name_another_chain(proof: dict[str, Any]) -> None:
    proof["chain"]["chain_id"] = "another"


def add_a_field(proof: dict[str, Any]) -> None:
    proof["more"] = 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (swap_theirs, "fork_of_one_block"),
        (take_another_height, "fork_of_two_heights"),
        (drop_a_signature, "certificate_signatures_too_few"),
        (repeat_a_signature, "certificate_signer_repeated"),
        (change_the_round, "certificate_signature_invalid"),
        (change_our_header, "certificate_signature_invalid"),
        (name_another_chain, "fork_of_another_chain"),
        (add_a_field, "field"),
        (lambda proof: proof.update(format="wattprint-certificate"), "fork_proof_not_recognised"),
        (lambda proof: proof.update(version=2), "fork_proof_version_unknown"),
    ],
)
def test_a_proof_that_was_changed_is_refused(change: Callable[[dict[str, Any]], None], reason: str) -> None:
    proof = make_proof()
    change(proof)
    with pytest.raises(Rejected, match=reason):
        check_proof(proof)


# — at the command line —


def make_home(path: Path, validator: int, *peers: str) -> Path:
    """A home of a validator of this chain that has never run; any ports."""
    genesis, key = path.with_suffix(".genesis.json"), path.with_suffix(".key.json")
    genesis.write_text(json.dumps(to_json(DOCUMENT)))
    save_key_unencrypted(key, KEYS[validator])
    words = ("node", "init", "--home", path, "--genesis", genesis, "--key-file", key, "--p2p-port", 0, "--rpc-port", 0)
    FakeNode().run_json(*words, *(word for peer in peers for word in ("--peer", peer)))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home", 0)


def fill(home: Path, branch: Branch) -> None:
    with_store(home, lambda store: store.write(dict(branch.store.scan(b"", b"\xff"))))


def with_store(home: Path, act: Callable[[LevelDbStore], Any]) -> Any:
    (home / "chain").mkdir(exist_ok=True)
    store = LevelDbStore(home / "chain" / STORE_NAME)
    try:
        return act(store)
    finally:
        store.close()


def test_an_outsider_checks_the_report_with_the_genesis_file(home: Path, tmp_path: Path) -> None:
    node = FakeNode()
    node.answers["chain_forks"] = chain_forks(View(make_forked().store, load_table()))
    file = tmp_path / "forks.json"
    file.write_text(json.dumps(node.run_json("chain", "forks")))
    genesis = home / "genesis.json"
    verified = node.run_json("chain", "verify-forks", file, "--genesis", genesis)
    assert (verified["verified"], verified["chain_id"]) == (True, "forked")
    assert [one["moniker"] for one in verified["forks"][0]["guilty"]] == ["v1", "v2"]
    file.write_text(file.read_text().replace('"round": 0', '"round": 3'))
    refused = node.run("chain", "verify-forks", file, "--genesis", genesis)
    assert (refused.exit_code, "certificate_signature_invalid" in refused.stderr) == (1, True)


@pytest.mark.parametrize(("round_", "word"), [(0, "guilty: v1"), (1, "suspect: v1")])
def test_for_a_person_the_report_is_a_few_lines(home: Path, round_: int, word: str) -> None:
    mine = make_forked(round_)
    node = FakeNode()
    node.answers["chain_forks"] = chain_forks(View(mine.store, load_table()))
    said = node.run("chain", "forks").stdout
    for part in ("height 4 was decided twice: the chains part here", mine.block_id(4).hex(), PEER.hex(), word):
        assert part in said
    assert max(map(len, said.splitlines())) < 160
    fill(home, mine)
    assert node.run("node", "clear-forks", "--home", home).stdout == said
    assert node.run("node", "clear-forks", "--home", home).stdout == "No fork was seen.\n"


@pytest.mark.parametrize("text", ["{}", "[]", '{"forks": []}', '{"forks": [1]}', '{"forks": [{"proof": {}}]}', "no"])
def test_a_file_that_is_no_report_is_wrong_usage(home: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "forks.json"
    file.write_text(text)
    refused = FakeNode().run("chain", "verify-forks", file, "--genesis", home / "genesis.json")
    assert (refused.exit_code, refused.stdout) == (2, "")


def test_clearing_the_alarm_prints_the_report_and_forgets_it(home: Path) -> None:
    mine = make_forked()
    fill(home, mine)
    cleared = FakeNode().run_json("node", "clear-forks", "--home", home)
    assert cleared == {"forks": json.loads(json.dumps(ask_forks(mine.store)))}
    assert with_store(home, list_fork_heights) == []
    assert FakeNode().run_json("node", "clear-forks", "--home", home) == {"forks": []}


def test_a_report_that_cannot_be_printed_is_not_forgotten(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = make_forked()
    fill(home, mine)
    heights = with_store(home, list_fork_heights)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr("node.cli.groups.node.show", fail)
        refused = FakeNode().run("node", "clear-forks", "--home", home)
    assert (refused.exit_code, refused.stderr) == (2, "wattprint: No space left on device\n")
    assert with_store(home, list_fork_heights) == heights != []


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """The node's own loggers, which otherwise do not go up to the root's."""
    monkeypatch.setattr("node.logs.configure", lambda *_: None)
    monkeypatch.setattr(logging.getLogger("wattprint"), "propagate", True)
    with caplog.at_level(logging.ERROR, logger="wattprint"):
        yield caplog


async def test_a_running_node_shouts_keeps_it_and_is_not_ready(home: Path, logged: pytest.LogCaptureFixture) -> None:
    mine, other = make_fork()
    fill(home, mine)
    fork = find_fork(mine, other)
    runtime = make_runtime(await asyncio.to_thread(open_node, home))
    await runtime.start()
    try:
        runtime._perform(ForkSeen(fork, compute_fork_changes(runtime.reader, fork)))
        assert find_unreadiness(runtime) == FORK_SEEN
    finally:
        await runtime.stop()
    (record,) = [one for one in logged.records if one.name == "wattprint.runtime"]
    fields = record.__dict__["fields"]
    assert (record.levelno, fields["reason"], fields["height"]) == (logging.ERROR, "fork_seen", 4)
    assert with_store(home, lambda store: list(list_forks(store))) == [fork]


def test_the_form_of_the_proof_is_strict() -> None:
    proof = make_proof()
    assert to_json(read_proof(proof)) == proof
    assert isinstance(read_proof(proof), ForkProof)
    assert read_proof(proof).ours.make_certificate(CONTEXT).height == 4
