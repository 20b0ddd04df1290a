"""Even Pairs: is the number of neighbours that differ, `ab` and `ba` together, even?

The number is even exactly where the first symbol equals the last: one link decides it. Source:
Delétang et al. 2023, arXiv 2207.02098.
"""

from __future__ import annotations

import numpy as np

from training.study.tasks.task import Task


def draw(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    symbols = ["ab"[i] for i in random.integers(2, size=length)]
    return symbols, int(symbols[0] == symbols[-1])


EVEN_PAIRS = Task("even-pairs", ("a", "b"), ("odd", "even"), draw, shortest=2, epochs=100)
