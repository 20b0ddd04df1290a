"""Where the time of each ONNX Runtime contender goes: the share of every operator.

A session of its own is profiled by ONNX Runtime, after the times were taken: writing down every
node slows the run a little, so the shares stand beside the measured times and don't replace them.

    profiles(contenders, workloads, found, vocabulary=30522, seed=0, folder=temporary)
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from export.bench.measure import Contender, Rounds
from export.bench.workloads import Workload, batches

_SECONDS = 1.0  # of profiled runs, of each contender and workload, but at least one run
_MOST_RUNS = 50


@dataclass(frozen=True)
class OperatorShare:
    """`share` of the time that all nodes took; calls and milliseconds a run."""

    operator: str
    share: float
    calls: float
    ms: float


def profiles(
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    found: Mapping[str, Rounds],
    *,
    vocabulary: int,
    seed: int,
    folder: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, list[OperatorShare]]]:
    """Shares by workload and contender, largest first, of those that ONNX Runtime runs and that
    `found` has times of; of a name with several ways, of the way that stands for it there."""
    shares: dict[str, dict[str, list[OperatorShare]]] = {}
    for workload in workloads:
        rounds = found[workload.name]
        shares[workload.name] = {}
        for contender in contenders:
            stands = rounds.ways.get(contender.name, contender.way) == contender.way
            if contender.profiled and stands and contender.name in rounds.times_ms:
                progress(f"profiling {contender.name} on {workload.name}")
                random = np.random.default_rng(seed)
                events = _events(contender, workload, vocabulary, random, folder)
                shares[workload.name][contender.name] = operator_shares(events)
    return shares


def operator_shares(events: Sequence[Mapping[str, Any]]) -> list[OperatorShare]:
    """The shares of the events that ONNX Runtime wrote, without those of the first run.

    A run is an event `model_run`; a node's kernel is an event of category Node whose name ends in
    `_kernel_time`, with the operator in its arguments. Times are microseconds.
    """
    runs = sorted((e for e in events if e["name"] == "model_run"), key=lambda e: int(e["ts"]))
    start = runs[0]["ts"] + runs[0]["dur"]
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in events:
        kernel = event["cat"] == "Node" and event["name"].endswith("_kernel_time")
        if kernel and event["ts"] >= start:
            operator = event["args"]["op_name"]
            spent[operator] += event["dur"]
            calls[operator] += 1
    count, total = len(runs) - 1, sum(spent.values())
    return [
        OperatorShare(
            operator,
            spent[operator] / total,
            calls[operator] / count,
            spent[operator] / count / 1e3,
        )
        for operator in sorted(spent, key=lambda name: -spent[name])
    ]


def _events(
    contender: Contender,
    workload: Workload,
    vocabulary: int,
    random: np.random.Generator,
    folder: Path,
) -> list[dict[str, Any]]:
    """What ONNX Runtime wrote of one run that warms up and at least one more."""
    assert contender.profiled is not None
    session = contender.profiled(folder / "profile")
    supply = batches(workload, vocabulary=vocabulary, random=random)
    session.run(["logits"], contender.prepare(next(supply)))
    started = perf_counter()
    for _ in range(_MOST_RUNS):
        session.run(["logits"], contender.prepare(next(supply)))
        if perf_counter() - started > _SECONDS:
            break
    file = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(file.read_bytes())
    file.unlink()
    return events
