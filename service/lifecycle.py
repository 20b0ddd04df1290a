"""How a serving process ends, and how it takes other models, at signals.

SIGTERM, SIGINT  not ready any more at once. Goes on answering for `drain_seconds`, so that whoever
                 spreads requests over several services can notice; then takes no more, finishes
                 what it has within `stop_seconds`, and ends. A second SIGINT ends it at once.
SIGHUP           loads the models anew and takes them if they are good (`service/reload.py`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger("crisp.service")

Handler = Callable[[int, Any], Any]  # as signal.signal takes it


class Lifecycle:
    """The signals of the process whose event loop runs; uvicorn ends it when it is told to."""

    def __init__(
        self,
        drain_seconds: float,
        stop_seconds: float,
        reload: Callable[[], Awaitable[object]],
    ) -> None:
        self.stopping = False
        self._drain_seconds = drain_seconds
        self._stop_seconds = stop_seconds
        self._reload = reload
        self._tasks: set[asyncio.Future[object]] = set()

    def install(self) -> None:
        """Takes the place of uvicorn's handlers, which must be there already."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            end = signal.getsignal(number)
            if callable(end):
                loop.add_signal_handler(number, self.stop, number, end)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def stop(self, number: int, end: Handler) -> None:
        """Begins to stop; `end` is uvicorn's own handler, which stops taking requests."""
        if self.stopping:
            if number == signal.SIGINT:
                end(number, None)
                end(number, None)  # the second one does not wait for anything
            return
        self.stopping = True
        logger.info("stopping: not ready any more, and what was accepted is finished")
        loop = asyncio.get_running_loop()
        loop.call_later(self._drain_seconds, end, number, None)
        for _ in range(2):
            loop.call_later(self._drain_seconds + self._stop_seconds, end, signal.SIGINT, None)

    def reload(self) -> None:
        """Loads the models anew, in the background."""
        task = asyncio.ensure_future(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it has been logged
