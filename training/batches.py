"""Length-bucketed batches: texts of like length together, at most so many texts and padded tokens.

The number and sizes of the batches are the same in every epoch (schedulers and resuming count
them); which texts meet, and in which order the batches come, changes with the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

_JITTER = 0.1  # lengths are perturbed by up to 10 % before sorting, so that neighbours change


class Encodings(Dataset[dict[str, Any]]):
    """Tokenised texts with their labels, as plain lists; `expected`, where there are teachers, is
    what they say of each: logits float32 [N, C]."""

    def __init__(self, input_ids: Sequence[Sequence[int]], labels: Sequence[int]) -> None:
        self.input_ids = input_ids
        self.labels = labels
        self.lengths = [len(ids) for ids in input_ids]
        self.expected: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = {"input_ids": self.input_ids[index], "labels": self.labels[index]}
        return example if self.expected is None else example | {"expected": self.expected[index]}

    def sorted(self, chosen: Sequence[int] | None = None) -> Encodings:
        """These texts, or the `chosen` ones, shortest first: in this order, little of a batch is
        padding."""
        every = range(len(self)) if chosen is None else chosen
        order = sorted(every, key=self.lengths.__getitem__)
        return Encodings([self.input_ids[i] for i in order], [self.labels[i] for i in order])


class LengthBuckets(Sampler[list[int]]):
    """Batches of indices, seeded by (seed, epoch); process `rank` of `world` gets its share.

    All processes get equally many batches, and those of one step are of like length, so that none
    waits for another's long texts.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int,
        batch_tokens: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.float64)
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0
        self.bounds = [0]
        for position, length in enumerate(np.sort(self.lengths), start=1):
            size = position - self.bounds[-1]
            if size > 1 and (size > batch_size or size * length > batch_tokens):
                self.bounds.append(position - 1)
        self.bounds.append(len(lengths))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-(len(self.bounds) - 1) // self.world)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = np.argsort(self.lengths * random.uniform(1 - _JITTER, 1, len(self.lengths)))
        batches = [
            order[a:b].tolist() for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)
        ]
        while len(batches) % self.world:
            batches.append(batches[int(random.integers(len(batches)))])
        for step in random.permutation(len(self)):
            yield batches[int(step) * self.world + self.rank]


class BucketLoader(DataLoader[dict[str, Any]]):
    """A DataLoader over LengthBuckets that passes the epoch on to them."""

    def set_epoch(self, epoch: int) -> None:
        sampler = self.batch_sampler
        assert isinstance(sampler, LengthBuckets)
        sampler.set_epoch(epoch)


def batches_by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices of texts of these lengths, shortest first, in batches of at most `tokens` padded
    tokens, or of a single text that is longer."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def pad(examples: Sequence[dict[str, Any]], pad_token_id: int = 0) -> dict[str, Tensor]:
    """Collates to input_ids int64 [B, S], attention_mask int64 [B, S] and labels int64 [B]; and
    what teachers say, `expected` float32 [B, C]."""
    rows = [torch.tensor(example["input_ids"], dtype=torch.int64) for example in examples]
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_token_id)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(input_ids.shape[1])[None, :] < lengths[:, None]
    labels = torch.tensor([example["labels"] for example in examples], dtype=torch.int64)
    batch = {"input_ids": input_ids, "attention_mask": mask.long(), "labels": labels}
    if "expected" in examples[0]:
        batch["expected"] = torch.tensor(np.stack([example["expected"] for example in examples]))
    return batch
