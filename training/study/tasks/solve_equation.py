"""Solve Equation: an expression modulo 5 with one unknown equals a number: what is the unknown?

Source: Delétang et al. 2023, arXiv 2207.02098. We draw only equations with exactly one solution.
"""

from __future__ import annotations

import numpy as np

from training.study.tasks.modular_arithmetic import DIGITS, MODULUS, SYMBOLS, expression
from training.study.tasks.task import Task

UNKNOWN = "x"


def draw(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    while True:
        symbols, value = expression(random, length - 2)
        numbers = [i for i, symbol in enumerate(symbols) if symbol in DIGITS]
        place = int(random.choice(numbers))
        label = int(symbols[place])
        symbols[place] = UNKNOWN
        values = [
            evaluate([str(x) if s == UNKNOWN else s for s in symbols]) for x in range(MODULUS)
        ]
        if values.count(value) == 1:
            return [*symbols, "=", str(value)], label


def evaluate(symbols: list[str]) -> int:
    """The value modulo 5 of an expression as `modular_arithmetic.expression` makes them."""
    stack: list[list[int | str]] = [[]]
    for symbol in symbols:
        if symbol == "(":
            stack.append([])
        elif symbol == ")":
            value = _reduce(stack.pop())
            stack[-1].append(value)
        else:
            stack[-1].append(int(symbol) if symbol in DIGITS else symbol)
    return _reduce(stack[0])


def _reduce(parts: list[int | str]) -> int:
    """The value of what stands between two brackets: [sign] number [operator [sign] number]."""
    numbers: list[int] = []
    operators: list[str] = []
    negative = False
    for i, part in enumerate(parts):
        if isinstance(part, int):
            numbers.append(-part if negative else part)
            negative = False
        elif part == "-" and (i == 0 or isinstance(parts[i - 1], str)):
            negative = True
        else:
            operators.append(part)
    if not operators:
        return numbers[0] % MODULUS
    first, second = numbers
    results = {"+": first + second, "-": first - second, "*": first * second}
    return results[operators[0]] % MODULUS


SOLVE_EQUATION = Task(
    "solve-equation", (*SYMBOLS, UNKNOWN, "="), DIGITS, draw, shortest=3
)  # fmt: skip
