"""The judges of a simulated run: each looks at one promise and raises when it is broken.

A failure names the seed and the one command that replays it.
"""

from __future__ import annotations

from collections.abc import Iterable

from consensus.messages import Precommit, Prevote, SignedProposal, SignedVote
from contracts_native.credits import BALANCES, SUPPLY
from contracts_native.evidence import OFFENCES
from ledger.primitives import PUBLIC_KEY_BYTES, Hash, PublicKey
from ledger.state import State
from node import chain_store
from tests.simulator.cluster import Cluster


def check_all(cluster: Cluster) -> None:
    """Every promise of safety, for what has happened so far."""
    check_agreement(cluster)
    check_durability(cluster)
    check_validity(cluster)
    check_conservation(cluster)
    check_uniqueness(cluster)
    check_nothing_signed_twice(cluster)
    check_no_honest_node_is_blamed(cluster)
    check_offences(cluster, guilty=set())


def check_agreement(cluster: Cluster) -> None:
    """One block id per height, and equal state at equal height."""
    by_height: dict[int, set[Hash]] = {}
    for (_, height), block_id in cluster.observed.commits.items():
        by_height.setdefault(height, set()).add(block_id)
    forks = {height: ids for height, ids in by_height.items() if len(ids) > 1}
    _require(cluster, not forks, f"two blocks at one height: {forks}")


def check_durability(cluster: Cluster) -> None:
    """What a node has ever told to be committed is on its disk, in order, after whatever happened."""
    for (number, height), block_id in cluster.observed.commits.items():
        found = cluster[number].block_id(height)
        _require(cluster, found == block_id, f"node {number} lost block {height}")
    last = [0] * len(cluster.nodes)
    for number, height in cluster.observed.commit_heights:
        _require(cluster, height >= last[number], f"node {number} went back to {height}")
        last[number] = height


def check_validity(cluster: Cluster) -> None:
    """Nobody halted; heights, parents and times of the stored chain fit together."""
    _require(cluster, not cluster.observed.halts, f"halted: {cluster.observed.halts}")
    for node in cluster.nodes:
        for height in range(1, node.height + 1):
            header, parent = (chain_store.get_header(node.store, h) for h in (height, height - 1))
            _require(cluster, header.time_ms > parent.time_ms, f"node {node.number}: time at {height}")
        root = chain_store.get_header(node.store, node.height).state_root
        _require(cluster, chain_store.load_tree(node.store).root == root, f"node {node.number}: state root")


def check_conservation(cluster: Cluster) -> None:
    """Credits issued = credits held, on every node."""
    for node in cluster.nodes:
        state = State(node.store)
        supply = SUPPLY.find(state)
        issued = 0 if supply is None else supply.issued_cents - supply.paid_out_cents
        held = sum(balance.cents for _, balance in BALANCES.scan(state))
        _require(cluster, issued == held, f"node {node.number}: issued {issued}, held {held}")


def check_uniqueness(cluster: Cluster) -> None:
    """A transaction is in at most one block, once."""
    for node in cluster.nodes:
        blocks = (chain_store.find_block(node.store, height) for height in range(1, node.height + 1))
        raws = [raw for block in blocks if block is not None for raw in block.transactions]
        _require(cluster, len(set(raws)) == len(raws), f"node {node.number} holds a transaction twice")


def check_nothing_signed_twice(cluster: Cluster) -> None:
    """No key signs two payloads for one (height, round, kind), crashes included."""
    seen: dict[tuple[object, ...], object] = {}
    for _, signed in cluster.observed.sent:
        slot, payload = _describe(signed)
        first = seen.setdefault(slot, payload)
        _require(cluster, first == payload, f"signed twice: {first} and {payload}")
    _require(cluster, not cluster.observed.evidence, f"evidence against honest nodes: {cluster.observed.evidence}")


def check_offences(cluster: Cluster, *, guilty: set[int]) -> None:
    """What stands on chain as an offence names the guilty and nobody else."""
    for node in cluster.nodes:
        keys = [key[len(OFFENCES.prefix) :][:PUBLIC_KEY_BYTES] for key, _ in OFFENCES.scan(State(node.store))]
        named = {cluster.find_number(PublicKey(key)) for key in keys}
        _require(cluster, named <= guilty, f"node {node.number} has offences of {named} on record")


def check_no_honest_node_is_blamed(cluster: Cluster) -> None:
    """Nothing that an honest node sends is taken for an attack."""
    _require(cluster, not cluster.observed.blames, f"blamed: {cluster.observed.blames[:3]}")


def check_liveness(cluster: Cluster, *, blocks: int = 3, within_ms: int = 60_000) -> None:
    """After healing, everybody goes on together, a transaction is decided, and rounds do not run away."""
    target = max(node.height for node in cluster.nodes) + blocks
    cluster.submit_something()
    cluster.run_until(height=target, within_ms=within_ms)
    _require(cluster, len(cluster.block_ids(height=target)) == 1, f"no one block at {target}")


def _describe(signed: SignedProposal | SignedVote) -> tuple[tuple[object, ...], object]:
    if isinstance(signed, SignedProposal):
        return (signed.proposer, signed.proposal.height, signed.proposal.round, "proposal"), signed.proposal
    vote: Prevote | Precommit = signed.vote
    return (signed.voter, vote.height, vote.round, type(vote).__name__), vote


def _require(cluster: Cluster, holds: bool, problem: str) -> None:
    command = f"python -m tests.simulator --validators {len(cluster.nodes)} --seed {cluster.seed}"
    assert holds, f"{problem}\nreplay: {command}"


def list_heights(cluster: Cluster) -> Iterable[int]:
    """Each node's height, for a progress line."""
    return [node.height for node in cluster.nodes]
