"""What a synthetic task is, and the examples that are drawn from it.

examples = draw_examples(TASKS["parity"], length=40, train=5000, held_out=2000, seed=0)
examples.train.tokens        # int64 [5000, 40], 0 is padding
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.study.errors import StudyError

PADDING = 0
_PATIENCE = 200  # draws for each example asked for, before there are too few distinct ones

# (random numbers, length) -> symbols of one example and the number of its class.
Draw = Callable[[np.random.Generator, int], tuple[list[str], int]]


@dataclass(frozen=True)
class Task:
    """A classification of short strings, with the settings that the paper trains it with."""

    name: str
    symbols: tuple[str, ...]
    classes: tuple[str, ...]
    draw: Draw
    shortest: int  # a length below it makes no examples
    length: int = 40  # symbols, at most; for most tasks exactly
    blocks: int = 5
    learning_rate: float = 0.1
    decay: float = 0.9995  # of the learning rate, an epoch
    epochs: int = 500


@dataclass(frozen=True)
class Examples:
    """Symbols as numbers from 1 on, int64 [N, L], 0 for padding at the right; how many symbols are
    real, int64 [N]; and the classes, int64 [N]."""

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def most_frequent(self) -> float:
        """Share of the most frequent class: what guessing it would reach."""
        return float(np.bincount(self.labels).max() / len(self))


@dataclass(frozen=True)
class Split:
    """Training and held-out examples, no string of which stands in both, or twice in one."""

    train: Examples
    held_out: Examples


def draw_examples(task: Task, *, length: int, train: int, held_out: int, seed: int) -> Split:
    """Distinct examples of `task`, of at most `length` symbols; the same for the same arguments.

    Raises StudyError where the length is too small for the task, or for so many distinct strings.
    """
    if length < task.shortest:
        raise StudyError(f"{task.name} needs a length of at least {task.shortest}, got {length}")
    if min(train, held_out) < 1:
        raise StudyError(f"expected at least one example of each kind, got {train}, {held_out}")
    random = np.random.default_rng((seed, length))
    found: dict[tuple[str, ...], int] = {}
    wanted = train + held_out
    for _ in range(_PATIENCE * wanted):
        if len(found) == wanted:
            break
        symbols, label = task.draw(random, length)
        found[tuple(symbols)] = label
    else:
        raise StudyError(
            f"{task.name} has too few distinct strings of length {length} for {wanted} examples; "
            "ask for longer ones, or for fewer"
        )
    number = {symbol: i for i, symbol in enumerate(task.symbols, start=1)}
    tokens = np.full((wanted, length), PADDING, dtype=np.int64)
    for row, drawn in zip(tokens, found, strict=True):
        row[: len(drawn)] = [number[symbol] for symbol in drawn]
    every = Examples(
        tokens,
        np.array([len(symbols) for symbols in found], dtype=np.int64),
        np.array(list(found.values()), dtype=np.int64),
    )
    return Split(_rows(every, slice(0, train)), _rows(every, slice(train, wanted)))


def with_start(split: Split, symbol: int) -> Split:
    """The same examples after one more `symbol`, the same in all: where a pattern's global tokens
    are the first ones, the first of them then says nothing of the task."""
    return Split(*(_started(examples, symbol) for examples in (split.train, split.held_out)))


def _started(examples: Examples, symbol: int) -> Examples:
    tokens = np.pad(examples.tokens, ((0, 0), (1, 0)), constant_values=symbol)
    return replace(examples, tokens=tokens, lengths=examples.lengths + 1)


def _rows(examples: Examples, rows: slice) -> Examples:
    return Examples(examples.tokens[rows], examples.lengths[rows], examples.labels[rows])
