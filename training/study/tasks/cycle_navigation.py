"""Cycle Navigation: five places in a ring, each symbol stays, steps forward or back: where does the
walk end?

Source: Delétang et al. 2023, arXiv 2207.02098.
"""

from __future__ import annotations

import numpy as np

from training.study.tasks.task import Task

PLACES = 5


def draw(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    moves = random.integers(-1, 2, size=length)
    return ["0+-"[move] for move in moves], int(moves.sum() % PLACES)


CYCLE_NAVIGATION = Task(
    "cycle-navigation", ("0", "+", "-"), tuple("01234"), draw, shortest=1
)  # fmt: skip
