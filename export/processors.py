"""How many processors there are. Needs nothing else."""

from __future__ import annotations

import os


def processors() -> int:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
