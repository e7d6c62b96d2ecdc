"""More liars than the protocol bears: the chain may part, and what honest nodes then owe their operators is judged.

Owns the end of such a run, in which the parts meet, and its judges. A fork itself is no failure. Where the
liars lie no more once the parts have met, what a quorum follows must go on.
"""

from __future__ import annotations

from typing import Final

from consensus.messages import DuplicateProposal, Evidence, SignedVote
from contracts_native.evidence import find_offence, find_recorded
from ledger.errors import Rejected
from ledger.primitives import Hash, PublicKey
from ledger.state import State
from node import chain_store
from node.evidence import make_report
from node.fork_proof import find_culprits, read_proof, verify_proof
from node.fork_watch import CHECK_EVERY_MS
from node.forks import Fork, list_forks
from node.queries.forks import chain_forks
from node.queries.view import View
from tests.simulator.checkers import (
    SAFETY_ALWAYS,
    Members,
    check_agreement,
    check_chain,
    check_liveness,
    check_nobody_halts,
    check_state_roots,
    list_named,
    require,
)
from tests.simulator.cluster import Cluster, Node
from tests.simulator.guilt import find_guilty, find_unjustified
from tests.simulator.vote_log import How

SETTLE_MS: Final = 15_000  # whoever has not decided does so
TELL_MS_MAX: Final = CHECK_EVERY_MS + 30_000  # a peer that was there all along is compared with no sooner
GO_ON_MS_MAX: Final = 60_000
GO_ON_BLOCKS: Final = 4


def run_overrun(cluster: Cluster, *, are_reformed: bool) -> None:
    """The parts meet, with liars who may lie no more; then judge. Raises ``Broken``."""
    check_always(cluster)
    for node in cluster.nodes:
        if node.mask is not None:
            node.mask.is_reformed = are_reformed
    cluster.meet()
    cluster.heal()
    cluster.run_for(SETTLE_MS)
    if find_parting(cluster) is not None:
        judge_fork(cluster, are_reformed=are_reformed)
    else:
        judge_unforked(cluster, are_reformed=are_reformed)
    check_always(cluster)
    check_evidence_is_what_was_heard(cluster)
    check_all_votes_name_the_guilty(cluster)


def check_always(cluster: Cluster) -> None:
    """What each honest node promises, however many lie."""
    for check in SAFETY_ALWAYS:
        check(cluster)
    for node in cluster.honest:
        check_chain(cluster, node)


def judge_unforked(cluster: Cluster, *, are_reformed: bool) -> None:
    """There is one chain. If the liars lie no more, it goes on, and nobody tells of a fork.

    Else they may still show one that only they hold: a block with the precommit of an honest node that missed theirs.
    """
    check_agreement(cluster)
    check_state_roots(cluster)
    for node in cluster.honest:
        for fork in list_forks(node.store):
            _check_fork(cluster, node, fork)
    if are_reformed:
        require(cluster, not cluster.observed.forks, "no alarm without a fork", f"{cluster.observed.forks[:1]}")
        check_liveness(cluster)


def judge_fork(cluster: Cluster, *, are_reformed: bool) -> None:
    """Everybody tells; who is on a branch that a quorum follows goes on, and has the evidence on it."""
    deadline_ms, honest = cluster.timeline.now_ms + TELL_MS_MAX, {node.number for node in cluster.honest}
    cluster.timeline.run_until(deadline_ms, stop=lambda: honest <= {number for number, _ in cluster.observed.forks})
    check_fork_is_told(cluster)
    check_parting_is_told(cluster)
    check_all_are_up(cluster)
    if are_reformed:
        check_branches_go_on(cluster)
        check_evidence_is_recorded(cluster)
        check_all_are_up(cluster)


def check_fork_is_told(cluster: Cluster) -> None:
    """Safety 11 of a node by itself: it keeps both certificates, and says of nobody innocent that he is guilty.

    In one round whoever signed both is guilty. In two rounds these are suspects: an honest one may be among them.
    """
    for node in cluster.honest:
        forks = list(list_forks(node.store))
        require(cluster, bool(forks), "a fork is told", f"node {node.number} keeps none")
        for fork in forks:
            _check_fork(cluster, node, fork)
        for shown in chain_forks(View(node.store, node.table))["forks"]:
            verify_proof(read_proof(shown["proof"]), cluster.genesis)
        innocent = list_named(cluster, node) - cluster.guilty
        require(cluster, not innocent, "no honest node is blamed", f"offences of {innocent} on record")


def check_parting_is_told(cluster: Cluster) -> None:
    """The record is of the first height that differs. Liars who answer with now this chain, now that can hide it."""
    parting = find_parting(cluster)
    for node in cluster.honest:
        told = [(fork.height, fork.is_first) for fork in list_forks(node.store)]
        problem = f"node {node.number} keeps {told}, the chains part at {parting}"
        require(cluster, told == [(parting, True)], "a fork is told", problem)


def _check_fork(cluster: Cluster, node: Node, fork: Fork) -> None:
    validators = chain_store.read_validators_at(node.store, fork.height)
    for final in (fork.ours, fork.theirs):
        try:
            final.verify(validators, cluster.context)
        except Rejected as error:
            require(cluster, False, "a fork names the guilty", f"node {node.number}: {error}")
    kept = (fork.ours.compute_block_id(), fork.theirs.compute_block_id())
    is_own = kept[0] == node.block_id(fork.height) != kept[1]
    require(cluster, is_own, "a fork is told", f"node {node.number} keeps {kept} at {fork.height}")
    culprits = find_culprits(fork.ours, fork.theirs, validators)
    guilty = {cluster.find_number(one.public_key) for one in culprits.guilty}
    named = guilty | {cluster.find_number(one.public_key) for one in culprits.suspects}
    is_exact = guilty <= cluster.guilty and len(named) >= 2 * validators.quorum - len(validators)
    is_one_round = fork.ours.commit.round == fork.theirs.commit.round
    holds = is_exact and is_one_round == bool(guilty)
    require(cluster, holds, "a fork names the guilty", f"node {node.number} names {guilty}, {named} signed both")


def check_branches_go_on(cluster: Cluster) -> None:
    """Whoever is on a branch that a quorum follows decides on."""
    going = list_going_on(cluster)
    target = {node.number: node.height + GO_ON_BLOCKS for node in going}
    deadline_ms = cluster.timeline.now_ms + GO_ON_MS_MAX
    cluster.timeline.run_until(deadline_ms, stop=lambda: all(one.height >= target[one.number] for one in going))
    stuck = [node.number for node in going if node.height < target[node.number]]
    heights = [node.height for node in cluster.nodes]
    require(cluster, not stuck, "a branch goes on", f"{stuck} of {sorted(target)} stand still: heights {heights}")


def check_all_are_up(cluster: Cluster) -> None:
    """No honest node has given up, whichever branch it is on."""
    check_nobody_halts(cluster)
    down = [node.number for node in cluster.honest if node.core is None]
    require(cluster, not down, "a branch goes on", f"{down} are down")


def check_evidence_is_recorded(cluster: Cluster) -> None:
    """What a node found that stands by itself is on its chain, if that goes on."""
    for node in list_going_on(cluster):
        state = State(node.store)
        for report in map(make_report, list_found(cluster, node)):
            kind = find_offence(report.first, report.second)
            assert kind is not None
            is_recorded = find_recorded(state, report.offender, report.first.height, kind) is not None
            problem = f"node {node.number} found {kind} of {cluster.find_number(report.offender)}: it is not on chain"
            require(cluster, is_recorded, "evidence is recorded", problem)


def check_evidence_is_what_was_heard(cluster: Cluster) -> None:
    """A node names by evidence exactly whom the votes convict that reached it while it decided, and by its forks.

    This is all that a node can tell by itself: votes of a height that is over are looked at no more.
    """
    height = get_attacked(cluster)
    heard = list_heard_in_time(cluster, height)
    for node in cluster.honest:
        expected = find_guilty(heard.get(node.number, ()))
        told = {one.first.voter for fork in list_forks(node.store) for one in fork.list_duplicates()}
        found = {
            one.first.voter
            for one in list_found(cluster, node)
            if not isinstance(one, DuplicateProposal) and one.first.vote.height == height
        }
        problem = f"node {node.number}: {_name(cluster, found)}; {_name(cluster, expected)} and {_name(cluster, told)}"
        require(cluster, found == expected | told, "evidence is what was heard", problem)


def check_all_votes_name_the_guilty(cluster: Cluster) -> None:
    """Safety 11 of all honest nodes together: what they hold convicts as many as a fork takes, and only liars."""
    height, members = get_attacked(cluster), Members(cluster)
    quorum, count = members.compute_quorum(height), len(members.get_keys(height))
    held = list_held(cluster, height)
    guilty = {cluster.find_number(key) for key in find_guilty(held) | find_unjustified(held, quorum)}
    innocent = guilty - cluster.guilty
    require(cluster, not innocent, "a fork names the guilty", f"{sorted(innocent)} are innocent")
    is_enough = find_parting(cluster) is None or len(guilty) >= 2 * quorum - count
    require(cluster, is_enough, "a fork names the guilty", f"a fork, and all votes name only {sorted(guilty)}")


# — what the judges look at —


def get_attacked(cluster: Cluster) -> int:
    """The height that the liars attacked."""
    assert cluster.attack is not None, "puppets attack a height"
    return cluster.attack.height


def find_parting(cluster: Cluster) -> int | None:
    """The first height of which there are two blocks, among the honest and the liars who lie no more."""
    heights = range(1, max(node.height for node in cluster.honest) + 1)
    return next((height for height in heights if len(list_ids(cluster, height)) > 1), None)


def list_ids(cluster: Cluster, height: int) -> set[Hash]:
    """What they hold at a height."""
    reformed = [node for node in cluster.nodes if node.mask is not None and node.mask.is_reformed]
    ids = (node.block_id(height) for node in (*cluster.honest, *reformed))
    return {block_id for block_id in ids if block_id is not None}


def list_going_on(cluster: Cluster) -> list[Node]:
    """The honest nodes on branches that a quorum follows, liars included."""
    parting = find_parting(cluster)
    assert parting is not None
    quorum = chain_store.read_validators_at(cluster.honest[0].store, parting).quorum
    branches = [node.block_id(parting) for node in cluster.nodes]
    followed = {block_id for block_id in branches if block_id is not None and branches.count(block_id) >= quorum}
    return [node for node in cluster.honest if node.block_id(parting) in followed]


def list_found(cluster: Cluster, node: Node) -> list[Evidence]:
    """The evidence that a node has noted."""
    return [evidence for number, evidence in cluster.observed.evidence if number == node.number]


def list_held(cluster: Cluster, height: int) -> list[SignedVote]:
    """The votes of a height that honest nodes hold together: those that reached them, their own, and certificates."""
    members = Members(cluster)
    said = dict.fromkeys(signed for entry in cluster.observed.votes.entries for signed in entry.votes)
    for node in cluster.honest:
        for fork in list_forks(node.store):
            said.update(dict.fromkeys((*fork.ours.list_votes().values(), *fork.theirs.list_votes().values())))
    return [signed for signed in said if signed.vote.height == height and members.is_genuine(signed)]


def list_heard_in_time(cluster: Cluster, height: int) -> dict[int, list[SignedVote]]:
    """The votes of a height by node: its own, and those that reached it before it had decided."""
    members = Members(cluster)
    is_over: set[int] = set()
    heard: dict[int, list[SignedVote]] = {}
    for entry in cluster.observed.votes.entries:
        votes = [signed for signed in entry.votes if signed.vote.height == height]
        if entry.how is How.DECIDED and votes:
            is_over.add(entry.node)
        elif entry.node not in is_over:
            heard.setdefault(entry.node, []).extend(filter(members.is_genuine, votes))
    return heard


def _name(cluster: Cluster, keys: set[PublicKey]) -> list[int]:
    return sorted(map(cluster.find_number, keys))
