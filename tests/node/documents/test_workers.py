"""The threads of document stores: the event loop goes on, errors arrive, and too many calls are refused at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ledger.errors import Malformed
from node.documents.store import StoreFailed
from node.documents.workers import StoreWorkers


async def test_a_call_runs_beside_the_event_loop_and_its_result_or_error_arrives() -> None:
    workers = StoreWorkers(threads_max=1, waiting_max=1)
    assert await workers.run(threading.current_thread) is not threading.current_thread()

    def fail() -> None:
        raise Malformed("cid_invalid", "x")

    with pytest.raises(Malformed, match="cid_invalid: x"):
        await workers.run(fail)
    workers.close()


async def test_calls_beyond_the_limit_are_refused_and_room_comes_back() -> None:
    workers = StoreWorkers(threads_max=2, waiting_max=1)
    go_on = threading.Event()
    calls = [asyncio.create_task(workers.run(lambda: go_on.wait(10))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(StoreFailed, match="store_busy"):
        await workers.run(lambda: None)
    go_on.set()
    assert await asyncio.gather(*calls) == [True] * 3
    assert await workers.run(lambda: 7) == 7
    workers.close()


async def test_a_call_that_nobody_waits_for_any_more_still_counts_until_it_ends() -> None:
    workers = StoreWorkers(threads_max=1, waiting_max=0)
    go_on, started = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        assert go_on.wait(10)

    task = asyncio.create_task(workers.run(wait))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(StoreFailed, match="store_busy"):
        await workers.run(lambda: None)
    go_on.set()
    workers.close()


def test_a_call_that_outlives_its_event_loop_ends_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    workers = StoreWorkers(threads_max=1)
    go_on, started, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert go_on.wait(10)
        try:
            workers.check_open()
        finally:
            ended.set()

    async def leave() -> None:
        task = asyncio.create_task(workers.run(work))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        workers.close()
        with pytest.raises(StoreFailed, match="work_abandoned"):
            await workers.run(lambda: None)

    asyncio.run(leave())
    go_on.set()
    assert ended.wait(10)
    with pytest.raises(StoreFailed, match="work_abandoned"):
        workers.check_open()
    assert caplog.records == []
