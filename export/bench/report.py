"""Medians and ratios from raw times, the table for the terminal, and the JSON with everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from export.bench.measure import FEWEST_ROUNDS, WARM_UP_ROUNDS, Rounds
from export.bench.workloads import WORKLOADS
from export.op_library import OpLibrary
from training.statistics import Estimate, ratio_of_medians

METHODS = {
    "times_ms": "one run of the session each; padding and packing are done before",
    "interleaving": "each round, every contender runs the same batch once, in random order; "
    f"{WARM_UP_ROUNDS} rounds of each workload come before the first that counts",
    "speedup": "ratio of median times, reference over contender; percentile bootstrap over "
    "rounds, 95 %",
    "texts_per_second": "all texts over the sum of all times",
    "sorting": "a sorted workload is so for every contender; packing gains nothing by it",
    "spinning": "off for all sessions: none takes time from another while it waits",
}


@dataclass(frozen=True)
class Figures:
    """What the times of one contender on one workload come to; `n` rounds."""

    median_ms: float
    texts_per_second: float
    speedup: Estimate
    n: int


@dataclass(frozen=True)
class Report:
    """All that was found. `contenders` describes each by name, the reference first."""

    contenders: Mapping[str, Mapping[str, Any]]
    rounds: Mapping[str, Rounds]
    baseline: Mapping[str, Any]
    library: OpLibrary
    settings: Mapping[str, Any]
    command: str
    started: str
    environment: Mapping[str, Any]

    @property
    def reference(self) -> str:
        return next(iter(self.contenders))

    def figures(self) -> dict[str, dict[str, Figures]]:
        """By workload and contender."""
        return {name: figures(rounds, self.reference) for name, rounds in self.rounds.items()}


def figures(rounds: Rounds, reference: str) -> dict[str, Figures]:
    """The figures of each contender; its speed-up is over `reference`, paired by round."""
    texts = sum(len(lengths) for lengths in rounds.lengths)
    base = rounds.times_ms[reference]
    return {
        name: Figures(
            median_ms=median(times),
            texts_per_second=1e3 * texts / sum(times),
            speedup=ratio_of_medians(base, times),
            n=len(times),
        )
        for name, times in rounds.times_ms.items()
    }


def padding(lengths: Sequence[Sequence[int]]) -> float:
    """Tokens of padded batches over real ones: what a baseline with padding computes."""
    return sum(len(row) * max(row) for row in lengths) / sum(sum(row) for row in lengths)


def document(report: Report) -> dict[str, Any]:
    """The report as JSON."""
    found = report.figures()
    return {
        "schema_version": 1,
        "command": report.command,
        "started": report.started,
        "environment": dict(report.environment),
        "operators": {
            "compiled": report.library.available,
            "library": None if report.library.path is None else report.library.path.name,
            "reason": report.library.reason,
        },
        "settings": dict(report.settings),
        "baseline": dict(report.baseline),
        "methods": METHODS,
        "reference": report.reference,
        "contenders": {name: dict(facts) for name, facts in report.contenders.items()},
        "workloads": {
            name: {
                **WORKLOADS[name].to_dict(),
                "padding": padding(rounds.lengths),
                "figures": {c: asdict(f) for c, f in found[name].items()},
                "lengths": rounds.lengths,
                "times_ms": {c: [round(t, 4) for t in ts] for c, ts in rounds.times_ms.items()},
            }
            for name, rounds in report.rounds.items()
        },
    }


def table(report: Report) -> Table:
    """A row for each workload and contender."""
    threads = report.settings["threads"]
    grid = Table(
        title=f"{report.environment['processor']}, {threads} thread{'s' * (threads != 1)}",
        title_justify="left",
    )
    grid.add_column("workload")
    grid.add_column("")
    for heading in ("median, ms", "texts/s", f"× {report.reference} (95 %)", "n"):
        grid.add_column(heading, justify="right")
    for workload, found in report.figures().items():
        for name, figure in found.items():
            speedup = figure.speedup
            grid.add_row(
                workload if name == report.reference else "",
                name,
                f"{figure.median_ms:.2f}",
                f"{figure.texts_per_second:,.1f}",
                ""
                if name == report.reference
                else f"{speedup.value:.2f} ({speedup.low:.2f} to {speedup.high:.2f})",
                f"{figure.n}" if name == report.reference else "",
            )
        grid.add_section()
    return grid


def show(console: Console, report: Report) -> None:
    """Prints the table and, where they are due, the warnings that belong to it."""
    console.print(table(report))
    console.print(
        f"Stock: ONNX Runtime {report.environment['versions'].get('onnxruntime', '')}, weights of "
        f"{report.baseline['weights']}, padded. Speed-ups are ratios of medians, above 1 where "
        "faster; n rounds, every contender on the same batches in turn, no thread spinning.",
        style="dim",
        markup=False,
    )
    warnings = []
    if not report.library.available:
        warnings.append(f"Without the compiled operators: {report.library.reason}")
    load, cores = report.environment["load_average"], report.environment["cores"]
    if load is not None and load > cores / 2:
        warnings.append(
            f"The machine was busy (load {load:.1f} on {cores} cores); measure when it is idle."
        )
    if any(len(r.lengths) < FEWEST_ROUNDS for r in report.rounds.values()):
        warnings.append(f"Fewer than {FEWEST_ROUNDS} rounds: the intervals mean little.")
    for warning in warnings:
        console.print(warning, style="yellow", markup=False)
