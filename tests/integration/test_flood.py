"""Permitted peers that flood every type of message at full speed do not stop finality; judged by JSON-RPC alone."""

from __future__ import annotations

from pathlib import Path

from tests.integration.flood import FACTOR_MAX, get_p95, measure_flood

QUIET_SECONDS = 2
FLOOD_SECONDS = 5
MEMORY_GROWTH_BYTES_MAX = 160 * 2**20  # of a node: queues and buffers of twelve flooders, all of them bounded


async def test_a_flood_of_every_message_type_does_not_stop_finality_nor_eat_memory(tmp_path: Path) -> None:
    measured = await measure_flood(tmp_path / "net", quiet_seconds=QUIET_SECONDS, flood_seconds=FLOOD_SECONDS)
    bound_ms = FACTOR_MAX * get_p95(measured.quiet_ms) + measured.slack_ms
    assert get_p95(measured.flooded_ms) <= bound_ms, (measured.quiet_ms, measured.flooded_ms)
    assert max(measured.grown_bytes) < MEMORY_GROWTH_BYTES_MAX
    for now in measured.after:
        assert now["wattprint_syncing"] == 0  # whatever the flooders say of their heights
        assert now['wattprint_node_total{counter="peers_banned"}'] > 0
