"""What a report tells, taken out of the JSON of a load test: figures, ready to be drawn.

story = tell(results.load(Path("loadtest.json")))
story.rows[0].capacity      # of the baseline; the HTML page and the pictures draw the same
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.capacity import Interval

PARTS = {"queue": "queue", "tokenize": "tokenise", "inference": "inference"}
REST = "HTTP and the rest"
SHOWN_PERCENTILES = ("p50", "p95", "p99")
_LOADS = (0.5, 0.95)  # shares of the capacity at which the time of a request is taken apart


@dataclass(frozen=True)
class Accuracy:
    """A share of right labels on `n` texts of `data`, with its 95 % interval."""

    data: str
    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """One window: requests/s that were due, latency in ms by percentile, share of failures, cores
    that the server used."""

    rate: float
    latency: Mapping[str, float]
    errors: float
    cores: float | None
    on_curve: bool


@dataclass(frozen=True)
class Share:
    """Where a request's mean time went at `load` (of the capacity), in ms by part."""

    load: float
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Row:
    """One contender. `number` fixes its colour; `about` says what it is in a few words."""

    number: int
    name: str
    own: bool
    about: str
    megabytes: float | None
    capacity: Interval | None
    note: str | None
    accuracies: tuple[Accuracy, ...]
    points: tuple[Point, ...]
    shares: tuple[Share, ...]
    rss_mib: float | None


@dataclass(frozen=True)
class Story:
    """`ratios` is (name, other, interval), the most important first; `warnings` are for a reader
    who wants to quote figures."""

    rows: tuple[Row, ...]
    ratios: tuple[tuple[str, str, Interval], ...]
    slo_ms: float
    requests: int
    workload: str
    warnings: tuple[str, ...]
    content: Mapping[str, Any] = field(repr=False)

    @property
    def with_capacity(self) -> list[Row]:
        return [row for row in self.rows if row.capacity is not None]

    @property
    def labelled_below(self) -> set[str]:
        """Every other contender in the order of capacity: names of neighbours are set above and
        below their points, so that they do not cover each other."""
        found = [(row.capacity.value, row.name) for row in self.rows if row.capacity is not None]
        return {name for _, name in sorted(found)[1::2]}


def tell(content: Mapping[str, Any]) -> Story:
    """The story of a document as `results.document` makes it."""
    rows = tuple(_row(number, name, content) for number, name in enumerate(content["contenders"]))
    ratios = [
        (name, other, Interval(**ratio))
        for name, against in content["ratios"].items()
        for other, ratio in against.items()
    ]
    order = {row.name: row.number for row in rows}
    own = [row.name for row in rows if row.own]
    # First own variants against the baseline, then the last of them against the peers.
    ratios.sort(key=lambda r: (r[1] not in own, -order[r[0]], order[r[1]]))
    plan = content["plan"]
    return Story(
        rows,
        tuple(ratios),
        float(plan["slo_ms"]),
        sum(window["measurement"]["sent"] for window in content["windows"]),
        _workload(plan),
        tuple(_warnings(content)),
        content,
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that none exceeds in one of both, more being better, without falling
    behind in the other; from left to right."""
    front = [
        i
        for i, (x, y) in enumerate(points)
        if not any((a >= x and b >= y) and (a > x or b > y) for a, b in points)
    ]
    return sorted(front, key=lambda i: points[i])


def _row(number: int, name: str, content: Mapping[str, Any]) -> Row:
    contender = content["contenders"][name]
    facts = contender["facts"]
    capacity = content["capacities"].get(name)
    interval = None if capacity is None else Interval(**capacity)
    windows = [w for w in content["windows"] if w["contender"] == name and w["phase"] != "warm-up"]
    held = [w["rss_mib"] for w in windows if w["rss_mib"] is not None]
    return Row(
        number,
        name,
        contender["own"],
        _about(facts),
        facts["bytes"] / 1e6 if facts.get("bytes") else None,
        interval,
        content["notes"].get(name),
        tuple(_accuracies(name, content.get("accuracy", ()), facts)),
        tuple(_points(windows)),
        tuple(_shares(windows, interval)),
        max(held, default=None),
    )


def _about(facts: Mapping[str, Any]) -> str:
    """`int8, blocktopk, pruned to 10 %`: what the manifest says."""
    attention = facts.get("attention") or {}
    words = [facts.get("serves"), facts.get("precision")]
    if attention.get("name") not in (None, "dense"):
        numbers = ", ".join(f"{key} {value}" for key, value in attention.items() if key != "name")
        words.append(f"{attention['name']} ({numbers})")
    elif attention and not facts.get("serves"):
        words.append("dense")
    if facts.get("pruning"):
        words.append(f"pruned to {100 * min(facts['pruning']['keep']):g} % of the tokens")
    return ", ".join(word for word in words if word)


def _accuracies(
    name: str, compared: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> list[Accuracy]:
    """Of `crisp compare`, where it was given; else what the model's own manifest records."""
    found = []
    for document in compared:
        variant = document["variants"].get(name)
        if variant is not None:
            accuracy = {key: variant["accuracy"][key] for key in ("value", "low", "high")}
            found.append(Accuracy(document["data"]["name"], document["data"]["n"], **accuracy))
    if found:
        return found
    return [
        Accuracy(m["data"]["name"], m["data"]["rows"], m["accuracy"], m["low"], m["high"])
        for m in facts.get("measured") or ()
    ]


def _points(windows: Sequence[Mapping[str, Any]]) -> list[Point]:
    found = []
    for window in windows:
        measured = window["measurement"]
        if measured["gave_up"] or not measured["complete"] or not measured["right"]:
            continue
        failed = sum(measured["faults"].values()) + measured["unsent"]
        found.append(
            Point(
                window["rate"],
                {key: window["latency_ms"][key] for key in SHOWN_PERCENTILES},
                failed / (failed + measured["right"]),
                window["cores"],
                window["phase"] == "curve",
            )
        )
    return sorted(found, key=lambda point: point.rate)


def _shares(windows: Sequence[Mapping[str, Any]], capacity: Interval | None) -> list[Share]:
    curve = [w for w in windows if w["phase"] == "curve" and w["mean_ms"].get("service")]
    if capacity is None or not curve:
        return []
    found = []
    for load in _LOADS:
        window = min(curve, key=lambda w: abs(w["rate"] / capacity.value - load))
        means = window["mean_ms"]
        parts = {shown: means[key] for key, shown in PARTS.items() if means.get(key) is not None}
        rest = max(0.0, means["service"] - sum(parts.values()))
        share = Share(window["rate"] / capacity.value, parts | {REST: rest})
        if share not in found:
            found.append(share)
    return found


def _workload(plan: Mapping[str, Any]) -> str:
    lengths = {
        "sst": "sentences as long as those of SST-2",
        "imdb": "reviews as long as those of IMDb",
        "mixed": "four sentences of SST-2's lengths to one review of IMDb's",
    }
    what = f"texts of {plan['texts']}" if plan["texts"] else lengths[plan["workload"]]
    many = "one text" if plan["batch"] == 1 else f"{plan['batch']} texts"
    return f"{what}; {many} a request; arrivals: {plan['arrivals']}"


def _warnings(content: Mapping[str, Any]) -> list[str]:
    found = []
    if not content["complete"]:
        found.append(f"Partial: the test was stopped ({content['stopped_by']}).")
    windows = [w for w in content["windows"] if w["phase"] != "warm-up"]
    limited = [w["limited_by"] for w in windows if w["limited_by"]]
    if limited:
        found.append(
            f"In {len(limited)} of {len(windows)} windows the load generator, or the machine that "
            f"it shares with the server, may have been the limit: {limited[-1]}."
        )
    precision = content["plan"]["precision"]
    wide = [
        f"{name} to {other}"
        for name, against in content["ratios"].items()
        for other, ratio in against.items()
        if Interval(**ratio).half_width > precision
    ]
    if wide:
        found.append(
            f"The time was up before these ratios were known to {100 * precision:g} %: "
            f"{', '.join(wide)}."
        )
    found += content["notes"].values()
    return found
