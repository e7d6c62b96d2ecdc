"""What reads the whole state leaves the node its time, and never outlives the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ledger.fields import Json
from node.jsonrpc import OVERLOADED, Fault
from node.leveldb_store import LevelDbStore
from node.rpc_long_reads import LONG_READS, LONG_READS_MAX, LongReads
from node.rpc_methods import METHODS
from tests.node.fake_service import FakeService

AUDIT = METHODS["chain_audit"]


class StoredService(FakeService):
    """A ``FakeService`` whose chain is on disk."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.disk = LevelDbStore(path)
        self.disk.write(dict(self.store.scan(b"", b"\xff" * 8)))

    @property
    def reader(self) -> LevelDbStore:
        return self.disk


@pytest.fixture
def service(tmp_path: Path) -> Iterator[StoredService]:
    made = StoredService(tmp_path)
    yield made
    made.disk.close()


def read_reason(caught: pytest.ExceptionInfo[Fault]) -> tuple[int, Json]:
    assert isinstance(caught.value.data, dict)
    return caught.value.code, caught.value.data["reason"]


async def test_an_audit_runs_beside_the_loop_and_says_the_same(service: StoredService) -> None:
    threads: list[int] = []

    def handle(given: Any) -> Json:
        threads.append(threading.get_ident())
        return cast(Json, AUDIT.handle(given))

    answer = await LongReads(service).answer(replace(AUDIT, handle=handle), {})
    assert answer == AUDIT.handle(service)
    assert threads != [threading.get_ident()]


async def test_one_is_answered_at_a_time_and_few_wait(service: StoredService) -> None:
    reads = LongReads(service)
    go_on, running, most = threading.Event(), [0], [0]
    began, loop = asyncio.Event(), asyncio.get_running_loop()

    def handle(_given: Any) -> Json:
        loop.call_soon_threadsafe(began.set)
        running[0] += 1
        most[0] = max(most[0], running[0])
        go_on.wait(20)
        running[0] -= 1
        return {}

    slow = replace(AUDIT, handle=handle)
    asked = [asyncio.create_task(reads.answer(slow, {})) for _ in range(LONG_READS_MAX)]
    await began.wait()
    with pytest.raises(Fault) as caught:
        await reads.answer(slow, {})
    assert read_reason(caught) == (OVERLOADED, "questions_too_many")
    go_on.set()
    assert await asyncio.gather(*asked) == [{}] * LONG_READS_MAX
    assert most == [1]


async def test_a_node_that_stops_ends_what_is_under_way_before_its_store_is_closed(service: StoredService) -> None:
    reads = LongReads(service)
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle(given: Any) -> Json:
        loop.call_soon_threadsafe(began.set)
        while True:
            given.reader.get(b"x")

    asked = [asyncio.create_task(reads.answer(replace(AUDIT, handle=handle), {})) for _ in range(2)]
    await began.wait()
    await reads.stop()
    for one in asked:
        with pytest.raises(Fault) as caught:
            await one
        assert read_reason(caught) == (OVERLOADED, "node_stops")


async def test_a_caller_who_leaves_does_not_take_the_store_away_from_the_thread(service: StoredService) -> None:
    reads = LongReads(service)
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    seen: list[bytes | None] = []

    def handle(given: Any) -> Json:
        loop.call_soon_threadsafe(began.set)
        go_on.wait(20)
        seen.append(given.reader.get(b"x"))
        return {}

    asked = asyncio.create_task(reads.answer(replace(AUDIT, handle=handle), {}))
    await began.wait()
    asked.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert seen == [None]


def test_what_is_long_is_a_question() -> None:
    assert set(METHODS) >= LONG_READS
