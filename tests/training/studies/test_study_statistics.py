"""Each statistic of the studies against a case computed by hand, or another formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from training.cost import EncoderShape
from training.pattern import AttentionPattern
from training.statistics import mcnemar_exact
from training.study.flops import layer_flops, length_for_saving, saving
from training.study.measures import (
    examples_needed,
    holm,
    mean_over_seeds,
    paired_permutation,
    paired_t,
    seeds_needed,
)
from training.study.survival import Times, first_epochs, log_rank

DISTILBERT = EncoderShape(layers=6, hidden=768, feed_forward=3072)
SPARSE = AttentionPattern("topk", density=0.2)


def test_first_epochs_count_from_one_and_are_censored_at_the_last() -> None:
    curve = [[0.5, 0.96, 0.1], [0.95, 0.2, 0.2], [0.99, 0.97, 0.94]]
    assert first_epochs(curve, 0.95) == Times((2, 1, 3), (True, True, False))


def test_kaplan_meier_computed_by_hand() -> None:
    # Freireich's remissions, the first ten: 6 6 6 6+ 7 9+ 10 10+ 11+ 13.
    times = Times(
        (6, 6, 6, 6, 7, 9, 10, 10, 11, 13),
        (True, True, True, False, True, False, True, False, False, True),
    )
    found, shares = times.survival()
    assert found.tolist() == [6, 7, 10, 13]
    by_hand = [0.7, 0.7 * 5 / 6, 0.7 * 5 / 6 * 3 / 4, 0]
    assert shares.tolist() == pytest.approx(by_hand)
    assert times.median() == 10
    assert Times((3, 3), (False, False)).median() is None
    assert Times((3, 3), (False, False)).survival()[0].size == 0
    assert Times((1, 5, 5), (True, False, False)).median() is None


def test_the_log_rank_test_computed_by_hand() -> None:
    first = Times((1, 2, 3, 4), (True, True, True, False))
    second = Times((3, 4, 4, 4), (True, False, False, True))
    # At each event time: events d, at risk n, of which n1 in the first group.
    steps = [(1, 8, 4), (1, 7, 3), (2, 6, 2), (1, 4, 1)]
    expected = sum(d * n1 / n for d, n, n1 in steps)
    variance = sum(d * (n1 / n) * (1 - n1 / n) * (n - d) / (n - 1) for d, n, n1 in steps)
    statistic = (3 - expected) ** 2 / variance
    assert log_rank(first, second) == pytest.approx(scipy.stats.chi2.sf(statistic, 1))
    assert log_rank(first, second) == pytest.approx(log_rank(second, first))
    never = Times((4, 4), (False, False))
    assert log_rank(never, never) is None
    assert log_rank(first, never) is not None
    # All there before, or after, anybody of the other is looked at: nobody to compare them with.
    assert log_rank(never, Times((6, 7), (True, True))) is None
    assert log_rank(Times((1, 1), (True, True)), Times((1, 1), (True, True))) is None


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 12))
def test_the_median_is_that_of_the_runs(reached: list[int], others: int) -> None:
    """`others` are looked at for longer than the rest, and have not got there."""
    times = Times((*reached, *[10] * others), (*[True] * len(reached), *[False] * others))
    middle = sorted([*reached, *[math.inf] * others])[(len(reached) + others - 1) // 2]
    assert times.median() == (None if math.isinf(middle) else middle)


def test_the_mean_has_a_t_interval() -> None:
    found = mean_over_seeds([1.0, 2.0, 3.0])
    half = 4.302653 * 1 / math.sqrt(3)  # t at 0.975 with two degrees of freedom
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half), rel=1e-6)
    assert mean_over_seeds([4.0, 4.0]).low == 4
    assert math.isnan(mean_over_seeds([4.0]).low)


def test_the_paired_t_test_is_scipys() -> None:
    first, second = [0.91, 0.90, 0.93], [0.90, 0.91, 0.90]
    assert paired_t(first, second) == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue)
    assert paired_t([1, 2], [0, 1]) is None
    assert paired_t([1], [0]) is None


def test_the_permutation_test_of_one_seed_is_mcnemars() -> None:
    differences = np.array([1] * 9 + [-1] * 2 + [0] * 50)
    assert paired_permutation(differences) == pytest.approx(mcnemar_exact(9, 2), abs=0.02)
    assert paired_permutation(np.zeros(20)) == 1


def test_holm_computed_by_hand() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None, "e": 0.005})
    assert found == {
        "e": pytest.approx(0.02),
        "a": pytest.approx(0.03),
        "c": pytest.approx(0.06),
        "b": pytest.approx(0.06),
        "d": None,
    }


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_and_bonferronis(p_values: list[float]) -> None:
    named = {str(i): p for i, p in enumerate(p_values)}
    for name, corrected in holm(named).items():
        assert corrected is not None
        assert named[name] <= corrected <= min(1, len(p_values) * named[name]) + 1e-12


def test_the_power_of_a_paired_t_test() -> None:
    # Cohen's table: an effect of half a deviation needs 34 pairs for a power of 0.8.
    assert seeds_needed(deviation=0.02, difference=0.01) == 34
    assert seeds_needed(deviation=0) == 2
    assert seeds_needed(deviation=1000) is None
    assert examples_needed(deviation=0.5, difference=0.01) == math.ceil((2.801585 * 50) ** 2)


def test_flops_of_a_layer_computed_by_hand() -> None:
    shape = EncoderShape(layers=1, hidden=4, feed_forward=8)
    dense = layer_flops(10, shape, AttentionPattern("dense"), heads=2)
    assert dense.projections == 4 * 2 * 10 * 4 * 4
    assert dense.scores == dense.values == 2 * 10 * 10 * 4
    assert dense.softmax == 5 * 2 * 100
    assert dense.feed_forward == 2 * 2 * 10 * 4 * 8
    sparse = layer_flops(10, shape, SPARSE, heads=2)
    assert sparse.scores == dense.scores
    assert sparse.values == dense.values / 5
    assert layer_flops(10, shape, SPARSE, "kept").scores == dense.scores / 5


def test_the_length_at_which_a_fifth_is_saved() -> None:
    # Softmax aside: attention is L / (6 d + L) of a layer, of which 80 %, or 40 %, is saved.
    kept = length_for_saving(0.2, DISTILBERT, SPARSE, "kept")
    computed = length_for_saving(0.2, DISTILBERT, SPARSE)
    assert kept is not None
    assert computed is not None
    assert kept == pytest.approx(2 * 768, rel=0.05)
    assert computed == pytest.approx(6 * 768, rel=0.1)
    assert saving(kept, DISTILBERT, SPARSE, "kept") >= 0.2 > saving(kept - 5, DISTILBERT, SPARSE)
    assert length_for_saving(0.9, DISTILBERT, SPARSE) is None


@pytest.mark.parametrize("name", ["topk", "bottomk", "random"])
def test_patterns_of_one_density_keep_as_many_links(name: str) -> None:
    pattern = AttentionPattern(name, density=0.2)
    assert layer_flops(50, DISTILBERT, pattern).values == 2 * 50 * 10 * 768
