"""Length buckets: nothing lost, budgets kept, epochs of equal size, fair shares for processes."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from training.batches import BucketLoader, Encodings, LengthBuckets, pad

lengths_of_texts = st.lists(st.integers(2, 60), min_size=1, max_size=200)
some = st.integers(1, 16)


@given(lengths_of_texts, some, st.integers(60, 400), st.integers(0, 5))
def test_every_text_once_an_epoch_within_the_budgets(
    lengths: list[int], batch_size: int, batch_tokens: int, epoch: int
) -> None:
    buckets = LengthBuckets(lengths, batch_size=batch_size, batch_tokens=batch_tokens)
    count = len(buckets)
    buckets.set_epoch(epoch)
    batches = list(buckets)
    assert len(batches) == count == len(buckets)
    assert Counter(i for batch in batches for i in batch) == Counter(range(len(lengths)))
    for batch in batches:
        assert 0 < len(batch) <= batch_size
        # Lengths are perturbed by up to 10 % before sorting, so a budget may be passed by as much.
        padded = len(batch) * max(lengths[i] for i in batch)
        assert len(batch) == 1 or padded <= batch_tokens / 0.9


@given(lengths_of_texts, some, st.integers(2, 4), st.integers(0, 3))
def test_processes_share_each_epoch(
    lengths: list[int], batch_size: int, world: int, epoch: int
) -> None:
    shares = []
    for rank in range(world):
        buckets = LengthBuckets(
            lengths, batch_size=batch_size, batch_tokens=400, rank=rank, world=world
        )
        buckets.set_epoch(epoch)
        shares.append(list(buckets))
        assert len(shares[-1]) == len(buckets)
    assert len({len(share) for share in shares}) == 1
    assert {i for share in shares for batch in share for i in batch} == set(range(len(lengths)))


def test_epochs_differ_and_repeat() -> None:
    buckets = LengthBuckets([2, 3, 4, 5, 6, 7, 8] * 20, batch_size=4, batch_tokens=64, seed=3)
    first = list(buckets)
    buckets.set_epoch(1)
    second = list(buckets)
    buckets.set_epoch(0)
    assert first != second
    assert {frozenset(b) for b in first} != {frozenset(b) for b in second}
    assert list(buckets) == first


def test_like_lengths_meet() -> None:
    lengths = torch.randint(2, 500, (4000,), generator=torch.Generator().manual_seed(0)).tolist()
    buckets = LengthBuckets(lengths, batch_size=32, batch_tokens=10**6)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in buckets)
    assert padded < 1.12 * sum(lengths)


def test_the_loader_passes_the_epoch_on_and_pads() -> None:
    encodings = Encodings([[1, 2], [1, 2, 3], [1]], [0, 1, 0])
    buckets = LengthBuckets(encodings.lengths, batch_size=2, batch_tokens=100)
    loader = BucketLoader(encodings, batch_sampler=buckets, collate_fn=pad)
    loader.set_epoch(4)
    assert buckets.epoch == 4
    assert sum(len(batch["labels"]) for batch in loader) == 3
    batch = pad([encodings[0], encodings[1]])
    assert batch["input_ids"].tolist() == [[1, 2, 0], [1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1]


@given(lengths_of_texts, st.data())
def test_sorted_texts_keep_their_labels(lengths: list[int], data: st.DataObject) -> None:
    texts = Encodings(
        [[i] * n for i, n in enumerate(lengths)], [10 + i for i in range(len(lengths))]
    )
    every = list(range(len(lengths)))
    for chosen in (None, data.draw(st.permutations(every).map(lambda order: order[::2]))):
        found = texts.sorted(chosen)
        assert sorted(found.labels) == [10 + i for i in sorted(every if chosen is None else chosen)]
        assert found.lengths == sorted(found.lengths)
        for ids, label in zip(found.input_ids, found.labels, strict=True):
            assert list(ids) == [label - 10] * lengths[label - 10]
