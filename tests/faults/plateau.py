"""Whether memory has stopped growing: what `soak.py` judges by, and how small a leak it sees."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def growth(samples: Sequence[float]) -> float:
    """Bytes by which the median of the last third exceeds that of the third before.

    What is allocated once, however late in the first third, does not count, nor does what comes and
    goes; a leak of some bytes a sample shows as a third of the samples times that.
    """
    third = len(samples) // 3
    if third < 1:
        raise ValueError(f"expected at least 3 samples, got {len(samples)}")
    return statistics.median(samples[-third:]) - statistics.median(samples[-2 * third : -third])


def leaks(samples: Sequence[float], allowed: float) -> bool:
    """Whether that is more than `allowed` percent of what there was."""
    third = len(samples) // 3
    return growth(samples) > allowed / 100 * statistics.median(samples[-2 * third : -third])


def smallest_leak(samples: Sequence[float], allowed: float, requests: int) -> float:
    """Bytes a request that would have been too many, at so many requests over all the samples."""
    return allowed / 100 * statistics.median(samples) / (requests / 3)
