"""A load test's results as JSON, from which everything else is drawn, and as a table.

{"schema_version": 3, "complete": true, "command": "...", "environment": {...}, "plan": {...},
 "contenders": {name: {"own", "variant", "facts", "server": {...}}},
 "capacities": {name: {"value", "low", "high", "n"}}, "ratios": {name: {other: {...}}},
 "windows": [...], "usage": [...]}

Histograms are in HdrHistogram's compressed format, so that every percentile can be read off later.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.campaign import Campaign, Contender, Window
from loadtests.errors import LoadTestError
from loadtests.usage import processors

SCHEMA_VERSION = 3
_READABLE = (2, SCHEMA_VERSION)  # in 2, intervals came of a search for each round
PARTS = ("queue", "tokenize", "inference")  # of a request's time, as a Crisp service reports them
# Of a processor, those that decide how fast models run: several that differ in them have one name.
_INSTRUCTION_SETS = re.compile(r"^(avx|fma$|amx|asimd|sve|i8mm|bf16)")
_VERSIONS = (
    *("hdrhistogram", "locust", "httptools", "uvloop", "numpy", "bentoml"),
    *("onnxruntime", "onnxruntime-gpu"),  # one module, which comes in either
)


def document(campaign: Campaign, **facts: Any) -> dict[str, Any]:
    """Everything as JSON: `facts` of the run, and what the campaign found until now."""
    return {
        "schema_version": SCHEMA_VERSION,
        **facts,
        "plan": campaign.plan.to_dict(),
        "contenders": {c.name: _contender(c) for c in campaign.contenders},
        "notes": campaign.notes,
        "capacities": {name: asdict(found) for name, found in campaign.capacities().items()},
        "ratios": {
            name: {other: asdict(ratio) for other, ratio in against.items()}
            for name, against in campaign.ratios().items()
        },
        "windows": [_window(window) for window in campaign.windows],
        "usage": [list(sample) for sample in campaign.usage.samples],
    }


def _contender(contender: Contender) -> dict[str, Any]:
    target = contender.target
    server = {"url": target.url, "adapter": target.adapter, "started_with": target.started_with}
    return {
        "own": contender.own,
        "variant": contender.variant,
        "facts": contender.facts,
        "server": server,
    }


def _window(window: Window) -> dict[str, Any]:
    found = window.measurement
    plain = {name: value for name, value in vars(window).items() if name != "measurement"}
    return {
        **plain,
        "latency_ms": found.latency.percentiles(),
        "mean_ms": {
            name: histogram.mean
            for name, histogram in {"service": found.service, **found.parts}.items()
        },
        "limited_by": found.limited_by,
        "measurement": found.to_dict(),
    }


def facts_of(models: Any, variant: str) -> dict[str, Any]:
    """What a Crisp service says of a variant in GET /models, as far as a report needs it."""
    found = models["variants"].get(variant, {})
    manifest = found.get("manifest", {})
    files = manifest.get("files", {}).values()
    return {
        **{key: manifest.get(key) for key in ("precision", "attention", "pruning", "measured")},
        "operators": found.get("operators", {}).get("kernel"),
        "bytes": sum(file.get("bytes", file.get("size", 0)) for file in files) or None,
    }


def load(path: Path) -> dict[str, Any]:
    """The results in a file; raises LoadTestError where there are none that this version reads."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadTestError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise LoadTestError(f"{path} is not JSON: {error}") from None
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found not in _READABLE or not isinstance(content.get("windows"), list):
        raise LoadTestError(
            f"{path} is no result of `crisp loadtest` that this version reads (schema "
            f"{SCHEMA_VERSION}); make one with `crisp loadtest`"
        )
    return dict(content)


def dump(content: Mapping[str, Any]) -> str:
    """JSON with one line for each window and sample."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return re.sub(r"\n {3,}|\n  (?=[\]}])", " ", text) + "\n"


def show(console: Console, campaign: Campaign) -> None:
    """Prints who carries how much, the ratios, what failed and what to be careful about."""
    capacities, plan = campaign.capacities(), campaign.plan
    table = Table(title=f"Requests/s with 99 % under {plan.slo_ms:g} ms", title_justify="left")
    for column in ("", "requests/s", "95 % interval", "p50, ms", "p99, ms", "cores", "MiB"):
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    for name, found in capacities.items():
        half = _window_near(campaign, name, found.value)
        cells = ["", "", "", ""]
        if half is not None:
            p50, p99 = (half.measurement.latency.percentile(p) for p in (50, 99))
            figures = (p50, p99, half.cores, half.rss_mib)
            cells = [
                "" if f is None else f"{f:,.{d}f}"
                for f, d in zip(figures, (1, 1, 2, 0), strict=True)
            ]
        table.add_row(name, f"{found.value:,.1f}", interval_text(found.low, found.high, 1), *cells)
    console.print(table)
    if capacities:
        console.print("Latency, cores and memory at the window nearest to half of that.")
    for name, against in campaign.ratios().items():
        for other, ratio in against.items():
            interval = interval_text(ratio.low, ratio.high, 2) or "no interval"
            console.print(
                f"{name} carries {ratio.value:.2f} × the requests of {other} ({interval}; "
                f"{ratio.n} windows of each)",
                style="bold",
            )
    for note in campaign.notes.values():
        console.print(note, style="yellow")
    limited = [w for w in campaign.windows if w.phase != "warm-up" and w.measurement.limited_by]
    if limited:
        console.print(
            f"In {len(limited)} of {len(campaign.windows)} windows the load generator may have "
            f"been the limit ({limited[-1].measurement.limited_by}): give it a core of its own, or "
            "drive the service from another machine (--url)",
            style="yellow",
        )


def _window_near(campaign: Campaign, name: str, capacity: float) -> Window | None:
    """The window of the curve nearest to half of the capacity."""
    curve = [w for w in campaign.windows if w.contender == name and w.phase == "curve"]
    return min(curve, key=lambda w: abs(w.rate - capacity / 2), default=None)


def interval_text(low: float | None, high: float | None, digits: int) -> str:
    """`low to high`; empty where there is no interval."""
    return "" if low is None or high is None else f"{low:,.{digits}f} to {high:,.{digits}f}"


def environment() -> dict[str, Any]:
    """The machine that the load came from (and the service too, where it was started here), asked
    before there is load."""
    versions = {}
    for package in _VERSIONS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    processor, flags = _processor()
    return {
        "platform": platform.platform(),
        "processor": processor,
        "instruction_sets": sorted(filter(_INSTRUCTION_SETS.match, flags)),
        "cores": processors(),
        "load_average_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": sys.version.split()[0],
        "versions": versions,
    }


def _processor() -> tuple[str, list[str]]:
    """Its name, and what it can do, where the system says."""
    file = Path("/proc/cpuinfo")
    facts = file.read_text() if file.is_file() else ""
    name = re.search(r"model name\s*: (.*)", facts)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)", facts, re.MULTILINE)
    return name[1] if name else platform.processor(), flags[1].split() if flags else []
