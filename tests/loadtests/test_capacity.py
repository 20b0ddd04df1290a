"""The search finds a limit that it cannot see; its intervals hold what they promise."""

from __future__ import annotations

from math import exp, inf, log
from random import Random

import numpy as np
import pytest
from capacity_study import LIMITS, bisected, searched, true_capacity
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loadtests.capacity import Interval, Search, more_than_noise, ratio

rates = st.floats(0.2, 5000)
values = st.floats(0.1, 1000)


def searched_for(
    limit: float, *, saturated: float, windows: int, width: float, seed: int
) -> Search:
    """A search among windows that pass with a chance that falls around `limit`."""
    search, random = Search(saturated), Random(seed)
    for number in range(windows):
        rate = search.rate
        chance = stats.norm.cdf((log(limit) - log(rate)) / width)
        search.record(rate, passed=random.random() < chance, label=str(number))
    return search


@settings(max_examples=30, deadline=None)
@given(limit=rates, share=st.floats(0.1, 1.2))
def test_a_search_closes_in_on_a_sharp_limit(limit: float, share: float) -> None:
    search = Search(saturated=limit / share)
    for _ in range(25):
        rate = search.rate
        search.record(rate, passed=rate <= limit)
    assert search.capacity is not None
    assert search.capacity.value == pytest.approx(limit, rel=0.08)
    assert search.capacity.n == 25


def test_the_interval_is_right_as_often_as_it_says_and_narrows_with_windows() -> None:
    halves = []
    for windows in (10, 40):
        found = [
            searched_for(50, saturated=60, windows=windows, width=0.1, seed=seed).capacity
            for seed in range(40)
        ]
        inside = [c for c in found if c and c.low and c.high and c.low <= 50 <= c.high]
        assert len(inside) >= 35  # 38 expected; fewer than 35 with a chance of a twentieth
        halves.append(np.median([c.half_width for c in found if c]))
    assert halves[1] < 0.65 * halves[0]


def test_one_window_that_failed_by_accident_moves_little() -> None:
    search = searched_for(50, saturated=60, windows=20, width=0.05, seed=1)
    before = search.mean
    search.record(25.0, passed=False)
    assert search.mean == pytest.approx(before, abs=0.05)
    pulls = search.pulls()
    assert pulls["window 20"] == pytest.approx(search.mean - before)


def test_a_server_that_carries_nothing_is_given_up() -> None:
    search = Search(saturated=50)
    while not search.hopeless:
        search.record(search.rate, passed=False)
    assert search.capacity is None
    assert search.windows <= 12
    assert ratio(search, searched_for(50, saturated=60, windows=5, width=0.1, seed=0)) is None


def test_where_nothing_failed_the_rates_go_up() -> None:
    search, asked = Search(saturated=50), []
    for _ in range(8):
        asked.append(search.rate)
        search.record(asked[-1], passed=True)
    assert asked[-1] > asked[0]
    assert search.mean > log(50)


@pytest.mark.parametrize("seed", range(5))
def test_a_ratio_does_not_depend_on_which_is_divided(seed: int) -> None:
    first = searched_for(50, saturated=60, windows=12, width=0.1, seed=seed)
    second = searched_for(90, saturated=99, windows=12, width=0.1, seed=seed)
    there, back = ratio(second, first), ratio(first, second)
    assert there is not None
    assert back is not None
    assert there.value == pytest.approx(second.capacity.value / first.capacity.value)  # type: ignore[union-attr]
    assert back.value == pytest.approx(1 / there.value)
    assert back.half_width == pytest.approx(there.half_width)


def test_luck_that_two_servers_share_narrows_the_interval_of_their_ratio() -> None:
    one, same, other = Search(60), Search(60), Search(60)
    random = Random(0)
    for number in range(40):
        rate, passed = one.rate, random.random() < 0.5
        one.record(rate, passed=passed, label=str(number))
        same.record(rate, passed=passed, label=str(number))
        other.record(rate, passed=passed, label=f"other {number}")
    alike, apart = ratio(one, same), ratio(one, other)
    assert alike is not None
    assert apart is not None
    assert alike.value == apart.value == 1
    assert alike.half_width < 0.6 * apart.half_width


@pytest.mark.slow
def test_whole_load_tests_of_queues_are_right_and_better_than_bisections() -> None:
    truth = log(true_capacity("sparse") / true_capacity("dense"))
    assert exp(truth) == pytest.approx(LIMITS["sparse"] / LIMITS["dense"], rel=0.1)
    found = {f.__name__: [f(240, seed) for seed in range(12)] for f in (searched, bisected)}
    halves = {name: np.median([half for _, half in each]) for name, each in found.items()}
    errors = {name: np.mean([(v - truth) ** 2 for v, _ in each]) for name, each in found.items()}
    assert halves["searched"] < 0.75 * halves["bisected"]
    assert errors["searched"] < errors["bisected"]
    assert sum(abs(value - truth) <= half for value, half in found["searched"]) >= 9


def test_the_simulated_test_goes_on_until_the_ratio_is_known_well() -> None:
    value, half = searched(1e9, seed=3, precision=0.08)
    assert half <= log(1.1)  # the curve's windows, after the rounds, may move it a little
    assert exp(value) == pytest.approx(LIMITS["sparse"] / LIMITS["dense"], rel=0.2)


def interval(value: float, spread: float) -> dict[str, float]:
    return {"value": value, "low": value / spread, "high": value * spread, "n": 9}


@given(new=values, old=values, spreads=st.tuples(st.floats(1.001, 3), st.floats(1.001, 3)))
def test_a_change_has_the_errors_of_both(
    new: float, old: float, spreads: tuple[float, float]
) -> None:
    found = more_than_noise(interval(new, spreads[0]), interval(old, spreads[1]))
    assert found.value == pytest.approx(new / old)
    assert found.high is not None
    half = log(found.high / found.value)
    assert max(map(log, spreads)) <= half * (1 + 1e-9)
    assert half <= sum(map(log, spreads)) * (1 + 1e-9)


def test_a_change_without_intervals_has_none() -> None:
    bare = {"value": 2.0, "low": None, "high": None, "n": 1}
    found = more_than_noise(bare, interval(1.0, 1.1))
    assert (found.value, found.low) == (2.0, None)
    assert Interval(2.0, None, None, 1).half_width == inf
