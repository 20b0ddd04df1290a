"""Modular Arithmetic with brackets: the value of an expression modulo 5.

Numbers, sums, differences and products, each in brackets, a sign before a number. Source:
"modular arithmetic (brackets)" of Delétang et al. 2023, arXiv 2207.02098.
"""

from __future__ import annotations

import numpy as np

from training.study.tasks.task import Task

MODULUS = 5
DIGITS = tuple("01234")
SYMBOLS = (*DIGITS, "+", "-", "*", "(", ")")


def expression(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    """An expression of exactly `length` symbols, and its value modulo 5."""
    if length <= 2:
        digit = int(random.integers(MODULUS))
        return ["-"] * (length - 1) + [str(digit)], (-digit if length == 2 else digit) % MODULUS
    if length <= 4:
        inner, value = expression(random, length - 2)
        return ["(", *inner, ")"], value
    left_length = int(random.integers(1, length - 3))
    left, first = expression(random, left_length)
    right, second = expression(random, length - 3 - left_length)
    operator = "+-*"[random.integers(3)]
    value = {"+": first + second, "-": first - second, "*": first * second}[operator] % MODULUS
    return ["(", *left, operator, *right, ")"], value


MODULAR_ARITHMETIC = Task("modular-arithmetic", SYMBOLS, DIGITS, expression, shortest=1)
