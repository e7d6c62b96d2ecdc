"""What a cluster's authorities do by vote: proposals, votes and readiness, each signed by a node's own key.

Owns the ways to say these to a node, and the light client that follows a node's chain from genesis alone.
"""

from __future__ import annotations

from consensus.light_client import HeaderLink, LightBlock, verify_chain
from consensus.messages import ChainContext
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
from ledger.genesis import compute_genesis_hash
from ledger.primitives import Height
from ledger.state import State
from node import chain_store
from tests.simulator.checkers import check_all, check_liveness
from tests.simulator.cluster import CHAIN_ID, Cluster
from tests.simulator.stories import STEP_MS, STORM_STEPS, change_weather


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
    context = ChainContext(CHAIN_ID, compute_genesis_hash(document))
    parent = _link(chain_store.get_header(reader, 0))
    return verify_chain(blocks, context, parent=parent, validators_hash=founders.compute_hash())


def _link(header: Header) -> HeaderLink:
    hashes = header.validators_hash, header.next_validators_hash
    return HeaderLink(Height(header.height), compute_block_id(header), header.parent_id, *hashes)


def run_changing_seed(seed: int, *, validators: int = 4, followers: int = 1) -> Cluster:
    """Random weather in which the authorities keep changing who they are. Two phases, as in ``stories.run_seed``."""
    net = Cluster(validators=validators, seed=seed, followers=followers)
    random = net.random
    net.clock_offsets_ms = [random.randint(-400, 400) for _ in net.nodes]
    for _ in range(STORM_STEPS):
        change_weather(net)
        net.submit_something()
        for _ in range(2):
            govern_at_random(net)
            net.run_for(random.randint(1, STEP_MS))
    check_all(net)
    net.heal()
    _vote_on_everything(net)
    check_liveness(net)
    _vote_on_everything(net)
    net.run_until(height=max(node.height for node in net.nodes) + 8, within_ms=120_000)
    check_all(net)
    for node in net.nodes:
        follow(net, node.number)
    return net


def govern_at_random(net: Cluster) -> None:
    """A random node says a random thing; much of it is refused."""
    random = net.random
    number, other = random.randrange(len(net.nodes)), random.randrange(len(net.nodes))
    match random.randrange(6):
        case 0:
            propose(net, number, add=other, ahead=random.randint(2, 15))
        case 1:
            propose(net, number, remove=other, ahead=random.randint(2, 15))
        case 2:
            propose(net, number, parameters={"block_transactions_max": random.randint(1, 50)}, ahead=5)
        case 3:
            show_readiness(net, number)
        case _:
            _vote_on_everything(net)


def _vote_on_everything(net: Cluster) -> None:
    for node in net.nodes:
        show_readiness(net, node.number)
        for proposal_id, proposal in list_proposals(net, node.number):
            if proposal.status is ProposalStatus.OPEN:
                vote(net, node.number, proposal=proposal_id, approves=net.random.randrange(5) > 0)
