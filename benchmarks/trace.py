"""How long the trace questions take for a source with a year of quarter-hours: 35,040 lots, sold and used every day.

    python -m benchmarks.trace [--days 365] [--rounds 20]

Builds the chain in memory by the real contracts and the real index, copies it into a LevelDB store in a temporary
directory, and asks there as a node does. Wall-clock milliseconds; the least, the median and the worst of the rounds.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import orjson

from contracts_native.claims import ClaimEnergy
from contracts_native.lots import LotId, SliceRef, TransferEnergy
from contracts_native.meters import Channel
from contracts_native.readings import SubmitReadings
from ledger.parameters import Parameters
from ledger.primitives import format_address
from node.leveldb_store import LevelDbStore
from node.queries.energy import energy_balance
from node.queries.lot_ids import format_lot_id
from node.queries.trace import RowsBy, trace_holder, trace_source
from node.queries.trace_lot import trace_lot
from node.queries.view import LIMIT_MAX, View
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    DAY_0_MS,
    DAY_MS,
    ORACLE,
    QUARTER_MS,
    Person,
    SigningMeter,
)
from tests.node.query_chain import QueryChain

QUARTERS: Final = 96
INTERVAL_WH: Final = 1_000
SOLD_WH: Final = 700  # of each interval, to two buyers; the rest stays with the owner
CLAIMED_QUARTERS: Final = 40  # of each buyer's day
LOT_LIFETIME_S: Final = 5 * 366 * 86_400
Question = tuple[str, Callable[[View], object]]


def main() -> None:
    """Build, ask, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace", description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    began = time.perf_counter()
    chain, plant, load = build(options.days)
    lots = options.days * QUARTERS
    print(f"{lots} lots, {chain.height} blocks, built in {time.perf_counter() - began:.0f} s\n")
    with TemporaryDirectory(prefix="wattprint-trace-") as directory:
        store = LevelDbStore(Path(directory) / "chain")
        store.write(dict(chain.store.scan(b"", b"\xff" * 64)))
        view = View(store, chain.table, chain.tree)
        gc.collect()
        gc.freeze()  # the chain in memory is the benchmark's, not the node's: keep it out of the collector's rounds
        print("| question | rows | least ms | median ms | worst ms | processor ms |\n|---|---|---|---|---|---|")
        for name, ask in list_questions(plant, load, options.days):
            rows, clock_ms, processor_ms = measure(ask, view, options.rounds)
            figures = (min(clock_ms), statistics.median(clock_ms), max(clock_ms), statistics.median(processor_ms))
            print(f"| {name} | {rows} | {' | '.join(f'{one:.1f}' for one in figures)} |")
        store.close()


def build(days: int) -> tuple[QueryChain, SigningMeter, SigningMeter]:
    """A plant that sells every day to two buyers, who use a part; one of them has a meter of its own."""
    chain = QueryChain(Parameters(lot_lifetime_s=LOT_LIFETIME_S))
    chain.time_ms = DAY_0_MS + (days + 1) * DAY_MS
    plant, load = chain.add_producer(ALICE), chain.add_consumer(BOB)
    for day in range(days):
        start_ms = DAY_0_MS + day * DAY_MS
        reports = (
            plant.report(Channel.PRODUCTION, [INTERVAL_WH] * QUARTERS),
            load.report(Channel.CONSUMPTION, [INTERVAL_WH] * QUARTERS),
        )
        chain.apply(SubmitReadings(reports), by=ORACLE)
        lots = [LotId(plant.meter_id, start_ms + i * QUARTER_MS, 1) for i in range(QUARTERS)]
        half_wh = SOLD_WH // 2
        trades = [
            chain.read(sell(lots, 0, half_wh, BOB), by=ALICE),
            chain.read(sell(lots, half_wh, SOLD_WH, CAROL), by=ALICE),
            chain.read(use(lots, 0, half_wh, BOB, day=day, meter=load.meter_id), by=BOB),
            chain.read(use(lots, half_wh, SOLD_WH, CAROL, day=day, meter=None), by=CAROL),
        ]
        chain.commit_block(trades)
    return chain, plant, load


def sell(lots: list[LotId], first_wh: int, end_wh: int, recipient: Person) -> TransferEnergy:
    """The same range of each lot of a day."""
    return TransferEnergy(recipient.address, tuple(SliceRef(lot, first_wh, end_wh) for lot in lots), "")


def use(lots: list[LotId], first_wh: int, end_wh: int, holder: Person, *, day: int, meter: bytes | None) -> ClaimEnergy:
    """A part of a day, for the holder itself."""
    slices = tuple(SliceRef(lot, first_wh, end_wh) for lot in lots[:CLAIMED_QUARTERS])
    start_ms = DAY_0_MS + day * DAY_MS
    return ClaimEnergy(slices, holder.address, "use", start_ms, start_ms + DAY_MS, f"{holder.name} {day}", meter)


def list_questions(plant: SigningMeter, load: SigningMeter, days: int) -> list[Question]:
    """The questions, each as (name, ask)."""
    del load  # asked through its owner
    source, lot = plant.meter_id.hex(), format_lot_id(LotId(plant.meter_id, DAY_0_MS + days // 2 * DAY_MS, 1))
    bob = format_address(BOB.address)
    month_end_ms = DAY_0_MS + 30 * DAY_MS
    return [
        ("trace_source, all of it", lambda view: trace_source(view, meter=source)),
        ("trace_source by hour, first page", lambda view: trace_source(view, meter=source, by=RowsBy.HOUR)),
        ("trace_source of a zone", lambda view: trace_source(view, zone="DE-LU")),
        ("trace_source, a month", lambda view: trace_source(view, meter=source, until_ms=month_end_ms)),
        ("trace_holder, all of it, first page of hours", lambda view: trace_holder(view, participant=bob)),
        ("trace_holder, every hour in one page", lambda view: trace_holder(view, participant=bob, limit=LIMIT_MAX)),
        ("trace_holder, a month", lambda view: trace_holder(view, participant=bob, until_ms=month_end_ms)),
        ("trace_lot", lambda view: trace_lot(view, lot=lot)),
        ("energy_balance", lambda view: energy_balance(view, holder=bob)),
    ]


def measure(ask: Callable[[View], object], view: View, rounds: int) -> tuple[int, list[float], list[float]]:
    """(Rows in the answer, ms by the clock of each round, ms of processor time of each round)."""
    clock_ms: list[float] = []
    processor_ms: list[float] = []
    answer: object = None
    for _ in range(rounds):
        began, began_processor = time.perf_counter(), time.process_time()
        answer = ask(View(view.reader, view.table, view.tree))  # as a node asks: nothing is decoded beforehand
        orjson.dumps(answer)
        clock_ms.append((time.perf_counter() - began) * 1_000)
        processor_ms.append((time.process_time() - began_processor) * 1_000)
    return count_rows(answer), clock_ms, processor_ms


def count_rows(answer: object) -> int:
    """The objects in all lists of an answer."""
    if isinstance(answer, dict):
        return sum(map(count_rows, answer.values()))
    if isinstance(answer, list):
        return sum(1 + count_rows(item) for item in answer if isinstance(item, dict))
    return 0


if __name__ == "__main__":
    main()
