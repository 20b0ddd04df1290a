"""The report's charts as PNGs, for a README or a talk."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from loadtests.files import whole_or_not_at_all
from loadtests.report import svg
from loadtests.report.charts import data_sets, widest
from loadtests.report.story import PARTS, REST, SHOWN_PERCENTILES, Story, pareto

COLOURS = ("#5b6b7f", "#d2480f", "#2f6fdb", "#2b8a3e", "#9334b8", "#0c8599", "#a6711d")
MARKERS = "os^Dv*P"
_PART_COLOURS = ("#f0a868", "#69b3a2", "#4c6fbf", "#b9b3aa")


def save(story: Story, folder: Path) -> list[Path]:
    """Writes latency.png and, as far as there are figures for them, capacity.png, trade.png and
    time.png; returns the paths."""
    drawn = {"latency.png": _latency(story)}
    if story.with_capacity:
        drawn["capacity.png"] = _capacity(story)
    if data_sets(story):
        drawn["trade.png"] = _trade(story, data_sets(story)[0])
    if any(row.shares for row in story.rows):
        drawn["time.png"] = _time(story)
    for name, figure in drawn.items():
        with whole_or_not_at_all(folder / name) as temporary:
            figure.savefig(temporary, format="png")
    return [folder / name for name in drawn]


def _latency(story: Story) -> Figure:
    figure = Figure(figsize=(12, 4), dpi=144, layout="constrained")
    for axes, percentile in zip(figure.subplots(1, 3), SHOWN_PERCENTILES, strict=True):
        for row in story.rows:
            curve = [(p.rate, p.latency[percentile]) for p in row.points if p.on_curve]
            if curve:
                axes.plot(*zip(*curve, strict=True), label=row.name, **_style(row.number))
            for point in (p for p in row.points if p.on_curve and p.errors):
                at = (point.rate, point.latency[percentile])
                axes.plot(*at, **_style(row.number), markerfacecolor="white")
                axes.annotate(
                    f"{100 * point.errors:.2g} % failed",
                    at,
                    xytext=(5, 5),
                    textcoords="offset points",
                    fontsize="x-small",
                    color=_colour(row.number),
                )
        if percentile == "p99":
            axes.axhline(story.slo_ms, color="grey", linestyle="--", linewidth=1)
        if axes.get_lines():
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.set_yticks(svg.Scale(low, high, logarithmic=True).ticks())
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(title=percentile, xlabel="requests/s", ylabel="latency, ms")
        axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize="small")
    return figure


def _capacity(story: Story) -> Figure:
    rows = story.with_capacity[::-1]
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(rows)), dpi=144, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        assert row.capacity is not None
        found = row.capacity
        axes.barh(place, found.value, color=_colour(row.number), alpha=0.85)
        if found.low is not None and found.high is not None:
            end = min(found.high, widest(story))
            axes.plot([found.low, end], [place, place], color="black", linewidth=1.5)
        best = max((a.value for a in row.accuracies[:1]), default=None)
        beside = "" if best is None else f"   {100 * best:.1f} % right"
        axes.text(
            min(found.high or found.value, widest(story)),
            place,
            f"  {found.value:,.1f}{beside}",
            va="center",
        )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_xlabel(f"requests/s with 99 % under {story.slo_ms:g} ms")
    axes.margins(x=0.3)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _trade(story: Story, data: str) -> Figure:
    figure = Figure(figsize=(7, 4.5), dpi=144, layout="constrained")
    axes: Axes = figure.subplots()
    points: list[tuple[float, float]] = []
    labelled_below = story.labelled_below
    for row in story.with_capacity:
        for accuracy in (a for a in row.accuracies if a.data == data):
            assert row.capacity is not None
            point = (row.capacity.value, 100 * accuracy.value)
            low, high = row.capacity.low or point[0], row.capacity.high or point[0]
            across = [[point[0] - low], [min(high, widest(story)) - point[0]]]
            below, above = point[1] - 100 * accuracy.low, 100 * accuracy.high - point[1]
            colour = _colour(row.number)
            axes.errorbar(*point, xerr=across, yerr=[[below], [above]], color=colour, alpha=0.6)
            axes.scatter(*point, s=3 * (row.megabytes or 20), color=colour, alpha=0.85)
            beside = (7, -15) if row.name in labelled_below else (7, 7)
            axes.annotate(row.name, point, xytext=beside, textcoords="offset points")
            points.append(point)
    front = [points[i] for i in pareto(points)]
    axes.plot(*zip(*front, strict=True), color="grey", linestyle=":", zorder=0)
    axes.set(
        xlabel=f"requests/s with 99 % under {story.slo_ms:g} ms",
        ylabel="accuracy, %",
        title=f"{data}; area: size of the model",
    )
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    return figure


def _time(story: Story) -> Figure:
    every = [(row, share) for row in story.rows for share in row.shares][::-1]
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(every)), dpi=144, layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate((*PARTS.values(), REST)):
        lefts = [sum(list(share.parts.values())[: _place(share.parts, name)]) for _, share in every]
        widths = [share.parts.get(name, 0.0) for _, share in every]
        axes.barh(range(len(every)), widths, left=lefts, color=_PART_COLOURS[number], label=name)
    names = [f"{row.name}, {100 * share.load:.0f} %" for row, share in every]
    axes.set_yticks(range(len(every)), names)
    axes.set_xlabel("mean time of a request, ms, by share of the capacity")
    axes.legend(loc="lower right", fontsize="small")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _place(parts: object, name: str) -> int:
    names = list(parts) if isinstance(parts, dict) else []
    return names.index(name) if name in names else 0


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _style(number: int) -> dict[str, object]:
    return {"color": _colour(number), "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
