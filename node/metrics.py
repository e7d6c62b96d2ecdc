"""What Prometheus may ask of a node.

Owns the names of the metrics. What the node knows anyway is read when somebody asks (``NodeStatus``, the store); only
the latency of calls, refusals and blocks are noted as they happen, so that a transaction pays next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from node.chain_store import read_head_height
from node.forks import list_fork_heights
from node.service import CommittedBlock, NodeService, NodeStatus

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BLOCK_BUCKETS_SECONDS: Final = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
CLOCK_SKEW: Final = "clock_skew_ms"  # a counter of NodeStatus that is a gauge, if the node gives it
REFUSALS_MAX: Final = 1_000  # reasons counted one by one; they are a fixed set, and this says so


class NodeMetrics:
    """The metrics of one node; ``observe_…`` and ``count_…`` are told by the server."""

    def __init__(self, service: NodeService, methods: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        latency = Histogram(
            "wattprint_rpc_seconds",
            "Time to answer a call, by method.",
            ["method"],
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._latency = {method: latency.labels(method) for method in methods}
        self._block_interval = Histogram(
            "wattprint_block_interval_seconds",
            "Time between the block times of one block and the next.",
            buckets=BLOCK_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._committed = Counter(
            "wattprint_committed_transactions", "Transactions in blocks since start.", registry=self.registry
        )
        self._refusals = Counter("wattprint_refusals", "Refused calls, by reason.", ["reason"], registry=self.registry)
        self._reasons: set[str] = set()
        self._last_block_ms: int | None = None
        self.registry.register(_StatusCollector(service))

    def observe_call(self, method: str, seconds: float) -> None:
        """A call of a known method was answered, well or not."""
        self._latency[method].observe(seconds)

    def count_refusal(self, reason: str) -> None:
        """A call was refused."""
        if reason not in self._reasons:
            if len(self._reasons) >= REFUSALS_MAX:
                reason = "other"
            self._reasons.add(reason)
        self._refusals.labels(reason).inc()

    def observe_block(self, block: CommittedBlock) -> None:
        """A block is durable."""
        if self._last_block_ms is not None:
            self._block_interval.observe((block.time_ms - self._last_block_ms) / 1000)
        self._last_block_ms = block.time_ms
        self._committed.inc(len(block.transactions))

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _StatusCollector(Collector):
    def __init__(self, service: NodeService) -> None:
        self._service = service

    def describe(self) -> Iterable[Metric]:
        return ()  # the status is not there yet when the registry asks for names

    def collect(self) -> Iterator[Metric]:
        status = self._service.get_status()
        gauges = {
            "height": ("Height of the last durable block.", read_head_height(self._service.reader)),
            "round": ("Round of consensus at the current height.", status.round),
            "peers": ("Connected peers.", len(status.peers)),
            "mempool_transactions": ("Transactions pending.", status.mempool_transactions),
            "mempool_bytes": ("Bytes of the transactions pending.", status.mempool_bytes),
            "forks": ("Heights of which two final blocks were seen.", len(list_fork_heights(self._service.reader))),
            "syncing": ("1 while the node catches up.", int(status.is_syncing)),
        }
        if CLOCK_SKEW in status.counters:
            gauges[CLOCK_SKEW] = (
                "How far this clock is ahead of the others'.",
                status.counters[CLOCK_SKEW],
            )
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"wattprint_{name}", text, value=value)
        yield from _collect_traffic(status)
        counted = CounterMetricFamily("wattprint_node", "What the node counted since its start.", labels=["counter"])
        for name, value in sorted(status.counters.items()):
            if name != CLOCK_SKEW:
                counted.add_metric([name], value)
        yield counted


def _collect_traffic(status: NodeStatus) -> Iterator[Metric]:
    labels = ["peer", "direction", "type"]
    messages = CounterMetricFamily("wattprint_peer_messages", "Messages of the connected peers.", labels=labels)
    sizes = CounterMetricFamily("wattprint_peer_bytes", "Bytes of the connected peers' messages.", labels=labels)
    for peer in status.peers:
        for direction, table in (("received", peer["received"]), ("sent", peer["sent"])):
            for kind, row in table.items():
                values = [peer["public_key"], direction, kind]
                messages.add_metric(values, row["messages"])
                sizes.add_metric(values, row["bytes"])
    yield messages
    yield sizes
