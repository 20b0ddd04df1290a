"""ListOps: nested lists of digits under an operator each: MAX, MIN, MED (the median, rounded down)
and SM (the sum modulo 10).

Source: Nangia and Bowman 2018, arXiv 1804.06028; as a task of long inputs, Tay et al. 2020, arXiv
2011.04006.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from training.study.tasks.task import Task

DEPTH = 10
ARGUMENTS = 10
_SMALLEST = 4  # symbols of a list: operator, two digits, the closing bracket
OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "[MAX": max,
    "[MIN": min,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
DIGITS = tuple("0123456789")


def draw(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    """A list of between 5/6 of `length` and `length` symbols: 500 to 600 for 600."""
    while True:
        symbols, value = _tree(random, length, DEPTH)
        if 6 * len(symbols) >= 5 * length:
            return symbols, value


def _tree(random: np.random.Generator, most: int, depth: int) -> tuple[list[str], int]:
    """A list nested at most `depth` deep, of at most `most` symbols, or a digit."""
    if most < _SMALLEST or depth == 0:
        digit = int(random.integers(10))
        return [str(digit)], digit
    operator = tuple(OPERATORS)[random.integers(len(OPERATORS))]
    count = int(random.integers(2, min(ARGUMENTS, most - 2) + 1))
    # One symbol for each argument; the others go to a few of them, so that lists nest.
    shares = random.multinomial(most - 2 - count, random.dirichlet(np.full(count, 0.5)))
    symbols, values = [operator], []
    for share in shares:
        inner, value = _tree(random, 1 + int(share), depth - 1)
        symbols += inner
        values.append(value)
    return [*symbols, "]"], OPERATORS[operator](values)


LISTOPS = Task(
    "listops",
    (*OPERATORS, "]", *DIGITS),
    DIGITS,
    draw,
    shortest=_SMALLEST,
    length=600,
    blocks=10,
    learning_rate=1.0,
    decay=0.99,
    epochs=200,
)
