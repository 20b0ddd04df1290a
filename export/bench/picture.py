"""Draws a report of `crisp bench`: how many times faster than stock fp32, on a logarithmic scale.

picture.save(report, Path("bench.png"))
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, StrMethodFormatter

from export.bench.report import Report
from training.files import whole_or_not_at_all

FORMATS = (".png", ".svg")
# Okabe and Ito's colours, which the colour-blind tell apart, and a shape for each as well: smaller
# and lighter for the others, larger and stronger for the engine.
_OTHERS = ("#999999", "#56B4E9", "#E69F00", "#CC79A7", "#000000")
_ENGINE = ("#0072B2", "#D55E00", "#009E73", "#F0E442")
_OTHER_SHAPES, _ENGINE_SHAPES = "ovP^X", "sD*p"
_WIDTH = 0.8  # of a workload's band, that its points spread over
_TICKS = (0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100)


def save(report: Report, path: Path) -> None:
    """Writes a PNG or SVG, by the ending of `path`, whole or not at all."""
    workloads = list(report.rounds)
    figure = Figure(
        figsize=(max(7.5, 2.5 + 1.25 * len(workloads)), 5.2), dpi=144, layout="constrained"
    )
    axes = figure.subplots()
    _points(axes, report)
    for i in range(1, len(workloads), 2):
        axes.axvspan(i - 0.5, i + 0.5, color="black", alpha=0.05, linewidth=0)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(FixedLocator([t for t in _TICKS if low <= t <= high]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}×"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", alpha=0.3)
    axes.set_xticks(range(len(workloads)), [_label(report, name) for name in workloads])
    axes.set_xlim(-0.5, len(workloads) - 0.5)
    axes.set_xlabel(f"workload, and the median of {report.reference} on it")
    axes.set_ylabel(f"times faster than {report.reference}")
    threads = report.settings["threads"]
    figure.suptitle(
        f"{report.environment['processor']}, {threads} thread{'s' * (threads != 1)}; "
        "ratio of medians, 95 % interval",
        fontsize="medium",
    )
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    with whole_or_not_at_all(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


def _points(axes: Axes, report: Report) -> None:
    """A point with its interval for each contender and workload; numbers at the engine's."""
    found = report.figures()
    drawn = [name for name in report.contenders if name != report.reference]
    engine = report.of_kind("engine")
    others = [name for name in drawn if name not in engine]
    for k, name in enumerate(drawn):
        ours = name in engine
        among = (engine if ours else others).index(name)
        colours, shapes = (_ENGINE, _ENGINE_SHAPES) if ours else (_OTHERS, _OTHER_SHAPES)
        offset = _WIDTH * ((k + 0.5) / len(drawn) - 0.5)
        there = [(i, w) for i, w in enumerate(found) if name in found[w]]
        values = [found[w][name].speedup for _, w in there]
        axes.errorbar(
            [i + offset for i, _ in there],
            [v.value for v in values],
            yerr=(
                [max(0.0, v.value - v.low) for v in values],
                [max(0.0, v.high - v.value) for v in values],
            ),
            fmt=shapes[among % len(shapes)],
            color=colours[among % len(colours)],
            markersize=7 if ours else 5,
            capsize=2,
            linewidth=1.2,
            label=name,
        )
        if ours:
            for (i, _), v in zip(there, values, strict=True):
                axes.annotate(
                    f"{v.value:.1f}",
                    (i + offset, v.high),
                    xytext=(0, 4),
                    textcoords="offset points",
                    ha="center",
                    fontsize="x-small",
                    color=colours[among % len(colours)],
                )


def _label(report: Report, workload: str) -> str:
    """The workload's name and what the reference takes for it."""
    taken = report.figures()[workload][report.reference].median_ms
    first, _, second = workload.partition("-")
    return (
        f"{first}\n{second}\n{taken:,.3g} ms"
        if taken < 1e3
        else (f"{first}\n{second}\n{taken / 1e3:,.2g} s")
    )
