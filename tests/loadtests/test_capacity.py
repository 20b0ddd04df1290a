"""The search finds a limit that it cannot see; intervals are those computed otherwise."""

from __future__ import annotations

from math import exp, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loadtests.capacity import Search, geometric, more_than_noise

rates = st.floats(0.2, 5000)
estimates = st.lists(st.floats(0.1, 1000), min_size=2, max_size=12)


@given(limit=rates, off=st.floats(0.3, 3))
def test_a_search_closes_in_on_the_limit(limit: float, off: float) -> None:
    search = Search(start=limit * off)
    for _ in range(10):
        search.record(passed=search.rate <= limit)
    assert search.passed is not None
    assert search.failed is not None
    assert search.passed <= limit < search.failed
    assert search.failed / search.passed < 1.15
    assert search.estimate == pytest.approx(sqrt(search.passed * search.failed))


@given(limit=rates)
def test_four_windows_around_the_limit_are_within_a_tenth(limit: float) -> None:
    search = Search(start=limit)
    for _ in range(4):
        search.record(passed=search.rate <= limit)
    assert search.estimate == pytest.approx(limit, rel=0.1)


def test_a_server_that_carries_nothing_is_given_up() -> None:
    search = Search(start=50)
    for _ in range(10):
        search.record(passed=False)
    assert search.estimate is None
    assert search.hopeless


def test_where_nothing_fails_there_is_no_estimate_yet() -> None:
    search = Search(start=50)
    search.record(passed=True)
    assert search.estimate == inf
    assert search.open
    assert search.rate > 50


@given(estimates)
def test_the_interval_is_students_of_the_logarithms(values: list[float]) -> None:
    found = geometric(values)
    logs = np.log(values)
    assert found.value == pytest.approx(exp(logs.mean()))
    if np.ptp(logs) > 1e-9:
        low, high = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
        assert (log(found.low or 0), log(found.high or 0)) == pytest.approx((low, high), abs=1e-6)


@given(estimates)
def test_a_ratio_does_not_depend_on_which_is_divided(values: list[float]) -> None:
    there, back = geometric(values), geometric([1 / value for value in values])
    assert back.value == pytest.approx(1 / there.value)
    assert back.half_width == pytest.approx(there.half_width, rel=1e-6, abs=1e-9)


def test_one_estimate_has_no_interval() -> None:
    found = geometric([2.0])
    assert (found.value, found.low, found.high) == (pytest.approx(2.0), None, None)
    assert found.half_width == inf


@given(new=estimates, old=estimates)
def test_a_change_is_welchs(new: list[float], old: list[float]) -> None:
    found = more_than_noise(new, old)
    first, second = np.log(new), np.log(old)
    assert found.value == pytest.approx(exp(first.mean() - second.mean()))
    if min(first.std(), second.std()) > 1e-6:
        outside = stats.ttest_ind(first, second, equal_var=False).pvalue < 0.05
        assert found.low is not None
        assert found.high is not None
        inside = found.low <= 1 <= found.high
        assert inside is not bool(outside)


def test_a_change_between_single_estimates_has_no_interval() -> None:
    assert more_than_noise([2.0], [1.0, 1.1]).low is None
    same = more_than_noise([2.0, 2.0], [1.0, 1.0])
    assert (same.value, same.low, same.high) == pytest.approx((2, 2, 2))
