"""The charts of the page, as SVG, out of the story."""

from __future__ import annotations

from loadtests.report import svg
from loadtests.report.story import Accuracy, Row, Story, pareto

_NAMES = {"p50": "half of the requests (p50)", "p95": "95 % (p95)", "p99": "99 % (p99)"}


def latency(story: Story, percentile: str) -> str:
    """Latency over load, a line for each contender; windows of the searches as faint marks, those
    with failures as hollow ones."""
    shown = [row for row in story.rows if row.points]
    rates = [p.rate for row in shown for p in row.points]
    times = [p.latency[percentile] for row in shown for p in row.points]
    chart = svg.Chart(
        x=svg.linear(rates),
        y=svg.logarithmic([*times, story.slo_ms]),
        x_label="requests/s",
        y_label="latency, ms",
    )
    if percentile == "p99":
        chart.level(story.slo_ms, f"objective: {story.slo_ms:g} ms")
    for row in shown:
        for point in row.points:
            time = point.latency[percentile]
            title = f"{row.name}: {time:.1f} ms at {point.rate:,.1f} requests/s"
            if point.errors:
                title += f", {100 * point.errors:.2g} % failed"
            failed, faint = point.errors > 0, not point.on_curve
            chart.mark(point.rate, time, row.number, title, faint=faint, hollow=failed)
        curve = [(p.rate, p.latency[percentile]) for p in row.points if p.on_curve]
        chart.line(curve, row.number, row.name)
    return chart.svg(f"Latency over load: {_NAMES[percentile]}")


def cores(story: Story) -> str:
    """Cores that the server used over load; empty where they are unknown."""
    points = {
        row.number: [(p.rate, p.cores) for p in row.points if p.on_curve and p.cores is not None]
        for row in story.rows
    }
    every = [point for each in points.values() for point in each]
    if not every:
        return ""
    chart = svg.Chart(
        x=svg.linear([rate for rate, _ in every]),
        y=svg.linear([used for _, used in every]),
        x_label="requests/s",
        y_label="cores in use",
    )
    for row in story.rows:
        for rate, used in points[row.number]:
            title = f"{row.name}: {used:.2f} cores at {rate:,.1f} requests/s"
            chart.mark(rate, used, row.number, title)
        chart.line(points[row.number], row.number, row.name)
    return chart.svg("Cores that the server used over load")


def memory(story: Story) -> str:
    """Resident memory of each server over the test; empty where none was sampled. A server has the
    colour of the first contender that it serves."""
    samples = story.content["usage"]
    if not samples:
        return ""
    numbers: dict[str, int] = {}
    for row, contender in zip(story.rows, story.content["contenders"].values(), strict=True):
        numbers.setdefault(contender["server"]["url"], row.number)
    chart = svg.Chart(
        x=svg.linear([at for at, *_ in samples]),
        y=svg.linear([held for *_, held in samples]),
        x_label="seconds since the start",
        y_label="resident memory, MiB",
    )
    for url, number in numbers.items():
        held = [(at, mib) for at, server, _, mib in samples if server == url]
        chart.line(held, number, url)
    return chart.svg("Memory of the servers over the test")


def trade(story: Story, data: str) -> str:
    """Accuracy on `data` over capacity, the area of a mark growing with the model; what none beats
    in both is joined by a line."""
    shown: list[tuple[Row, Accuracy]] = []
    for row in story.with_capacity:
        found = [accuracy for accuracy in row.accuracies if accuracy.data == data]
        shown += [(row, accuracy) for accuracy in found[:1]]
    if not shown:
        return ""
    points = [(row.capacity.value, 100 * a.value) for row, a in shown if row.capacity]
    ends = [100 * end for _, accuracy in shown for end in (accuracy.low, accuracy.high)]
    chart = svg.Chart(
        x=svg.linear([widest(story)]),
        y=svg.linear(ends, zero=False),
        x_label=f"requests/s with 99 % under {story.slo_ms:g} ms",
        y_label=f"accuracy, n = {shown[0][1].n:,}",
        y_unit=" %",
    )
    front = [points[i] for i in pareto(points)]
    chart.line(front, svg.SERIES - 1, "no contender has more of both than these")
    largest = max((row.megabytes or 0.0 for row, _ in shown), default=0.0)
    below = story.labelled_below
    for (row, accuracy), (rate, percent) in zip(shown, points, strict=True):
        assert row.capacity is not None
        across = (row.capacity.low or rate, row.capacity.high or rate)
        chart.spread((rate, percent), across, (100 * accuracy.low, 100 * accuracy.high), row.number)
        size = 1 + 1.5 * ((row.megabytes or 0) / largest) ** 0.5 if largest else 1.5
        held = "" if row.megabytes is None else f", {row.megabytes:.0f} MB"
        title = f"{row.name}: {percent:.2f} %, {rate:,.1f} requests/s{held}"
        chart.mark(rate, percent, row.number, title, size=size)
        chart.label(rate, percent, row.name, below=row.name in below)
    return chart.svg(f"Accuracy on {data} over capacity")


def widest(story: Story) -> float:
    """Requests/s at the end of a scale of capacities: intervals of few windows may be cut off."""
    rows = [row.capacity for row in story.rows if row.capacity is not None]
    highest = max((found.high or found.value for found in rows), default=1.0)
    return min(highest, 1.8 * max((found.value for found in rows), default=1.0))


def data_sets(story: Story) -> list[str]:
    """The data sets on which at least one contender's accuracy is known, the most common first."""
    names = [a.data for row in story.with_capacity for a in row.accuracies]
    return sorted(dict.fromkeys(names), key=lambda name: -names.count(name))
