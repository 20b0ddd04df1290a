"""What a load test found: a summary of each variant, the ratios to the baseline, a table, JSON.

Latencies are those of right answers, in milliseconds, as the client saw them. Requests/s counts
right answers only. Ratios are oriented so that above 1 is better than the baseline.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.drive import Turn

PERCENTILES = (50, 95, 99)
BASELINE = "dense"


@dataclass(frozen=True)
class Summary:
    """One or several turns of a variant, their requests pooled."""

    requests: int
    failures: int
    seconds: float
    requests_per_second: float
    texts_per_second: float
    tokens_per_second: float
    latency_ms: dict[str, float]  # p50, p95, p99; empty where no answer was right
    faults: dict[str, int]
    client_saturated: bool  # in any of the turns


@dataclass(frozen=True)
class Ratio:
    """A variant to the baseline: in the median round, the worst, and the best."""

    median: float
    lowest: float
    highest: float


def summarise(turns: Sequence[Turn]) -> Summary:
    """Pools the requests of `turns`."""
    latencies = np.array([latency for turn in turns for latency in turn.latencies_ms])
    seconds = sum(turn.seconds for turn in turns)
    failures = sum(turn.failures for turn in turns)
    faults: Counter[str] = Counter()
    for turn in turns:
        faults.update(turn.faults)

    def rate(amount: int) -> float:
        return amount / seconds if seconds else 0.0

    return Summary(
        requests=len(latencies) + failures,
        failures=failures,
        seconds=seconds,
        requests_per_second=rate(len(latencies)),
        texts_per_second=rate(sum(turn.texts for turn in turns)),
        tokens_per_second=rate(sum(turn.tokens for turn in turns)),
        latency_ms={
            f"p{p}": float(np.percentile(latencies, p)) for p in PERCENTILES if len(latencies)
        },
        faults=dict(faults.most_common()),
        client_saturated=any(turn.client_saturated for turn in turns),
    )


def summaries(turns: Sequence[Turn]) -> dict[str, Summary]:
    """The summary of each variant, the baseline first: `dense`, or else the first that ran."""
    variants = sorted({turn.variant: None for turn in turns}, key=lambda name: name != BASELINE)
    return {name: summarise([t for t in turns if t.variant == name]) for name in variants}


def ratios(turns: Sequence[Turn]) -> dict[str, dict[str, Ratio]]:
    """For each variant but the baseline, how many times better it is, figure by figure.

    Each round gives a ratio of its own; only those count that both variants finished, with right
    answers.
    """
    names = list(summaries(turns))
    good = {(t.number, t.variant): t for t in turns if t.complete and t.latencies_ms}
    found: dict[str, dict[str, Ratio]] = {}
    for name in names[1:]:
        numbers = sorted(n for n, v in good if v == name and (n, names[0]) in good)
        if not numbers:
            continue
        pairs = [(_figures(good[n, name]), _figures(good[n, names[0]])) for n in numbers]
        found[name] = {}
        for figure in pairs[0][0]:
            each = [_better(figure, new[figure], old[figure]) for new, old in pairs]
            found[name][figure] = Ratio(median(each), min(each), max(each))
    return found


def _figures(turn: Turn) -> dict[str, float]:
    summary = summarise([turn])
    return {"requests_per_second": summary.requests_per_second, **summary.latency_ms}


def _better(figure: str, new: float, old: float) -> float:
    return new / old if figure == "requests_per_second" else old / new


def table(turns: Sequence[Turn]) -> Table:
    """The variants side by side, and their ratios to the baseline."""
    found, better = summaries(turns), ratios(turns)
    baseline = next(iter(found))
    grid = Table(title="Load test", title_justify="left")
    grid.add_column("")
    for name in found:
        grid.add_column(name, justify="right")
    for name in better:
        grid.add_column(
            f"{name} against {baseline}, by round:\nmedian (worst to best), above 1 is better",
            justify="right",
        )

    def row(what: str, values: Sequence[str], figure: str | None = None) -> None:
        spread = [r[figure] for r in better.values()] if figure else []
        cells = [f"{r.median:.2f}× ({r.lowest:.2f} to {r.highest:.2f})" for r in spread]
        grid.add_row(what, *values, *(cells or [""] * len(better)))

    each = list(found.values())
    rate = "requests_per_second"
    row("requests/s", [f"{s.requests_per_second:,.1f}" for s in each], rate)
    for p in PERCENTILES:
        key = f"p{p}"
        cells = [f"{s.latency_ms[key]:,.1f}" if s.latency_ms else "no answer" for s in each]
        row(f"{key}, ms", cells, key)
    row("texts/s", [f"{s.texts_per_second:,.1f}" for s in each])
    row("tokens/s", [f"{s.tokens_per_second:,.0f}" for s in each])
    row("requests", [f"{s.requests:,}" for s in each])
    row("failures", [f"{s.failures:,}" for s in each])
    return grid


def show(console: Console, turns: Sequence[Turn]) -> None:
    """Prints the table, and what failed."""
    console.print(table(turns))
    for name, summary in summaries(turns).items():
        for fault, times in summary.faults.items():
            console.print(f"{name}: {times:,} × {fault}", style="red", markup=False)
        if summary.client_saturated:
            console.print(
                f"{name}: Locust itself was at the limit of its core, so the service may be faster "
                "than this; drive it from another machine (--url) or with fewer --users",
                style="yellow",
                markup=False,
            )


def document(turns: Sequence[Turn], **facts: Any) -> dict[str, Any]:
    """Everything as JSON: `facts` of the run, environment, summaries, ratios, and every turn with
    the latency of each of its requests."""
    return {
        "schema_version": 1,
        **facts,
        "summary": {name: asdict(summary) for name, summary in summaries(turns).items()},
        "ratios": {
            name: {figure: asdict(ratio) for figure, ratio in figures.items()}
            for name, figures in ratios(turns).items()
        },
        "turns": [
            {
                "round": turn.number,
                "variant": turn.variant,
                "complete": turn.complete,
                **asdict(summarise([turn])),
                "latencies_ms": list(turn.latencies_ms),
            }
            for turn in turns
        ],
    }


def dump(content: dict[str, Any]) -> str:
    """Indented JSON, lists of numbers on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return re.sub(r"\[[\d\s.,e+-]+\]", lambda m: " ".join(m[0].split()), text) + "\n"


def write(text: str, path: Path) -> None:
    """Writes the file whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def environment() -> dict[str, Any]:
    """The machine that the load came from (and the service too, where it was started here).

    Raises ModuleNotFoundError where Locust is not installed.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": sys.version.split()[0],
        "locust": version("locust"),
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", facts.read_text()) if facts.is_file() else None
    return found[1] if found else platform.processor()
