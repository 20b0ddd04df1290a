"""Arrival processes: seeded, ascending, of the rate that was asked for, and of their own shape."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import PROCESSES, arrivals, log_gaps
from loadtests.errors import LoadTestError

processes = st.sampled_from(PROCESSES)
rates = st.floats(0.5, 200)
durations = st.floats(0.1, 20)


def times(process: str, rate: float, seconds: float, seed: int = 0) -> list[float]:
    return list(arrivals(process, rate=rate, seconds=seconds, seed=seed))


@given(process=processes, rate=rates, seconds=durations, seed=st.integers())
def test_arrivals_ascend_within_the_time_and_follow_from_the_seed(
    process: str, rate: float, seconds: float, seed: int
) -> None:
    found = times(process, rate, seconds, seed)
    assert found == sorted(found)
    assert all(0 <= time < seconds for time in found)
    assert found == times(process, rate, seconds, seed)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_average_rate_is_what_was_asked_for(process: str) -> None:
    found = times(process, rate=50, seconds=200)  # 10,000 expected, standard deviation 100
    assert len(found) == pytest.approx(10_000, abs=500)


def test_poisson_gaps_are_as_likely_short_as_an_exponential_says() -> None:
    gaps = [after - before for before, after in pairwise(times("poisson", 100, 100))]
    below = sum(gap < 0.01 for gap in gaps) / len(gaps)
    assert below == pytest.approx(1 - 2.718281828**-1, abs=0.03)


def test_half_of_all_requests_come_in_one_second_of_five() -> None:
    found = times("bursts", 100, 100)
    assert sum(time % 5 < 1 for time in found) / len(found) == pytest.approx(0.5, abs=0.03)


def test_a_ramp_has_a_quarter_of_its_requests_in_the_first_half() -> None:
    found = times("ramp", 100, 100)
    assert sum(time < 50 for time in found) / len(found) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    "lines",
    [
        "0 GET /\n1.0 POST /\n3.0\n",
        "2026-11-25T12:00:00 a\n2026-11-25T12:00:01 b\n\n2026-11-25T12:00:03 c\n",
    ],
)
def test_a_log_is_replayed_gap_by_gap_at_the_rate(tmp_path: Path, lines: str) -> None:
    log = tmp_path / "access.log"
    log.write_text(lines)
    assert log_gaps(log) == (1.0, 2.0)
    found = times(f"replay:{log}", rate=2.0, seconds=6.0)
    gaps = [after - before for before, after in pairwise([0.0, *found])]
    assert gaps == pytest.approx(([1 / 3, 2 / 3] * 7)[: len(gaps)])
    assert len(found) == pytest.approx(12, abs=1)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("", "fewer than two different times"),
        ("1.0\n", "fewer than two different times"),
        ("1.0\n1.0\n", "fewer than two different times"),
        ("2.0\n1.0\n", "line 2 is earlier than the one above"),
        ("yesterday GET /\n", "line 1 starts with 'yesterday'; expected seconds or a date"),
        ("nan\n", "line 1 starts with 'nan'"),
    ],
)
def test_an_unusable_log_is_refused(tmp_path: Path, lines: str, complaint: str) -> None:
    log = tmp_path / "access.log"
    log.write_text(lines)
    with pytest.raises(LoadTestError, match=complaint):
        times(f"replay:{log}", 1, 1)


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="cannot read the log"):
        times(f"replay:{tmp_path / 'none'}", 1, 1)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(LoadTestError, match="expected a rate above 0"):
        times("poisson", rate, 1)


def test_unknown_arrivals_are_refused_with_those_there_are() -> None:
    with pytest.raises(
        LoadTestError, match=r"unknown arrivals 'tides'; known: poisson, .*replay:F"
    ):
        times("tides", 1, 1)
