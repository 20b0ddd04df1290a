"""A comparison as a table for the terminal, and as JSON with everything that went into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from export.op_library import OpLibrary
from service.compare.analysis import Comparison, Figures
from service.compare.measure import BATCH, Runs
from training.data import LabelledTexts
from training.statistics import Estimate

METHODS = {
    "accuracy": "Wilson score interval, 95 %; every text answered alone",
    "accuracy_difference": "variant minus baseline; Newcombe 1998, method 10 (paired), 95 %",
    "mcnemar_p": "McNemar's exact two-sided test",
    "latency_ms": "one text a call, tokenising included",
    "throughput": f"the median batch of {BATCH} texts, tokenising included",
    "speedup": "ratio of median times, baseline over variant; "
    "percentile bootstrap over pairs on the same texts, 95 %",
}


@dataclass(frozen=True)
class Report:
    """All that was found. `figures` and `runs` by variant, the baseline first."""

    data: LabelledTexts
    figures: Mapping[str, Figures]
    runs: Mapping[str, Runs]
    comparisons: Mapping[str, Comparison]
    library: OpLibrary
    settings: Mapping[str, Any]
    command: str
    started: str
    environment: Mapping[str, Any]


def document(report: Report) -> dict[str, Any]:
    """The report as JSON: figures, methods, and every answer and timing that they rest on."""
    data = report.data
    return {
        "schema_version": 1,
        "command": report.command,
        "started": report.started,
        "environment": dict(report.environment),
        "operators": {"library": _file_name(report.library.path), "reason": report.library.reason},
        "settings": dict(report.settings),
        "data": {"name": data.name, "n": len(data), "sha256": data.sha256},
        "methods": METHODS,
        "variants": {name: asdict(found) for name, found in report.figures.items()},
        "comparisons": {name: asdict(found) for name, found in report.comparisons.items()},
        "labels": [data.label_names[example.label] for example in data.examples],
        "runs": {
            name: {
                "labels": [prediction.label for prediction in run.predictions],
                "scores": [round(prediction.score, 6) for prediction in run.predictions],
                "single_ms": [round(ms, 4) for ms in run.single_ms],
                "text": run.timed,
                "batch_seconds": [round(seconds, 6) for seconds in run.batch_seconds],
            }
            for name, run in report.runs.items()
        },
    }


def table(report: Report) -> Table:
    """The variants side by side, and the others against the baseline."""
    found, comparisons = list(report.figures.values()), list(report.comparisons.values())
    baseline = next(iter(report.figures))
    n = len(report.data)
    grid = Table(title=f"{report.data.name}: {n:,} texts", title_justify="left")
    grid.add_column("")
    for name in report.figures:
        grid.add_column(name, justify="right")
    for name in report.comparisons:
        grid.add_column(f"{name} against {baseline}", justify="right")

    def row(what: str, cells: list[str], against: list[str] | None = None) -> None:
        grid.add_row(what, *cells, *(against or [""] * len(comparisons)))

    row("attention", [_pattern(f.model.attention) for f in found])
    row("precision", [f.model.precision for f in found])
    row(
        "model size, MB",
        [f"{f.model.model_bytes / 1e6:.1f}" for f in found],
        [f"{c.size_ratio:.2f}×" for c in comparisons],
    )
    row(
        "accuracy, %",
        [f"{100 * f.accuracy.value:.2f}" for f in found],
        [f"{100 * c.accuracy_difference.value:+.2f}" for c in comparisons],
    )
    row(
        _INTERVAL,
        [_span(f.accuracy, 100, ".2f") for f in found],
        [_span(c.accuracy_difference, 100, "+.2f") for c in comparisons],
    )
    row("McNemar's exact p", [""] * len(found), [f"{c.mcnemar_p:.3g}" for c in comparisons])
    row("same label, %", [""] * len(found), [f"{100 * c.agreement:.1f}" for c in comparisons])
    row("changed in a batch", [f"{f.changed_in_batch:,}" for f in found])
    row("truncated texts", [f"{f.truncated:,}" for f in found])
    grid.add_section()
    latency = [c.latency_speedup for c in comparisons]
    throughput = [c.throughput_speedup for c in comparisons]
    row("p50, ms, one text", _latency(found, "p50"), [f"{s.value:.2f}×" for s in latency])
    row(_INTERVAL, [""] * len(found), [_spread(s, n) for s in latency])
    row("p95, ms", _latency(found, "p95"))
    row("p99, ms", _latency(found, "p99"))
    row(
        f"texts/s, by {BATCH}",
        [f"{f.texts_per_second:,.1f}" for f in found],
        [f"{s.value:.2f}×" for s in throughput],
    )
    batches = len(report.runs[baseline].batch_seconds)
    row(_INTERVAL, [""] * len(found), [_spread(s, batches) for s in throughput])
    row("tokens/s", [f"{f.tokens_per_second:,.0f}" for f in found])
    return grid


def show(console: Console, report: Report) -> None:
    """Prints the table and, where they are due, the warnings that belong to it."""
    console.print(table(report))
    console.print(
        "Accuracy: Wilson's interval, its difference: Newcombe's paired one. Speed-ups are ratios "
        "of medians with a bootstrap interval, above 1 where the variant is faster. Changed in a "
        f"batch: texts whose label is another in a batch of {BATCH} than alone.",
        style="dim",
    )
    load, cores = report.environment["load_average"], report.environment["cores"]
    if load is not None and load > cores / 2:
        console.print(
            f"The machine was busy (load {load:.1f} on {cores} cores); measure when it is idle.",
            style="yellow",
        )
    if report.library.path is None:
        console.print(f"Without the compiled operators: {report.library.reason}", style="yellow")


_INTERVAL = "  95 % interval"
FEWEST = 5  # texts or batches of which there is an interval


def _file_name(path: Path | None) -> str | None:
    return None if path is None else path.name


def _pattern(attention: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{key} {value}" for key, value in attention.items() if key != "name")
    return f"{attention['name']} ({numbers})" if numbers else str(attention["name"])


def _span(found: Estimate, scale: float, form: str) -> str:
    return f"{scale * found.low:{form}} to {scale * found.high:{form}}"


def _spread(speedup: Estimate, n: int) -> str:
    """Of a few timings a bootstrap interval is as narrow as they happen to be: it is left out."""
    return "–" if n < FEWEST else _span(speedup, 1, ".2f")


def _latency(figures: list[Figures], quantile: str) -> list[str]:
    return [f"{f.latency_ms[quantile]:.2f}" for f in figures]
