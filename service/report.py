"""What GET /report shows: the newest reports in a folder.

`crisp compare --json FILE` writes a comparison, of which the figures are shown; `crisp loadtest
report` writes one self-contained HTML file, which is shown as it is. Both are found by what is in
them, whatever they are called. A new file is shown at the next request.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOAD_TEST = b'name="generator" content="crisp loadtest"'  # in the head of its page
LARGEST = 64 * 1024 * 1024  # bytes of a file that is looked at: what is larger is no report


@dataclass(frozen=True)
class Row:
    """One line of a table of figures: a name, and a cell for each column."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonTable:
    """The figures of one `crisp compare`, as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    command: str
    started: str
    machine: str


def newest_comparisons(folder: Path) -> list[ComparisonTable]:
    """The newest comparison of each data set in `folder`, the newest first."""
    found: dict[str, ComparisonTable] = {}
    for file in _newest_first(folder, ".json"):
        table = _comparison(file)
        if table is not None:
            found.setdefault(table.title, table)
    return list(found.values())


def newest_load_test(folder: Path) -> Path | None:
    """The newest load test's HTML file in `folder` or one of its folders, or None."""
    return next(filter(_is_load_test, _newest_first(folder, ".html")), None)


def _is_load_test(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return _LOAD_TEST in opened.read(4096)
    except OSError:  # it went away, or is not for us to read
        return False


def _newest_first(folder: Path, suffix: str) -> Iterator[Path]:
    """Files in `folder` and its own folders, the latest written first."""
    dated = []
    for file in (*folder.glob(f"*{suffix}"), *folder.glob(f"*/*{suffix}")):
        try:
            facts = file.stat()
        except OSError:  # it went away, or is not for us to read
            continue
        if file.is_file() and facts.st_size <= LARGEST:
            dated.append((facts.st_mtime, file))
    return (file for _, file in sorted(dated, reverse=True))


def _comparison(file: Path) -> ComparisonTable | None:
    facts = file.stat()
    return _read(file, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(256)
def _read(file: Path, _mtime_ns: int, _size: int) -> ComparisonTable | None:
    """The table of a report of `crisp compare`, or None where `file` is none that we know; looked
    at once for each state of the file."""
    try:
        report = json.loads(file.read_bytes())
        return _table(report)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# Name, what a variant has of it, and what a variant has against the baseline.
_ROWS: tuple[tuple[str, Callable[[Any], str], Callable[[Any], str]], ...] = (
    ("accuracy", lambda v: _percent(v["accuracy"]["value"]),
     lambda c: f"{100 * c['accuracy_difference']['value']:+.2f} points"),
    ("accuracy, 95 % interval", lambda v: _range(v["accuracy"], "{:.2f}", 100),
     lambda c: _range(c["accuracy_difference"], "{:+.2f}", 100)),
    ("McNemar's exact p", lambda _: "", lambda c: f"{c['mcnemar_p']:.3f}"),
    ("same label", lambda _: "", lambda c: _percent(c["agreement"])),
    ("p50, one text", lambda v: f"{v['latency_ms']['p50']:.2f} ms",
     lambda c: f"{c['latency_speedup']['value']:.2f}×"),
    ("p50, 95 % interval", lambda _: "", lambda c: _range(c["latency_speedup"], "{:.2f}")),
    ("p99, one text", lambda v: f"{v['latency_ms']['p99']:.2f} ms", lambda _: ""),
    ("texts a second", lambda v: f"{v['texts_per_second']:,.0f}",
     lambda c: f"{c['throughput_speedup']['value']:.2f}×"),
    ("texts a second, 95 % interval", lambda _: "",
     lambda c: _range(c["throughput_speedup"], "{:.2f}")),
    ("model file", lambda v: f"{v['model']['model_bytes'] / 1e6:.1f} MB",
     lambda c: f"{c['size_ratio']:.2f}×"),
)  # fmt: skip


def _table(report: dict[str, Any]) -> ComparisonTable:
    variants: dict[str, Any] = report["variants"]
    comparisons: dict[str, Any] = report["comparisons"]
    against = [f"{name} against {one['baseline']}" for name, one in comparisons.items()]
    rows = [
        Row(name, (*map(of_variant, variants.values()), *map(of_pair, comparisons.values())))
        for name, of_variant, of_pair in _ROWS
    ]
    machine = report["environment"]
    return ComparisonTable(
        title=f"{report['data']['name']}, {report['data']['n']:,} texts",
        columns=(*variants, *against),
        rows=tuple(rows),
        command=str(report["command"]),
        started=str(report["started"])[:10],
        machine=f"{machine['processor']}, {machine['cores']} cores",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _range(interval: dict[str, float], form: str, scale: float = 1) -> str:
    return " to ".join(form.format(scale * interval[end]) for end in ("low", "high"))
