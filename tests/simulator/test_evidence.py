"""What a Byzantine validator says twice stands on chain under its name, once, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from consensus.codec import encode_message
from consensus.messages import (
    VALID_ROUND_NONE,
    Evidence,
    Precommit,
    Prevote,
    Proposal,
    SignedProposal,
    SignedVote,
    Vote,
    compute_signed_bytes,
)
from contracts_native.credits import IssueCredits
from contracts_native.evidence import OFFENCES, Offence, OffenceKind, find_offence
from ledger.execution import build_block
from ledger.primitives import PUBLIC_KEY_BYTES, Height, sha256
from ledger.state import State
from node.core import Core
from node.evidence import make_report
from p2p.messages import ConsensusMessage, PeerMessage, ProposalMessage
from tests.simulator.checkers import (
    check_agreement,
    check_all,
    check_durability,
    check_liveness,
    check_offences,
    check_validity,
)
from tests.simulator.cluster import Cluster, Node
from tests.simulator.scenario import Behaviour, Corrupt

A, B = sha256(b"a"), sha256(b"b")
GUILTY = 3


def sign_vote(net: Cluster, vote: Vote) -> PeerMessage:
    """A vote of the guilty one."""
    signer = net[GUILTY]
    signature = signer.key.sign(compute_signed_bytes(_get_core(net[0]).context, vote))
    return ConsensusMessage(encode_message(SignedVote(vote, signer.key.public_key, signature)))


def say_two_prevotes(net: Cluster, height: Height) -> list[PeerMessage]:
    return [sign_vote(net, Prevote(height, 0, block_id, VALID_ROUND_NONE)) for block_id in (A, B)]


def say_two_precommits(net: Cluster, height: Height) -> list[PeerMessage]:
    return [sign_vote(net, Precommit(height, 0, block_id)) for block_id in (A, None)]


def forget_a_lock(net: Cluster, height: Height) -> list[PeerMessage]:
    return [sign_vote(net, Precommit(height, 0, A)), sign_vote(net, Prevote(height, 1, B, VALID_ROUND_NONE))]


def say_two_proposals(net: Cluster, height: Height) -> list[PeerMessage]:
    """Two blocks for the round that is the guilty one's turn."""
    core, signer = _get_core(net[0]), net[GUILTY]
    round_ = next(r for r in range(4) if core.validators.get_proposer(height, r).public_key == signer.key.public_key)
    said: list[PeerMessage] = []
    for time_ms in (net.timeline.now_ms, net.timeline.now_ms + 1):
        executed, _ = build_block(core.chain, (), time_ms=time_ms, proposer=signer.key.public_key)
        proposal = Proposal(height, round_, executed.block_id, VALID_ROUND_NONE, time_ms)
        signature = signer.key.sign(compute_signed_bytes(core.context, proposal))
        signed = SignedProposal(proposal, signer.key.public_key, signature)
        said.append(ProposalMessage(encode_message(signed), executed.body, b""))
    return said


@pytest.mark.parametrize(
    ("say", "kind"),
    [
        (say_two_prevotes, OffenceKind.DUPLICATE_PREVOTE),
        (say_two_precommits, OffenceKind.DUPLICATE_PRECOMMIT),
        (say_two_proposals, OffenceKind.DUPLICATE_PROPOSAL),
        (forget_a_lock, OffenceKind.AMNESIA),
    ],
)
def test_a_breach_stands_on_chain_once_under_the_name_of_the_guilty(
    say: Callable[[Cluster, Height], list[PeerMessage]], kind: OffenceKind
) -> None:
    net = Cluster(validators=4, seed=40)
    net.run_until(height=3)
    net.crash(GUILTY)
    height = Height(_get_core(net[0]).header.height + 1)
    said = say(net, height)
    for receiver in (0, 1):  # two find it, and both bring it
        for message in said:
            net._deliver(GUILTY, receiver, message)
    net.run_for(5_000)
    for number in (0, 1, 2):
        ((offender, at, what, _),) = list_offences(net, number)
        assert (offender, at, what) == (GUILTY, height, kind)
    net.heal()
    check_liveness(net)
    check_offences(net, guilty={GUILTY})
    for check in (check_agreement, check_durability, check_validity):
        check(net)


def test_an_isolated_finder_brings_its_evidence_once_it_is_back() -> None:
    net = Cluster(validators=4, seed=41)
    net.run_until(height=3)
    net.crash(GUILTY)
    net.isolate(2)
    for message in say_two_prevotes(net, Height(_get_core(net[2]).header.height + 1)):
        net._deliver(GUILTY, 2, message)
    net.run_for(3_000)
    net.heal()
    net.run_for(20_000)
    assert [[name for name, *_ in list_offences(net, number)] for number in range(4)] == [[GUILTY]] * 4


def test_votes_that_an_honest_validator_may_say_are_no_offence() -> None:
    net = Cluster(validators=4, seed=42)
    net.run_until(height=3)
    net.crash(GUILTY)
    height = Height(_get_core(net[0]).header.height + 1)
    allowed: tuple[Vote, ...] = (
        Prevote(height, 0, A, VALID_ROUND_NONE),
        Precommit(height, 0, A),
        Prevote(height, 1, None, VALID_ROUND_NONE),  # nil may always be said
        Prevote(height, 2, A, VALID_ROUND_NONE),  # the block that it is locked on
        Prevote(height, 3, B, 1),  # a later polka has opened the lock
        Precommit(height, 3, B),
    )
    for vote in allowed:
        net._deliver(GUILTY, 0, sign_vote(net, vote))
    net.run_for(5_000)
    assert net.observed.evidence == []
    check_offences(net, guilty=set())


def test_nobody_proposes_in_the_name_of_another() -> None:
    net = Cluster(validators=4, seed=43)
    net.run_until(height=3)
    net.crash(GUILTY)
    core, height = _get_core(net[0]), Height(_get_core(net[0]).header.height + 1)
    executed, _ = build_block(core.chain, (), time_ms=net.timeline.now_ms, proposer=net[2].key.public_key)
    proposal = Proposal(height, 0, executed.block_id, VALID_ROUND_NONE, net.timeline.now_ms)
    signature = net[GUILTY].key.sign(compute_signed_bytes(core.context, proposal))
    signed = SignedProposal(proposal, net[GUILTY].key.public_key, signature)
    net._deliver(GUILTY, 0, ProposalMessage(encode_message(signed), executed.body, b""))
    assert [what.partition(":")[0] for _, _, what in net.observed.blames] == ["block_of_another_proposer"]


@pytest.mark.parametrize("seed", range(8))
def test_one_that_equivocates_all_the_time_is_named_and_stops_nothing(seed: int) -> None:
    towards = frozenset(Random(seed).sample(range(GUILTY), 2))
    net = Cluster(validators=4, seed=seed, corrupt=[Corrupt(GUILTY, Behaviour.EQUIVOCATE, 50, towards)])
    net.faults.drop_permille = 50
    for step in range(25):
        net.submit(step % 3, IssueCredits(net.accounts[1].address, 1, f"step {step}"), by=net.accounts[0])
        net.run_for(1_000)
    net.heal()
    check_liveness(net)
    net.run_for(3_000)
    check_all(net)
    found = {name_offence(one) for _, one in net.observed.evidence}
    assert found
    recorded = {(height, kind) for _, height, kind, _ in list_offences(net, 0)}
    assert recorded <= found
    assert {one for one in found - recorded if one[0] < net[0].height - 5} == set()  # the last are on their way


def name_offence(evidence: Evidence) -> tuple[int, OffenceKind]:
    """What the engine found, as the chain calls it, and of which height."""
    report = make_report(evidence)
    kind = find_offence(report.first, report.second)
    assert kind is not None
    return report.first.height, kind


def list_offences(net: Cluster, number: int) -> list[tuple[int, int, str, Offence]]:
    """(Offender, height, kind, record) of what stands on a node's chain."""
    found = []
    for key, record in OFFENCES.scan(State(net[number].store)):
        name = key[len(OFFENCES.prefix) :]
        public_key, rest = name[:PUBLIC_KEY_BYTES], name[PUBLIC_KEY_BYTES:]
        (offender,) = (node.number for node in net.nodes if node.key.public_key == public_key)
        found.append((offender, int.from_bytes(rest[:8], "big"), rest[8:-1].decode(), record))
    return found


def _get_core(node: Node) -> Core:
    assert node.core is not None
    return node.core
