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


@pytest.fixture
def quiet_start(tmp_path: Path) -> str:
    """Arrivals as in a log of 100 requests in 100 s, then 900 in another 9 s."""
    log = tmp_path / "access.log"
    times = [*range(100), *(100 + number / 100 for number in range(900))]
    log.write_text("".join(f"{time}\n" for time in times))
    return f"replay:{log}"


# A window may be as short as `--quick` has it, or of a length that no period of bursts divides.
@pytest.mark.parametrize("seconds", [1.0, 2.0, 2.5, 3.75, 5.0, 7.5, 10.0, 200.0])
@pytest.mark.parametrize("process", [*PROCESSES, "replay"])
def test_the_average_rate_is_what_was_asked_for_in_windows_of_any_length(
    process: str, seconds: float, quiet_start: str
) -> None:
    process = quiet_start if process == "replay" else process
    found = times(process, rate=10_000 / seconds, seconds=seconds)
    assert len(found) == pytest.approx(10_000, abs=500)  # the standard deviation is 100 at most


def test_poisson_gaps_are_as_likely_short_as_an_exponential_says() -> None:
    gaps = [after - before for before, after in pairwise(times("poisson", 100, 100))]
    below = sum(gap < 0.01 for gap in gaps) / len(gaps)
    assert below == pytest.approx(1 - 2.718281828**-1, abs=0.03)


def test_half_of_all_requests_come_in_one_second_of_five() -> None:
    found = times("bursts", 100, 100)
    assert sum(time % 5 < 1 for time in found) / len(found) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("seconds", [1.0, 7.0])
def test_bursts_of_a_short_window_are_as_high_and_fill_it(seconds: float) -> None:
    found = times("bursts", 10_000 / seconds, seconds)
    assert sum(time < seconds / 5 for time in found) / len(found) == pytest.approx(0.5, abs=0.03)


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
    assert len(found) == 12
    gaps = [after - before for before, after in pairwise(found)]
    first = gaps[0] > 0.5  # the seed chooses with which it begins
    assert gaps == pytest.approx(([1 / 3, 2 / 3] * 7)[first:][: len(gaps)])


def test_every_part_of_a_long_log_has_its_turn(quiet_start: str) -> None:
    """Gaps of the quiet start are all the same, and those of the busy end: only a window that has
    both, one in five, has unlike ones. Windows that all began with the log would have none."""
    unlike = 0
    for seed in range(40):
        found = times(quiet_start, rate=100, seconds=1, seed=seed)
        assert len(found) == pytest.approx(100, abs=1)
        gaps = [after - before for before, after in pairwise(found)]
        unlike += max(gaps) > 2 * min(gaps)
    assert 0 < unlike < 20


def test_a_log_of_whole_seconds_loses_no_request(tmp_path: Path) -> None:
    """Many requests of one time: those of a window's end, and windows that know no other time."""
    log = tmp_path / "access.log"
    log.write_text("".join(f"{number // 50}\n" for number in range(200)))
    for seed in range(20):
        for rate in (10.0, 70.0):
            found = times(f"replay:{log}", rate=rate, seconds=2.0, seed=seed)
            assert len(found) == 2 * rate
            assert all(0 <= time < 2.0 for time in found)


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
