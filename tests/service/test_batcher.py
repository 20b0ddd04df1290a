"""The batcher's promises, in simulations: a model that takes virtual time, and any requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import simulate

from service.admission import Limits
from service.batcher import Batcher
from service.lanes import Expired, Ids, Lane, Spent

MODELS = ("dense", "sparse")
START, PER_TOKEN = 0.002, 0.001  # seconds of a run and of each of its tokens


@dataclass
class Ran:
    """One run of the simulated model."""

    model: str
    begin: float
    end: float
    texts: list[tuple[int, int]]  # (first id, length): the ids say whose text it is


@dataclass
class Machine:
    """A model that says of each text its first id, and fails on texts that hold a bad one; it has
    `threads`, which take runs in the order given."""

    bad: frozenset[int] = frozenset()
    threads: int = 1
    ran: list[Ran] = field(default_factory=list)
    given: int = 0  # runs that it has and not ended
    most: int = 0

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.threads)

    async def execute(
        self, model: str, begin: Callable[[], Sequence[Ids]], _: float | None = None
    ) -> list[int]:
        loop = asyncio.get_running_loop()
        self.given += 1
        self.most = max(self.most, self.given)
        async with self._free:
            sequences = begin()
            tokens = sum(map(len, sequences))
            run = Ran(model, loop.time(), loop.time() + START + PER_TOKEN * tokens, [])
            run.texts = [(ids[0], len(ids)) for ids in sequences]
            self.ran.append(run)
            await asyncio.sleep(run.end - run.begin)
        self.given -= 1
        for ids in sequences:
            if ids[0] in self.bad:
                raise ValueError(f"bad text {ids[0]}")
        return [ids[0] for ids in sequences]


@dataclass(frozen=True)
class Ask:
    """A request of the simulation: its texts' lengths, and after how long it is cancelled."""

    at: float
    model: str
    lengths: list[int]
    patience: float | None = None


asks = st.builds(
    Ask,
    at=st.integers(0, 40).map(lambda tick: tick / 100),
    model=st.sampled_from(MODELS),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=10),
    patience=st.none() | st.integers(0, 30).map(lambda tick: tick / 100),
)


@dataclass
class Outcome:
    """What became of a request: its rows, its error or neither where it was cancelled."""

    ids: list[int]
    asked: float
    ended: float = 0.0
    rows: list[int] | None = None
    spent: Spent | None = None
    error: Exception | None = None


class World:
    """A batcher over a simulated machine, and what became of every request."""

    def __init__(self, machine: Machine, limits: Limits) -> None:
        loop = asyncio.get_running_loop()
        self.machine = machine
        self.batcher = Batcher[str, int](machine.execute, limits, clock=loop.time)
        self.lanes = {name: self.batcher.lane(name, name) for name in MODELS}
        self.outcomes: list[Outcome] = []

    async def ask(self, ask: Ask, ids: list[int]) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(ask.at)
        outcome = Outcome(ids, loop.time())
        self.outcomes.append(outcome)
        sequences = [[own] * length for own, length in zip(ids, ask.lengths, strict=True)]
        try:
            async with asyncio.timeout(ask.patience):
                outcome.rows, outcome.spent = await self.batcher.submit(
                    self.lanes[ask.model], sequences
                )
        except TimeoutError:
            pass
        except ValueError as error:
            outcome.error = error
        outcome.ended = loop.time()


def run_all(
    requests: list[Ask], limits: Limits, bad: frozenset[int] = frozenset()
) -> tuple[World, list[Ran]]:
    """Every request in one world; a text's id is its number among all texts, from 0."""

    async def scenario() -> World:
        world = World(Machine(bad, limits.runs_at_once), limits)
        first = 0
        async with asyncio.TaskGroup() as group:
            for ask in requests:
                ids = list(range(first, first + len(ask.lengths)))
                first += len(ids)
                group.create_task(world.ask(ask, ids))
        await asyncio.sleep(60)  # what runs for nobody ends too
        return world

    world = simulate(scenario())
    for lane in world.lanes.values():
        assert (lane.queue.tokens, lane.reserved, lane.users, len(lane.queue)) == (0, 0, 0, 0)
    return world, world.machine.ran


limits_ = st.builds(
    Limits,
    batch_tokens=st.integers(1, 200),
    runs_at_once=st.integers(1, 2),
    ahead=st.integers(0, 1),
    max_wait=st.just(1e9),
)


@given(requests=st.lists(asks, max_size=12), limits=limits_)
def test_every_request_gets_its_own_rows_in_order(requests: list[Ask], limits: Limits) -> None:
    world, _ = run_all(requests, limits)
    for outcome in world.outcomes:
        assert outcome.error is None
        assert outcome.rows is None or outcome.rows == outcome.ids
    patient = sum(ask.patience is None for ask in requests)
    assert sum(outcome.rows is not None for outcome in world.outcomes) >= patient


@given(requests=st.lists(asks, max_size=12), limits=limits_)
def test_a_run_is_of_one_model_and_within_the_budget(requests: list[Ask], limits: Limits) -> None:
    _, ran = run_all(requests, limits)
    model_of = [ask.model for ask in requests for _ in ask.lengths]
    for run in ran:
        assert len(run.texts) == 1 or sum(n for _, n in run.texts) <= limits.batch_tokens
        assert {model_of[own] for own, _ in run.texts} == {run.model}
    texts = [own for run in ran for own, _ in run.texts]
    assert len(texts) == len(set(texts))  # nothing runs twice


@given(requests=st.lists(asks, max_size=12), limits=limits_)
def test_no_more_runs_are_given_than_allowed(requests: list[Ask], limits: Limits) -> None:
    world, _ = run_all(requests, limits)
    assert world.machine.most <= limits.runs_at_once + limits.ahead


@given(requests=st.lists(asks, max_size=12), limits=limits_)
def test_the_machine_is_never_idle_while_a_request_waits(
    requests: list[Ask], limits: Limits
) -> None:
    world, ran = run_all(requests, limits)
    begun = {own: run.begin for run in ran for own, _ in run.texts}
    for outcome in world.outcomes:
        for own in outcome.ids:
            until = begun.get(own, outcome.ended)
            # From when it was asked until it ran (or was given up) some run covers every moment.
            moment = outcome.asked
            while moment < until - 1e-9:
                covering = [run.end for run in ran if run.begin <= moment + 1e-9 < run.end]
                assert len(covering) == limits.runs_at_once
                moment = min(covering)


@given(
    requests=st.lists(asks, max_size=12),
    limits=limits_,
    bad=st.frozensets(st.integers(0, 30), max_size=4),
)
def test_a_failure_is_only_the_requests_own(
    requests: list[Ask], limits: Limits, bad: frozenset[int]
) -> None:
    world, _ = run_all(requests, limits, bad)
    for outcome in world.outcomes:
        if outcome.error is not None:
            assert outcome.rows is None
            assert outcome.error.args[0] in [f"bad text {own}" for own in bad & {*outcome.ids}]
        elif outcome.rows is not None:
            assert outcome.rows == outcome.ids
            assert not bad & {*outcome.ids}
    for ask, ids in zip(requests, ids_of(requests), strict=True):
        (outcome,) = [each for each in world.outcomes if each.ids == ids]
        if ask.patience is None:
            assert (outcome.error is not None) == bool(bad & {*ids})


def ids_of(requests: list[Ask]) -> list[list[int]]:
    ids, first = [], 0
    for ask in requests:
        ids.append(list(range(first, first + len(ask.lengths))))
        first += len(ask.lengths)
    return ids


@given(requests=st.lists(asks, max_size=12), limits=limits_)
def test_who_has_gone_is_not_run(requests: list[Ask], limits: Limits) -> None:
    world, ran = run_all(requests, limits)
    gone = {
        own: outcome.ended for outcome in world.outcomes if not outcome.rows for own in outcome.ids
    }
    for run in ran:
        for own, _ in run.texts:
            if not limits.ahead:  # else it may have been given to the machine before
                assert run.begin <= gone.get(own, run.begin)


@given(requests=st.lists(asks, max_size=8), limits=limits_)
def test_the_time_of_a_request_is_accounted_for(requests: list[Ask], limits: Limits) -> None:
    world, ran = run_all(requests, limits)
    for outcome in world.outcomes:
        if outcome.spent is not None:
            its = [run for run in ran if {own for own, _ in run.texts} & {*outcome.ids}]
            ends = sorted({at for run in its for at in (run.begin, run.end)})
            inference = sum(
                end - begin
                for begin, end in pairwise(ends)
                if any(run.begin <= begin and end <= run.end for run in its)
            )  # what runs at the same time counts once
            assert outcome.spent.inference == pytest.approx(inference)
            total = outcome.ended - outcome.asked
            assert outcome.spent.queue + inference == pytest.approx(total)


def test_a_request_alone_runs_at_once_and_as_one() -> None:
    world, ran = run_all([Ask(0.05, "sparse", [20, 30])], Limits())
    assert [(run.begin, len(run.texts)) for run in ran] == [(1.05, 2)]
    spent = world.outcomes[0].spent
    assert spent is not None
    assert spent.queue == 0.0
    assert spent.inference == pytest.approx(START + 50 * PER_TOKEN)


def test_what_comes_while_a_run_is_under_way_is_gathered() -> None:
    requests = [Ask(0.0, "sparse", [50])] + [Ask(0.001 * i, "sparse", [5]) for i in range(1, 20)]
    _, ran = run_all(requests, Limits())
    assert [len(run.texts) for run in ran] == [1, 19]


def test_what_comes_at_the_same_moment_runs_together() -> None:
    _, ran = run_all([Ask(0.0, "sparse", [5])] * 16, Limits())
    assert [len(run.texts) for run in ran] == [16]


@given(bad=st.sets(st.integers(0, 63), min_size=1, max_size=3))
def test_bad_texts_are_found_by_halving(bad: set[int]) -> None:
    requests = [Ask(0.0, "sparse", [1])] * 64
    world, ran = run_all(requests, Limits(), frozenset(bad))
    assert {own for o in world.outcomes if o.error for own in o.ids} == bad
    assert len(ran) <= 1 + len(bad) * 2 * 6  # two halves on each of log2(64) levels


@given(
    big=st.lists(st.integers(300, 900), min_size=1, max_size=4),
    small=st.integers(1, 20),
    at=st.integers(0, 50),
)
def test_big_requests_do_not_hold_up_a_small_one(big: list[int], small: int, at: int) -> None:
    limits = Limits(batch_tokens=200, max_wait=1e9)
    requests = [Ask(0.0, "sparse", [20] * (tokens // 20)) for tokens in big]
    world, _ = run_all([*requests, Ask(at / 100, "sparse", [small])], limits)
    ours = next(each for each in world.outcomes if each.ids == [sum(t // 20 for t in big)])
    # What runs already, then the run that it is in: the small ones come first in it.
    assert ours.ended - ours.asked <= 2 * (START + 200 * PER_TOKEN) + 1e-9


def test_a_big_request_does_not_starve_among_small_ones() -> None:
    big = Ask(0.0, "sparse", [20] * 50)
    flood = [Ask(0.005 * i, "sparse", [10]) for i in range(600)]  # twice what the machine can do
    world, _ = run_all([big, *flood], Limits(batch_tokens=200, max_wait=1e9))
    (large,) = [outcome for outcome in world.outcomes if len(outcome.ids) == 50]
    assert large.ended - large.asked < 5.0  # a quarter of the machine for its second of work
    assert max(outcome.ended for outcome in world.outcomes) > large.ended + 1.0


def test_models_that_are_busy_share_the_time_alike() -> None:
    requests = [Ask(0.0, model, [10] * 200) for model in MODELS for _ in range(3)]
    _, ran = run_all(requests, Limits(batch_tokens=100, max_wait=1e9))
    models = [run.model for run in ran[:60]]
    for end in range(60):
        assert abs(models[:end].count("dense") - models[:end].count("sparse")) <= 2


def test_a_model_that_was_idle_has_saved_up_no_time() -> None:
    requests = [Ask(0.0, "sparse", [10] * 300)] + [Ask(1.0, "dense", [10] * 100)] * 2
    _, ran = run_all(requests, Limits(batch_tokens=100, max_wait=1e9))
    both = [run.model for run in ran if 2.0 <= run.begin < 3.5]
    assert abs(both.count("dense") - both.count("sparse")) <= 1


def test_the_background_runs_only_while_nothing_else_waits() -> None:
    async def scenario() -> tuple[list[Ran], float]:
        loop = asyncio.get_running_loop()
        machine = Machine()
        batcher = Batcher[str, int](
            machine.execute, Limits(batch_tokens=100, max_wait=1e9), clock=loop.time
        )
        front: Lane[str, int] = batcher.lane("sparse", "sparse")
        back: Lane[str, int] = batcher.lane("dense", "shadow", background=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(batcher.submit(back, [[0] * 10] * 20))
            for i in range(10):
                group.create_task(batcher.submit(front, [[1] * 100]))
                await asyncio.sleep(0.01 if i else 0.0)
        return machine.ran, loop.time()

    ran, _ = simulate(scenario())
    assert [run.model for run in ran[:10]] == ["sparse"] * 10
    assert {run.model for run in ran[10:]} == {"shadow"}
    # Short runs, so that a request which comes meanwhile waits for little.
    assert max(sum(n for _, n in run.texts) for run in ran[10:]) <= 25


def test_who_has_no_turn_in_time_expires_and_never_runs() -> None:
    async def scenario() -> tuple[list[Ran], list[object]]:
        loop = asyncio.get_running_loop()
        machine = Machine()
        batcher = Batcher[str, int](machine.execute, Limits(max_wait=0.5), clock=loop.time)
        lane = batcher.lane("sparse", "sparse")
        first = asyncio.ensure_future(batcher.submit(lane, [[0] * 1000]))
        await asyncio.sleep(0)
        late = asyncio.ensure_future(batcher.submit(lane, [[1] * 10], loop.time() + 60))
        outcomes = await asyncio.gather(first, late, return_exceptions=True)
        return machine.ran, list(outcomes)

    ran, (first, late) = simulate(scenario())
    assert not isinstance(first, BaseException)  # it had its turn, however long that takes
    assert isinstance(late, Expired)
    assert not late.started
    assert [own for run in ran for own, _ in run.texts] == [0]


@pytest.mark.parametrize("started", [True, False])
def test_the_deadline_is_final(started: bool) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        limits = Limits(batch_tokens=1000, max_wait=9)
        batcher = Batcher[str, int](Machine().execute, limits, clock=loop.time)
        lane = batcher.lane("sparse", "sparse")
        async with asyncio.TaskGroup() as group:
            if not started:
                group.create_task(batcher.submit(lane, [[0] * 1000]))
                await asyncio.sleep(0)
            with pytest.raises(Expired) as expired:
                await batcher.submit(lane, [[0] * 1000], loop.time() + 0.5)
            assert loop.time() == pytest.approx(1.5)
            assert expired.value.started is started

    simulate(scenario())


def test_a_wrong_number_of_results_is_a_failure() -> None:
    async def too_few(_: str, begin: Callable[[], Sequence[Ids]], __: float | None) -> list[int]:
        return [0] * (len(begin()) - 1)

    async def scenario() -> None:
        batcher = Batcher[str, int](too_few, Limits())
        await batcher.submit(batcher.lane("sparse", "sparse"), [[1], [2]])

    with pytest.raises(RuntimeError, match="0 results of a run of 1"):
        asyncio.run(scenario())


def test_no_texts_need_no_run() -> None:
    async def scenario() -> tuple[list[int], Spent]:
        batcher = Batcher[str, int](Machine().execute, Limits())
        return await batcher.submit(batcher.lane("sparse", "sparse"), [])

    assert simulate(scenario()) == ([], Spent(0.0, 0.0))


def test_only_who_is_alone_may_block_and_for_about_as_long_as_it_takes() -> None:
    given: list[float | None] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        machine = Machine()

        async def execute(
            model: str, begin: Callable[[], Sequence[Ids]], seconds: float | None
        ) -> list[int]:
            given.append(seconds)
            return await machine.execute(model, begin)

        batcher = Batcher[str, int](execute, Limits(batch_tokens=20), clock=loop.time)
        lane = batcher.lane("sparse", "sparse")
        await batcher.submit(lane, [[0] * 20])  # nothing is known yet
        await batcher.submit(lane, [[0] * 20])
        await batcher.submit(lane, [[0] * 20] * 2)  # two runs: the second waits for the first

    simulate(scenario())
    known = pytest.approx(START + 20 * PER_TOKEN)
    assert given == [None, known, None, known]


def one_ahead(machine: Machine) -> tuple[Batcher[str, int], Lane[str, int]]:
    """A batcher with short runs, one of which waits while another is under way."""
    world = World(machine, Limits(batch_tokens=20, max_wait=1e9, ahead=1))
    return world.batcher, world.lanes["sparse"]


def test_a_run_ahead_is_given_while_another_is_under_way() -> None:
    async def scenario() -> tuple[int, int, int]:
        machine = Machine()
        batcher, lane = one_ahead(machine)
        async with asyncio.TaskGroup() as group:
            group.create_task(batcher.submit(lane, [[0] * 20] * 4))
            await asyncio.sleep(0.01)
            return len(machine.ran), machine.given, len(batcher.running)

    assert simulate(scenario()) == (1, 2, 1)


def test_what_comes_before_a_run_begins_joins_it_as_far_as_there_is_room() -> None:
    async def scenario() -> list[Ran]:
        machine = Machine()
        batcher, lane = one_ahead(machine)
        async with asyncio.TaskGroup() as group:
            for own in range(7):  # all while the first one runs
                group.create_task(batcher.submit(lane, [[own] * 4]))
                await asyncio.sleep(PER_TOKEN)
        return machine.ran

    ran = [[own for own, _ in run.texts] for run in simulate(scenario())]
    assert ran == [[0], [1, 2, 3, 4, 5], [6]]


def test_texts_that_run_again_because_one_failed_are_joined_by_none() -> None:
    async def scenario() -> list[Ran]:
        machine = Machine(bad=frozenset({1}))
        batcher, lane = one_ahead(machine)
        pair = [asyncio.create_task(batcher.submit(lane, [[own] * 4])) for own in (0, 1)]
        await asyncio.sleep(START + 9 * PER_TOKEN)  # it has failed, and its halves are to run
        other = asyncio.create_task(batcher.submit(lane, [[2] * 4]))
        await asyncio.gather(*pair, other, return_exceptions=True)
        assert isinstance(pair[1].exception(), ValueError)
        return machine.ran

    ran = [[own for own, _ in run.texts] for run in simulate(scenario())]
    assert ran == [[0, 1], [0], [1], [2]]
