"""Missing Duplicates: a string stands twice in a row, one symbol is hidden: which?

Source: "missing duplicate string" of Delétang et al. 2023, arXiv 2207.02098.
"""

from __future__ import annotations

import numpy as np

from training.study.tasks.task import Task


def draw(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    half = ["ab"[i] for i in random.integers(2, size=length // 2)]
    symbols = half + half
    hidden = int(random.integers(len(symbols)))
    label = "ab".index(symbols[hidden])
    symbols[hidden] = "_"
    return symbols, label


MISSING_DUPLICATES = Task(
    "missing-duplicates", ("a", "b", "_"), ("a", "b"), draw, shortest=2, epochs=250
)
