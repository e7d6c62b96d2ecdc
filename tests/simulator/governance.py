"""What a cluster's authorities do by vote: proposals, votes and readiness, each signed by a node's own key.

Owns the ways to say these to a node, and the light client that follows a node's chain from genesis alone.
"""

from __future__ import annotations

from consensus.light_client import HeaderLink, LightBlock, verify_chain
from consensus.validators import Validator, ValidatorSet
from contracts_native.governance import (
    PROPOSALS,
    ParameterChange,
    Proposal,
    ProposalStatus,
    Propose,
    ShowReadiness,
    Vote,
)
from ledger.block import Header, compute_block_id
from ledger.primitives import Height
from ledger.state import State
from node import chain_store
from tests.simulator.cluster import Cluster


def propose(
    net: Cluster,
    by: int,
    *,
    add: int | None = None,
    remove: int | None = None,
    parameters: dict[str, int] | None = None,
    version: int | None = None,
    ahead: int = 20,
) -> None:
    """A node proposes a change, in force so many heights after its head."""
    net.submit(
        by,
        Propose(
            add_validator=None if add is None else net[add].key.public_key,
            moniker=None if add is None else f"v{add}",
            remove_validator=None if remove is None else net[remove].key.public_key,
            parameters=tuple(ParameterChange(name, value, None) for name, value in (parameters or {}).items()),
            protocol_version=version,
            effective_height=net[by].height + ahead,
        ),
        by=net[by].key,
    )


def show_readiness(net: Cluster, number: int) -> None:
    """A candidate names the block before its head."""
    node = net[number]
    height = max(node.height - 1, 0)
    block_id = compute_block_id(chain_store.get_header(node.store, height))
    net.submit(number, ShowReadiness(height, block_id), by=node.key)


def vote(net: Cluster, *numbers: int, proposal: bytes, approves: bool = True) -> None:
    """Nodes vote, each at its own door."""
    for number in numbers:
        net.submit(number, Vote(proposal, approves), by=net[number].key)


def list_proposals(net: Cluster, number: int) -> list[tuple[bytes, Proposal]]:
    """The proposals that a node knows, with their ids, in the order of proposing."""
    state = State(net[number].store)
    found = [(key[len(PROPOSALS.prefix) :], proposal) for key, proposal in PROPOSALS.scan(state)]
    return sorted(found, key=lambda pair: (pair[1].proposed_height, pair[0]))


def grow(net: Cluster, newcomer: int, voters: tuple[int, ...]) -> int:
    """Vote a follower in; returns the first height that it decides with."""
    propose(net, voters[0], add=newcomer)
    net.run_for(3_000)
    (proposal_id, proposal) = list_proposals(net, newcomer)[-1]
    show_readiness(net, newcomer)
    vote(net, *voters[1:], proposal=proposal_id)
    net.run_until(height=proposal.effective_height + 1, within_ms=120_000)
    return proposal.effective_height


def follow(net: Cluster, number: int) -> HeaderLink:
    """Verify a node's whole chain as a light client that believes the genesis document only."""
    document = net.genesis
    founders = ValidatorSet(tuple(Validator(one.public_key, one.moniker) for one in document.validators))
    reader = net[number].store
    blocks = []
    for height in range(1, net[number].height + 1):
        header, certificate = chain_store.get_header(reader, height), chain_store.find_certificate(reader, height)
        assert certificate is not None
        blocks.append(LightBlock(_link(header), certificate, chain_store.read_validators_at(reader, height)))
    context = net.context
    parent = _link(chain_store.get_header(reader, 0))
    return verify_chain(blocks, context, parent=parent, validators_hash=founders.compute_hash())


def _link(header: Header) -> HeaderLink:
    hashes = header.validators_hash, header.next_validators_hash
    return HeaderLink(Height(header.height), compute_block_id(header), header.parent_id, *hashes)


def vote_on_everything(net: Cluster) -> None:
    """Every node shows its readiness, should it be a candidate, and votes on what is open; mostly for it."""
    for node in net.nodes:
        show_readiness(net, node.number)
        for proposal_id, proposal in list_proposals(net, node.number):
            if proposal.status is ProposalStatus.OPEN:
                vote(net, node.number, proposal=proposal_id, approves=net.random.randrange(5) > 0)
