"""Stack Manipulation: a stack, bottom first, then actions on it: what lies on top in the end?

Delétang et al. 2023 (arXiv 2207.02098) ask for the whole stack; as a classification we ask for its
top, or that it is empty. Popping an empty stack leaves it empty.
"""

from __future__ import annotations

import numpy as np

from training.study.tasks.task import Task

SYMBOLS = ("a", "b", "push a", "push b", "pop")


def draw(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    first = int(random.integers(1, length))
    start = ["ab"[i] for i in random.integers(2, size=first)]
    actions = [SYMBOLS[i] for i in random.choice([2, 3, 4, 4], size=length - first)]
    stack = list(start)
    for action in actions:
        if action == "pop":
            stack = stack[:-1]
        else:
            stack.append(action[-1])
    return start + actions, "ab".index(stack[-1]) if stack else 2


STACK_MANIPULATION = Task(
    "stack-manipulation", SYMBOLS, ("a", "b", "empty"), draw, shortest=2
)  # fmt: skip
