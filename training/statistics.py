"""The statistics that every claim of this project rests on: intervals, paired tests, calibration.

Counts of right answers come with an interval, two models on the same examples with a paired test,
timings with a bootstrap interval of their ratio. Torch-free: the service's comparison uses it too.

    wilson_interval(789, 872)                        # Interval(low=0.8834..., high=0.9225...)
    mcnemar_exact(only_first_right=12, only_second_right=30)
    ratio_of_medians(dense_seconds, sparse_seconds)  # how many times faster, with its interval
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """A confidence interval, ends included."""

    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Estimate:
    """A figure with its confidence interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class SeedsDifference:
    """Accuracy of one method minus that of another, mean over seeds, with two intervals.

    `over_examples` (paired percentile bootstrap) answers: had other texts been drawn, with these
    very runs? `over_seeds` (Student's t): had other seeds been drawn, on these very texts?
    """

    value: float
    by_seed: tuple[float, ...]
    over_examples: Interval
    over_seeds: Interval

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PairedOutcomes:
    """How two models fared on the same examples: the four cells of the paired 2 × 2 table."""

    both_right: int
    only_first_right: int
    only_second_right: int
    both_wrong: int

    @classmethod
    def of(cls, first_right: Sequence[bool], second_right: Sequence[bool]) -> PairedOutcomes:
        """Counts the cells. Raises ValueError where the two do not cover the same examples."""
        if len(first_right) != len(second_right):
            raise ValueError(f"{len(first_right)} outcomes cannot pair with {len(second_right)}")
        pairs = [(bool(f), bool(s)) for f, s in zip(first_right, second_right, strict=True)]
        return cls(
            both_right=pairs.count((True, True)),
            only_first_right=pairs.count((True, False)),
            only_second_right=pairs.count((False, True)),
            both_wrong=pairs.count((False, False)),
        )

    @property
    def n(self) -> int:
        return self.both_right + self.only_first_right + self.only_second_right + self.both_wrong


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of the share `correct / n` (Wilson 1927), as scipy computes it.

    Raises ValueError where n < 1 or correct lies outside 0..n.
    """
    if n < 1:
        raise ValueError(f"an interval needs at least one example, got n={n}")
    found = scipy.stats.binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def mcnemar_exact(only_first_right: int, only_second_right: int) -> float:
    """McNemar's exact two-sided test of equal accuracy on the same examples: its p-value.

    Only the examples on which exactly one model is right tell the two apart; under equal accuracy
    each of them falls to either with probability 1/2. Without any such example the p-value is 1.
    """
    if min(only_first_right, only_second_right) < 0:
        raise ValueError(f"counts cannot be negative: {only_first_right}, {only_second_right}")
    discordant = only_first_right + only_second_right
    if discordant == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first_right, discordant, 0.5).pvalue)


def accuracy_difference(outcomes: PairedOutcomes, confidence: float = 0.95) -> Estimate:
    """Accuracy of the first minus that of the second on the same examples, with an interval.

    Newcombe 1998 (Statistics in Medicine 17, 2635-2650), method 10: the two Wilson intervals,
    joined with the correlation phi of the outcomes, continuity-corrected. Unlike the usual Wald
    interval it is sound for few examples and for accuracies near 1. scipy has none for pairs.
    Raises ValueError where there is no example.
    """
    n = outcomes.n
    first = outcomes.both_right + outcomes.only_first_right
    second = outcomes.both_right + outcomes.only_second_right
    first_ci = wilson_interval(first, n, confidence)
    second_ci = wilson_interval(second, n, confidence)
    first_share, second_share = first / n, second / n
    phi = _corrected_phi(outcomes)

    def joined(one: float, other: float) -> float:
        return sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    down = joined(first_share - first_ci.low, second_ci.high - second_share)
    up = joined(first_ci.high - first_share, second_share - second_ci.low)
    value = (outcomes.only_first_right - outcomes.only_second_right) / n
    return Estimate(value, max(-1.0, value - down), min(1.0, value + up))


def mean_difference_over_seeds(
    first_right: ArrayLike,
    second_right: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> SeedsDifference:
    """Mean accuracy of the first method minus that of the second, each trained with S seeds.

    first_right, second_right: bool [S, N], whether the run of a seed is right about an example; row
    s of both belongs together. Raises ValueError where the shapes differ, S < 2 or N < 1.
    """
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    if first.ndim != 2 or first.shape != second.shape or first.shape[0] < 2 or not first.size:
        raise ValueError(
            f"expected outcomes [S, N] of S >= 2 seeds on the same N > 0 examples, "
            f"got {first.shape} and {second.shape}"
        )
    differences = first.astype(np.float64) - second
    by_seed = differences.mean(axis=1)
    value = float(by_seed.mean())
    half = float(
        scipy.stats.sem(by_seed) * scipy.stats.t.ppf((1 + confidence) / 2, by_seed.size - 1)
    )
    # One number an example: resampling them keeps together what all runs say of the same example.
    draws = np.random.default_rng(seed).multinomial(
        first.shape[1], np.full(first.shape[1], 1 / first.shape[1]), size=resamples
    )
    means = draws @ differences.mean(axis=0) / first.shape[1]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return SeedsDifference(
        value=value,
        by_seed=tuple(float(each) for each in by_seed),
        over_examples=Interval(float(low), float(high)),
        over_seeds=Interval(value - half, value + half),
    )


def _corrected_phi(outcomes: PairedOutcomes) -> float:
    a, b = outcomes.both_right, outcomes.only_first_right
    c, d = outcomes.only_second_right, outcomes.both_wrong
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    product = float(a * d - b * c)
    if product > 0:
        product = max(product - outcomes.n / 2, 0.0)
    return product / sqrt(margins)


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15
) -> float:
    """Expected calibration error, 0 (confidence equals accuracy) to 1.

    Guo et al. 2017 (arXiv 1706.04599, section 2): predictions fall into `bins` equal-width bins
    (low, high] of confidence, the highest probability of each; the error is the mean over the
    examples of |accuracy - mean confidence| of their bin.

    probabilities: float [N, C], rows sum to 1. labels: int [N].
    Raises ValueError where the shapes do not fit, N is 0, or bins < 1.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or truth.size == 0:
        raise ValueError(
            f"expected probabilities [N, C] and labels [N] with N > 0, "
            f"got {scores.shape} and {truth.shape}"
        )
    if bins < 1:
        raise ValueError(f"expected at least one bin, got {bins}")
    confidence = scores.max(axis=1)
    right = scores.argmax(axis=1) == truth
    # Interior edges, right-closed bins; a confidence of exactly an edge belongs to the lower bin.
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    bin_of = np.digitize(confidence, edges, right=True)
    # Over the examples of a bin, |sum of right - sum of confidence| / N is the bin's weighted gap.
    gaps = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


def ratio_of_medians(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    paired: bool = True,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """median(numerator) / median(denominator) with a percentile bootstrap interval.

    numerator, denominator: positive float [N] (seconds, rates, ...). `paired` resamples pairs,
    for measurements taken on the same input right after each other: what slows both does not
    widen the interval. A single measurement (or pair) has no spread: the interval is the value.
    Raises ValueError where a series is empty, not positive and finite, or, paired, of another
    length than the other.
    """
    above, below = _positive(numerator), _positive(denominator)
    if paired and above.size != below.size:
        raise ValueError(f"{above.size} measurements cannot pair with {below.size}")
    value = float(np.median(above) / np.median(below))
    if above.size == 1 or below.size == 1:
        if above.size != below.size:
            raise ValueError("a single measurement has no interval against several")
        return Estimate(value, value, value)

    def statistic(x: NDArray[np.float64], y: NDArray[np.float64], axis: int) -> Any:
        return np.median(x, axis=axis) / np.median(y, axis=axis)

    found = scipy.stats.bootstrap(
        (above, below),
        statistic,
        paired=paired,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // max(above.size, below.size)),  # bounds memory, not the result
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high))


def _positive(series: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"expected a series [N] with N > 0, got shape {values.shape}")
    if not all(isfinite(value) and value > 0 for value in values):
        raise ValueError("expected positive, finite measurements")
    return values
