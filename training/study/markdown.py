"""Tables and numbers of the studies' reports as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import numpy as np

from training.statistics import Estimate


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def points(estimate: Estimate) -> str:
    """A difference of shares in percentage points, with its interval where it has one."""
    return f"{100 * estimate.value:+.2f}{_range(estimate, 100, '+')}"


def percent_interval(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.2f}{_range(estimate, 100, '')}"


def plain_interval(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f}{_range(estimate, 1, '+', 3)}"


def _range(estimate: Estimate, scale: float, sign: str, digits: int = 2) -> str:
    if isnan(estimate.low):
        return ""
    low, high = scale * estimate.low, scale * estimate.high
    return f" ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def quartiles(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Median (lower to upper quartile)."""
    low, middle, high = (scale * q for q in np.percentile(values, [25, 50, 75]))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def number(value: float) -> str:
    """Three digits, without powers of ten where they are not needed."""
    return f"{value:.1e}" if value != 0 and abs(value) < 5e-4 else f"{value:.3g}"
