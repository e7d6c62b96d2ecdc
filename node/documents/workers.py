"""A few threads for document stores, so that a slow disk or daemon never holds up the event loop.

Bounded in both directions: so many calls run, so many wait, and the next one is refused at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from node.documents.store import StoreFailed

T = TypeVar("T")

THREADS_MAX: Final = 4
WAITING_MAX: Final = 32


class StoreWorkers:
    """Runs the blocking calls of a ``DocumentStore`` and of encryption. Belongs to one event loop."""

    def __init__(self, *, threads_max: int = THREADS_MAX, waiting_max: int = WAITING_MAX) -> None:
        self._executor = ThreadPoolExecutor(threads_max, thread_name_prefix="documents")
        self._calls_max = threads_max + waiting_max
        self._calls = 0
        self._lock = threading.Lock()  # of the count: a call may outlive the event loop
        self._is_closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """What ``call`` returns or raises. Raises ``StoreFailed`` (``store_busy``) when too many calls wait.

        Whoever stops waiting does not stop the call: it runs to its own deadline, or until it looks at ``check_open``,
        and counts until then.
        """
        self.check_open()
        with self._lock:
            if self._calls >= self._calls_max:
                raise StoreFailed("store_busy", f"{self._calls} calls are under way")
            self._calls += 1
        future = self._executor.submit(call)
        future.add_done_callback(lambda _: self._count_down())
        return await asyncio.wrap_future(future)

    def check_open(self) -> None:
        """For a call to look at now and then. Raises ``StoreFailed`` (``work_abandoned``) after ``close``."""
        if self._is_closed:
            raise StoreFailed("work_abandoned", "nobody waits for it any more")

    def close(self) -> None:
        """Takes no further calls, forgets those that wait, and tells those that run."""
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _count_down(self) -> None:
        with self._lock:
            self._calls -= 1
