"""Threads that run a model for an event loop, with as little between them as there can be.

A thread pool of the standard library does the same by way of two futures, a lock and a condition
for each call: at one request at a time, a tenth of a millisecond that its caller waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")

_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]

_FADES = 0.9  # a lag with each further result


class Runner:
    """`count` threads that take calls in order; calls that wait when it is closed are cancelled,
    and those whose caller has gone meanwhile are not made.

    `lag` is how many seconds the event loop took to notice a result, at worst of late.
    """

    def __init__(self, count: int, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._closed = False
        self.lag = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """What `call` gives or raises, as a future of the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put((loop, future, call))
        return future

    def close(self) -> None:
        """Lets the threads end once their present calls have."""
        self._closed = True
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            loop, future, call = item
            if future.done():  # its caller has gone; to look at this needs no lock
                del item, loop, future, call
                continue
            result, error = None, None
            try:
                if self._closed:
                    raise asyncio.CancelledError
                result = call()
            except BaseException as raised:  # the future's business, as everything that it raises
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._settle, future, result, error, perf_counter())
            del item, loop, future, call, result, error  # nothing is kept alive while it waits

    def _settle(
        self, future: asyncio.Future[Any], result: Any, error: BaseException | None, ended: float
    ) -> None:
        self.lag = max(perf_counter() - ended, _FADES * self.lag)
        if future.done():  # it was cancelled
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
