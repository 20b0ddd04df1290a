"""The tasks by name. A new one is a file with a `Task`, a line here, and a slow labeller in its
test."""

from __future__ import annotations

from training.study.errors import StudyError
from training.study.tasks.cycle_navigation import CYCLE_NAVIGATION
from training.study.tasks.even_pairs import EVEN_PAIRS
from training.study.tasks.listops import LISTOPS
from training.study.tasks.missing_duplicates import MISSING_DUPLICATES
from training.study.tasks.modular_arithmetic import MODULAR_ARITHMETIC
from training.study.tasks.parity import PARITY
from training.study.tasks.solve_equation import SOLVE_EQUATION
from training.study.tasks.stack_manipulation import STACK_MANIPULATION
from training.study.tasks.task import Task

TASKS = {
    task.name: task
    for task in (
        *(LISTOPS, EVEN_PAIRS, PARITY, MISSING_DUPLICATES, STACK_MANIPULATION),
        *(MODULAR_ARITHMETIC, SOLVE_EQUATION, CYCLE_NAVIGATION),
    )
}


def task_named(name: str) -> Task:
    """Raises StudyError where there is none."""
    if name not in TASKS:
        raise StudyError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
    return TASKS[name]
