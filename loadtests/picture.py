"""Draws a load test: how long requests took, and how many got through a second.

picture.save(turns, Path("load.png"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from loadtests.drive import Turn
from loadtests.report import summaries


def save(turns: Sequence[Turn], path: Path) -> None:
    """Writes a PNG: left, the share of requests answered within a time; right, requests/s."""
    figure = Figure(figsize=(10, 4), dpi=144, layout="constrained")
    left, right = figure.subplots(1, 2)
    _latencies(left, turns)
    _rates(right, turns)
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, format="png")
    temporary.replace(path)


def _latencies(axes: Axes, turns: Sequence[Turn]) -> None:
    for i, name in enumerate(summaries(turns)):
        found = [latency for t in turns if t.variant == name for latency in t.latencies_ms]
        latencies = np.sort(found)
        if latencies.size:
            share = np.arange(1, latencies.size + 1) / latencies.size
            axes.step(latencies, share, where="post", color=f"C{i}", label=name)
    if axes.get_lines():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="lower right")
    axes.set(xlabel="latency, ms", ylabel="share of requests answered", ylim=(0, 1))
    axes.grid(alpha=0.3)


def _rates(axes: Axes, turns: Sequence[Turn]) -> None:
    found = summaries(turns)
    for i, (name, summary) in enumerate(found.items()):
        axes.bar(i, summary.requests_per_second, color=f"C{i}", alpha=0.6)
        rounds = [t for t in turns if t.variant == name and t.seconds]
        rates = [len(t.latencies_ms) / t.seconds for t in rounds]
        axes.plot([i] * len(rates), rates, "o", color="black", markersize=4)
    axes.set_xticks(range(len(found)), list(found))
    axes.set_ylabel("right answers a second (points: single rounds)")
    axes.grid(axis="y", alpha=0.3)
