"""The tables of the Semantic Focus study, from the results of its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from training.study.authors import RECORDED
from training.study.focus_results import Result
from training.study.markdown import number, p_value, percent, quartiles, table
from training.study.measures import holm
from training.study.mechanisms import FULL
from training.study.stability import LOWER, UPPER, condition
from training.study.survival import Times, first_epochs, log_rank

Value = TypeVar("Value")
Floats = NDArray[np.float64]
THRESHOLD = 0.95
TOPK = "topk-5"
_SLOPE = 99.0  # the percentile of the slopes that is compared


def times_of(result: Result) -> Times:
    return first_epochs(result["curves"]["held_out_accuracy"], THRESHOLD)


def speed_table(by_mechanism: Mapping[str, Result]) -> str:
    """When each mechanism reaches 95 %, and how far it gets."""
    times = {name: times_of(result) for name, result in by_mechanism.items()}
    accuracies = {
        name: np.asarray(result["curves"]["held_out_accuracy"])
        for name, result in by_mechanism.items()
    }
    against = _tests(times, FULL, log_rank)
    corrected = holm(against)
    to_topk = holm(_tests(times, TOPK, log_rank))
    best = holm(_tests(accuracies, FULL, _best_accuracies))
    rows = []
    for name, accuracy in accuracies.items():
        median = times[name].median()
        rows.append(
            [
                name,
                str(len(accuracy)),
                f"{sum(times[name].reached)} of {len(times[name].reached)}",
                "not reached" if median is None else f"{median:.0f}",
                _faster(times.get(FULL), times[name]) if name != FULL else "–",
                p_value(against.get(name)),
                p_value(corrected.get(name)),
                p_value(to_topk.get(name)),
                quartiles(accuracy.max(axis=0).tolist(), 100),
                p_value(best.get(name)),
                quartiles(accuracy[-1].tolist(), 100),
            ]
        )
    header = ["attention", "epochs", "runs ≥ 95 %", "median epoch", "against full"]
    header += ["log-rank p", "Holm", f"against {TOPK}, Holm"]
    header += ["best accuracy, %", "against full, Holm", "last accuracy, %"]
    chance = max(result["chance"] for result in by_mechanism.values())
    return (
        table(header, rows) + f"\nGuessing the most frequent class reaches {percent(chance)} %.\n"
    )


def _tests(
    values: Mapping[str, Value], reference: str, test: Callable[[Value, Value], float | None]
) -> dict[str, float | None]:
    """The p-value of every other mechanism against one, where that was run."""
    if reference not in values:
        return {}
    return {
        name: test(values[reference], other) for name, other in values.items() if name != reference
    }


def _best_accuracies(first: Floats, second: Floats) -> float | None:
    """Of curves [epochs, seeds], within the epochs that both have run: it says something where
    nothing reaches 95 %."""
    epochs = min(len(first), len(second))
    return _wilcoxon(first[:epochs].max(axis=0), second[:epochs].max(axis=0))


def _wilcoxon(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float | None:
    """Wilcoxon's signed-rank test, paired by seed; None where there are other seeds or nothing to
    rank."""
    if len(first) != len(second) or len(first) < 2 or not np.any(np.subtract(first, second)):
        return None
    return float(scipy.stats.wilcoxon(first, second).pvalue)


def _faster(full: Times | None, other: Times) -> str:
    """Which is ahead: by the median, or else by how many have got there."""
    if full is None:
        return "–"
    inf = float("inf")
    first, second = (
        (inf if times.median() is None else float(times.median() or 0), -sum(times.reached))
        for times in (full, other)
    )
    return "as fast" if first == second else "faster" if second < first else "slower"


def stability_table(task: str, by_mechanism: Mapping[str, Result]) -> str:
    """The percentiles of the stability quantities, in the median over the seeds, beside those that
    the authors' code records of one model."""
    rows = []
    ours = {name: _measured(result) for name, result in by_mechanism.items()}
    for key, symbol, source in (
        ("dispersion", "δ_s", FULL),
        ("heavy_dispersion", "δ_h", TOPK),
        ("separation", "Δ_h", TOPK),
        ("relative_degree", "β", TOPK),
    ):
        if ours.get(source):
            values = np.median([seed["percentiles"][key] for seed in ours[source]], axis=0)
            rows.append([f"{symbol} of {source}, ours", *map(number, values)])
        if task in RECORDED and key in RECORDED[task]:
            rows.append([f"{symbol} of {source}, authors", *map(number, RECORDED[task][key])])
    header = [
        "percentile (of Δ_h); medians over the seeds",
        *(f"{up:.0f} ({low:.0f})" for up, low in zip(UPPER, LOWER, strict=True)),
    ]
    return table(header, rows)


def authors_conditions() -> str:
    """The first condition, from the recorded percentiles column by column."""
    rows = []
    for task, recorded in RECORDED.items():
        left = condition(*(np.array(recorded[k]) for k in recorded))
        rows.append([task, *(f"{value:.2f}" for value in left)])
    return table(["left side; below 1 it holds", *(f"{p:.0f}th" for p in UPPER)], rows)


def condition_table(by_mechanism: Mapping[str, Result]) -> str:
    """On which share of the rows the two conditions hold: of all, and the range over seeds."""
    rows = []
    for name, result in by_mechanism.items():
        seeds = _measured(result)
        count = [seed["rows"] for seed in seeds]
        cells = [name, result["stability"]["kept"], str(sum(count))]
        for key in ("condition", "in_degree"):
            if not seeds:
                cells.append("–")
                continue
            shares = [seed[key] for seed in seeds]
            whole = float(np.average(shares, weights=count))
            cells.append(f"{percent(whole)} ({percent(min(shares))} to {percent(max(shares))})")
        rows.append(cells)
    header = ["trained with", "kept", "rows", "first holds, % (over seeds)", "in-degree form, %"]
    return table(header, rows)


def _measured(result: Result) -> list[dict[str, Any]]:
    """The stability of each seed that has rows to measure: texts that keep all their links have
    none."""
    return [seed for seed in result["stability"]["by_seed"] if seed["rows"]]


def slope_table(by_mechanism: Mapping[str, Result]) -> str:
    """The steepness of the loss around the models, and a paired test against full."""
    slopes = {name: slopes_of(result) for name, result in by_mechanism.items()}
    against = _tests(slopes, FULL, _wilcoxon)
    corrected = holm(against)
    rows = [
        [
            name,
            quartiles(values, digits=2),
            p_value(against.get(name)),
            p_value(corrected.get(name)),
        ]
        for name, values in slopes.items()
    ]
    header = ["attention", "99th percentile of slopes, median", "Wilcoxon p against full", "Holm"]
    return table(header, rows)


def slopes_of(result: Result) -> list[float]:
    """The 99th percentile of the slopes around each seed's model."""
    landscape = result["landscape"]
    column = landscape["percentiles"].index(_SLOPE)
    return [seed[column] for seed in landscape["slopes"]]
