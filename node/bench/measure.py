"""The measurements: transfers and intervals a second, time to finality, memory.

Owns what is sent and how a figure is computed from what came back. Everything is signed before the clock starts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from contracts_native.credits import TransferCredits
from contracts_native.meters import Channel, ChannelSpec, RegisterMeter, compute_meter_id
from contracts_native.readings import UNSIGNED, Flag, Report, SubmitReadings, sign_report
from contracts_native.sites import RegisterSite, Technology
from contracts_native.table import load_table
from ledger.fields import Json
from ledger.transaction import decode_transaction, make_object_id
from node.bench.field import BenchError, Field, Watch, read_cpu_ms, read_memory_mb
from node.bench.load import LoadResult, make_request, send_all
from node.keystore import MeterSigningKey

LONE_INTERVAL_MS: Final = 1_000
METERS: Final = 40
INTERVALS_PER_REPORT: Final = 96  # a day of quarter-hours
INTERVAL_S: Final = 900
CAPACITY_W: Final = 1_000_000
START_MS: Final = 1_465_171_200_000  # 2016-06-06T00:00Z
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Throughput:
    """How much was committed by every validator in how long."""

    what: str
    validators: int
    count: int
    duration_ms: int
    nodes_cpu_ms: int
    load_cpu_ms: int
    memory_mb: tuple[int, ...]

    @property
    def per_second(self) -> int:
        """The figure."""
        return self.count * 1_000 // max(self.duration_ms, 1)


class Stopwatch:
    """Runs from its making: the clock, and the processor time of the nodes and of the load."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._began_ns = time.monotonic_ns()
        self._load_ns = time.process_time_ns()
        self._nodes_ms = read_cpu_ms(field.net)

    def stop(self, what: str, count: int) -> Throughput:
        """The figures from the beginning until now."""
        net = self._field.net
        return Throughput(
            what,
            validators=len(self._field.clients),
            count=count,
            duration_ms=(time.monotonic_ns() - self._began_ns) // 1_000_000,
            nodes_cpu_ms=read_cpu_ms(net) - self._nodes_ms,
            load_cpu_ms=(time.process_time_ns() - self._load_ns) // 1_000_000,
            memory_mb=tuple(read_memory_mb(net)),
        )


@dataclass(frozen=True, slots=True)
class Finality:
    """Time from a submission to the answer that it is committed, one at a time or at a moderate load."""

    what: str
    validators: int
    count: int
    median_ms: int
    p99_ms: int


def sign_transfers(field: Field, count: int) -> list[bytes]:
    """So many signed transfers, each from one account to the next."""
    accounts = field.accounts
    return [
        field.sign(TransferCredits(accounts[(i + 1) % len(accounts)].address, 1, ""), accounts[i % len(accounts)])
        for i in range(count)
    ]


async def measure_transfers(field: Field, *, count: int, connections: int, per_request: int) -> Throughput:
    """Signed transfers, so many in each JSON-RPC request, over all nodes."""
    await field.refresh()
    raws = [raw.hex() for raw in sign_transfers(field, count)]
    if per_request == 1:
        requests = [make_request("tx_submit", {"transaction": raw, "wait": "admitted"}) for raw in raws]
    else:
        requests = [
            make_request("tx_submit_many", {"transactions": raws[first : first + per_request], "wait": "admitted"})
            for first in range(0, count, per_request)
        ]
    async with Watch(field) as watch:
        stopwatch = Stopwatch(field)
        _check(await send_all(requests, field.ports, connections=connections))
        await watch.wait_for(count)
        return stopwatch.stop("transfers" if per_request == 1 else f"transfers, {per_request} a request", count)


async def measure_readings(field: Field, *, days: int, reports_per_transaction: int) -> Throughput:
    """Signed meter intervals: each report is a day of quarter-hours of one production meter, and mints 96 lots.

    The meters are divided into groups; each group's days go in order over a connection of its own, since a meter's
    sequence numbers rise.
    """
    meters = await _register_meters(field)
    await field.refresh()
    groups = [meters[first : first + reports_per_transaction] for first in range(0, METERS, reports_per_transaction)]
    loads = [_make_load(field, group, days) for group in groups]
    async with Watch(field) as watch:
        stopwatch = Stopwatch(field)
        ports = field.ports
        sending = [send_all(load, [ports[i % len(ports)]], connections=1) for i, load in enumerate(loads)]
        for result in await asyncio.gather(*sending):
            _check(result)
        await watch.wait_for(days * len(groups))
        return stopwatch.stop("intervals", days * METERS * INTERVALS_PER_REPORT)


async def measure_finality(field: Field, *, count: int, interval_ms: int) -> Finality:
    """The time from sending one transfer to hearing that it is committed, at this interval.

    At ``LONE_INTERVAL_MS`` or more each meets an idle chain: no block interval to wait for, no other to share with.
    """
    await field.refresh()
    accounts, client = field.accounts, field.clients[0]

    async def submit_one(number: int) -> int:
        payload = TransferCredits(accounts[(number + 1) % len(accounts)].address, 1, "")
        raw = field.sign(payload, accounts[number % len(accounts)])
        began = time.monotonic_ns()
        params: dict[str, Json] = {"transaction": raw.hex(), "wait": "committed", "timeout_ms": 60_000}
        answer = await client.request("tx_submit", params, timeout_ms=60_000)
        assert isinstance(answer, dict)
        if answer.get("status") != "committed":
            raise BenchError("load_refused", answer)
        return (time.monotonic_ns() - began) // 1_000_000

    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(submit_one(number)))
        await asyncio.sleep(interval_ms / 1000)
    what = "lone transfer" if interval_ms >= LONE_INTERVAL_MS else f"at {1000 // interval_ms} transfers a second"
    return _summarise(what, field, list(await asyncio.gather(*tasks)))


async def _register_meters(field: Field) -> list[tuple[bytes, MeterSigningKey]]:
    owner = field.accounts[0]
    site = RegisterSite(owner.address, Technology.SOLAR, "DE", CAPACITY_W, "bench", START_MS)
    raw = field.sign(site, field.utility, [owner])
    await field.submit_many([raw])
    site_id = make_object_id("site", decode_transaction(raw, load_table()).tx_id)
    meters = []
    raws = []
    for i in range(METERS):
        key = MeterSigningKey.from_seed(f"bench meter {i}".encode().ljust(32, b"."))
        spec = ChannelSpec(Channel.PRODUCTION, CAPACITY_W, INTERVAL_S)
        payload = RegisterMeter(site_id, f"bench-{i}", key.public_key, (spec,), START_MS)
        raws.append(field.sign(payload, field.utility, [owner]))
        meters.append((compute_meter_id(field.utility.address, f"bench-{i}"), key))
    await field.submit_many(raws)
    return meters


def _make_load(field: Field, meters: Sequence[tuple[bytes, MeterSigningKey]], days: int) -> list[bytes]:
    registers_wh = [0] * len(meters)
    requests = []
    for day in range(days):
        reports = []
        for i, (meter, key) in enumerate(meters):
            report = _make_report(field, meter, key, day, register_wh=registers_wh[i])
            registers_wh[i] = report.register_end_wh
            reports.append(report)
        raw = field.sign(SubmitReadings(tuple(reports)), field.accounts[day % len(field.accounts)])
        requests.append(make_request("tx_submit", {"transaction": raw.hex(), "wait": "admitted"}))
    return requests


def _make_report(field: Field, meter: bytes, key: MeterSigningKey, day: int, *, register_wh: int) -> Report:
    values_wh = tuple(1_000 + (meter[0] * 7 + day * 13 + i * 3) % 500 for i in range(INTERVALS_PER_REPORT))
    report = Report(
        meter=meter,
        channel=Channel.PRODUCTION,
        sequence=day + 1,
        start_ms=START_MS + day * DAY_MS,
        interval_s=INTERVAL_S,
        values_wh=values_wh,
        register_start_wh=register_wh,
        register_end_wh=register_wh + sum(values_wh),
        flag=Flag.MEASURED,
        signature=UNSIGNED,
    )
    return sign_report(report, field.chain_id, key.sign)


def _check(result: LoadResult) -> None:
    if result.refused:
        raise BenchError("load_refused", result.refusals[0])


def _summarise(what: str, field: Field, times_ms: list[int]) -> Finality:
    ordered = sorted(times_ms)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return Finality(what, len(field.clients), len(ordered), ordered[len(ordered) // 2], p99)
