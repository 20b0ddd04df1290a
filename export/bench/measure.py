"""Runs every contender on the same batches, in turn, and keeps each time.

A round takes one workload and one batch of it, and lets every contender run that batch once, in an
order drawn anew. So a machine that slows down does so for all, and every time has its counterparts
on the same texts, taken moments apart. Rounds of all workloads alternate: of those that are not
done, the workload that has had least of the time is next.

Contenders of the same name are ways to the same end, such as two fusions of one graph: the fastest
in the warm-up of a workload stands for the name there, the others are left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from export.bench.memory import available_bytes
from export.bench.workloads import Batch, Workload, batches
from export.errors import ExportError, first_line

# Before the first round of a workload that counts, for allocations, caches, the clock, and to see
# which of several ways is fastest: 2 rounds at least, but one where it took longer than SLOW
# seconds, and up to 5 where they are short.
WARM_UP_ROUNDS = (2, 5)
SHORT, SLOW = 2.0, 15.0
FEWEST_ROUNDS = 5  # of each workload, even where that takes longer than was asked for


@dataclass(frozen=True)
class Contender:
    """`prepare(batch)` makes what `run` is timed on: padding and packing are not timed.

    `run` gives logits float32 [B, C]. `way` tells contenders of one name apart. `needs(batch)` is
    roughly how many bytes a run allocates; where there are not as many, it is not tried.
    `profiled(prefix)`, where ONNX Runtime runs it, opens a session of it that writes the time of
    every node into a file whose name starts with `prefix`.
    """

    name: str
    prepare: Callable[[Batch], Any]
    run: Callable[[Any], NDArray[np.float32]]
    way: str = ""
    needs: Callable[[Batch], int] = lambda _: 0
    profiled: Callable[[Path], InferenceSession] | None = None


@dataclass
class Rounds:
    """The rounds of one workload: `lengths` in tokens of each batch, and `times_ms` of each
    contender, one a round. `ways` says which way stood for a name that has several; `errors` why a
    contender has no times."""

    lengths: list[list[int]] = field(default_factory=list)
    times_ms: dict[str, list[float]] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def measure(
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    *,
    vocabulary: int,
    seconds: float,
    rounds: int | None = None,
    seed: int = 0,
    advance: Callable[[float, str], None] = lambda *_: None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Rounds]:
    """The rounds by workload: `rounds` of each or, where that is None, as many as fit into
    `seconds` of running, in equal shares, and at least 5 of each, though that takes longer.

    `advance(share, workload)` is called with the share of the work that is done, 0 to 1, and what
    is next. A contender that fails on a workload is left out of it and has its error there; raises
    ExportError where that is the first, the reference of all others.
    """
    random = np.random.default_rng(seed)
    stages = {
        w.name: _Stage(
            w, contenders, batches(w, vocabulary=vocabulary, random=random.spawn(1)[0]), clock
        )
        for w in workloads
    }
    for name, stage in stages.items():
        advance(0.0, f"warming up on {name}")
        stage.warm_up(random)
    share = seconds / len(stages)
    while True:
        done = {name: stage.done(share, rounds) for name, stage in stages.items()}
        waiting = [name for name in stages if done[name] < 1]
        if not waiting:
            break
        following = min(waiting, key=lambda name: stages[name].spent)
        advance(sum(done.values()) / len(done), following)
        stages[following].play(random)
    advance(1.0, "done")
    return {name: stage.rounds for name, stage in stages.items()}


class _Stage:
    """One workload: its supply of batches, who runs on it, and what was found."""

    def __init__(
        self,
        workload: Workload,
        contenders: Sequence[Contender],
        supply: Iterator[Batch],
        clock: Callable[[], float],
    ) -> None:
        self.workload = workload
        self.running = list(contenders)
        self.reference = contenders[0].name
        self.supply = supply
        self.clock = clock
        self.spent = 0.0
        self.rounds = Rounds()

    def done(self, share: float, rounds: int | None) -> float:
        """How much of what was asked for is done, 1 where all is: `rounds` of them or, where that
        is None, `share` seconds, and FEWEST_ROUNDS at least."""
        count = len(self.rounds.lengths)
        if rounds is not None:
            return min(1.0, count / rounds)
        return min(1.0, self.spent / share, count / FEWEST_ROUNDS)

    def warm_up(self, random: np.random.Generator) -> None:
        """Runs everyone, and leaves one contender of each name."""
        fewest, most = WARM_UP_ROUNDS
        times: dict[Contender, list[float]] = {c: [] for c in self.running}
        started = self.clock()
        for played in range(1, most + 1):
            for contender, taken in self._round(random)[1].items():
                times[contender].append(taken)
            spent = self.clock() - started
            if spent > SLOW or (played >= fewest and spent > SHORT):
                break
        # The minimum: a first run that allocates must not decide.
        fastest: dict[str, Contender] = {}
        for contender in sorted(self.running, key=lambda c: min(times[c])):
            fastest.setdefault(contender.name, contender)
        self.rounds.ways = {name: c.way for name, c in fastest.items() if c.way}
        self.running = [c for c in self.running if fastest[c.name] is c]
        self.rounds.times_ms = {c.name: [] for c in self.running}

    def play(self, random: np.random.Generator) -> None:
        """One round that counts."""
        lengths, times = self._round(random)
        self.rounds.lengths.append(lengths)
        for contender, taken in times.items():
            self.rounds.times_ms[contender.name].append(1e3 * taken)
        self.spent += sum(times.values())

    def _round(self, random: np.random.Generator) -> tuple[list[int], dict[Contender, float]]:
        """The lengths of a batch, and the seconds that everyone took who did not fail on it."""
        batch = next(self.supply)
        times: dict[Contender, float] = {}
        failed: dict[str, Exception] = {}
        for i in random.permutation(len(self.running)):
            contender = self.running[i]
            try:
                _check_memory(contender, batch)
                inputs = contender.prepare(batch)
                started = self.clock()
                contender.run(inputs)
                times[contender] = self.clock() - started
            except Exception as error:  # whatever a runtime raises: the others go on
                failed[contender.name] = error
        self.running = [c for c in self.running if c in times]
        for name in failed.keys() - {c.name for c in self.running}:
            self._leave_out(name, failed[name])
        return [len(ids) for ids in batch], times

    def _leave_out(self, name: str, error: Exception) -> None:
        reason = first_line(error)
        if name == self.reference:
            raise ExportError(
                f"{name}, which all others are compared with, fails on workload "
                f"{self.workload.name}: {reason}"
            ) from error
        self.rounds.times_ms.pop(name, None)
        self.rounds.errors[name] = reason


def _check_memory(contender: Contender, batch: Batch) -> None:
    needed, free = contender.needs(batch), available_bytes()
    if free is not None and needed > free:
        raise MemoryError(f"needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free")
