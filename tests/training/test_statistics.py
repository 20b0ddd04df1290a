"""The statistics against published examples, hand-computed cases and their own properties."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.statistics import (
    PairedOutcomes,
    accuracy_difference,
    expected_calibration_error,
    mcnemar_exact,
    mean_difference_over_seeds,
    ratio_of_medians,
    wilson_interval,
)

counts = st.integers(0, 60)
tables = st.builds(PairedOutcomes, counts, counts, counts, counts).filter(lambda t: t.n > 0)


def test_wilson_interval_agrees_with_newcombes_published_example() -> None:
    # Newcombe 1998 (two-sided intervals for the single proportion), table I: 81 of 263.
    interval = wilson_interval(81, 263)
    assert interval.low == pytest.approx(0.2553, abs=5e-5)
    assert interval.high == pytest.approx(0.3662, abs=5e-5)


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_interval_contains_the_share_and_stays_a_probability(n: int, share: float) -> None:
    correct = round(share * n)
    interval = wilson_interval(correct, n)
    assert 0 <= interval.low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= interval.high <= 1


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_interval_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  scipy words two of the three
        wilson_interval(correct, n)


def test_mcnemar_is_the_two_sided_binomial_tail() -> None:
    # 2 against 8: P(X <= 2 or X >= 8), X ~ Binomial(10, 1/2).
    tail = 2 * sum(comb(10, i) for i in range(3)) / 2**10
    assert mcnemar_exact(2, 8) == pytest.approx(tail)
    assert mcnemar_exact(8, 2) == pytest.approx(tail)


def test_mcnemar_without_discordant_examples_says_nothing() -> None:
    assert mcnemar_exact(0, 0) == 1.0


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 3)


def test_paired_outcomes_count_the_four_cells() -> None:
    first = [True, True, False, False, True]
    second = [True, False, True, False, False]
    assert PairedOutcomes.of(first, second) == PairedOutcomes(1, 2, 1, 1)
    with pytest.raises(ValueError, match="pair"):
        PairedOutcomes.of(first, second[:-1])


def test_accuracy_difference_agrees_with_newcombes_published_example() -> None:
    # Newcombe 1998 (paired data), 36 / 12 / 2 / 0, method 10: 0.0569 to 0.3404.
    found = accuracy_difference(PairedOutcomes(36, 12, 2, 0))
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0569, abs=5e-5)
    assert found.high == pytest.approx(0.3404, abs=5e-5)


@given(tables)
def test_accuracy_difference_is_antisymmetric_and_contains_its_value(table: PairedOutcomes) -> None:
    swapped = PairedOutcomes(
        table.both_right, table.only_second_right, table.only_first_right, table.both_wrong
    )
    forth, back = accuracy_difference(table), accuracy_difference(swapped)
    assert -1 <= forth.low <= forth.value <= forth.high <= 1
    assert forth.value == pytest.approx(-back.value)
    assert forth.low == pytest.approx(-back.high)
    assert forth.high == pytest.approx(-back.low)


def test_accuracy_difference_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([0.86, 0.05, 0.03, 0.06])
    truth = cells[1] - cells[2]
    found = [accuracy_difference(PairedOutcomes(*row)) for row in rng.multinomial(300, cells, 1000)]
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in found])
    assert 0.93 <= covered <= 0.99  # 0.95 nominal, three standard errors, slightly conservative


def test_calibration_error_of_a_hand_computed_case() -> None:
    # Two bins, (0, 0.5] and (0.5, 1], by confidence 0.5 | 0.6, 0.8, 0.9:
    #   lower: 1 example, right:      |1 - 0.5|                        = 0.5
    #   upper: 3 examples, 1 right:   |1/3 - (0.6 + 0.8 + 0.9) / 3|    = 1.3 / 3
    probabilities = [[0.5, 0.5], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]]
    labels = [0, 0, 0, 1]
    expected = 1 / 4 * 0.5 + 3 / 4 * 1.3 / 3
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(expected)


def test_calibration_error_is_zero_when_sure_and_right_and_one_when_sure_and_wrong() -> None:
    sure = [[1.0, 0.0], [0.0, 1.0]]
    assert expected_calibration_error(sure, [0, 1]) == 0
    assert expected_calibration_error(sure, [1, 0]) == 1


@given(st.integers(1, 200), st.integers(2, 5), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_calibration_error_equals_its_definition(n: int, c: int, bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.ones(c), n), rng.integers(0, c, n)
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    expected = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = expected_calibration_error(probabilities, labels, bins)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("probabilities", "labels", "bins"),
    [([[0.5, 0.5]], [0, 1], 15), (np.empty((0, 2)), [], 15), ([0.5], [0], 15), ([[1.0]], [0], 0)],
)
def test_calibration_error_refuses_what_does_not_fit(
    probabilities: object, labels: object, bins: int
) -> None:
    with pytest.raises(ValueError, match="expected"):
        expected_calibration_error(probabilities, labels, bins)  # type: ignore[arg-type]


def test_ratio_of_medians_of_a_constant_ratio_has_no_spread() -> None:
    base = np.random.default_rng(0).lognormal(size=99)
    found = ratio_of_medians(3 * base, base)
    assert found.value == pytest.approx(3)
    assert found.low == pytest.approx(3)
    assert found.high == pytest.approx(3)


def test_pairing_keeps_shared_slowness_out_of_the_interval() -> None:
    rng = np.random.default_rng(0)
    drift = rng.lognormal(sigma=1, size=200)
    slow = 2 * drift * rng.normal(1, 0.01, 200)
    paired = ratio_of_medians(slow, drift)
    alone = ratio_of_medians(slow, drift, paired=False)
    assert paired.low < 2 < paired.high
    assert (paired.high - paired.low) < (alone.high - alone.low) / 2


def test_ratio_of_medians_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.lognormal(size=50), rng.lognormal(size=50)
    assert ratio_of_medians(first, second, seed=1) == ratio_of_medians(first, second, seed=1)
    assert ratio_of_medians(first, second, seed=1) != ratio_of_medians(first, second, seed=2)


def test_a_single_pair_has_its_value_as_interval() -> None:
    found = ratio_of_medians([2.0], [4.0])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("above", "below", "paired"),
    [
        ([], [], True),
        ([1.0, 2.0], [1.0], True),
        ([1.0, 2.0], [1.0], False),
        ([0.0], [1.0], True),
        ([float("nan")], [1.0], True),
        ([[1.0]], [1.0], True),
    ],
)
def test_ratio_of_medians_refuses_what_it_cannot_compare(
    above: list[float], below: list[float], paired: bool
) -> None:
    with pytest.raises(ValueError, match=r"expected|pair|single"):
        ratio_of_medians(above, below, paired=paired)


def test_the_difference_over_seeds_is_a_plain_mean_with_students_interval() -> None:
    first = [[True, True, True, False], [True, True, False, False], [True, True, True, True]]
    second = [[True, False, True, False], [True, True, False, True], [False, True, False, True]]
    found = mean_difference_over_seeds(first, second)
    assert found.by_seed == (0.25, -0.25, 0.5)
    assert found.value == pytest.approx(1 / 6)
    # Standard deviation of the three 0.381881, of their mean 0.220479; t(0.975, 2) = 4.302653.
    assert found.over_seeds.low == pytest.approx(1 / 6 - 4.302653 * 0.220479, abs=1e-5)
    assert found.over_seeds.high == pytest.approx(1 / 6 + 4.302653 * 0.220479, abs=1e-5)


def test_the_interval_over_examples_is_that_of_their_mean() -> None:
    """Many examples: the bootstrap comes to the normal approximation of the examples' means, and
    two seeds that say the same of each example tell no more than one."""
    random = np.random.default_rng(1)
    first, second = random.random((2, 1, 4000)) < [[[0.9]], [[0.85]]]
    once = mean_difference_over_seeds(np.repeat(first, 2, axis=0), np.repeat(second, 2, axis=0))
    spread = (first[0].astype(float) - second[0]).std() / 4000**0.5
    assert once.over_examples.low == pytest.approx(once.value - 1.96 * spread, abs=spread / 10)
    assert once.over_examples.high == pytest.approx(once.value + 1.96 * spread, abs=spread / 10)
    assert once.over_seeds.low == once.over_seeds.high == once.value


@given(st.integers(0, 99), st.integers(2, 4), st.integers(1, 30))
def test_the_other_way_round_the_difference_turns_its_sign(seed: int, seeds: int, n: int) -> None:
    first, second = np.random.default_rng(seed).random((2, seeds, n)) < 0.5
    one = mean_difference_over_seeds(first, second, resamples=200)
    other = mean_difference_over_seeds(second, first, resamples=200)
    assert one.value == pytest.approx(-other.value)
    assert one.over_seeds.low == pytest.approx(-other.over_seeds.high)
    assert one.over_examples.low == pytest.approx(-other.over_examples.high)


@pytest.mark.parametrize("shape", [(1, 4), (2, 0), (4,)])
def test_the_difference_over_seeds_needs_seeds_and_examples(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected outcomes"):
        mean_difference_over_seeds(np.ones(shape), np.ones(shape))
    with pytest.raises(ValueError, match="expected outcomes"):
        mean_difference_over_seeds(np.ones((2, 3)), np.ones((2, 4)))
