"""How many threads a process may use, so that all of a service together have one for each core."""

from __future__ import annotations

from export.processors import processors
from service.settings import Settings


def threads_of_worker(settings: Settings, index: int) -> int:
    """Threads of one run of a model in worker `index`, from 1: those of the settings, or this
    worker's share of the cores."""
    if settings.threads is not None:
        return settings.threads
    share, rest = divmod(processors(), settings.workers)
    return max(1, share + (index <= rest))
