"""Tasks that nobody waits for, kept until they are done: an event loop itself would forget them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Background(set[asyncio.Task[None]]):
    """Those that are under way."""

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Runs `work` in the running event loop."""
        task = asyncio.get_running_loop().create_task(work)
        self.add(task)
        task.add_done_callback(self.discard)
