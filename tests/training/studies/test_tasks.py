"""Every task against a slow labeller that is right at a glance, and the properties of its sets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.study.errors import StudyError
from training.study.tasks.registry import TASKS, task_named
from training.study.tasks.task import draw_examples, with_start

every_task = pytest.mark.parametrize("name", TASKS)


def even_pairs(symbols: list[str]) -> str:
    text = "".join(symbols)
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    return "even" if (pairs.count("ab") + pairs.count("ba")) % 2 == 0 else "odd"


def parity(symbols: list[str]) -> str:
    return "even" if symbols.count("b") % 2 == 0 else "odd"


def missing_duplicates(symbols: list[str]) -> str:
    half = len(symbols) // 2
    (answer,) = [
        fill
        for fill in "ab"
        for whole in [[fill if s == "_" else s for s in symbols]]
        if whole[:half] == whole[half:]
    ]
    return answer


def cycle_navigation(symbols: list[str]) -> str:
    place = 0
    for move in symbols:
        place = {"0": place, "+": place + 1, "-": place - 1}[move]
        place = 0 if place == 5 else 4 if place == -1 else place
    return str(place)


def stack_manipulation(symbols: list[str]) -> str:
    stack: list[str] = []
    for symbol in symbols:
        if symbol == "pop":
            if stack:
                stack.pop()
        else:
            stack.append(symbol.removeprefix("push "))
    return stack[-1] if stack else "empty"


def modular_arithmetic(symbols: list[str]) -> str:
    return str(eval("".join(symbols)) % 5)


def solve_equation(symbols: list[str]) -> str:
    left, right = "".join(symbols).split("=")
    (answer,) = [x for x in "01234" if eval(left.replace("x", x)) % 5 == int(right)]
    return answer


def listops(symbols: list[str]) -> str:
    """Rewrites the innermost list by its value until a digit is left."""
    while len(symbols) > 1:
        end = symbols.index("]")
        start = max(i for i in range(end) if symbols[i].startswith("["))
        values = sorted(map(int, symbols[start + 1 : end]))
        n = len(values)
        value = {
            "[MIN": values[0],
            "[MAX": values[-1],
            "[MED": (values[(n - 1) // 2] + values[n // 2]) // 2,
            "[SM": sum(values) % 10,
        }[symbols[start]]
        symbols = [*symbols[:start], str(value), *symbols[end + 1 :]]
    return symbols[0]


SLOW: dict[str, Callable[[list[str]], str]] = {
    "even-pairs": even_pairs,
    "parity": parity,
    "missing-duplicates": missing_duplicates,
    "cycle-navigation": cycle_navigation,
    "stack-manipulation": stack_manipulation,
    "modular-arithmetic": modular_arithmetic,
    "solve-equation": solve_equation,
    "listops": listops,
}


@every_task
@settings(max_examples=60)
@given(extra=st.integers(0, 40), seed=st.integers(0, 2**32))
def test_the_label_is_that_of_the_slow_labeller(name: str, extra: int, seed: int) -> None:
    task = TASKS[name]
    symbols, label = task.draw(np.random.default_rng(seed), task.shortest + extra)
    assert task.classes[label] == SLOW[name](symbols)
    assert 1 <= len(symbols) <= task.shortest + extra
    assert set(symbols) <= set(task.symbols)


@every_task
def test_examples_are_distinct_seeded_and_of_every_class(name: str) -> None:
    task = TASKS[name]
    split = draw_examples(task, length=24, train=300, held_out=100, seed=3)
    rows = [tuple(row) for part in (split.train, split.held_out) for row in part.tokens]
    assert len(set(rows)) == 400
    again = draw_examples(task, length=24, train=300, held_out=100, seed=3)
    other = draw_examples(task, length=24, train=300, held_out=100, seed=4)
    assert np.array_equal(split.train.tokens, again.train.tokens)
    assert not np.array_equal(split.train.tokens, other.train.tokens)
    assert set(split.train.labels) == set(range(len(task.classes)))
    for part in (split.train, split.held_out):
        real = np.arange(24) < part.lengths[:, None]
        assert np.array_equal(part.tokens > 0, real)
        assert part.tokens.max() <= len(task.symbols)
    assert split.train.most_frequent() >= 1 / len(task.classes)


@every_task
def test_fixed_lengths_are_fixed(name: str) -> None:
    split = draw_examples(TASKS[name], length=22, train=50, held_out=10, seed=0)
    if name == "listops":
        assert split.train.lengths.min() >= 5 * 22 / 6
    else:
        assert (split.train.lengths == 22).all()


def test_a_start_symbol_stands_before_every_example() -> None:
    split = draw_examples(TASKS["listops"], length=22, train=50, held_out=10, seed=0)
    started = with_start(split, 99)
    for before, after in ((split.train, started.train), (split.held_out, started.held_out)):
        assert (after.tokens[:, 0] == 99).all()
        assert np.array_equal(after.tokens[:, 1:], before.tokens)
        assert np.array_equal(after.lengths, before.lengths + 1)
        assert np.array_equal(after.labels, before.labels)


def test_listops_reaches_its_full_length_and_depth() -> None:
    symbols, _ = TASKS["listops"].draw(np.random.default_rng(0), 600)
    assert 500 <= len(symbols) <= 600
    depth = deepest = 0
    for symbol in symbols:
        depth += symbol.startswith("[") - (symbol == "]")
        deepest = max(deepest, depth)
    assert depth == 0
    assert 3 <= deepest <= 10


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(StudyError, match="too few distinct strings of length 3 for 12 examples"):
        draw_examples(TASKS["parity"], length=3, train=10, held_out=2, seed=0)
    with pytest.raises(StudyError, match="needs a length of at least 4, got 3"):
        draw_examples(TASKS["listops"], length=3, train=1, held_out=1, seed=0)
    with pytest.raises(StudyError, match="at least one example"):
        draw_examples(TASKS["parity"], length=3, train=0, held_out=1, seed=0)
    with pytest.raises(StudyError, match="unknown task 'sums'; known: listops, even-pairs"):
        task_named("sums")
