"""The measurements measure: a small load on real processes, and each figure is of what was committed."""

from __future__ import annotations

import pytest

from ledger.primitives import format_address
from node.bench.catching_up import measure_catching_up
from node.bench.field import ACCOUNT_CENTS, BenchError, open_field
from node.bench.measure import measure_transfers
from node.bench.run import BenchOptions, Measurement, format_table, run, to_json
from node.keystore import SigningKey

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


async def test_transfers_are_counted_one_by_one_however_many_a_request_has() -> None:
    async with open_field(validators=1, block_ms=BLOCK_MS) as field:
        for per_request in (1, 20):
            result = await measure_transfers(field, count=COUNT, connections=2, per_request=per_request)
            assert result.count == COUNT
        # Each went from one account to the next: only the first has less now, and only the last has more.
        balances = [
            await field.clients[0].credit_balance(format_address(one.address)) for one in field.accounts[: COUNT + 2]
        ]
    assert [one["balance_cents"] - ACCOUNT_CENTS for one in balances] == [-2, *[0] * (COUNT - 1), 2, 0]


@pytest.mark.parametrize("per_request", [1, 20])
async def test_a_load_that_is_refused_is_no_measurement(per_request: int) -> None:
    async with open_field(validators=1, block_ms=BLOCK_MS) as field:
        field.accounts[7] = SigningKey.from_seed(b"stranger".ljust(32))
        with pytest.raises(BenchError, match="participant_unknown"):
            await measure_transfers(field, count=COUNT, connections=2, per_request=per_request)


async def test_each_number_of_transfers_a_request_is_a_row_of_its_own() -> None:
    options = BenchOptions((Measurement.TRANSFERS,), validators=(1,), transfers=COUNT, block_ms=BLOCK_MS)
    results = await run(options)
    assert [(one.what, one.validators, one.count) for one in results] == [
        ("transfers", 1, COUNT),
        ("transfers, 20 a request", 1, COUNT),
    ]
