"""Finding the highest rate that a server carries, from windows that pass or fail.

Windows are noisy: near the capacity the same rate passes now and fails then. So no single window
decides. The chance that a window passes is taken for a falling curve over the logarithm of the
rate, a normal distribution's, with a share of windows that fail at any rate (somebody else had the
machine); the capacity is its middle. Every window of a test, passed or failed, weighs the possible
curves by Bayes' rule, and the next rate is where the middle is now believed to be, a little to its
left or right. Psychophysics finds thresholds of perception so (QUEST: Watson & Pelli, "QUEST: a
Bayesian adaptive psychometric method", Perception & Psychophysics 33, 1983).

    search = Search(saturated=80.0)      # requests/s that come out under too much load
    for _ in range(20):
        rate = search.rate
        search.record(rate, passed=passes_at(rate))
    search.capacity                      # Interval(value=61.2, low=57.9, high=64.7, n=20)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import exp, hypot, inf, log, sqrt
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LOWEST = 0.05  # requests/s: below, a server carries nothing
_HOPELESS = 12  # windows that failed, none having passed
_Z = 1.959964  # of a 95 % interval
# What is believed before the first window, of the middle's ratio to the rate at saturation: mean
# and standard deviation of its logarithm. Most servers are near; some carry far less, since their
# latency grows long before they are full.
_NEAR, _FAR = (log(0.85), 0.35), (log(0.35), 1.2)
_FAR_SHARE = 0.2
# Of the width in which windows pass or fail by luck, in logarithms of the rate: windows of a few
# hundred requests on a quiet machine have about a tenth.
_WIDTH, _WIDTH_SPREAD = log(0.1), 0.8
_LAPSES = {0.02: 0.9, 0.1: 0.08, 0.3: 0.02}  # share of windows that fail at any rate: belief
_LUCKY = 0.01  # share of windows that pass at any rate
_ASIDE = 0.5  # of the width: where the next window is, beside the middle, by turns
_DOUBT = 10  # rounds in which nothing is seen of how alike two servers' luck is
_FIRST = 4  # windows straight in the middle


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval, over `n` windows; without an interval where there is none."""

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


class Search:
    """What is known of one server's capacity. `saturated` is the rate, in requests/s, at which
    answers come where more than enough requests wait."""

    def __init__(self, saturated: float) -> None:
        self._origin = log(saturated)
        self._belief = _prior()
        self._windows: dict[str, tuple[float, bool]] = {}
        self.passed = self.failed = 0
        self._take_in()

    @property
    def rate(self) -> float:
        """Requests/s of the window that would tell most."""
        if self.windows < _FIRST:
            return exp(self.mean)
        return exp(self.mean + (_ASIDE if self.windows % 2 else -_ASIDE) * self.width)

    def record(self, rate: float, *, passed: bool, label: str | None = None) -> None:
        """Takes in how a window at `rate` requests/s went; other servers' windows of the same
        `label` had the same luck."""
        self._windows[label or f"window {self.windows}"] = (rate, passed)
        self._belief = self._belief * self._chance(rate, passed)
        self._belief /= self._belief.sum()
        self.passed += passed
        self.failed += not passed
        self._take_in()

    def pulls(self) -> dict[str, float]:
        """By label, how far each window moved the belief: the mean with it, less the one without,
        in logarithms of the rate."""
        middles = _grid()[0][:, 0, 0]
        found = {}
        for label, window in self._windows.items():
            without = (self._belief / self._chance(*window)).sum(axis=(1, 2))
            found[label] = self.mean - self._origin - float(without @ middles / without.sum())
        return found

    @property
    def windows(self) -> int:
        return self.passed + self.failed

    @property
    def hopeless(self) -> bool:
        """Nothing passed, in many windows or down to rates at which a server carries nothing."""
        return not self.passed and (self.failed >= _HOPELESS or exp(self.mean) < _LOWEST)

    @property
    def capacity(self) -> Interval | None:
        """Requests/s at which half of the windows pass; None where none did."""
        if not self.passed:
            return None
        return _interval(self.mean, self.deviation, self.windows)

    def _chance(self, rate: float, passed: bool) -> Array:
        """Of what a window at `rate` did, for each possible curve."""
        middles, widths, lapses = _grid()
        above = _normal((middles - (log(rate) - self._origin)) / widths)
        chance = _LUCKY + (1 - _LUCKY - lapses) * above
        return chance if passed else 1 - chance

    def _take_in(self) -> None:
        middles, widths, _ = _grid()
        of_middles = self._belief.sum(axis=(1, 2))
        line = middles[:, 0, 0]
        mean = float(of_middles @ line)
        self.mean = self._origin + mean  # of the capacity's logarithm
        self.deviation = float(of_middles @ (line - mean) ** 2) ** 0.5
        self.width = float(self._belief.sum(axis=(0, 2)) @ widths[0, :, 0])


def ratio(over: Search, under: Search) -> Interval | None:
    """How many times more `over` carries than `under`; None where either carries nothing.

    In a round both get the same texts and arrivals in the same minute of the machine, so that their
    errors are alike and partly cancel in the ratio. How alike is seen from what single windows
    pulled in both; the little that is seen of it in few rounds counts little.
    """
    if over.capacity is None or under.capacity is None:
        return None
    first, second = over.pulls(), under.pulls()
    shared = [label for label in first if label in second]
    alike = _correlation([first[label] for label in shared], [second[label] for label in shared])
    alike = max(0.0, alike) * len(shared) / (len(shared) + _DOUBT)
    both = over.deviation * under.deviation
    variance = over.deviation**2 + under.deviation**2 - 2 * alike * both
    n = min(over.windows, under.windows)
    return _interval(over.mean - under.mean, sqrt(variance), n)


def _correlation(first: list[float], second: list[float]) -> float:
    if len(first) < 3 or not np.std(first) or not np.std(second):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def more_than_noise(
    new: Mapping[str, Any], old: Mapping[str, Any], *, unseen: float = 0.0
) -> Interval:
    """How many times larger one value is than another, each a mapping with `value`, `low` and
    `high`; their errors are taken for independent, and normal on a logarithmic scale. Where 1 lies
    outside of the interval, it is more than noise. `unseen` is half a 95 % interval, of a share of
    the value, of what moves a whole run and so is in neither interval."""
    change = log(new["value"] / old["value"])
    n = min(new.get("n", 2), old.get("n", 2))
    ends = (new.get("low"), new.get("high"), old.get("low"), old.get("high"))
    if None in ends:
        return Interval(exp(change), None, None, n)
    half = hypot(*(log(each["high"] / each["low"]) / 2 for each in (new, old)), unseen, unseen)
    return Interval(exp(change), exp(change - half), exp(change + half), n)


def _interval(mean: float, deviation: float, n: int) -> Interval:
    return Interval(exp(mean), exp(mean - _Z * deviation), exp(mean + _Z * deviation), n)


@lru_cache
def _grid() -> tuple[Array, Array, Array]:
    """Middles [M, 1, 1], as logarithms of the ratio to saturation, widths [1, W, 1], lapses."""
    middles = np.linspace(-5.0, 1.5, 521)[:, None, None]
    widths = np.exp(np.linspace(log(0.02), log(1.0), 20))[None, :, None]
    return middles, widths, np.array([*_LAPSES])[None, None, :]


@lru_cache
def _prior() -> Array:
    middles, widths, _ = _grid()
    near, far = (_bell(middles, *each) / each[1] for each in (_NEAR, _FAR))
    of_middles = (1 - _FAR_SHARE) * near + _FAR_SHARE * far
    belief = of_middles * _bell(np.log(widths), _WIDTH, _WIDTH_SPREAD) * [*_LAPSES.values()]
    return cast(Array, belief / belief.sum())


def _bell(x: Array, mean: float, deviation: float) -> Array:
    return cast(Array, np.exp(-0.5 * ((x - mean) / deviation) ** 2))


def _normal(x: Array) -> Array:
    """The normal distribution function."""
    from scipy.special import ndtr

    return cast(Array, ndtr(x))
