"""The tables of the Crisp Attention study: runs are paired by their seeds, and the tests are those
that the columns name."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from study_results import TEXTS, TUNING, cells, tuning_result

from training.study import tuning_report

Outcomes = dict[int, NDArray[np.bool_]]  # seed -> whether it is right about each text


def test_differences_to_dense_are_paired_by_seed() -> None:
    ((title, group),) = tuning_report.settings_of(TUNING).items()
    assert title.startswith("minilm, 0.1 of train.tsv (692 texts), 2 epochs at 5e-05")
    table = tuning_report.accuracy_table(group, "dev.tsv")
    assert cells(table, "dense")[2].startswith("90.50 (")
    sparse = cells(table, "topk(density=0.2)")
    assert sparse[3].startswith("+5.50 (")
    low, high = map(float, sparse[4].split(" to "))
    assert 0 < low < 5.5 < high
    assert float(sparse[7].strip("< ")) < 0.05
    inference = cells(table, "dense, topk(density=0.2) at inference only")
    assert inference[3] == "-0.50 (-0.50 to -0.50)"
    pairs = cells(tuning_report.mcnemar_table(group, "dev.tsv"), "topk(density=0.2)")[1]
    assert pairs.split("; ")[0] == "+10 −0, p 0.002"
    gaps = cells(tuning_report.gap_table(group, "dev.tsv"), "topk(density=0.2)")
    assert gaps[1].startswith("95.00")
    assert gaps[2].startswith("-1.00 (")
    assert gaps[4].startswith("-5.50 (")
    assert gaps[3] == "+0.300 (+0.300 to +0.300)"
    power = cells(tuning_report.power_table(group, "dev.tsv"), "topk(density=0.2)")
    # The differences 10, 11 and 12 of 200 texts deviate by half a point.
    assert int(power[1]) == 5
    best = tuning_report.best_dropout(group, "dev.tsv")
    assert best is not None
    assert best.startswith("Dense does best with an attention dropout of 0.3: 92.00 (")


def test_outcomes_are_those_of_the_runs() -> None:
    ((_, group),) = tuning_report.settings_of(TUNING).items()
    right = tuning_report.right_of(group["dense"], "dev.tsv")
    assert right.shape == (3, TEXTS)
    assert np.array_equal(right.sum(axis=1), [180, 181, 182])


PATTERNS = {
    "dense": {"name": "dense"},
    "topk(density=0.2)": {"name": "topk", "density": 0.2},
    "band(window=5)": {"name": "band", "window": 5},
}
SPARSE = "dense, topk(density=0.2) at inference only"


# Seed -> texts that a setting is right about where dense is wrong, and the reverse. Each has seeds
# that dense has not, and lacks some that dense has.
CHANGES = {
    "topk(density=0.2)": {0: (8, 5), 1: (7, 6), 3: (9, 5), 4: (40, 0), 5: (7, 5)},
    "band(window=5)": {5: (9, 1), 6: (30, 0), 2: (4, 2), 1: (5, 2)},
    SPARSE: {0: (3, 8), 1: (4, 6), 2: (3, 4), 3: (5, 7), 5: (2, 7)},
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcomes]:
    """Runs that differ more by their seeds than by their settings: paired by their places in a
    list, they would tell another story."""
    draw = np.random.default_rng(5)
    shares = (0.62, 0.91, 0.7, 0.83, 0.66, 0.88, 0.75)
    whole = {seed: draw.random(TEXTS) < share for seed, share in enumerate(shares)}
    found = {"dense": {seed: whole[seed] for seed in (0, 1, 2, 3, 5)}}
    for name, changes in CHANGES.items():
        found[name] = {}
        for seed, (won, lost) in changes.items():
            order = draw.permutation(TEXTS)
            right = whole[seed].copy()
            right[order[~whole[seed][order]][:won]] = True
            right[order[whole[seed][order]][:lost]] = False
            found[name][seed] = right
    return found


@pytest.fixture(scope="module")
def results(outcomes: dict[str, Outcomes]) -> list[dict[str, Any]]:
    found = []
    for name, pattern in PATTERNS.items():
        for seed, right in outcomes[name].items():
            result = tuning_result(name, seed, 0, pattern)
            result["dev"]["dev.tsv"] = told(right)
            result["train"]["accuracy"] = 0.9 + 0.01 * seed
            result["train"]["loss"] = 0.1 * seed
            if name == "dense":
                sparse = {"dev.tsv": told(outcomes[SPARSE][seed])}
                result["inference"] = {"topk(density=0.2)": sparse}
            found.append(result)
    return found


def told(right: NDArray[np.bool_]) -> dict[str, Any]:
    digits = "".join("01"[int(each)] for each in right)
    return {"accuracy": float(right.mean()), "loss": 1 - float(right.mean()), "right": digits}


def shuffled(results: list[dict[str, Any]], seed: int) -> tuning_report.Group:
    order = list(results)
    random.Random(seed).shuffle(order)
    ((_, group),) = tuning_report.settings_of(order).items()
    return group


def pairs(
    outcomes: dict[str, Outcomes], name: str
) -> tuple[list[int], NDArray[np.bool_], NDArray[np.bool_]]:
    """The seeds that a setting shares with dense, and what both make of the texts: bool [S, N]."""
    seeds = sorted(outcomes[name].keys() & outcomes["dense"].keys())
    first, second = (np.array([outcomes[each][s] for s in seeds]) for each in (name, "dense"))
    return seeds, first, second


def by_holm(p_values: dict[str, float]) -> dict[str, float]:
    """Of three: the smallest p thrice, the next twice, the last once, none below the one before."""
    low, middle, high = sorted(p_values, key=p_values.__getitem__)
    found = {low: 3 * p_values[low]}
    found[middle] = max(found[low], 2 * p_values[middle])
    found[high] = max(found[middle], p_values[high])
    return {name: min(1.0, p) for name, p in found.items()}


def resampled(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """p of scipy's paired permutation test over the texts, with random numbers of its own."""
    found = scipy.stats.permutation_test(
        (first.mean(axis=0), second.mean(axis=0)),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(123),
    )
    return float(found.pvalue)


def shown(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def test_every_difference_has_its_tests(
    outcomes: dict[str, Outcomes], results: list[dict[str, Any]]
) -> None:
    table = tuning_report.accuracy_table(shuffled(results, 0), "dev.tsv")
    assert cells(table, "attention")[5:] == ["t test p", "Holm", "permutation p", "Holm"]
    assert cells(table, "dense")[1] == "5"
    assert cells(table, "dense")[3:] == ["–"] * 6
    paired = {name: pairs(outcomes, name)[1:] for name in CHANGES}
    over_seeds = {
        name: scipy.stats.ttest_rel(first.mean(axis=1), second.mean(axis=1))
        for name, (first, second) in paired.items()
    }
    t_test = {name: float(found.pvalue) for name, found in over_seeds.items()}
    permutation = {name: resampled(*each) for name, each in paired.items()}
    drawn = {name: float(cells(table, name)[7]) for name in paired}
    for name, (first, second) in paired.items():
        row = cells(table, name)
        assert row[1] == str(len(first))
        assert row[2].startswith(f"{100 * first.mean():.2f} (")
        difference = 100 * (first.mean() - second.mean())
        interval = over_seeds[name].confidence_interval(0.95)
        low, high = 100 * interval.low, 100 * interval.high
        assert row[3] == f"{difference:+.2f} ({low:+.2f} to {high:+.2f})"
        low, high = map(float, row[4].split(" to "))
        assert low < difference < high
        assert row[5:7] == [shown(t_test[name]), shown(by_holm(t_test)[name])]
        assert drawn[name] == pytest.approx(permutation[name], abs=0.02)
        assert float(row[8]) == pytest.approx(by_holm(drawn)[name], abs=2e-3)  # of rounded ones
    # One setting leads by its seeds, another by its texts; and one is held up by that before it.
    assert sorted(t_test, key=t_test.__getitem__) == [SPARSE, "topk(density=0.2)", "band(window=5)"]
    assert sorted(permutation, key=permutation.__getitem__) == [
        "band(window=5)",
        SPARSE,
        "topk(density=0.2)",
    ]
    assert by_holm(t_test)["topk(density=0.2)"] == by_holm(t_test)[SPARSE]


def test_other_tables_pair_by_seed_too(
    outcomes: dict[str, Outcomes], results: list[dict[str, Any]]
) -> None:
    group = shuffled(results, 0)
    mcnemar = tuning_report.mcnemar_table(group, "dev.tsv")
    gaps = tuning_report.gap_table(group, "dev.tsv")
    power = tuning_report.power_table(group, "dev.tsv")
    for name, changes in CHANGES.items():
        seeds, first, second = pairs(outcomes, name)
        told_of = []
        for won, lost in (changes[seed] for seed in seeds):
            p = scipy.stats.binomtest(won, won + lost).pvalue
            told_of.append(f"+{won} −{lost}, p {shown(p)}")
        assert cells(mcnemar, name)[1] == "; ".join(told_of)
        # The sample that `power` says is enough for 1 point, and one less that is not.
        differences = first.astype(float) - second
        enough = int(cells(power, name)[1])
        spread = differences.mean(axis=1).std(ddof=1)
        assert power_of(enough, 0.01 / spread) >= 0.8 > power_of(enough - 1, 0.01 / spread)
        if name == SPARSE:
            continue  # it is no training of its own
        # Training accuracy is the seed's: the gap differs by what held-out texts say.
        gap = -100 * differences.mean()
        assert cells(gaps, name)[4].startswith(f"{gap:+.2f} (")
        assert cells(gaps, name)[5].startswith(f"{gap / 100:+.3f} (")


def power_of(seeds: int, effect: float) -> float:
    """Of a paired t test, two-sided at 5 %, where the mean difference is `effect` deviations."""
    critical = scipy.stats.t.ppf(0.975, seeds - 1)
    return float(scipy.stats.nct.sf(critical, seeds - 1, effect * np.sqrt(seeds)))


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_order_of_the_results_changes_nothing(results: list[dict[str, Any]], seed: int) -> None:
    first, second = (shuffled(results, each) for each in (0, seed))
    for table in (
        tuning_report.accuracy_table,
        tuning_report.mcnemar_table,
        tuning_report.gap_table,
        tuning_report.power_table,
    ):
        assert table(first, "dev.tsv") == table(second, "dev.tsv")


def test_settings_without_a_seed_of_dense_are_compared_with_nothing(
    results: list[dict[str, Any]],
) -> None:
    """Neither by the place of their runs."""
    group = shuffled([each for each in results if each["settings"]["seed"] in (4, 6)], 0)
    others = shuffled([each for each in results if each["name"].startswith("dense_")], 0)
    table = tuning_report.accuracy_table(others | group, "dev.tsv")
    for name in ("topk(density=0.2)", "band(window=5)"):
        assert cells(table, name)[1] == "1"
        assert cells(table, name)[3:] == ["–"] * 6
        assert f"| {name} |" not in tuning_report.mcnemar_table(others | group, "dev.tsv")
    gaps = tuning_report.gap_table(others | group, "dev.tsv")
    assert cells(gaps, "band(window=5)")[4:] == ["–", "–"]
