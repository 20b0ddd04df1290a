"""The fair order: nothing is lost or run twice, budgets hold, nobody waits longer than a round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fair_queue import SMALL_FOR_ONE_BIG, FairQueue, Job

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=12)


def taken_of(queue: FairQueue[Job], budget: int) -> list[list[tuple[Job, int]]]:
    """Batches until nothing is left."""
    batches = []
    while batch := queue.take(budget):
        batches.append(batch)
    return batches


@given(jobs=st.lists(lengths, max_size=8), quantum=st.integers(1, 80), budget=st.integers(1, 200))
def test_every_text_is_taken_once_in_order_and_within_the_budget(
    jobs: list[list[int]], quantum: int, budget: int
) -> None:
    queue = FairQueue[Job](quantum)
    added = [Job(each) for each in jobs]
    for job in added:
        queue.add(job)
    assert queue.tokens == sum(map(sum, jobs))
    size = {id(job): own for job, own in zip(added, jobs, strict=True)}
    batches = taken_of(queue, budget)
    for batch in batches:
        assert len(batch) == 1 or sum(size[id(job)][i] for job, i in batch) <= budget
    for job, own in zip(added, jobs, strict=True):
        positions = [i for batch in batches for other, i in batch if other is job]
        assert positions == list(range(len(own)))
    assert (queue.tokens, queue.tokens_before(1), queue.tokens_before(1000)) == (0, 0, 0)
    assert len(queue) == 0


@given(jobs=st.lists(lengths, max_size=8), quantum=st.integers(1, 80), budget=st.integers(1, 200))
def test_a_batch_is_as_full_as_the_order_allows(
    jobs: list[list[int]], quantum: int, budget: int
) -> None:
    queue = FairQueue[Job](quantum)
    for own in jobs:
        queue.add(Job(own))
    while queue.tokens:
        waiting = queue.tokens
        heads = [job.waiting[0][1] for job in queue]
        queue.take(budget)
        used = waiting - queue.tokens
        assert used == waiting or used + max(heads + later_heads(queue)) > budget


def later_heads(queue: FairQueue[Job]) -> list[int]:
    return [job.waiting[0][1] for job in queue]


@given(
    before=st.lists(lengths, max_size=6),
    own=st.integers(1, 60),
    after=st.lists(lengths, max_size=6),
    quantum=st.integers(60, 120),
    budget=st.integers(1, 200),
)
def test_a_small_request_waits_for_the_small_ones_before_it_and_a_share(
    before: list[list[int]], own: int, after: list[list[int]], quantum: int, budget: int
) -> None:
    queue = FairQueue[Job](quantum)
    jobs = [Job(each) for each in [*before, [own], *after]]
    size = dict(zip(jobs, [*before, [own], *after], strict=True))
    small = jobs[len(before)]
    for job in jobs:
        if job is small:
            promised = queue.tokens_before(own)
        queue.add(job)
    order = [text for batch in taken_of(queue, budget) for text in batch]
    ahead = order[: order.index((small, 0))]
    small_ones = [size[job][i] for job, i in ahead if sum(size[job]) <= quantum]
    big_ones = [size[job][i] for job, i in ahead if sum(size[job]) > quantum]
    assert sum(small_ones) == sum(sum(each) for each in before if sum(each) <= quantum)
    assert sum(big_ones) <= sum(small_ones) / SMALL_FOR_ONE_BIG
    assert sum(small_ones) <= promised + 1e-9


@given(
    before=st.lists(lengths, max_size=6),
    own=st.lists(st.integers(1, 60), min_size=130, max_size=140),
    quantum=st.integers(60, 120),
)
def test_a_big_request_has_its_turn_after_one_of_each_big_one_before_it(
    before: list[list[int]], own: list[int], quantum: int
) -> None:
    queue = FairQueue[Job](quantum)
    jobs = [Job(each) for each in [*before, own]]
    size = dict(zip(jobs, [*before, own], strict=True))
    for job in jobs[:-1]:
        queue.add(job)
    promised = queue.tokens_before(sum(own))
    queue.add(jobs[-1])
    order = [text for batch in taken_of(queue, 1) for text in batch]
    ahead = [size[job][i] for job, i in order[: order.index((jobs[-1], 0))]]
    # Small ones earn its first text three tokens for one, and the last of them may go beyond.
    assert sum(ahead) <= promised + max(own) * SMALL_FOR_ONE_BIG + 60


@given(
    texts=st.lists(st.integers(1, 60), min_size=30, max_size=60),
    small=st.integers(1, 60),
    budget=st.integers(1, 200),
)
def test_a_big_request_has_its_share_however_many_small_ones_come(
    texts: list[int], small: int, budget: int
) -> None:
    queue = FairQueue[Job](60)
    big = Job([*texts, 60])
    size = sum(texts) + 60
    queue.add(big)
    used = 0
    while big.waiting:
        while queue.tokens - big.tokens < 2 * budget + 60:
            queue.add(Job([small]))
        used += sum(small if job is not big else 0 for job, _ in queue.take(budget))
    # Three tokens for each of its own; then the run that earned its last text more than that text
    # needs, and the small ones beside it: a budget each, or a text that is longer.
    assert used <= SMALL_FOR_ONE_BIG * size + 2 * max(budget, 60)


@given(jobs=st.lists(lengths, min_size=1, max_size=6), quantum=st.integers(1, 80), data=st.data())
def test_a_job_that_is_removed_leaves_nothing(
    jobs: list[list[int]], quantum: int, data: st.DataObject
) -> None:
    queue = FairQueue[Job](quantum)
    added = [Job(each) for each in jobs]
    for job in added:
        queue.add(job)
    queue.take(data.draw(st.integers(1, 200)))
    gone = data.draw(st.sampled_from(added))
    queue.remove(gone)
    queue.remove(gone)  # as often as one likes
    left = [job for batch in taken_of(queue, 50) for job, _ in batch]
    assert gone not in left
    assert (queue.tokens, queue.tokens_before(1), queue.tokens_before(1000)) == (0, 0, 0)


def test_a_job_without_texts_never_waits() -> None:
    queue = FairQueue[Job](10)
    queue.add(Job([]))
    assert len(queue) == 0
    assert queue.take(10) == []


def test_a_quantum_is_at_least_one_token() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FairQueue[Job](0)
