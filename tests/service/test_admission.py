"""Who is let in: estimates against a simulated machine, and what an overloaded service says."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_batcher import MODELS, PER_TOKEN, START, Machine
from virtual_time import simulate

from service.admission import Limits, Margin, Refused
from service.batcher import Batcher
from service.lanes import Expired
from service.speed import Speed
from service.token_estimate import TokenEstimate


class Desk:
    """A batcher whose requests pass admission, as in the service."""

    def __init__(self, limits: Limits, lag: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        execute = Machine(threads=limits.runs_at_once).execute
        self.batcher = Batcher[str, int](execute, limits, clock=loop.time, lag=lambda: lag)
        self.lanes = {name: self.batcher.lane(name, name) for name in MODELS}
        self.waits: list[tuple[float, float]] = []  # estimated and real seconds to the first run
        self.refused: list[Refused] = []
        self.answered: list[float] = []  # seconds from a request to its answer
        self.expired = 0  # that had no turn in time after all

    async def ask(self, lengths: list[int], model: str = "sparse") -> None:
        loop, lane = asyncio.get_running_loop(), self.lanes[model]
        asked, tokens = loop.time(), sum(lengths)
        estimate = self.batcher.wait(lane, tokens)
        try:
            with self.batcher.admitted(lane, tokens) as admission:
                pass
        except Refused as refused:
            self.refused.append(refused)
            return
        sequences = [[0] * length for length in lengths]
        try:
            _, spent = await self.batcher.submit(lane, sequences, None, admission)
        except Expired:
            self.expired += 1
            return
        self.answered.append(loop.time() - asked)
        self.waits.append((estimate, spent.queue))


def overloaded(rate: float, seconds: float, limits: Limits, lag: float = 0.0) -> Desk:
    """Requests of 20 tokens, `rate` a second, evenly; each is seen `lag` seconds late."""

    async def scenario() -> Desk:
        desk = Desk(limits, lag)
        async with asyncio.TaskGroup() as group:
            for _ in range(int(rate * seconds)):
                group.create_task(desk.ask([20]))
                await asyncio.sleep(1 / rate)
        return desk

    return simulate(scenario())


CAPACITY = 200 / (START + 200 * PER_TOKEN) / 20  # requests of 20 tokens a second, in full runs


@given(
    factor=st.floats(1.5, 12),
    batch_tokens=st.sampled_from([100, 200]),
    max_wait=st.floats(0.7, 3.0),
    lag=st.floats(0, 0.15),
    runs=st.integers(1, 2),
    ahead=st.integers(0, 1),
)
@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
def test_under_overload_answers_come_in_time_and_the_machine_is_busy(
    factor: float, batch_tokens: int, max_wait: float, lag: float, runs: int, ahead: int
) -> None:
    seconds = 20
    limits = Limits(batch_tokens, max_wait=max_wait, runs_at_once=runs, ahead=ahead)
    capacity = runs * batch_tokens / (START + batch_tokens * PER_TOKEN) / 20
    desk = overloaded(factor * capacity, seconds, limits, lag)
    assert len(desk.answered) >= 0.9 * capacity * seconds
    # Once it has been seen how late answers are, that is once the first of them have waited.
    learned = desk.answered[int(capacity * 2 * max_wait) :]
    assert sum(lag + taken <= max_wait for taken in learned) >= 0.98 * len(learned)
    assert max(desk.answered) <= max_wait + 1e-9
    assert desk.expired <= 0.15 * len(desk.answered)
    assert {refused.reason for refused in desk.refused} == {"max_wait"}


@given(late=st.lists(st.floats(-1, 5), min_size=32, max_size=600))
def test_the_margin_covers_all_but_one_in_a_hundred_of_the_latest(late: list[float]) -> None:
    margin = Margin(2.0)
    for seconds in late:
        margin.answered(seconds)
    seen = late[: len(late) - len(late) % 16][-256:]
    assert 0.125 <= margin.seconds <= 1.0  # a sixteenth at least; half is left for somebody
    if margin.seconds < 1.0:
        assert sum(each <= margin.seconds - 0.125 + 1e-9 for each in seen) >= 0.99 * len(seen)


@given(late=st.floats(-1, 3))
def test_the_margin_is_the_lateness_where_that_is_always_the_same(late: float) -> None:
    margin = Margin(2.0)
    for _ in range(32):
        margin.answered(late)
    assert margin.seconds == min(0.125 + max(0.0, late), 1.0)


@pytest.mark.parametrize(("outliers", "covered"), [(2, False), (3, True)])
def test_the_margin_leaves_out_one_answer_in_a_hundred_and_forgets(
    outliers: int, covered: bool
) -> None:
    margin = Margin(2.0)
    for late in [0.25] * (256 - outliers) + [0.5] * outliers:
        margin.answered(late)
    assert margin.seconds == 0.125 + (0.5 if covered else 0.25)
    for _ in range(240):
        margin.answered(0.25)
    assert margin.seconds == 0.125 + (0.5 if covered else 0.25)
    for _ in range(16):
        margin.answered(0.25)
    assert margin.seconds == 0.375


def test_below_its_capacity_nobody_is_refused() -> None:
    desk = overloaded(0.8 * CAPACITY, 20, Limits(batch_tokens=200, max_wait=1.0))
    assert not desk.refused


def test_the_estimate_is_that_of_the_wait() -> None:
    desk = overloaded(3 * CAPACITY, 10, Limits(batch_tokens=200, max_wait=2.0))
    for estimate, waited in desk.waits[50:]:  # once the speed is known
        assert estimate == pytest.approx(waited, rel=0.2, abs=START + 200 * PER_TOKEN)


@pytest.mark.parametrize("others", [0, 30, 100, 300])
def test_other_models_count_as_much_as_they_will_take_and_the_background_does_not(
    others: int,
) -> None:
    async def scenario() -> tuple[float, float]:
        desk = Desk(Limits(batch_tokens=200, max_wait=60))
        for model in MODELS:
            await desk.ask([20] * 10, model)  # their speeds become known
        background = desk.batcher.lane("dense", "dense", background=True)  # as fast
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(desk.ask([20]))
            for _ in range(others):
                group.create_task(desk.ask([20], "dense"))
            group.create_task(desk.batcher.submit(background, [[0] * 20] * 100))
            await asyncio.sleep(0.001)  # all have come
            await desk.ask([20])
            return desk.waits[-1]

    estimate, waited = simulate(scenario())
    assert waited == pytest.approx(estimate, rel=0.3)


def test_what_is_let_in_has_its_room_before_it_is_submitted() -> None:
    """While it is tokenised, which another request may do meanwhile."""

    async def scenario() -> None:
        desk = Desk(Limits(batch_tokens=100, queue_tokens=500, max_wait=60))
        batcher, lane = desk.batcher, desk.lanes["sparse"]
        await desk.ask([100])  # its speed becomes known
        second = lane.speed.seconds(200)
        assert second > 0
        with batcher.admitted(lane, 200) as first:
            assert (batcher.waiting, batcher.wait(lane)) == (200, second)
            with batcher.admitted(lane, 200) as behind:
                assert (batcher.waiting, batcher.wait(lane)) == (400, 2 * second)
                assert (first.wait, behind.wait) == (0, second)
                with pytest.raises(Refused, match="queue_full"), batcher.admitted(lane, 101):
                    pass
                with batcher.admitted(lane, 100):
                    pass
                assert (batcher.waiting, lane.users) == (400, 2)
        assert (batcher.waiting, batcher.wait(lane), lane.users) == (0, 0, 0)
        with pytest.raises(ValueError, match="no text"), batcher.admitted(lane, 200):
            raise ValueError("no text")
        assert (batcher.waiting, batcher.wait(lane), lane.users) == (0, 0, 0)

    simulate(scenario())


def test_a_new_model_is_taken_for_as_fast_as_the_last_one_of_its_name_until_it_has_run() -> None:
    async def scenario() -> None:
        desk = Desk(Limits(batch_tokens=100, max_wait=60))
        before = desk.lanes["sparse"]
        await desk.ask([100])
        known = before.speed.seconds(100)
        same = desk.batcher.lane("sparse", "dense")
        other = desk.batcher.lane("third", "dense")
        assert (same.speed.seconds(100), other.speed.seconds(100)) == (known, 0)
        with desk.batcher.admitted(same, 100):
            assert desk.batcher.wait(same) == known > 0
        await desk.batcher.submit(same, [[0]])  # short runs cost more a token
        assert same.speed.seconds(100) > known
        assert before.speed.seconds(100) == known

    simulate(scenario())


def test_an_idle_service_takes_a_request_of_any_size() -> None:
    async def scenario() -> Desk:
        desk = Desk(Limits(queue_tokens=100))
        await desk.ask([50] * 100)
        return desk

    desk = simulate(scenario())
    assert len(desk.answered) == 1


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def scenario() -> Desk:
        desk = Desk(Limits(batch_tokens=100, queue_tokens=500, max_wait=60))
        await desk.ask([20])
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(desk.ask([100]))
        return desk

    desk = simulate(scenario())
    assert {refused.reason for refused in desk.refused} == {"queue_full"}
    assert all(refused.retry_after >= 1 for refused in desk.refused)
    assert len(desk.answered) + len(desk.refused) == 11


@given(waits=st.floats(0, 1e6))
def test_retry_after_is_a_whole_number_of_seconds_at_least_one(waits: float) -> None:
    refused = Refused("max_wait", waits, waits)
    assert refused.retry_after == max(1, math.ceil(waits))


@given(runs=st.lists(st.tuples(st.integers(1, 5000), st.floats(0.001, 5)), min_size=1, max_size=50))
def test_a_speed_lies_within_those_of_the_runs(runs: list[tuple[int, float]]) -> None:
    assert Speed().tokens_per_second is None
    assert Speed().seconds(1000) == 0
    speed = Speed()
    for tokens, seconds in runs:
        speed.ran(tokens, seconds)
    speeds = [tokens / seconds for tokens, seconds in runs]
    assert speed.tokens_per_second is not None
    assert min(speeds) * (1 - 1e-9) <= speed.tokens_per_second <= max(speeds) * (1 + 1e-9)
    assert speed.seconds(speed.tokens_per_second) == pytest.approx(1)


def test_a_speed_follows_a_change_within_seconds() -> None:
    speed = Speed()
    for _ in range(100):
        speed.ran(1000, 0.1)
    for _ in range(20):
        speed.ran(1000, 0.2)
    assert speed.seconds(5000) == pytest.approx(1.0, rel=0.05)


@given(rate=st.floats(0.05, 1), lengths=st.lists(st.integers(100, 400), min_size=300, max_size=400))
def test_the_estimate_of_tokens_learns_the_language(rate: float, lengths: list[int]) -> None:
    estimate = TokenEstimate(512)
    for length in lengths:
        tokens = min(512, 2 + round(rate * length))
        estimate.learn(["x" * length], [[0] * tokens])
    for length in (10, 100, 1000, 100_000):
        expected = min(512, 2 + rate * length)
        assert estimate.tokens(["x" * length]) == pytest.approx(expected, rel=0.35, abs=3)
