"""A cluster that really forks: two of four whole validators run twice, with one key, each copy in a part of its own.

Owns who is a copy of whom, and the judge of what honest nodes make of the fork. Nodes 0 and 1 are honest; 2 and 3 are
not, and 4 and 5 are their copies. A message for a key goes to every copy of it that can be reached.
"""

from __future__ import annotations

from typing import Final

from ledger.primitives import Hash, PublicKey
from node import chain_store
from node.fork_proof import find_culprits
from node.forks import list_forks
from node.inputs import PeerDown, PeerUp
from p2p.messages import PeerMessage
from tests.simulator.broken import Broken
from tests.simulator.checkers import list_named
from tests.simulator.cluster import Cluster, Node

HONEST: Final = (0, 1)
COPY_OF: Final = {4: 2, 5: 3}
LIARS: Final = frozenset({2, 3})
PARTS: Final = ({0, 2, 3}, {1, 4, 5})


class TwinCluster(Cluster):
    """Four validators; the copies follow under keys of their own until they are let loose."""

    def __init__(self, seed: int) -> None:
        self.are_loose = False
        super().__init__(validators=4, seed=seed, followers=len(COPY_OF))
        self.replay = f"TwinCluster(seed={seed})"

    @property
    def honest(self) -> list[Node]:
        """Those that have one copy."""
        return [self.nodes[number] for number in HONEST]

    @property
    def guilty(self) -> set[int]:
        """By the numbers of the first copies."""
        return set(LIARS)

    def part(self) -> None:
        """Each copy takes on the key that it is a copy of, and each part of the network is alone."""
        for number, original in COPY_OF.items():
            self.crash(number)
            self[number].key = self[original].key
            self[number].lose_journal()
        self.are_loose = True
        self.split(*PARTS)
        for number in COPY_OF:
            self.restart(number)

    def meet(self, *, with_copies: bool = True) -> None:
        """The parts reach each other again, over new connections; without the copies, the liars have one chain."""
        for number in COPY_OF if not with_copies else ():
            self.crash(number)
        self.network.groups = None
        for node in self.nodes:
            for other in self.nodes:
                is_apart = not any({node.number, other.number} <= part for part in PARTS)
                if is_apart and node.core is not None and other.core is not None:
                    node.later(0, PeerDown(other.key.public_key))
                    node.later(5, PeerUp(other.key.public_key, other.claim_height()))

    def run_until_both_reach(self, height: int, *, within_ms: int = 60_000) -> None:
        """Until the honest node of either part has decided a height, or for so long."""
        deadline_ms = self.timeline.now_ms + within_ms
        self.timeline.run_until(deadline_ms, stop=lambda: all(one.height >= height for one in self.honest))

    def run_until_told(self, *, within_ms: int = 60_000) -> None:
        """Until every honest node keeps a fork, or for so long."""
        deadline_ms = self.timeline.now_ms + within_ms
        self.timeline.run_until(deadline_ms, stop=lambda: all(any(list_forks(one.store)) for one in self.honest))

    def send(self, sender: int, receivers: frozenset[int], message: PeerMessage) -> None:
        """As always, and to the copies of whoever is meant."""
        copies = {copy for copy, original in COPY_OF.items() if self.are_loose and original in receivers}
        super().send(sender, (receivers | copies) - {sender}, message)

    def find_number(self, key: PublicKey) -> int:
        """The first copy of a key."""
        return next(node.number for node in self.nodes if node.key.public_key == key)


def check_fork_is_told(net: TwinCluster) -> None:
    """Safety 11 on whole nodes: each honest node keeps the fork, names the guilty, and nobody who is innocent."""
    liars = {net[number].key.public_key for number in LIARS}
    for node in net.honest:
        forks = list(list_forks(node.store))
        if not forks:
            raise Broken("a fork is told", f"node {node.number} keeps none\nreplay: {net.replay}")
        for fork in forks:
            validators = chain_store.read_validators_at(node.store, fork.height)
            culprits = find_culprits(fork.ours, fork.theirs, validators)
            named = {one.public_key for one in (*culprits.guilty, *culprits.suspects)}
            if named != liars:
                raise Broken("a fork names the guilty", f"node {node.number} names {named}\nreplay: {net.replay}")
        innocent = list_named(net, node) - LIARS
        if innocent:
            raise Broken("no honest node is blamed", f"offences of {innocent} on record\nreplay: {net.replay}")


def find_parting(net: TwinCluster) -> int:
    """The first height of which the honest nodes hold two blocks."""
    heights = range(1, min(node.height for node in net.honest) + 1)
    return next(height for height in heights if len(list_ids(net, height)) > 1)


def list_ids(net: TwinCluster, height: int) -> set[Hash | None]:
    """What the honest nodes hold at a height."""
    return {node.block_id(height) for node in net.honest}
