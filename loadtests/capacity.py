"""Finding the highest rate that a server carries, from windows that pass or fail.

Windows are noisy, so a search is short and is done again and again: each gives one estimate, and
the spread of the estimates gives the interval.

    search = Search(start=80.0)
    for _ in range(4):
        search.record(passed=passes_at(search.rate))
    search.estimate          # requests/s, or None where nothing passed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from statistics import fmean, stdev

_STEP = 1.15  # of the first moves up or down, until one window passed and one failed
_LOWEST = 0.05  # requests/s: below, a server carries nothing
CONFIDENCE = 0.95


@dataclass
class Search:
    """A bisection of the rates, on a logarithmic scale; `start` in requests/s."""

    start: float
    passed: float | None = None  # the highest rate that passed
    failed: float | None = None  # the lowest that failed
    _step: float = _STEP

    def __post_init__(self) -> None:
        self.rate = self.start

    def record(self, passed: bool) -> None:
        """Takes in how the window at `rate` went, and chooses the next rate."""
        if passed:
            self.passed = self.rate
        else:
            self.failed = self.rate
        if self.passed is not None and self.failed is not None:
            self.rate = sqrt(self.passed * self.failed)
            return
        self.rate = self.rate * self._step if passed else self.rate / self._step
        self._step **= 1.5  # further and further, where the start was far off

    @property
    def estimate(self) -> float | None:
        """Between the highest rate that passed and the lowest that failed; None where none passed,
        infinite where none failed."""
        if self.passed is None:
            return None
        return inf if self.failed is None else sqrt(self.passed * self.failed)

    @property
    def open(self) -> bool:
        """It has not seen yet a window that passed and one that failed."""
        return self.passed is None or self.failed is None

    @property
    def hopeless(self) -> bool:
        """Nothing passed, down to rates at which a server carries nothing."""
        return self.passed is None and self.rate < _LOWEST


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, over `n` estimates; without an interval where n is 1."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float:
        """Relative to the value, the larger side; infinite where there is no interval."""
        if self.low is None or self.high is None:
            return inf
        return max(self.high / self.value, self.value / self.low) - 1


def geometric(estimates: Sequence[float]) -> Interval:
    """The geometric mean of positive estimates, with Student's t interval of their logarithms.

    Of ratios, it is the same whichever of the two is divided by the other.
    """
    from scipy.stats import t

    logs = [log(estimate) for estimate in estimates]
    mean, n = fmean(logs), len(logs)
    if n < 2:
        return Interval(exp(mean), None, None, n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * stdev(logs) / sqrt(n)
    return Interval(exp(mean), exp(mean - half), exp(mean + half), n)


def more_than_noise(new: Sequence[float], old: Sequence[float]) -> Interval:
    """How many times larger `new` is than `old`, with Welch's interval of the logarithms: where 1
    lies outside of it, it is more than noise."""
    from scipy.stats import t

    first, second = ([log(each) for each in values] for values in (new, old))
    change = fmean(first) - fmean(second)
    if min(len(first), len(second)) < 2:
        return Interval(exp(change), None, None, min(len(first), len(second)))
    errors = [stdev(logs) ** 2 / len(logs) for logs in (first, second)]
    degrees = [len(first) - 1, len(second) - 1]
    if not sum(errors):
        return Interval(exp(change), exp(change), exp(change), min(len(first), len(second)))
    freedom = sum(errors) ** 2 / sum(e**2 / d for e, d in zip(errors, degrees, strict=True))
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * sqrt(sum(errors))
    n = min(len(first), len(second))
    return Interval(exp(change), exp(change - half), exp(change + half), n)
