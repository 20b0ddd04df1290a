"""How much memory there is, and how much the scores of dense attention take."""

from __future__ import annotations

import re
from pathlib import Path

from export.bench.workloads import Batch

_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int | None:
    """Bytes that can be allocated without swapping, or None where the system does not say."""
    if not _MEMINFO.is_file():
        return None
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def score_bytes(batch: Batch, num_heads: int) -> int:
    """Bytes of the attention scores of one layer, float32 [B, heads, S, S] with S the longest of
    the batch, twice over: scores and probabilities, or what an arena keeps in reserve."""
    return 2 * 4 * len(batch) * num_heads * max(map(len, batch)) ** 2


def fallback_bytes(batch: Batch, num_heads: int) -> int:
    """The same of our attention without the compiled operators, whose scores are [heads, T, T]."""
    return score_bytes([[0] * sum(map(len, batch))], num_heads)
