"""A report of `crisp bench` for the terminal: times, accuracy, profiles, and what to beware of."""

from __future__ import annotations

from collections import defaultdict

from rich import box
from rich.console import Console
from rich.table import Table

from export.bench.measure import FEWEST_ROUNDS
from export.bench.report import Report
from training.statistics import Estimate

MOST_OPERATORS = 8  # of a profile; the JSON has all


def show(console: Console, report: Report) -> None:
    """Prints the tables and, where they are due, the warnings that belong to them."""
    console.print(times(report))
    console.print(efficiency(report))
    for line in _notes(report):
        console.print(line, style="dim")
    if any(facts.get("accuracy") for facts in report.contenders.values()):
        console.print(accuracy(report))
    for workload in report.profiles:
        console.print(profile(report, workload))
    for warning in _warnings(report):
        console.print(warning, style="yellow")


def times(report: Report) -> Table:
    """A row for each workload and contender: what it took, and how many times faster it was."""
    threads = report.settings["threads"]
    grid = _grid(f"{report.environment['processor']}, {threads} thread{'s' * (threads != 1)}")
    for heading in ("workload", ""):
        grid.add_column(heading)
    for heading in ("median, ms", "texts/s", f"× {report.reference} (95 %)", "n"):
        grid.add_column(heading, justify="right")
    for workload, found in report.figures().items():
        for name in report.contenders:
            first = workload if name == report.reference else ""
            if name not in found:
                grid.add_row(first, name, "failed")
                continue
            figure = found[name]
            grid.add_row(
                first,
                name,
                f"{figure.median_ms:.2f}",
                f"{figure.texts_per_second:,.1f}",
                "" if name == report.reference else _ratio(figure.speedup, figure.n),
                f"{figure.n}" if name == report.reference else "",
            )
        grid.add_section()
    return grid


def efficiency(report: Report) -> Table:
    """A row for each workload and contender: its share of the peaks and, for the engine, how many
    times faster than each peer it was."""
    grid = _grid("Share of the measured peaks, and how many times faster than its peers (95 %)")
    peers = report.of_kind("peer")
    for heading in ("workload", ""):
        grid.add_column(heading)
    for heading in ("fp32", "int8", *(f"× {peer}" for peer in peers)):
        grid.add_column(heading, justify="right")
    for workload, found in report.figures().items():
        ratios = report.over_peers(workload)
        for name, figure in found.items():
            rate = figure.multiply_adds_per_second
            over = [ratios.get(peer, {}).get(name) for peer in peers]
            grid.add_row(
                workload if name == report.reference else "",
                name,
                f"{rate / report.peaks.highest_fp32:.2f}",
                f"{rate / report.peaks.highest_int8:.2f}",
                *("" if ratio is None else _ratio(ratio, figure.n) for ratio in over),
            )
        grid.add_section()
    return grid


def accuracy(report: Report) -> Table:
    """A row for each contender and data set."""
    grid = _grid("Accuracy (Wilson, 95 %)")
    for heading in ("", "data", "n", "accuracy", "from"):
        grid.add_column(heading, justify="right" if heading == "n" else "left")
    for name, facts in report.contenders.items():
        for i, found in enumerate(facts.get("accuracy", ())):
            shares = [f"{100 * found[key]:.2f}" for key in ("accuracy", "low", "high")]
            grid.add_row(
                "" if i else name,
                found["name"],
                f"{found['rows']}",
                "{} % ({} to {})".format(*shares),
                found["from"],
            )
    return grid


def profile(report: Report, workload: str) -> Table:
    """A row for each operator, a column for each contender: its share and its calls a run."""
    found = report.profiles[workload]
    highest: dict[str, float] = defaultdict(float)
    for shares in found.values():
        for share in shares:
            highest[share.operator] = max(highest[share.operator], share.share)
    operators = sorted(highest, key=lambda name: -highest[name])[:MOST_OPERATORS]
    grid = _grid(f"{workload}: share of each operator (calls a run)")
    grid.add_column("operator")
    for name in found:
        grid.add_column(name, justify="right")
    for operator in operators:
        cells = []
        for shares in found.values():
            of = next((s for s in shares if s.operator == operator), None)
            cells.append("" if of is None else f"{of.share:.0%} ({of.calls:g})")
        grid.add_row(operator, *cells)
    return grid


def _grid(title: str) -> Table:
    """Narrow, so that no figure is folded on 80 columns."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )


def _ratio(found: Estimate, rounds: int) -> str:
    """Of a few rounds a bootstrap interval is as narrow as they happen to be: it is left out."""
    if rounds < FEWEST_ROUNDS:
        return f"{found.value:.2f} (–)"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _notes(report: Report) -> list[str]:
    versions = report.environment["versions"]
    peaks = report.peaks
    notes = [
        f"Stock: ONNX Runtime {versions.get('onnxruntime', '')}, weights of "
        f"{report.baseline['weights']}, padded. Speed-ups are ratios of medians, above 1 where "
        "faster; n rounds, every contender on the same batches in turn.",
        "Of peak: effective rate, as if a dense model had read the real tokens; above 1 is "
        f"possible. Measured peaks: fp32 {2e-9 * peaks.highest_fp32:,.0f} GFLOP/s, int8 "
        f"{2e-9 * peaks.highest_int8:,.0f} GOP/s (two to a multiply-add).",
    ]
    ways: dict[tuple[str, str], list[str]] = defaultdict(list)
    for workload, rounds in report.rounds.items():
        for name, way in rounds.ways.items():
            ways[name, way].append(workload)
    notes += [f"{name}: {way} was faster on {', '.join(on)}." for (name, way), on in ways.items()]
    longer = {
        (facts["positions_repeated_from"], facts["positions"])
        for facts in report.contenders.values()
        if "positions_repeated_from" in facts
    }
    notes += [
        f"The position table of every contender was repeated from {few} rows to {many}, for the "
        "longer texts: what they answer means nothing."
        for few, many in sorted(longer)
    ]
    return notes


def _warnings(report: Report) -> list[str]:
    warnings = list(report.missing)
    if not report.library.available:
        warnings.append(f"Without the compiled operators: {report.library.reason}")
    warnings += [
        f"{name} without the compiled operators: {facts['fallback']}"
        for name, facts in report.contenders.items()
        if "fallback" in facts
    ]
    for workload, rounds in report.rounds.items():
        warnings += [f"{name} failed on {workload}: {e}" for name, e in rounds.errors.items()]
    load, cores = report.environment["load_average"], report.environment["cores"]
    if load is not None and load > cores / 2:
        warnings.append(
            f"The machine was busy (load {load:.1f} on {cores} cores); measure when it is idle."
        )
    if any(len(r.lengths) < FEWEST_ROUNDS for r in report.rounds.values()):
        warnings.append(f"Fewer than {FEWEST_ROUNDS} rounds: no intervals.")
    return warnings
