"""Parity: does `b` occur an even number of times? Every symbol matters.

Source: Delétang et al. 2023, arXiv 2207.02098.
"""

from __future__ import annotations

import numpy as np

from training.study.tasks.task import Task


def draw(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    bits = random.integers(2, size=length)
    return ["ab"[i] for i in bits], int(bits.sum() % 2 == 0)


PARITY = Task("parity", ("a", "b"), ("odd", "even"), draw, shortest=1, epochs=1000)
