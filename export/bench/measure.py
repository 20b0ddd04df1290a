"""Runs every contender on the same batches, in turn, and keeps each time.

A round takes one workload and one batch of it, and lets every contender run that batch once, in an
order drawn anew. So a machine that slows down does so for all, and every time has its counterparts
on the same texts, taken moments apart. Rounds of all workloads alternate: the workload that has had
least of the time is next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from export.bench.workloads import Batch, Workload, batches

WARM_UP_ROUNDS = 2  # of each workload, before the first that counts: allocations, caches, clock
FEWEST_ROUNDS = 5  # of each workload, even where that takes longer than was asked for


@dataclass(frozen=True)
class Contender:
    """`prepare(batch)` makes what `run` is timed on: padding and packing are not timed."""

    name: str
    prepare: Callable[[Batch], Any]
    run: Callable[[Any], object]


@dataclass
class Rounds:
    """The rounds of one workload: `lengths` in tokens of each batch, and `times_ms` of each
    contender, one a round."""

    lengths: list[list[int]] = field(default_factory=list)
    times_ms: dict[str, list[float]] = field(default_factory=dict)


def measure(
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    *,
    vocabulary: int,
    seconds: float,
    rounds: int | None = None,
    seed: int = 0,
    advance: Callable[[float], None] = lambda _: None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Rounds]:
    """The rounds by workload: `rounds` of each or, where that is None, as many as fit into
    `seconds` of running, in equal shares, and at least 5 of each.

    `advance(share)` is called with the share of the work that is done, 0 to 1.
    """
    random = np.random.default_rng(seed)
    found = {w.name: Rounds(times_ms={c.name: [] for c in contenders}) for w in workloads}
    supply = {
        w.name: batches(w, vocabulary=vocabulary, random=random.spawn(1)[0]) for w in workloads
    }
    spent = {w.name: 0.0 for w in workloads}

    def play(name: str, record: Rounds) -> None:
        batch = next(supply[name])
        for i in random.permutation(len(contenders)):
            contender = contenders[i]
            inputs = contender.prepare(batch)
            started = clock()
            contender.run(inputs)
            record.times_ms[contender.name].append(1e3 * (clock() - started))
        record.lengths.append([len(ids) for ids in batch])

    for workload in workloads:
        for _ in range(WARM_UP_ROUNDS):
            play(workload.name, Rounds(times_ms={c.name: [] for c in contenders}))
    while (name := _next(found, spent, seconds, rounds)) is not None:
        play(name, found[name])
        spent[name] += sum(times[-1] for times in found[name].times_ms.values()) / 1e3
        if rounds is None:
            advance(min(1.0, sum(spent.values()) / seconds))
        else:
            advance(sum(len(r.lengths) for r in found.values()) / (rounds * len(found)))
    return found


def _next(
    found: dict[str, Rounds], spent: dict[str, float], seconds: float, rounds: int | None
) -> str | None:
    """The workload whose turn it is, or None where there has been enough of each."""
    if rounds is not None:
        fewest = min(found, key=lambda name: len(found[name].lengths))
        return fewest if len(found[fewest].lengths) < rounds else None
    waiting = list(found)
    if sum(spent.values()) >= seconds:
        waiting = [name for name in found if len(found[name].lengths) < FEWEST_ROUNDS]
    return min(waiting, key=lambda name: spent[name], default=None)
