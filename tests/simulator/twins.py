"""A cluster that really forks: two of four whole validators run twice, with one key, each copy in a part of its own.

Owns who is a copy of whom, and the judge of what honest nodes make of the fork. Nodes 0 and 1 are honest; 2 and 3 are
not, and 4 and 5 are their copies. A message for a key goes to every copy of it that can be reached.
"""

from __future__ import annotations

from typing import Final

from ledger.primitives import PublicKey
from node import chain_store
from node.fork_proof import find_culprits
from node.forks import list_forks
from p2p.messages import PeerMessage
from tests.simulator.checkers import require
from tests.simulator.cluster import Cluster, Node
from tests.simulator.overrun import check_fork_is_told

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
        """As always; without the copies, the liars have one chain."""
        for number in COPY_OF if not with_copies else ():
            self.crash(number)
        super().meet()

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


def check_twins_are_told(net: TwinCluster) -> None:
    """Safety 11 on whole nodes: each honest node keeps the fork, and names the two, whose copies alone signed both."""
    check_fork_is_told(net)
    for node in net.honest:
        for fork in list_forks(node.store):
            culprits = find_culprits(fork.ours, fork.theirs, chain_store.read_validators_at(node.store, fork.height))
            named = {net.find_number(one.public_key) for one in (*culprits.guilty, *culprits.suspects)}
            require(net, named == LIARS, "a fork names the guilty", f"node {node.number} names {named}")
