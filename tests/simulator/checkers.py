"""The judges of a run of whole nodes: each looks at one promise, and raises `Broken` when it does not hold.

Numbered as in docs/reliability.md; `SAFETY` lists those of safety, `check_liveness` calls the others. Only honest nodes
are judged. A failure tells the one command that replays it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Final

from consensus.light_client import verify_commit
from consensus.messages import (
    ChainContext,
    Precommit,
    Prevote,
    SignedProposal,
    SignedVote,
    Step,
    Vote,
    compute_signed_bytes,
)
from consensus.round import BLOCKS_MAX
from consensus.votes import EVIDENCE_MAX, FREE_VALUES_MAX, ROUNDS_AHEAD_MAX
from contracts_native.credits import BALANCES, SUPPLY, IssueCredits
from contracts_native.evidence import OFFENCES
from ledger.errors import CorruptStore, Rejected
from ledger.primitives import PUBLIC_KEY_BYTES, Hash, PublicKey, is_valid_ed25519
from ledger.state import State
from node import chain_store
from node.core import Core
from node.evidence import EVIDENCE_MAX as EVIDENCE_HELD_MAX
from node.sync import QUEUED_BLOCKS_MAX
from node.verification import verify_store
from tests.simulator.broken import Broken
from tests.simulator.cluster import Cluster, Node
from tests.simulator.polkas import Polka, Quorums, compute_quorum, count_prevoters, find_claimed_polka
from tests.simulator.vote_log import How

SPREAD_MS: Final = 6_000  # after healing, by when rounds are within one of each other
ROUNDS_PER_VALIDATOR: Final = 2  # to decide a height after healing: every proposer has had two turns
FINALITY_HEIGHTS: Final = 50  # looked at each time
SIGNATURES_REMEMBERED: Final = 16_384  # votes; a storm has a few hundred
BLOCKS_TO_INCLUDE: Final = 3  # by honest proposers, until a transaction that everybody may know is in one


def check_all(cluster: Cluster) -> None:
    """Every promise of safety, for what has happened so far."""
    for check in SAFETY:
        check(cluster)


def check_agreement(cluster: Cluster) -> None:
    """Safety 1: one block id per height."""
    by_height: dict[int, set[Hash]] = {}
    for (number, height), block_id in cluster.observed.commits.items():
        if cluster[number].is_honest:
            by_height.setdefault(height, set()).add(block_id)
    forks = {height: ids for height, ids in by_height.items() if len(ids) > 1}
    require(cluster, not forks, "agreement", f"two blocks at one height: {forks}")


def check_validity(cluster: Cluster) -> None:
    """Safety 2: nobody halted, and the longest chain executes again from genesis, to the very state that is stored."""
    check_nobody_halts(cluster)
    check_chain(cluster, max(cluster.honest, key=lambda one: one.height))


def check_nobody_halts(cluster: Cluster) -> None:
    """Safety 2: no honest node gives up."""
    halts = [halt for halt in cluster.observed.halts if cluster[halt[0]].is_honest]
    require(cluster, not halts, "validity", f"halted: {halts}")


def check_chain(cluster: Cluster, node: Node) -> None:
    """A node's chain executes again from genesis, to the very state that is stored."""
    try:
        for _ in verify_store(node.store, cluster.genesis, node.table):
            pass
    except (Rejected, CorruptStore) as error:
        require(cluster, False, "validity", f"node {node.number}: {error}")


def check_nothing_signed_twice(cluster: Cluster) -> None:
    """Safety 3: no honest key signs two payloads for one (height, round, kind), crashes included."""
    guilty = {cluster[number].key.public_key for number in cluster.guilty}
    seen: dict[tuple[object, ...], object] = {}
    for _, signed in cluster.observed.sent:
        slot, payload = _describe(signed)
        first = payload if slot[0] in guilty else seen.setdefault(slot, payload)
        require(cluster, first == payload, "signed once", f"signed twice: {first} and {payload}")


def check_locks(cluster: Cluster) -> None:
    """Safety 4: a lock never goes back within a height, restarts included, as far as journals tell."""
    last: dict[int, tuple[int, int]] = {}
    for number, height, locked_round in cluster.observed.locks:
        before = last.get(number, (0, -1))
        holds = height > before[0] or (height, locked_round) >= before
        if cluster[number].is_honest:
            require(cluster, holds, "lock holds", f"node {number}: {before} → {(height, locked_round)}")
        last[number] = (height, locked_round)


def check_precommits_are_justified(cluster: Cluster) -> None:
    """Safety 5: a precommit for a block means that its node had seen a quorum of prevotes for it in that round."""
    _require_claimed_polkas(cluster, Precommit, "precommits are justified")


def check_prevotes_are_justified(cluster: Cluster) -> None:
    """Safety 5, of prevotes: one that names the round of a polka means that its node had seen that polka."""
    _require_claimed_polkas(cluster, Prevote, "prevotes are justified")


def _require_claimed_polkas(cluster: Cluster, kind: type[Vote], promise: str) -> None:
    """A node saw what had reached it in this life, what its journal held at the start of it, and its own votes.

    Judged at the moment of signing: what is sent after a restart may have been signed before it, with more at hand.
    """
    members = Members(cluster)
    seen: dict[int, dict[Polka, list[SignedVote]]] = {}
    was_signed: set[SignedVote] = set()
    for entry in cluster.observed.votes.entries:
        if entry.how is How.RESTORED:
            seen[entry.node] = {}
        of_node = seen[entry.node]
        for signed in entry.votes:
            vote = signed.vote
            if isinstance(vote, Prevote) and vote.block_id is not None:
                of_node.setdefault((vote.height, vote.round, vote.block_id), []).append(signed)
            is_new = entry.how is How.SIGNED or (entry.how is How.SENT and signed not in was_signed)
            polka = find_claimed_polka(vote) if is_new and type(vote) is kind else None
            if polka is not None:
                was_signed.add(signed)
                count = count_prevoters(of_node.get(polka, ()), polka, members.is_genuine)
                holds = count >= members.compute_quorum(vote.height)
                require(cluster, holds, promise, f"node {entry.node} saw {count} prevotes for {vote}")


def check_polkas_follow_commits(cluster: Cluster) -> None:
    """Safety 6: once a quorum can have precommitted a block, no later round can have a polka for another one.

    "Can": the Byzantine members of the height are taken to have said whatever would complete a quorum.
    """
    members, quorums = Members(cluster), Quorums()
    for entry in cluster.observed.votes.entries:
        for signed in entry.votes if entry.how is How.SENT else ():
            height = signed.vote.height
            if signed.voter in members.get_keys(height):
                least = members.compute_quorum(height) - members.count_guilty(height)
                problem = quorums.find_conflict(signed.vote, entry.node, honest_least=least)
                require(cluster, problem is None, "polkas follow commits", f"{problem}")


class Members:
    """Who may vote at each height, as the longest chain says, and whether a vote is one of theirs."""

    def __init__(self, cluster: Cluster) -> None:
        self._store = max(cluster.honest, key=lambda one: one.height).store
        self._guilty = {cluster[number].key.public_key for number in cluster.guilty}
        self._context = cluster.context
        self._keys: dict[int, frozenset[PublicKey]] = {}

    def get_keys(self, height: int) -> frozenset[PublicKey]:
        """The members' keys of a height."""
        if height not in self._keys:
            validators = chain_store.read_validators_at(self._store, height)
            self._keys[height] = frozenset(member.public_key for member in validators.members)
        return self._keys[height]

    def compute_quorum(self, height: int) -> int:
        """How many votes are a quorum, by a reckoning of our own."""
        return compute_quorum(len(self.get_keys(height)))

    def count_guilty(self, height: int) -> int:
        """How many of them are Byzantine."""
        return len(self._guilty & self.get_keys(height))

    def is_genuine(self, signed: SignedVote) -> bool:
        """Whether a member signed this vote."""
        return signed.voter in self.get_keys(signed.vote.height) and is_signed(self._context, signed)


@lru_cache(maxsize=SIGNATURES_REMEMBERED)
def is_signed(context: ChainContext, signed: SignedVote) -> bool:
    """Whether its voter signed it, by a reckoning of our own."""
    return is_valid_ed25519(signed.voter, compute_signed_bytes(context, signed.vote), signed.signature)


def check_certificates(cluster: Cluster) -> None:
    """Safety 7: every stored certificate verifies under its height's set, with distinct signers."""
    context = cluster.context
    for node in cluster.honest:
        for height in range(1, node.height + 1):
            certificate = chain_store.find_certificate(node.store, height)
            if certificate is None:
                require(cluster, False, "certificates verify", f"node {node.number} lost block {height}")
                continue
            try:
                verify_commit(certificate, chain_store.read_validators_at(node.store, height), context)
            except Rejected as error:
                require(cluster, False, "certificates verify", f"node {node.number} at {height}: {error}")


def check_durability(cluster: Cluster) -> None:
    """Safety 8: nothing is sent before it is durable, and what was ever told to be committed is on disk, in order."""
    early = [one for one in cluster.observed.undurable if cluster[one[0]].is_honest]
    require(cluster, not early, "durable first", f"sent before it was written: {early[:1]}")
    for (number, height), block_id in cluster.observed.commits.items():
        found = cluster[number].block_id(height) if cluster[number].is_honest else block_id
        require(cluster, found == block_id, "durable first", f"node {number} lost block {height}")
    last = [0] * len(cluster.nodes)
    for number, height in cluster.observed.commit_heights:
        require(cluster, height >= last[number], "durable first", f"node {number} went back to {height}")
        last[number] = height


def check_state_roots(cluster: Cluster) -> None:
    """Safety 9: equal height means equal state root, and the stored state has the root that its header names."""
    by_height: dict[int, set[Hash]] = {}
    for node in cluster.honest:
        stored = chain_store.load_tree(node.store).root
        named = chain_store.get_header(node.store, node.height).state_root
        require(cluster, stored == named, "state roots agree", f"node {node.number} at {node.height}")
        for height in range(1, node.height + 1):
            by_height.setdefault(height, set()).add(chain_store.get_header(node.store, height).state_root)
    apart = [height for height, roots in by_height.items() if len(roots) > 1]
    require(cluster, not apart, "state roots agree", f"two roots at heights {apart}")


def check_no_honest_node_is_blamed(cluster: Cluster) -> None:
    """Safety 10: evidence never names an honest node, nor is anything that one sends taken for an attack."""
    blames = [one for one in cluster.observed.blames if one[1] not in cluster.guilty and one[0] not in cluster.guilty]
    require(cluster, not blames, "no honest node is blamed", f"blamed: {blames[:3]}")
    for number, evidence in cluster.observed.evidence:
        first = evidence.first
        key = first.proposer if isinstance(first, SignedProposal) else first.voter
        holds = cluster.find_number(key) in cluster.guilty
        require(cluster, holds, "no honest node is blamed", f"node {number} has evidence against an honest one")
    check_offences(cluster, guilty=cluster.guilty)


def check_offences(cluster: Cluster, *, guilty: set[int]) -> None:
    """What stands on chain as an offence names the guilty and nobody else."""
    for node in cluster.honest:
        named = list_named(cluster, node)
        require(
            cluster,
            named <= guilty,
            "no honest node is blamed",
            f"node {node.number} has offences of {named} on record",
        )


def list_named(cluster: Cluster, node: Node) -> set[int]:
    """Whom the offences on a node's chain name."""
    keys = [key[len(OFFENCES.prefix) :][:PUBLIC_KEY_BYTES] for key, _ in OFFENCES.scan(State(node.store))]
    return {cluster.find_number(PublicKey(key)) for key in keys}


def check_the_guilty_are_named(cluster: Cluster) -> None:
    """Evidence on the chain of every honest node names all who are Byzantine; nobody else, as Safety 10 says."""
    for node in cluster.honest:
        missing = cluster.guilty - list_named(cluster, node)
        require(cluster, not missing, "the guilty are named", f"node {node.number} has nothing on {missing}")


def check_uniqueness(cluster: Cluster) -> None:
    """Safety 12: a transaction is in at most one block, once."""
    for node in cluster.honest:
        blocks = (chain_store.find_block(node.store, height) for height in range(1, node.height + 1))
        raws = [raw for block in blocks if block is not None for raw in block.transactions]
        require(cluster, len(set(raws)) == len(raws), "applied once", f"node {node.number} holds one twice")


def check_conservation(cluster: Cluster) -> None:
    """Safety 12: credits issued = credits held, on every node."""
    for node in cluster.honest:
        state = State(node.store)
        supply = SUPPLY.find(state)
        issued = 0 if supply is None else supply.issued_cents - supply.paid_out_cents
        held = sum(balance.cents for _, balance in BALANCES.scan(state))
        require(cluster, issued == held, "sums are conserved", f"node {node.number}: issued {issued}, held {held}")


def check_times(cluster: Cluster) -> None:
    """Safety 12: block times rise, and so do heights; every block is the child of the one before."""
    for node in cluster.honest:
        for height in range(1, node.height + 1):
            header, parent = (chain_store.get_header(node.store, h) for h in (height, height - 1))
            require(cluster, header.time_ms > parent.time_ms, "times rise", f"node {node.number}: time at {height}")


# 11 is of runs with more than f faulty (`overrun.py`).
SAFETY: Final[tuple[Callable[[Cluster], None], ...]] = (
    check_agreement,
    check_nothing_signed_twice,
    check_locks,
    check_precommits_are_justified,
    check_prevotes_are_justified,
    check_polkas_follow_commits,
    check_certificates,
    check_durability,
    check_state_roots,
    check_no_honest_node_is_blamed,
    check_uniqueness,
    check_conservation,
    check_times,
    check_validity,
)
# Of a run with more than f faulty: what each honest node promises whatever the others do.
SAFETY_ALWAYS: Final[tuple[Callable[[Cluster], None], ...]] = (
    check_nobody_halts,
    check_nothing_signed_twice,
    check_locks,
    check_precommits_are_justified,
    check_prevotes_are_justified,
    check_certificates,
    check_durability,
    check_no_honest_node_is_blamed,
    check_uniqueness,
    check_conservation,
    check_times,
)


def check_liveness(cluster: Cluster, *, blocks: int = 3, within_ms: int = 60_000) -> None:
    """Liveness 1 to 6, once everything is healed: everybody goes on together, within bounds."""
    start = max(node.height for node in cluster.honest)
    target, healed_ms = start + blocks, cluster.timeline.now_ms
    cluster.run_for(SPREAD_MS)
    check_rounds_come_together(cluster)
    cluster.timeline.run_until(healed_ms + within_ms, stop=lambda: cluster.have_all_reached(target))
    for check in (check_recovery, check_laggards_catch_up, check_all_decide):
        check(cluster, target=target)
    check_rounds_are_few(cluster, heights=range(start + 2, target + 1))
    check_a_transaction_is_taken(cluster)
    check_memory(cluster)
    require(cluster, len({node.block_id(target) for node in cluster.honest}) == 1, "agreement", f"at {target}")


def check_recovery(cluster: Cluster, *, target: int) -> None:
    """Liveness 5: after more than f nodes were restarted with their data intact, all honest ones reach a height."""
    restarted = [node.number for node in cluster.honest if node.starts_after_healing]
    holds = len(restarted) <= (len(cluster.nodes) - 1) // 3 or not _list_behind(cluster, target)
    require(cluster, holds, "recovery after crashes", f"{restarted} were restarted; {_tell_heights(cluster, target)}")


def check_laggards_catch_up(cluster: Cluster, *, target: int) -> None:
    """Liveness 3: whoever was not restarted has caught up with those who have reached a height."""
    behind = [number for number in _list_behind(cluster, target) if not cluster[number].starts_after_healing]
    holds = not behind or len(behind) == len(cluster.honest)
    require(cluster, holds, "laggards catch up", f"{behind} are behind; {_tell_heights(cluster, target)}")


def check_all_decide(cluster: Cluster, *, target: int) -> None:
    """Liveness 1: all honest nodes have reached a height."""
    require(cluster, not _list_behind(cluster, target), "all decide", _tell_heights(cluster, target))


def _list_behind(cluster: Cluster, target: int) -> list[int]:
    return [node.number for node in cluster.honest if node.height < target]


def _tell_heights(cluster: Cluster, target: int) -> str:
    return f"heights {[node.height for node in cluster.nodes]}, {target} was to be reached"


def check_rounds_are_few(cluster: Cluster, *, heights: range) -> None:
    """Liveness 1: these heights were decided within so many rounds."""
    most = ROUNDS_PER_VALIDATOR * len(cluster.nodes) + 2
    node = max(cluster.honest, key=lambda one: one.height)
    for height in heights:
        certificate = chain_store.find_certificate(node.store, height)
        holds = certificate is not None and certificate.round <= most
        require(cluster, holds, "all decide", f"height {height} in no or a late round")


def check_rounds_come_together(cluster: Cluster) -> None:
    """Liveness 2: the rounds of honest nodes at one height are within one of each other."""
    states = [node.core._engine.state for node in cluster.honest if node.core is not None]
    known = [state for state in states if state is not None and state.step is not Step.COMMIT]
    lowest = min((state.height for state in known), default=0)
    rounds = [state.round for state in known if state.height == lowest]
    holds = not rounds or max(rounds) - min(rounds) <= 1
    require(cluster, holds, "rounds come together", f"rounds {rounds} at height {lowest}")


def check_finality(cluster: Cluster, *, within_ms: int) -> None:
    """Liveness 1, while faults go on: no height takes longer than this after the one before, the next one included."""
    moments = [ms for _, ms in sorted(cluster.observed.decided_ms.items())[-FINALITY_HEIGHTS:]]
    waits = [later - earlier for earlier, later in pairwise([*moments, cluster.timeline.now_ms])]
    holds = not waits or max(waits) <= within_ms
    require(cluster, holds, "all decide", f"a height took {max(waits, default=0)} ms, at most {within_ms}")


def check_a_transaction_is_taken(cluster: Cluster) -> None:
    """Liveness 4: a valid transaction is in a block within so many blocks of honest proposers."""
    node = cluster.random.choice(cluster.honest)
    payload = IssueCredits(cluster.accounts[1].address, 1, "liveness")
    admission = cluster.submit(node.number, payload, by=cluster.accounts[0])
    require(
        cluster, admission is not None and admission.error is None, "transactions are taken", f"refused: {admission}"
    )
    assert admission is not None
    assert admission.tx_id is not None
    tx_id, start = admission.tx_id, node.height

    def is_settled() -> bool:
        in_block = chain_store.find_transaction_place(node.store, tx_id) is not None
        return in_block or _count_honest_blocks(cluster, node, start) > BLOCKS_TO_INCLUDE

    cluster.timeline.run_until(cluster.timeline.now_ms + 60_000, stop=is_settled)
    found = chain_store.find_transaction_place(node.store, tx_id)
    passed = _count_honest_blocks(cluster, node, start)
    require(cluster, found is not None, "transactions are taken", f"{passed} honest blocks passed without it")


def _count_honest_blocks(cluster: Cluster, node: Node, start: int) -> int:
    honest = {one.key.public_key for one in cluster.honest}
    headers = (chain_store.get_header(node.store, height) for height in range(start + 1, node.height + 1))
    return sum(header.proposer in honest for header in headers)


def check_memory(cluster: Cluster) -> None:
    """Liveness 6: what a node keeps of a height, of peers and of the pool is bounded, whatever was sent."""
    for node in cluster.honest:
        if node.core is not None:
            _check_memory_of(cluster, node.number, node.core)


def _check_memory_of(cluster: Cluster, number: int, core: Core) -> None:
    state = core._engine.state
    held = {"evidence": len(core._evidence._held), "blocks of the catch-up": len(core._sync.queue)}
    most = {"evidence": EVIDENCE_HELD_MAX, "blocks of the catch-up": QUEUED_BLOCKS_MAX}
    if state is not None:
        rounds, validators = state.round + ROUNDS_AHEAD_MAX + 1, len(state.validators)
        held["votes"] = sum(len(state.votes.list_round(round_)) for round_ in range(rounds))
        most["votes"] = 2 * rounds * validators * (FREE_VALUES_MAX * validators + 1)
        held["bodies"], most["bodies"] = len(state.blocks), BLOCKS_MAX
        held["conflicting votes"], most["conflicting votes"] = len(state.votes.evidence), EVIDENCE_MAX
    for what, count in held.items():
        require(cluster, count <= most[what], "memory is bounded", f"node {number} holds {count} {what}")


def _describe(signed: SignedProposal | SignedVote) -> tuple[tuple[object, ...], object]:
    if isinstance(signed, SignedProposal):
        return (signed.proposer, signed.proposal.height, signed.proposal.round, "proposal"), signed.proposal
    vote: Prevote | Precommit = signed.vote
    return (signed.voter, vote.height, vote.round, type(vote).__name__), vote


def require(cluster: Cluster, holds: bool, promise: str, problem: str) -> None:
    """Raise, with the command that replays the run, if it does not hold."""
    if not holds:
        raise Broken(promise, f"{problem}\nreplay: {cluster.replay}")
