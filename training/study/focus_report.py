"""The tables of the Semantic Focus study, from the results of its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from training.study.authors import RECORDED
from training.study.comparable import Result
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
    """When each mechanism reaches 95 %."""
    full = by_mechanism.get(FULL)
    times = {name: times_of(result) for name, result in by_mechanism.items()}
    against = _tests(times, FULL, log_rank)
    corrected = holm(against)
    to_topk = holm(_tests(times, TOPK, log_rank))
    rows = []
    for name, result in by_mechanism.items():
        median = times[name].median()
        last = np.asarray(result["curves"]["held_out_accuracy"])[-1]
        rows.append(
            [
                name,
                _epochs(result),
                f"{sum(times[name].reached)} of {len(times[name].reached)}",
                "not reached" if median is None else f"{median:.0f}",
                "–" if full is None or name == FULL else _faster(full, result),
                p_value(against.get(name)),
                p_value(corrected.get(name)),
                p_value(to_topk.get(name)),
                quartiles(last.tolist(), 100),
            ]
        )
    header = ["attention", "epochs", "runs ≥ 95 %", "median epoch", "against full"]
    header += ["log-rank p", "Holm", f"against {TOPK}, Holm", "last accuracy, %"]
    chance = max(result["chance"] for result in by_mechanism.values())
    return (
        table(header, rows) + f"\nGuessing the most frequent class reaches {percent(chance)} %.\n"
    )


# What is compared with full attention where the epoch of 95 % says little: a curve [epochs, seeds],
# what it comes to for each seed, and its unit. The mean is that of the curve of accuracy: whoever
# learns faster is ahead.
_PROGRESS: dict[str, tuple[str, Callable[[Floats], Floats], float]] = {
    "best accuracy, %": ("held_out_accuracy", lambda curve: curve.max(axis=0), 100),
    "mean accuracy, %": ("held_out_accuracy", lambda curve: curve.mean(axis=0), 100),
    "training loss, nats": ("train_loss", lambda curve: curve[-1], 1),
}


def progress_table(by_mechanism: Mapping[str, Result]) -> str:
    """How far each mechanism gets in the epochs that full attention has run as well: the best and
    the mean held-out accuracy over them, and the training loss in the last of them."""
    full = by_mechanism.get(FULL)
    if full is None or len(by_mechanism) < 2:
        return ""
    rows = []
    for title, (curve, measure, scale) in _PROGRESS.items():
        pairs: dict[str, list[Floats]] = {}
        epochs: dict[str, int] = {}
        for name, result in by_mechanism.items():
            if name != FULL:
                curves = [np.asarray(each["curves"][curve]) for each in (result, full)]
                epochs[name] = min(map(len, curves))
                pairs[name] = [scale * measure(each[: epochs[name]]) for each in curves]
        tests = {name: _wilcoxon(*pair) for name, pair in pairs.items()}
        corrected = holm(tests)
        for name, pair in pairs.items():
            row = [title, name, str(epochs[name])]
            row += [quartiles(each.tolist(), digits=1 if scale == 100 else 3) for each in pair]
            rows.append([*row, p_value(tests[name]), p_value(corrected.get(name))])
    header = ["within the epochs of both", "attention", "epochs", "its", "of full"]
    return table([*header, "Wilcoxon p", "Holm"], rows)


def _tests(
    values: Mapping[str, Value], reference: str, test: Callable[[Value, Value], float | None]
) -> dict[str, float | None]:
    """The p-value of every other mechanism against one, where that was run."""
    if reference not in values:
        return {}
    return {
        name: test(values[reference], other) for name, other in values.items() if name != reference
    }


def _wilcoxon(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float | None:
    """Wilcoxon's signed-rank test, paired by seed; None where there are other seeds or nothing to
    rank."""
    if len(first) != len(second) or len(first) < 2 or not np.any(np.subtract(first, second)):
        return None
    return float(scipy.stats.wilcoxon(first, second).pvalue)


def _faster(full: Result, other: Result) -> str:
    """Which is ahead within the epochs of both: by the median, or else by how many have got there;
    a dash where none has."""
    curves = [np.asarray(each["curves"]["held_out_accuracy"]) for each in (full, other)]
    epochs = min(map(len, curves))
    times = [first_epochs(curve[:epochs].tolist(), THRESHOLD) for curve in curves]
    if not any(any(each.reached) for each in times):
        return "–"
    inf = float("inf")
    first, second = (
        (inf if each.median() is None else float(each.median() or 0), -sum(each.reached))
        for each in times
    )
    return "as fast" if first == second else "faster" if second < first else "slower"


def stability_table(task: str, by_mechanism: Mapping[str, Result]) -> str:
    """The percentiles of the stability quantities, in the median over the seeds, beside those that
    the authors' code records of one model."""
    rows = []
    ours = {
        name: _measured(result["stability"]["by_seed"]) for name, result in by_mechanism.items()
    }
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
    """On which share of the rows the two conditions hold: of all, and the range over seeds; the
    first also of the models that have reached 95 %."""
    rows = []
    for name, result in by_mechanism.items():
        by_seed = result["stability"]["by_seed"]
        seeds = _measured(by_seed)
        count = sum(seed["rows"] for seed in seeds)
        cells = [name, result["stability"]["kept"], _epochs(result), str(count)]
        for key in ("condition", "in_degree"):
            if not seeds:
                cells.append("–")
                continue
            shares = [seed[key] for seed in seeds]
            span = f"{percent(min(shares))} to {percent(max(shares))}"
            cells.append(f"{_share(seeds, key)} ({span})")
        learned = _measured(_of_learned(result, by_seed))
        cells.append(f"{_share(learned, 'condition')}, {len(learned)}" if learned else "–")
        rows.append(cells)
    header = ["trained with", "kept", "epochs", "rows", "first holds, % (over seeds)"]
    header += ["in-degree form, %", "first, of models ≥ 95 %, how many"]
    return table(header, rows)


def _measured(by_seed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that have rows: texts that keep all their links have none."""
    return [seed for seed in by_seed if seed["rows"]]


def _share(seeds: Sequence[dict[str, Any]], key: str) -> str:
    """Of the rows of all seeds, in percent."""
    return percent(float(np.average([s[key] for s in seeds], weights=[s["rows"] for s in seeds])))


def _of_learned(result: Result, by_seed: Sequence[Value]) -> list[Value]:
    """Those of the seeds that have reached 95 %: a model that has learned nothing yet is another
    thing to measure."""
    return [each for each, there in zip(by_seed, times_of(result).reached, strict=True) if there]


def _epochs(result: Result) -> str:
    return str(len(result["curves"]["held_out_accuracy"]))


def slope_table(by_mechanism: Mapping[str, Result]) -> str:
    """The steepness of the loss around the models, and a paired test against full."""
    slopes = {name: slopes_of(result) for name, result in by_mechanism.items()}
    against = _tests(slopes, FULL, _wilcoxon)
    corrected = holm(against)
    rows = []
    for name, values in slopes.items():
        learned = _of_learned(by_mechanism[name], values)
        row = [name, _epochs(by_mechanism[name]), quartiles(values, digits=2)]
        row += [p_value(against.get(name)), p_value(corrected.get(name))]
        row += [f"{quartiles(learned, digits=2)}, {len(learned)}" if learned else "–"]
        rows.append(row)
    header = ["attention", "epochs", "99th percentile of slopes, median"]
    header += ["Wilcoxon p against full", "Holm", "of models ≥ 95 %, how many"]
    return table(header, rows)


def slopes_of(result: Result) -> list[float]:
    """The 99th percentile of the slopes around each seed's model."""
    landscape = result["landscape"]
    column = landscape["percentiles"].index(_SLOPE)
    return [seed[column] for seed in landscape["slopes"]]
