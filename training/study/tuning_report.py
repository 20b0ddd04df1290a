"""The tables of the Crisp Attention study, from the results of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.pattern import AttentionPattern
from training.statistics import PairedOutcomes, mcnemar_exact, mean_difference_over_seeds
from training.study.comparable import Result, comparable
from training.study.crisp_attention import TuningSettings
from training.study.markdown import (
    p_value,
    percent_interval,
    plain_interval,
    points,
    table,
)
from training.study.measures import (
    examples_needed,
    holm,
    mean_over_seeds,
    paired_permutation,
    paired_t,
    seeds_needed,
)
from training.study.sweep import USUAL_DROPOUT

Group = dict[str, list[Result]]  # what is trained -> its runs, by seed
DENSE = "dense"
# Settings that runs beside each other may differ in; the last two do not decide what is learned.
_COMPARED = (
    *("attention", "attention_dropout", "phase_in", "seed"),
    *("inference", "keep_weights"),
)


def settings_of(results: Sequence[Result]) -> dict[str, Group]:
    """The results by what is comparable, everything but pattern, dropout and seed, then by these
    two."""
    results = sorted(results, key=lambda r: _order(r["settings"]))
    found: dict[str, Group] = {}
    for title, same in comparable(results, _title, _COMPARED).items():
        for result in same:
            group = found.setdefault(title, {})
            group.setdefault(trained(result["settings"]), []).append(result)
    return dict(sorted(found.items(), key=lambda item: _order_of_first(item[1])))


def _title(result: Result) -> str:
    s = result["settings"]
    return (
        f"{s['base']}, {s['fraction']:g} of {s['data']} ({result['texts']} texts), "
        f"{s['epochs']} epochs at {s['learning_rate']:g}"
    )


def _order(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    pattern = settings["attention"]
    names = (DENSE, "topk", "random", "bottomk", "band")
    place = names.index(pattern["name"]) if pattern["name"] in names else len(names)
    return (
        *(settings["fraction"], place, -(pattern.get("density") or 0), -(pattern.get("k") or 0)),
        *(settings["attention_dropout"], settings.get("phase_in", 0), settings["seed"]),
    )


def _order_of_first(group: Group) -> tuple[Any, ...]:
    return _order(next(iter(group.values()))[0]["settings"])


def trained(settings: Mapping[str, Any]) -> str:
    """What a run was trained with, in words."""
    words = str(AttentionPattern.from_dict(settings["attention"]))
    if phase := settings.get("phase_in"):
        words += f", phased in over {100 * phase:g} % of the steps"
    dropout = settings["attention_dropout"]
    return words if dropout == USUAL_DROPOUT else f"{words}, attention dropout {dropout:g}"


def right_of(runs: Sequence[Result], dev: str, pattern: str | None = None) -> NDArray[np.bool_]:
    """Whether each run is right about each text: bool [S, N]. Of dense runs, with `pattern`, with
    their attention made sparse at inference."""
    found = [run["dev"][dev] if pattern is None else run["inference"][pattern][dev] for run in runs]
    return np.array([[digit == "1" for digit in each["right"]] for each in found])


def accuracy_table(group: Group, dev: str) -> str:
    """Accuracy of each setting and its difference to dense, by seed and by example."""
    rows: list[list[str]] = []
    by_seed: dict[str, float | None] = {}
    by_example: dict[str, float | None] = {}
    compared: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for name, right, dense in _outcomes(group, dev):
        mean = mean_over_seeds(right.mean(axis=1).tolist())
        rows.append([name, str(len(right)), percent_interval(mean)])
        if dense is not None:
            compared[name] = (right, dense)
            by_seed[name] = paired_t(right.mean(axis=1).tolist(), dense.mean(axis=1).tolist())
            by_example[name] = paired_permutation((right.astype(float) - dense).mean(axis=0))
    seeds, examples = holm(by_seed), holm(by_example)
    for row in rows:
        name = row[0]
        if name not in compared:
            row += ["–"] * 6
            continue
        right, dense = compared[name]
        if len(right) > 1:
            found = mean_difference_over_seeds(right, dense)
            over = found.over_seeds
            texts = found.over_examples
            row.append(
                f"{100 * found.value:+.2f} ({100 * over.low:+.2f} to {100 * over.high:+.2f})"
            )
            row.append(f"{100 * texts.low:+.2f} to {100 * texts.high:+.2f}")
        else:
            row += [f"{100 * (right.mean() - dense.mean()):+.2f}", "–"]
        row += [p_value(by_seed[name]), p_value(seeds[name])]
        row += [p_value(by_example[name]), p_value(examples[name])]
    header = [
        "attention",
        "seeds",
        "accuracy, % (over seeds)",
        "against dense, points (over seeds)",
    ]
    header += ["over texts", "t test p", "Holm", "permutation p", "Holm"]
    return table(header, rows)


def _outcomes(
    group: Group, dev: str
) -> list[tuple[str, NDArray[np.bool_], NDArray[np.bool_] | None]]:
    """Each setting's outcomes [S, N], and those of dense for the same seeds."""
    dense = {run["settings"]["seed"]: run for run in group.get(DENSE, [])}
    found: list[tuple[str, NDArray[np.bool_], NDArray[np.bool_] | None]] = []
    for name, runs in group.items():
        if name == DENSE:
            found.append((name, right_of(runs, dev), None))
            continue
        paired = [run for run in runs if run["settings"]["seed"] in dense]
        if paired:
            others = [dense[run["settings"]["seed"]] for run in paired]
            found.append((name, right_of(paired, dev), right_of(others, dev)))
        else:
            found.append((name, right_of(runs, dev), None))
    runs = group.get(DENSE, [])
    for pattern in runs[0]["inference"] if runs else []:
        sparse = right_of(runs, dev, pattern)
        found.append((f"dense, {pattern} at inference only", sparse, right_of(runs, dev)))
    return found


def mcnemar_table(group: Group, dev: str) -> str:
    """McNemar's exact test of each setting against dense, seed by seed."""
    rows = []
    for name, right, dense in _outcomes(group, dev):
        if dense is None:
            continue
        cells = []
        for one, other in zip(right, dense, strict=True):
            pairs = PairedOutcomes.of(one.tolist(), other.tolist())
            p = mcnemar_exact(pairs.only_first_right, pairs.only_second_right)
            cells.append(f"+{pairs.only_first_right} −{pairs.only_second_right}, p {p_value(p)}")
        rows.append([name, "; ".join(cells)])
    return table(["attention", "texts that it alone is right (+) or wrong (−) about"], rows)


def gap_table(group: Group, dev: str) -> str:
    """The generalisation gap of each setting: training − held-out accuracy, held-out − training
    loss."""
    rows = []
    gaps = {
        name: {
            run["settings"]["seed"]: (
                run["train"]["accuracy"] - run["dev"][dev]["accuracy"],
                run["dev"][dev]["loss"] - run["train"]["loss"],
            )
            for run in runs
        }
        for name, runs in group.items()
    }
    for name, runs in group.items():
        accuracy, loss = zip(*gaps[name].values(), strict=True)
        cells = [
            name,
            percent_interval(mean_over_seeds([run["train"]["accuracy"] for run in runs])),
            points(mean_over_seeds(accuracy)),
            plain_interval(mean_over_seeds(loss)),
        ]
        shared = sorted(gaps[name].keys() & gaps.get(DENSE, {}).keys())
        for i, show in ((0, points), (1, plain_interval)):
            if name == DENSE or not shared:
                cells.append("–")
                continue
            differences = [gaps[name][seed][i] - gaps[DENSE][seed][i] for seed in shared]
            cells.append(show(mean_over_seeds(differences)))
        rows.append(cells)
    header = ["attention", "training accuracy, %", "gap, points", "gap of the loss, nats"]
    header += ["gap against dense, points", "gap of the loss against dense"]
    return table(header, rows)


def power_table(group: Group, dev: str) -> str:
    """How many seeds, and how many texts, would show a difference of 1 point (80 % power)."""
    rows = []
    for name, right, dense in _outcomes(group, dev):
        if dense is None or len(right) < 2:
            continue
        differences = right.astype(float) - dense
        seeds = seeds_needed(float(differences.mean(axis=1).std(ddof=1)))
        texts = examples_needed(float(differences.mean(axis=0).std(ddof=1)))
        rows.append([name, "> 10,000" if seeds is None else f"{seeds:,}", f"{texts:,}"])
    header = ["attention against dense", "seeds", "held-out texts, with these runs"]
    return table(header, rows)


def best_dropout(group: Group, dev: str) -> str | None:
    """The dense setting whose attention dropout does best on held-out texts, if several were
    tried."""
    dense = {name: runs for name, runs in group.items() if name.split(",")[0] == DENSE}
    if len(dense) < 2:
        return None
    best = max(dense, key=lambda name: float(right_of(dense[name], dev).mean()))
    dropout = TuningSettings.from_dict(dense[best][0]["settings"]).attention_dropout
    mean = mean_over_seeds(right_of(dense[best], dev).mean(axis=1).tolist())
    return f"Dense does best with an attention dropout of {dropout:g}: {percent_interval(mean)} %."
