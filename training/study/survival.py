"""When runs get there, where some have not by the end: Kaplan–Meier curves and the log-rank test,
as scipy computes them.

    times = first_epochs(curve, threshold=0.95)      # [S] accuracies an epoch -> one time a seed
    times.median(), log_rank(times, others)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray


@dataclass(frozen=True)
class Times:
    """The time of each of S runs, and whether it was reached: where it was not, the time is the
    last at which the run was looked at (right-censored)."""

    times: tuple[float, ...]
    reached: tuple[bool, ...]

    def censored(self) -> scipy.stats.CensoredData:
        times, reached = np.array(self.times), np.array(self.reached, dtype=bool)
        return scipy.stats.CensoredData(uncensored=times[reached], right=times[~reached])

    def survival(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Kaplan–Meier: the times at which runs get there, ascending, and the share of runs that
        have not by then. Both are empty where none gets there."""
        if not any(self.reached):
            return np.array([]), np.array([])
        found = scipy.stats.ecdf(self.censored()).sf
        events = np.isin(found.quantiles, np.array(self.times)[np.array(self.reached)])
        return found.quantiles[events], found.probabilities[events]

    def median(self) -> float | None:
        """The first time by which half of the runs have got there; None where they have not."""
        times, shares = self.survival()
        below = times[shares <= 0.5 + 1e-9]  # a product of fractions is half of the runs, about
        return float(below[0]) if below.size else None


def first_epochs(curve: Sequence[Sequence[float]], threshold: float) -> Times:
    """The first epoch, counted from 1, at which each seed of a curve [epochs][S] has reached
    `threshold`."""
    values = np.asarray(curve)
    there = values >= threshold
    reached = np.asarray(there.any(axis=0))
    times = np.where(reached, there.argmax(axis=0) + 1, len(values))
    return Times(tuple(times.astype(float).tolist()), tuple(reached.tolist()))


def log_rank(first: Times, second: Times) -> float | None:
    """p-value of the two-sided log-rank test that both get there equally fast; None where that
    cannot be told: no run of either gets there while some of both are looked at, or all do at
    once."""
    with np.errstate(invalid="ignore"):  # 0 / 0, where it cannot be told
        found = float(scipy.stats.logrank(first.censored(), second.censored()).pvalue)
    return None if np.isnan(found) else found
