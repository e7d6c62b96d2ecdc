"""Every judge can see: each of the twelve promises of safety and the six of liveness is broken once on purpose.

Judges of the arena watch alone while the engine has a bug (`tests/consensus/mutants.py`); checkers of whole nodes look
at a run whose records or stores were tampered with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Final
from unittest.mock import patch

import pytest

from consensus.codec import encode_message
from consensus.messages import Precommit, Prevote, SignedVote, Vote, compute_signed_bytes
from contracts_native.credits import BALANCES, Balance
from contracts_native.evidence import OFFENCES, Offence, OffenceKind
from ledger.block import encode_block
from ledger.primitives import Height, PublicKey, Signature, sha256
from ledger.state import State
from ledger.storage import BLOCKS, CERTIFICATES, STATE_TRIE, format_height
from node import chain_store
from tests.consensus.mutants import MUTANTS
from tests.simulator import checkers, invariants
from tests.simulator.arena import Arena
from tests.simulator.broken import Broken
from tests.simulator.cluster import Cluster
from tests.simulator.copies import fast_signatures
from tests.simulator.directed import build_scenario, list_scenarios
from tests.simulator.invariants import Judge
from tests.simulator.liveness import play_faults, run_scenario
from tests.simulator.polkas import Polka, find_claimed_polka
from tests.simulator.scenario import Behaviour, Corrupt, Scenario
from tests.simulator.stories import run_seed
from tests.simulator.vote_log import How

SCENARIOS_MAX: Final = 600


def apply_mutant(name: str) -> AbstractContextManager[object]:
    return next(mutant for mutant in MUTANTS if mutant.name == name).apply()


def list_of(family: str | None) -> Iterable[Scenario]:
    if family is None:
        return list_scenarios(0, SCENARIOS_MAX)
    return (build_scenario(family, seed) for seed in range(SCENARIOS_MAX))


def run_all(family: str) -> None:
    for scenario in list_of(family):
        run_scenario(scenario)


def watch_alone(judge: type[Judge], family: str | None) -> None:
    """Play scenarios, as long as their faults last, before one judge only."""
    for scenario in list_of(family):
        arena = Arena(scenario)
        arena.watch(judge(arena))
        play_faults(arena)


# (judge, bug, family): the bug that this judge by itself must see.
SEEN: Final = (
    (invariants.Agreement, "quorum_minus_one", "twins"),
    (invariants.Validity, "take_every_block_for_valid", "lying_proposer"),
    (invariants.SignedOnce, "speak_of_every_body_in_the_journal", "crashes"),
    (invariants.LockHolds, "forget_lock_on_restart", None),
    (invariants.PrecommitsJustified, "skip_polka_check", None),
    (invariants.PrevotesJustified, "accept_reproposal_without_its_polka", "lock_attack"),
    (invariants.PolkasFollowCommits, "ignore_lock", "lock_attack"),
    (invariants.CertificatesVerify, "trust_every_signature", None),
    (invariants.DurableFirst, "journal_after_send", None),
    (invariants.NoHonestNodeBlamed, "ignore_lock", None),
    (invariants.TimesRise, "no_time_check_at_all", "lying_proposer"),
)


@pytest.mark.parametrize(("judge", "bug", "family"), SEEN, ids=lambda one: getattr(one, "promise", str(one)))
def test_a_judge_of_the_arena_sees_a_bug_by_itself(judge: type[Judge], bug: str, family: str | None) -> None:
    with fast_signatures(), apply_mutant(bug), pytest.raises(Broken) as broken:
        watch_alone(judge, family)
    assert broken.value.promise == judge.promise


def test_every_judge_of_the_arena_is_among_them() -> None:
    assert {judge for judge, _, _ in SEEN} == set(invariants.SAFETY)
    assert len({judge.promise for judge in invariants.SAFETY}) == len(invariants.SAFETY)


@pytest.mark.parametrize("finder", ["_find_conflict", "_find_amnesia"])
def test_a_fork_whose_evidence_the_engine_does_not_find_is_seen(finder: str) -> None:
    with (
        fast_signatures(),
        patch(f"consensus.votes.VoteBook.{finder}", lambda *_: None),
        pytest.raises(Broken, match="a fork names the guilty: evidence of"),
    ):
        run_all("overrun")


def test_a_fork_that_proves_too_few_guilty_is_seen() -> None:
    with (
        fast_signatures(),
        patch("tests.simulator.invariants.find_unjustified", lambda *_: set()),
        pytest.raises(Broken, match="a fork names the guilty: a fork, and only"),
    ):
        run_all("overrun")


def keep_every_vote(*_: object) -> bool:
    return True


def serve_nobody(*_: object) -> list[object]:
    return []


def leave_laggards_alone() -> AbstractContextManager[object]:
    stack = ExitStack()
    stack.enter_context(patch("consensus.gossip.Gossip._serve_height", serve_nobody))
    stack.enter_context(patch("consensus.gossip.Gossip._ask_height", serve_nobody))
    return stack


def flood_and_keep_everything() -> AbstractContextManager[object]:
    stack = ExitStack()
    stack.enter_context(patch("consensus.votes.is_conflicting_vote_kept", keep_every_vote))
    stack.enter_context(patch("tests.simulator.byzantine.SPAM_VOTES", 300))
    return stack


LIVENESS_SEEN: Final[tuple[tuple[str, str | None, Callable[[], AbstractContextManager[object]]], ...]] = (
    ("all decide", None, lambda: apply_mutant("decide_in_the_current_round_only")),
    ("rounds come together", "skewed_rounds", lambda: apply_mutant("no_jump_at_f_plus_one")),
    ("laggards catch up", "weather", leave_laggards_alone),
    ("recovery after crashes", "crashes", lambda: apply_mutant("forget_what_was_signed_on_restart")),
    ("memory is bounded", "byzantine", flood_and_keep_everything),
)


@pytest.mark.parametrize(("promise", "family", "apply"), LIVENESS_SEEN, ids=[one[0] for one in LIVENESS_SEEN])
def test_a_judge_of_liveness_sees_a_bug(
    promise: str, family: str | None, apply: Callable[[], AbstractContextManager[object]]
) -> None:
    seen = set()
    with fast_signatures(), apply():
        for scenario in list_of(family):
            try:
                run_scenario(scenario)
            except Broken as broken:
                seen.add(broken.promise)
            if promise in seen:
                break
    assert promise in seen


# — whole nodes —


def change_a_balance(net: Cluster) -> None:
    net[0].store.write(_earn(net))


def change_a_balance_and_its_root(net: Cluster) -> None:
    changes = _earn(net)
    tree = chain_store.load_tree(net[0].store)
    update = tree.prepare({key: value for key, value in changes.items() if key[:1] == b"s"})
    writes = {STATE_TRIE + path: content for path, content in update.bucket_writes.items()}
    net[0].store.write({**changes, **writes})


def _earn(net: Cluster) -> dict[bytes, bytes | None]:
    state = State(net[0].store)
    address = net.accounts[3].address
    balance = BALANCES.find(state, address)
    BALANCES.put(state, address, value=Balance((balance.cents if balance else 0) + 1))
    return dict(state.compute_changes())


def decide_another_block(net: Cluster) -> None:
    net.observed.commits[0, 1] = sha256(b"another")


def halt(net: Cluster) -> None:
    net.observed.halts.append((0, "tired"))


def sign_again(net: Cluster) -> None:
    number, signed = next(one for one in net.observed.sent if isinstance(one[1], SignedVote))
    assert isinstance(signed, SignedVote)
    vote = Prevote(signed.vote.height, signed.vote.round, sha256(b"another"), -1)
    first = Prevote(signed.vote.height, signed.vote.round, None, -1)
    net.observed.sent += [(number, replace(signed, vote=one)) for one in (first, vote)]


def forget_a_lock(net: Cluster) -> None:
    height = net[0].height + 9
    net.observed.locks += [(0, height, 3), (0, height, -1)]


def hear_one_vote_less(net: Cluster) -> None:
    """Of the prevotes that node 0 had heard before it first precommitted a block, all but one of a quorum are gone."""
    entries = net.observed.votes.entries
    polka = next(
        polka
        for entry in entries
        for signed in entry.votes
        if entry.node == 0 and entry.how is How.SIGNED and isinstance(signed.vote, Precommit)
        if (polka := find_claimed_polka(signed.vote)) is not None
    )
    hear_too_little(net, polka, count=1)


def hear_too_little(net: Cluster, polka: Polka, *, count: int) -> None:
    """Node 0 has heard only so many others prevote for this."""
    entries, kept = net.observed.votes.entries, set[PublicKey]()
    for place, entry in enumerate(entries):
        if entry.node == 0 and entry.how is How.HEARD:
            votes = [one for one in entry.votes if is_for(one, polka)]
            kept.update(one.voter for one in votes if len(kept) < count)
            lost = {one for one in votes if one.voter not in kept}
            entries[place] = replace(entry, votes=tuple(one for one in entry.votes if one not in lost))


def is_for(signed: SignedVote, polka: Polka) -> bool:
    vote = signed.vote
    return isinstance(vote, Prevote) and (vote.height, vote.round, vote.block_id) == polka


def name_a_polka_that_never_was(net: Cluster) -> None:
    say(net, 0, Prevote(Height(net[0].height), 7, sha256(b"another"), 6))


def prevote_another_after_a_commit(net: Cluster) -> None:
    height = Height(net[0].height)
    for number in range(3):
        say(net, number, Precommit(height, 7, sha256(b"one")))
    for number in range(3):
        say(net, number, Prevote(height, 8, sha256(b"another"), -1))


def say(net: Cluster, number: int, vote: Vote) -> None:
    """A node has sent this vote, with its signature."""
    key = net[number].key
    context = net.context
    signed = SignedVote(vote, key.public_key, key.sign(compute_signed_bytes(context, vote)))
    net.observed.votes.note_sent(number, signed)


def forge_a_certificate(net: Cluster) -> None:
    certificate = chain_store.find_certificate(net[0].store, 1)
    assert certificate is not None
    first, *rest = certificate.signatures
    forged = replace(certificate, signatures=(replace(first, signature=Signature(b"forged.." * 8)), *rest))
    net[0].store.write({CERTIFICATES + format_height(1): encode_message(forged)})


def lose_a_block(net: Cluster) -> None:
    net[0].store.write({CERTIFICATES + format_height(1): None})


def speak_too_early(net: Cluster) -> None:
    net.observed.undurable.append(next(one for one in net.observed.sent))


def go_back(net: Cluster) -> None:
    net.observed.commit_heights.append((0, 1))


def blame(net: Cluster) -> None:
    net.observed.blames.append((0, 1, "rude"))


def record_an_offence(net: Cluster) -> None:
    state = State(net[0].store)
    offence = Offence(0, sha256(b"tx"), 1, 1)
    OFFENCES.put(state, net[1].key.public_key, 1, OffenceKind.AMNESIA, value=offence)
    net[0].store.write(state.compute_changes())


def hold_a_transaction_twice(net: Cluster) -> None:
    height, block = next(
        (height, block)
        for height in range(1, net[0].height + 1)
        if (block := chain_store.find_block(net[0].store, height)) is not None and block.transactions
    )
    doubled = replace(block, transactions=block.transactions * 2)
    net[0].store.write({BLOCKS + format_height(height): encode_block(doubled)})


def turn_back_the_clock(net: Cluster) -> None:
    block = chain_store.find_block(net[0].store, 2)
    assert block is not None
    earlier = replace(block, header=replace(block.header, time_ms=1))
    net[0].store.write({BLOCKS + format_height(2): encode_block(earlier)})


TAMPERED: Final[tuple[tuple[Callable[[Cluster], None], Callable[[Cluster], None], str], ...]] = (
    (decide_another_block, checkers.check_agreement, "agreement"),
    (halt, checkers.check_validity, "validity"),
    (change_a_balance, checkers.check_validity, "validity"),
    (sign_again, checkers.check_nothing_signed_twice, "signed once"),
    (forget_a_lock, checkers.check_locks, "lock holds"),
    (hear_one_vote_less, checkers.check_precommits_are_justified, "precommits are justified"),
    (name_a_polka_that_never_was, checkers.check_prevotes_are_justified, "prevotes are justified"),
    (prevote_another_after_a_commit, checkers.check_polkas_follow_commits, "polkas follow commits"),
    (forge_a_certificate, checkers.check_certificates, "certificates verify"),
    (lose_a_block, checkers.check_certificates, "certificates verify"),
    (lose_a_block, checkers.check_durability, "durable first"),
    (speak_too_early, checkers.check_durability, "durable first"),
    (go_back, checkers.check_durability, "durable first"),
    (change_a_balance_and_its_root, checkers.check_state_roots, "state roots agree"),
    (blame, checkers.check_no_honest_node_is_blamed, "no honest node is blamed"),
    (record_an_offence, checkers.check_no_honest_node_is_blamed, "no honest node is blamed"),
    (hold_a_transaction_twice, checkers.check_uniqueness, "applied once"),
    (change_a_balance, checkers.check_conservation, "sums are conserved"),
    (turn_back_the_clock, checkers.check_times, "times rise"),
)


@pytest.mark.parametrize(("tamper", "check", "promise"), TAMPERED, ids=lambda one: getattr(one, "__name__", str(one)))
def test_a_checker_of_whole_nodes_sees_what_was_tampered_with(
    tamper: Callable[[Cluster], None], check: Callable[[Cluster], None], promise: str
) -> None:
    net = run_seed(3)
    check(net)
    tamper(net)
    with pytest.raises(Broken, match=r"replay: python -m tests.simulator --storm weather") as broken:
        check(net)
    assert broken.value.promise == promise


def test_every_checker_of_whole_nodes_is_among_them() -> None:
    assert {check for _, check, _ in TAMPERED} == set(checkers.SAFETY)


def test_each_promise_of_liveness_can_fail_on_whole_nodes() -> None:
    net = Cluster(validators=4, seed=3)
    net.run_until(height=3)
    net.heal()
    beyond = net[0].height + 50
    assert fail(lambda: checkers.check_all_decide(net, target=beyond)) == "all decide"
    assert fail(lambda: checkers.check_rounds_are_few(net, heights=range(beyond, beyond + 1))) == "all decide"
    assert fail(lambda: checkers.check_finality(net, within_ms=0)) == "all decide"
    net.crash(3)
    net.run_until(height=net[0].height + 3)
    assert fail(lambda: checkers.check_laggards_catch_up(net, target=net[0].height)) == "laggards catch up"
    for number in (1, 2, 3):
        net.crash(number)
        net.restart(number)
    assert fail(lambda: checkers.check_recovery(net, target=beyond)) == "recovery after crashes"


def test_rounds_apart_and_a_node_that_fills_up_are_seen() -> None:
    net = Cluster(validators=4, seed=3)
    net.run_until(height=3)
    net.run_for(500)
    core = net[1].core
    assert core is not None
    state = core._engine.state
    assert state is not None
    state.height, state.round = Height(max(node.height for node in net.nodes) + 1), 7
    for node in net.nodes:
        assert node.core is not None
        assert node.core._engine.state is not None
    assert fail(lambda: checkers.check_rounds_come_together(net)) == "rounds come together"
    with patch("tests.simulator.checkers.BLOCKS_MAX", -1):
        assert fail(lambda: checkers.check_memory(net)) == "memory is bounded"


def test_a_proposer_that_leaves_transactions_lying_is_seen() -> None:
    net = Cluster(validators=4, seed=3)
    net.run_until(height=2)
    with patch("node.mempool.Mempool.list_transactions", lambda _: []):
        assert fail(lambda: checkers.check_a_transaction_is_taken(net)) == "transactions are taken"


def test_a_byzantine_node_that_nothing_is_recorded_of_is_seen() -> None:
    net = Cluster(validators=4, seed=3, corrupt=[Corrupt(2, Behaviour.WITHHOLD, 100, frozenset({0, 1, 3}))])
    net.run_until(height=3)
    assert fail(lambda: checkers.check_the_guilty_are_named(net)) == "the guilty are named"


def fail(check: Callable[[], None]) -> str:
    """The promise that a check finds broken."""
    with pytest.raises(Broken) as broken:
        check()
    return broken.value.promise
