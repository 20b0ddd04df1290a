"""What `crisp bench` runs: batches of texts as long as those of SST-2 or IMDb, or of one length.

Lengths are drawn from the quantiles of real texts, straight lines in between; they count tokens,
[CLS] and [SEP] included. Token ids are drawn at random: they change nothing in the work, except
that equal tokens make attention scores that tie.

    for batch in batches(WORKLOADS["sst-b32"], vocabulary=30522, random=default_rng(0)):
        ...   # 32 lists of token ids, without end
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from export.errors import ExportError

_SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
WINDOW = 16  # batches within which texts are sorted by length, where they are

Batch = list[list[int]]


@dataclass(frozen=True)
class LengthMix:
    """A distribution of lengths in tokens: its minimum, 5 %, 25 %, 50 %, 75 %, 95 %, maximum."""

    texts: str
    quantiles: tuple[float, float, float, float, float, float, float]

    @property
    def longest(self) -> int:
        return int(self.quantiles[-1])

    def draw(self, count: int, random: Generator) -> NDArray[np.int64]:
        """`count` lengths, int64 [count]."""
        lengths = np.interp(random.random(count), _SHARES, self.quantiles)
        return np.rint(lengths).astype(np.int64)


# Counted with the tokenizer of all-MiniLM-L6-v2 (BERT's, lower case). Mean 25.2 and 207.8 tokens;
# the mixes have 25.4 and 209.4. Batches in arrival order are padded by as much as those of the
# texts: 1.9 times at 32 sentences, 1.7 times at 8 reviews.
SST2 = LengthMix("SST-2 dev, 872 sentences", (4, 10, 17, 24.5, 32, 44, 55))
IMDB = LengthMix(
    "IMDb, the 1,952 reviews that Kaushik et al. 2020 chose", (24, 77.5, 151, 191, 262, 369, 492)
)


def fixed(length: int) -> LengthMix:
    return LengthMix(f"{length} tokens each", (length,) * 7)


@dataclass(frozen=True)
class Workload:
    """Batches of `size` texts in order of arrival or, `sorted`, by length within 16 batches."""

    name: str
    mix: LengthMix
    size: int
    sorted: bool = False

    def __str__(self) -> str:
        order = f", sorted by length in windows of {WINDOW} batches" if self.sorted else ""
        return f"{self.mix.texts}, batches of {self.size}{order}"

    def to_dict(self) -> dict[str, Any]:
        return {"description": str(self), **asdict(self)}


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("sst-b1", SST2, 1),
        Workload("sst-b32", SST2, 32),
        Workload("sst-b32-sorted", SST2, 32, sorted=True),
        Workload("imdb-b1", IMDB, 1),
        Workload("imdb-b8", IMDB, 8),
        Workload("n512-b1", fixed(512), 1),
        Workload("n2048-b1", fixed(2048), 1),
        Workload("n4096-b1", fixed(4096), 1),
    )
}

# By name alone: for a GPU, which smaller ones leave idle.
LARGE = {"sst-b256": Workload("sst-b256", SST2, 256)}
KNOWN = WORKLOADS | LARGE


def parse_workloads(names: str) -> list[Workload]:
    """The workloads of a list of names by comma. Raises ExportError for a name that is none."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in wanted if name not in KNOWN]
    if unknown or not wanted:
        found = f"does not know {', '.join(unknown)}" if unknown else "got none"
        raise ExportError(f"--workloads {found}; it takes a list of {', '.join(KNOWN)}")
    return [KNOWN[name] for name in wanted]


def longest(workloads: Sequence[Workload]) -> int:
    """Tokens of the longest text that any of the workloads can draw."""
    return max(workload.mix.longest for workload in workloads)


def batches(workload: Workload, *, vocabulary: int, random: Generator) -> Iterator[Batch]:
    """Batches of token ids below `vocabulary`, without end. Of sorted ones, 16 in turn hold the
    texts of one window, the batches in random order."""
    while True:
        lengths = workload.mix.draw(workload.size * (WINDOW if workload.sorted else 1), random)
        rows = lengths.reshape(-1, workload.size)
        if workload.sorted:
            rows = random.permutation(np.sort(lengths).reshape(rows.shape))
        for row in rows:
            yield [random.integers(0, vocabulary, length).tolist() for length in row]
