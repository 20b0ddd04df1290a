"""How often a key may ask: its bucket, the share of each process, what is said and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_access import Guarded, code

from service import keys
from service.access import TokenBucket
from service.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_that_asks_too_often_is_told_when_to_come_back(file: Path) -> None:
    shop, bank = keys.add(file, "shop"), keys.add(file, "bank")
    closed = Guarded(Settings(keys=file, rate_limit=0.01, rate_burst=3))
    answers = [closed.ask("POST", "/predict", shop) for _ in range(5)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
    assert code(answers[3]) == "rate_limited"
    assert 90 < int(answers[3].headers["retry-after"]) <= 100
    assert closed.ask("POST", "/predict", bank).status_code == 200  # nobody pays for others
    assert closed.ask("GET", "/livez").status_code == 200
    assert closed.metrics.rejections.labels("rate_limit")._value.get() == 2


def test_each_of_several_processes_grants_its_share_and_says_the_whole(file: Path) -> None:
    key = keys.add(file, "shop")
    one_of_four = Guarded(Settings(keys=file, rate_limit=0.04, rate_burst=8, workers=4))
    answers = [one_of_four.ask("POST", "/predict", key) for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert 90 < int(answers[2].headers["retry-after"]) <= 100
    message = answers[2].json()["error"]["message"]
    assert "may send 0.04 requests a second, 0.01 of them to each of 4 processes" in message
    assert "use more connections" in message


def test_one_process_that_serves_says_the_rate_and_nothing_of_processes(file: Path) -> None:
    key = keys.add(file, "shop")
    alone = Guarded(Settings(keys=file, rate_limit=0.5, rate_burst=1))
    refused = [alone.ask("POST", "/predict", key) for _ in range(2)][1]
    message = refused.json()["error"]["message"]
    assert message == "the key shop may send 0.5 requests a second: wait and try again"


def test_a_burst_of_fewer_requests_than_processes_lets_one_in_at_each(file: Path) -> None:
    key = keys.add(file, "shop")
    one_of_four = Guarded(Settings(keys=file, rate_limit=0.04, rate_burst=2, workers=4))
    answers = [one_of_four.ask("POST", "/predict", key) for _ in range(2)]
    assert [a.status_code for a in answers] == [200, 429]


def test_refusals_are_counted_but_do_not_make_the_service_look_fast(file: Path) -> None:
    key = keys.add(file, "shop")
    closed = Guarded(Settings(keys=file, rate_limit=0.01, rate_burst=3))
    for presented in (key, key, key, key, key, None):
        closed.ask("POST", "/predict", presented)
    closed.ask("GET", "/nothing")
    assert [closed.counted("/predict", status) for status in (200, 401, 429)] == [3, 1, 2]
    timed = [
        (sample.labels["endpoint"], sample.value)
        for family in closed.metrics.http_seconds.collect()
        for sample in family.samples
        if sample.name.endswith("_count")
    ]
    assert timed == [("/predict", 3)]


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_a_bucket_never_gives_more_than_its_rate_and_its_burst(
    rate: float, burst: int, pauses: list[float]
) -> None:
    now, taken = 0.0, 0
    bucket = TokenBucket(rate, burst, lambda: now)
    for pause in pauses:
        now += pause
        wait = bucket.take()
        taken += not wait
        assert taken <= burst + rate * now + 1e-6


@given(st.floats(0.1, 1000), st.integers(1, 50))
def test_a_bucket_says_truly_when_there_is_one_more(rate: float, burst: int) -> None:
    now = 0.0
    bucket = TokenBucket(rate, burst, lambda: now)
    assert [bucket.take() for _ in range(burst)] == [0] * burst
    wait = bucket.take()
    now = wait * 0.99
    assert bucket.take() > 0
    now = wait * 1.001
    assert bucket.take() == 0


@given(st.floats(0.1, 1000), st.integers(1, 50))
def test_a_bucket_that_rests_saves_up_no_more_than_its_burst(rate: float, burst: int) -> None:
    now = 0.0
    bucket = TokenBucket(rate, burst, lambda: now)
    assert bucket.take() == 0
    now = 1000.0
    assert [bucket.take() == 0 for _ in range(burst + 1)] == [True] * burst + [False]
