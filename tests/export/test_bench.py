"""`crisp bench`: lengths as documented, every contender on the same batches, who fails left out
and the fastest way chosen. No test looks at how long anything took."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.bench import measure as measuring
from export.bench.measure import (
    FEWEST_ROUNDS,
    SHORT,
    SLOW,
    WARM_UP_ROUNDS,
    Contender,
    Rounds,
    measure,
)
from export.bench.memory import available_bytes, fallback_bytes, score_bytes
from export.bench.report import padding
from export.bench.workloads import (
    IMDB,
    SST2,
    WINDOW,
    WORKLOADS,
    Batch,
    LengthMix,
    Workload,
    batches,
    fixed,
    longest,
    parse_workloads,
)
from export.errors import ExportError

VOCABULARY = 100
FEW = Workload("sst-b1", fixed(3), 1)
MANY = Workload("imdb-b8", fixed(30), 8)


# --- lengths and batches ---------------------------------------------------------------------


@pytest.mark.parametrize(("mix", "mean"), [(SST2, 25.4), (IMDB, 209.4)])
def test_lengths_have_the_quantiles_and_the_mean_that_are_documented(
    mix: LengthMix, mean: float
) -> None:
    lengths = mix.draw(100_000, np.random.default_rng(0))
    assert lengths.mean() == pytest.approx(mean, rel=0.01)
    found = np.quantile(lengths, (0.05, 0.25, 0.5, 0.75, 0.95))
    assert found == pytest.approx(mix.quantiles[1:-1], rel=0.03)
    assert lengths.min() == mix.quantiles[0]
    assert lengths.max() <= mix.longest


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=str)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_batches_have_the_size_the_lengths_and_the_tokens_of_their_workload(
    workload: Workload, seed: int
) -> None:
    def draw() -> list[Batch]:
        random = np.random.default_rng(seed)
        return list(islice(batches(workload, vocabulary=VOCABULARY, random=random), WINDOW + 1))

    found = draw()
    assert found == draw()
    for batch in found:
        assert len(batch) == workload.size
        for ids in batch:
            assert workload.mix.quantiles[0] <= len(ids) <= workload.mix.longest
            assert min(ids) >= 0
            assert max(ids) < VOCABULARY


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_sorted_batches_hardly_pad_and_hold_the_texts_of_one_window(seed: int) -> None:
    random = np.random.default_rng(seed)
    supply = batches(WORKLOADS["sst-b32-sorted"], vocabulary=VOCABULARY, random=random)
    window = [[len(ids) for ids in batch] for batch in islice(supply, WINDOW)]
    window.sort()
    for shorter, longer in pairwise(window):
        assert max(shorter) <= min(longer)
    assert padding(window) < 1.2
    arrival = batches(WORKLOADS["sst-b32"], vocabulary=VOCABULARY, random=random)
    assert padding([[len(ids) for ids in batch] for batch in islice(arrival, WINDOW)]) > 1.5


def test_workloads_are_named_by_comma() -> None:
    assert [w.name for w in parse_workloads(" n512-b1,sst-b1,n512-b1,")] == ["n512-b1", "sst-b1"]


@pytest.mark.parametrize(
    ("names", "complaint"), [("sst-b2,n512-b1", "does not know sst-b2"), (",", "got none")]
)
def test_unknown_workloads_are_refused_by_name(names: str, complaint: str) -> None:
    with pytest.raises(ExportError, match=f"{complaint}; it takes a list of sst-b1"):
        parse_workloads(names)


def test_the_longest_text_is_that_of_the_longest_workload() -> None:
    assert longest([WORKLOADS["sst-b1"]]) == SST2.longest
    assert longest(list(WORKLOADS.values())) == 4096


# --- measuring, by a clock that only contenders move ------------------------------------------


class Clock:
    """A clock that stands still but for the seconds that a contender takes for a token."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, Batch]] = []

    def __call__(self) -> float:
        return self.now

    def contender(
        self,
        name: str,
        seconds: float,
        *,
        way: str = "",
        fails: Callable[[int, Batch], bool] = lambda *_: False,
        needs: int = 0,
    ) -> Contender:
        """`fails(n, batch)` says whether the n-th run raises, from 0."""
        count = 0

        def run(batch: Batch) -> NDArray[np.float32]:
            nonlocal count
            count += 1
            if fails(count - 1, batch):
                raise RuntimeError(f"{name} cannot\nand says more")
            self.calls.append((name + way, batch))
            self.now += seconds * sum(map(len, batch))
            return np.zeros((len(batch), 2), np.float32)

        return Contender(name, lambda batch: batch, run, way=way, needs=lambda _: needs)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(clock: Clock, *others: Contender, **options: Any) -> dict[str, Rounds]:
    contenders = [clock.contender("slow", 2e-3), clock.contender("fast", 1e-3), *others]
    return measure(contenders, (FEW, MANY), vocabulary=VOCABULARY, clock=clock, **options)


def test_every_contender_runs_every_batch_in_an_order_that_changes(clock: Clock) -> None:
    run(clock, seconds=1, rounds=20)
    pairs = list(zip(clock.calls[::2], clock.calls[1::2], strict=True))
    assert all(first[1] == second[1] for first, second in pairs)
    for workload in (FEW, MANY):
        orders = [(a[0], b[0]) for a, b in pairs if len(a[1]) == workload.size]
        assert 20 < len(orders) <= 20 + WARM_UP_ROUNDS[1]
        assert set(orders) == {("slow", "fast"), ("fast", "slow")}


@given(seconds=st.floats(1e-4, 10))
@settings(max_examples=20)
def test_short_rounds_are_warmed_up_longer_than_slow_ones(seconds: float) -> None:
    clock = Clock()
    measure([clock.contender("it", seconds)], [FEW], vocabulary=9, seconds=1, rounds=1, clock=clock)
    played, round_seconds = len(clock.calls) - 1, 3 * seconds
    fewest, most = WARM_UP_ROUNDS
    if round_seconds > SLOW:
        assert played == 1
    else:
        assert fewest <= played <= most
        assert played == most or played * round_seconds > SHORT


def test_rounds_are_as_many_as_asked_for_without_the_warm_up(clock: Clock) -> None:
    shares: list[float] = []
    found = run(clock, seconds=1, rounds=7, advance=lambda share, _: shares.append(share))
    for name, tokens in (("sst-b1", 3), ("imdb-b8", 240)):
        assert found[name].lengths == [
            [tokens // len(row)] * len(row) for row in found[name].lengths
        ]
        assert found[name].times_ms["slow"] == pytest.approx([2 * tokens] * 7)
        assert found[name].times_ms["fast"] == pytest.approx([tokens] * 7)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_time_is_shared_equally_between_workloads(clock: Clock) -> None:
    found = run(clock, seconds=60)
    spent = {
        name: sum(sum(times) for times in rounds.times_ms.values()) / 1e3
        for name, rounds in found.items()
    }
    assert spent["sst-b1"] == pytest.approx(30, abs=1)
    assert spent["imdb-b8"] == pytest.approx(30, abs=1)


def test_a_slow_workload_takes_no_rounds_from_a_fast_one(clock: Clock) -> None:
    found = run(clock, seconds=2)  # imdb-b8 takes 0.72 s a round, and so 3.6 s for its five
    assert len(found["imdb-b8"].lengths) == FEWEST_ROUNDS
    assert len(found["sst-b1"].lengths) == pytest.approx(1 / 0.009, abs=1)


def test_the_same_seed_gives_the_same_batches() -> None:
    clocks = Clock(), Clock(), Clock()
    for clock, seed in zip(clocks, (1, 1, 2), strict=True):
        run(clock, seconds=1, rounds=3, seed=seed)
    assert clocks[0].calls == clocks[1].calls != clocks[2].calls


# --- several ways, and failures ----------------------------------------------------------------


@given(times=st.lists(st.floats(1e-4, 1e-2), min_size=1, max_size=4, unique=True))
@settings(max_examples=20)
def test_the_fastest_way_stands_for_its_name(times: list[float]) -> None:
    clock = Clock()
    ways = [clock.contender("many", t, way=f"way {i}") for i, t in enumerate(times)]
    found = run(clock, *ways, seconds=1, rounds=2)
    fastest = int(np.argmin(times))
    for name, tokens in (("sst-b1", 3), ("imdb-b8", 240)):
        assert found[name].ways == {"many": f"way {fastest}"}
        assert list(found[name].times_ms) == ["slow", "fast", "many"]
        assert found[name].times_ms["many"] == pytest.approx([1e3 * times[fastest] * tokens] * 2)


@pytest.mark.parametrize("first", [0, 3, 8, 14], ids=["at once", "warming up", "then", "later"])
def test_who_fails_is_left_out_with_its_error_and_the_others_go_on(
    clock: Clock, first: int
) -> None:
    failing = clock.contender("peer", 1e-3, fails=lambda n, _: n >= first)
    for rounds in run(clock, failing, seconds=1, rounds=7).values():
        assert rounds.errors == {"peer": "peer cannot"}
        assert list(rounds.times_ms) == ["slow", "fast"]
        assert all(len(times) == 7 for times in rounds.times_ms.values())


def test_who_fails_on_one_workload_runs_on_the_others(clock: Clock) -> None:
    failing = clock.contender("peer", 1e-3, fails=lambda _, batch: len(batch) > 1)
    found = run(clock, failing, seconds=1, rounds=7)
    assert found["imdb-b8"].errors == {"peer": "peer cannot"}
    assert not found["sst-b1"].errors
    assert found["sst-b1"].times_ms["peer"] == pytest.approx([3] * 7)


def test_one_way_that_fails_leaves_the_other(clock: Clock) -> None:
    ways = (
        clock.contender("many", 1e-4, way="broken", fails=lambda *_: True),
        clock.contender("many", 1e-3, way="sound"),
    )
    found = run(clock, *ways, seconds=1, rounds=2)
    assert found["sst-b1"].ways == {"many": "sound"}
    assert not found["sst-b1"].errors


def test_a_reference_that_fails_ends_it_all(clock: Clock) -> None:
    broken = clock.contender("stock", 1e-3, fails=lambda *_: True)
    complaint = "stock, which all others are compared with, fails on workload sst-b1: stock cannot"
    with pytest.raises(ExportError, match=complaint):
        measure([broken], [FEW], vocabulary=9, seconds=1, clock=clock)


def test_what_needs_more_memory_than_there_is_is_not_tried(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "available_bytes", lambda: 2**30)
    large = clock.contender("large", 1e-3, needs=3 * 2**30)
    exact = clock.contender("exact", 1e-3, needs=2**30)
    found = run(clock, large, exact, seconds=1, rounds=2)
    assert found["sst-b1"].errors == {"large": "needs about 3.0 GiB, 1.0 are free"}
    assert len(found["sst-b1"].times_ms["exact"]) == 2
    monkeypatch.setattr(measuring, "available_bytes", lambda: None)  # a system that does not say
    assert not run(clock, large, seconds=1, rounds=1)["sst-b1"].errors


def test_scores_grow_with_the_square_of_the_longest_or_of_the_pack() -> None:
    assert score_bytes([[0] * 4096], 12) == 2 * 4 * 12 * 4096**2
    assert score_bytes([[0] * 10, [0] * 3], 2) == 2 * 4 * 2 * 2 * 10**2
    assert fallback_bytes([[0] * 10, [0] * 3], 2) == 2 * 4 * 2 * 13**2
    free = available_bytes()
    assert free is None or free > 0
