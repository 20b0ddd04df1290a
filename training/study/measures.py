"""The statistics of the studies beyond `training.statistics`: means over seeds, tests corrected for
how many there are, and how much data a difference would need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from training.statistics import Estimate


def mean_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The mean with Student's t interval; NaN as its ends where there is one value alone."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if array.size < 2:
        return Estimate(mean, float("nan"), float("nan"))
    if np.ptp(array) == 0:
        return Estimate(mean, mean, mean)
    found = scipy.stats.ttest_1samp(array, 0).confidence_interval(confidence)
    return Estimate(mean, float(found.low), float(found.high))


def paired_t(first: Sequence[float], second: Sequence[float]) -> float | None:
    """p-value of the paired t test over seeds; None where there is no spread to judge by."""
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if differences.size < 2 or np.ptp(differences) == 0:
        return None
    return float(scipy.stats.ttest_1samp(differences, 0).pvalue)


def paired_permutation(differences: ArrayLike, resamples: int = 9999, seed: int = 0) -> float:
    """p-value of the sign-flip permutation test that a mean over examples is 0.

    differences: float [N], for each example the mean over the seeds of right − right. With one
    seed it is McNemar's test by resampling; with several it keeps together what all runs say of the
    same example.
    """
    values = np.asarray(differences, dtype=np.float64)
    found: Any = scipy.stats.permutation_test(
        (values,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // values.size),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down correction (Holm 1979) of the p-values of one family, by name.

    The smallest of m is multiplied by m, the next by m − 1, ..., none ever below the one before,
    none above 1. What is None stays None and does not count. (scipy corrects false discovery rates
    only.)
    """
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    found: dict[str, float | None] = dict.fromkeys(p_values)
    highest = 0.0
    for rank, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        found[name] = highest
    return found


def seeds_needed(
    deviation: float, difference: float = 0.01, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """How many seeds a paired two-sided t test needs to find `difference`, where the differences
    of two runs deviate by `deviation` between seeds; None for more than 10,000."""
    if deviation == 0:
        return 2
    for n in range(2, 10_001):
        critical = scipy.stats.t.ppf(1 - alpha / 2, n - 1)
        shift = difference / deviation * np.sqrt(n)
        reached = scipy.stats.nct.sf(critical, n - 1, shift)
        if float(reached) >= power:
            return n
    return None


def examples_needed(
    deviation: float, difference: float = 0.01, power: float = 0.8, alpha: float = 0.05
) -> int:
    """How many held-out examples a paired comparison of two methods needs to find `difference`,
    where what an example says of them deviates by `deviation`: the normal approximation."""
    quantiles = float(scipy.stats.norm.ppf(1 - alpha / 2) + scipy.stats.norm.ppf(power))
    return max(1, ceil((quantiles * deviation / difference) ** 2))
