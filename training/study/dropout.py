"""Dropout for many models at once, each with random numbers of its own.

    dropped = Dropout(0.01, seeds).draw(sites, count)
    hidden = dropped.apply(site, hidden)               # one site after the other

Only the few elements that are dropped are drawn, as gaps between them, which are geometrically
distributed: the same distribution as a coin for each element, at a fraction of its cost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dropped:
    """What is dropped in one pass, of the elements of all sites, one after the other."""

    positions: Tensor  # int64, ascending within a model
    starts: Tensor  # int64 [M + 1], of each model's positions
    count: int  # of a model's elements at a site
    scale: float  # of what is not dropped

    def apply(self, site: int, hidden: Tensor) -> Tensor:
        """hidden [M, ...], of which what is dropped at a site is 0, and the rest is scaled up."""
        mask = torch.full((len(hidden), self.count), self.scale)
        for row, start, end in zip(mask, self.starts, self.starts[1:], strict=False):
            positions, first = self.positions[start:end], site * self.count
            at, after = torch.searchsorted(positions, torch.tensor([first, first + self.count]))
            row[positions[at:after] - first] = 0
        return hidden * mask.view(hidden.shape).to(hidden.device)


class Dropout:
    """A share of `rate` of the elements, as each model's seed says."""

    def __init__(self, rate: float, seeds: Sequence[int]) -> None:
        self.rate = rate
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self, sites: int, count: int) -> Dropped | None:
        """What the next pass drops at `sites` sites of `count` elements of a model; None where the
        rate is 0."""
        if self.rate == 0:
            return None
        drawn = [self._drawn(generator, sites * count) for generator in self.generators]
        starts = torch.tensor([0, *itertools.accumulate(map(len, drawn))])
        return Dropped(torch.cat(drawn), starts, count, 1 / (1 - self.rate))

    def _drawn(self, generator: torch.Generator, count: int) -> Tensor:
        """Which of `count` are dropped, ascending."""
        expected = count * self.rate
        draws = int(expected + 6 * math.sqrt(expected)) + 10  # almost always enough
        found = torch.tensor([-1])
        while found[-1] < count - 1:
            uniform = torch.rand(draws, generator=generator)
            # How many heads in a row, with tails as likely as `rate`.
            gaps = uniform.neg_().log1p_().div_(math.log1p(-self.rate)).long()
            found = torch.cat([found, found[-1] + gaps.add_(1).cumsum(0)])
        return found[1 : int(torch.searchsorted(found, count))]
