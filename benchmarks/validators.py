"""What a height costs as the set of validators grows: messages, bytes, processor time, and virtual time to finality.

    python -m benchmarks.validators [--heights 20] [--sizes 4 7 10 16 25 40]

Whole nodes (core, ledger, real signatures, the bytes of the wire) in one process under a virtual clock. Every message
takes 50 to 150 ms, as between distant sites, and sometimes overtakes another. With ``--stopped`` as many validators as
the protocol bears are down throughout, each third one.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Final

from consensus.codec import encode_message
from contracts_native.credits import IssueCredits
from node import chain_store
from p2p.messages import PeerMessage, encode_frame
from tests.simulator.checkers import check_all
from tests.simulator.cluster import Cluster
from tests.simulator.world import Faults

WARM_HEIGHTS: Final = 3
WITHIN_MS: Final = 600_000
LOOK_MS: Final = 10
WIDE_AREA: Final = Faults(delay_ms_least=50, delay_ms_most=150)


class CountingCluster(Cluster):
    """Counts what its nodes send."""

    messages = 0
    sent_bytes = 0

    def send(self, sender: int, receivers: frozenset[int], message: PeerMessage) -> None:
        self.messages += len(receivers)
        self.sent_bytes += len(receivers) * len(encode_frame(message))
        super().send(sender, receivers, message)


def main() -> None:
    """Measure each size, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validators", description=__doc__)
    parser.add_argument("--heights", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 7, 10, 16, 25, 40])
    parser.add_argument("--stopped", action="store_true", help="with as many down as the protocol bears")
    options = parser.parse_args()
    print("| validators | down | final, median | most | rounds up to | messages | KiB | processor ms | certificate |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in options.sizes:
        print(measure(size, options.heights, stopped=(size - 1) // 3 if options.stopped else 0), flush=True)


def measure(size: int, heights: int, *, stopped: int) -> str:
    """One row: messages, bytes and processor time are those of one node that is up, for one height."""
    cluster = CountingCluster(size, seed=size)
    cluster.network.faults = WIDE_AREA
    for number in range(1, size, 3)[:stopped]:
        cluster.crash(number)
    cluster.run_until(height=WARM_HEIGHTS, within_ms=WITHIN_MS)
    cluster.messages = cluster.sent_bytes = 0
    waits: list[int] = []
    first = cluster[0].height
    began_ns = time.process_time_ns()
    while cluster[0].height < first + heights:
        waits.append(pay(cluster))
    spent_ms = (time.process_time_ns() - began_ns) / 1_000_000
    check_all(cluster)
    certificates = [chain_store.find_certificate(cluster[0].store, first + at) for at in range(1, heights + 1)]
    known = [one for one in certificates if one is not None]
    each = (size - stopped) * (cluster[0].height - first)
    return (
        f"| {size} | {stopped} | {median(waits):,.0f} ms | {max(waits):,} ms | {max(one.round for one in known)} "
        f"| {cluster.messages / each:.0f} | {cluster.sent_bytes / each / 1024:.1f} | {spent_ms / each:.1f} "
        f"| {max(len(encode_message(one)) for one in known):,} bytes |"
    )


def pay(cluster: Cluster) -> int:
    """Pay once through a node that is up: virtual milliseconds until every node that is up has the payment."""
    began_ms, up = cluster.timeline.now_ms, [node for node in cluster.nodes if node.core is not None]
    through = up[cluster.random.randrange(len(up))]
    payment = IssueCredits(cluster.accounts[1].address, 1, f"at {began_ms}")
    admission = cluster.submit(through.number, payment, by=cluster.accounts[0])
    assert admission is not None
    assert admission.tx_id is not None, admission.error
    while not all(chain_store.find_transaction_place(node.store, admission.tx_id) for node in up):
        cluster.run_for(LOOK_MS)
        assert cluster.timeline.now_ms < began_ms + WITHIN_MS
    return cluster.timeline.now_ms - began_ms


if __name__ == "__main__":
    main()
