"""The measurements measure: a small load on real processes, and each figure is of what was committed."""

from __future__ import annotations

from node.bench.catching_up import measure_catching_up
from node.bench.field import open_field
from node.bench.run import format_table, to_json

COUNT = 50
BLOCK_MS = 50


async def test_a_node_that_was_away_is_measured_until_it_has_caught_up() -> None:
    async with open_field(validators=4, block_ms=BLOCK_MS) as field:
        target = (await field.clients[0].chain_status())["height"]
        result = await measure_catching_up(field, count=COUNT)
        heights = [(await client.chain_status())["height"] for client in field.clients]
    assert min(heights) > target
    assert (result.validators, result.count) == (4, COUNT)
    assert result.duration_ms > 0
    assert len(result.memory_mb) == 4
    (shown,) = to_json([result])
    assert isinstance(shown, dict)
    assert shown["per_second"] == result.per_second
    assert f"{COUNT} in " in format_table([result])
