"""Runs measurements and shows them: ``wattprint bench transfers|readings|finality|sync|all``.

Owns the order of things and the table. Each figure comes from a fresh network.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.fields import Json
from node.bench.catching_up import VALIDATORS_MIN, measure_catching_up
from node.bench.field import Field, open_field
from node.bench.measure import (
    LONE_INTERVAL_MS,
    Finality,
    Throughput,
    measure_finality,
    measure_readings,
    measure_transfers,
)

BLOCK_MS_DEFAULT: Final = 500


class Measurement(enum.StrEnum):
    """What can be measured."""

    TRANSFERS = "transfers"
    READINGS = "readings"
    FINALITY = "finality"
    SYNC = "sync"


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """How much to measure. ``connections`` are those of the load, over all nodes."""

    measurements: tuple[Measurement, ...] = tuple(Measurement)
    validators: tuple[int, ...] = (4, 1)
    transfers: int = 10_000
    days: int = 60
    connections: int = 16
    per_request: tuple[int, ...] = (1, 20)  # transfers; each is measured
    block_ms: int = BLOCK_MS_DEFAULT


Result = Throughput | Finality


async def run(options: BenchOptions) -> list[Result]:
    """Measure one after the other. Raises ``LocalError`` when a measurement does not count."""
    results: list[Result] = []
    for validators in options.validators:
        for measurement in options.measurements:
            if measurement is Measurement.SYNC and validators < VALIDATORS_MIN:
                continue  # nobody is left to catch up with
            for per_request in options.per_request if measurement is Measurement.TRANSFERS else (1,):
                async with open_field(validators=validators, block_ms=options.block_ms) as field:
                    results += await _measure(field, measurement, options, per_request)
    return results


async def _measure(field: Field, measurement: Measurement, options: BenchOptions, per_request: int) -> list[Result]:
    match measurement:
        case Measurement.TRANSFERS:
            count, connections = options.transfers, options.connections
            return [await measure_transfers(field, count=count, connections=connections, per_request=per_request)]
        case Measurement.READINGS:
            return [await measure_readings(field, days=options.days, reports_per_transaction=10)]
        case Measurement.SYNC:
            return [await measure_catching_up(field, count=options.transfers)]
        case Measurement.FINALITY:
            alone = await measure_finality(field, count=15, interval_ms=LONE_INTERVAL_MS)
            return [alone, await measure_finality(field, count=500, interval_ms=10)]


def format_table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    lines = ["| what | validators | figure | processor time each | memory per node |", "|---|---|---|---|---|"]
    for result in results:
        if isinstance(result, Throughput):
            figure = f"{result.per_second:,} a second ({result.count:,} in {result.duration_ms / 1000:.1f} s)"
            nodes_us, load_us = result.nodes_cpu_ms * 1000 // result.count, result.load_cpu_ms * 1000 // result.count
            cpu = f"{nodes_us} µs nodes, {load_us} µs load"
            memory = f"{min(result.memory_mb)}–{max(result.memory_mb)} MB"
        else:
            figure = f"median {result.median_ms} ms, 99 % within {result.p99_ms} ms (n = {result.count})"
            cpu = memory = ""
        lines.append(f"| {result.what} | {result.validators} | {figure} | {cpu} | {memory} |")
    return "\n".join(lines)


def to_json(results: Sequence[Result]) -> list[Json]:
    """The results for machines."""
    return [
        {
            "what": result.what,
            "validators": result.validators,
            "count": result.count,
            "duration_ms": result.duration_ms,
            "per_second": result.per_second,
            "nodes_cpu_ms": result.nodes_cpu_ms,
            "load_cpu_ms": result.load_cpu_ms,
            "memory_mb": list(result.memory_mb),
        }
        if isinstance(result, Throughput)
        else {
            "what": result.what,
            "validators": result.validators,
            "count": result.count,
            "median_ms": result.median_ms,
            "p99_ms": result.p99_ms,
        }
        for result in results
    ]
