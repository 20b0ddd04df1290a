"""The Semantic Focus paper's encoder (arXiv 2506.14095), many models at once.

Pre-LayerNorm without affine parameters, sinusoidal positions, one head, mean pooling. Every tensor
has a leading axis of M models (their seeds), so that one matrix product serves them all; the
attention is this project's own. No model sees another: the M of them are trained as if each were
alone.

    parameters = initial_parameters(size, seeds=(0, 1, 2))
    logits = forward(parameters, tokens, lengths, size, AttentionPattern("topk", k=5))  # [3, B, C]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.attention.registry import sparse_attention
from training.pattern import AttentionPattern

Parameters = dict[str, Tensor]  # each [M, ...]

# (block, query, key, valid): queries and keys float [M·B, 1, L, D], valid bool [M·B, L].
Observe = Callable[[int, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class EncoderSize:
    """The sizes of a model."""

    symbols: int  # without padding
    classes: int
    blocks: int
    width: int = 64  # of the residual stream and of the feed-forward layer


def initial_parameters(size: EncoderSize, seeds: Sequence[int]) -> Parameters:
    """Random weights as torch draws them for its own layers; those of a seed do not depend on the
    other seeds."""
    drawn = [_draw(size, torch.Generator().manual_seed(seed)) for seed in seeds]
    return {name: torch.stack([each[name] for each in drawn]) for name in sorted(drawn[0])}


def _draw(size: EncoderSize, generator: torch.Generator) -> Parameters:
    width = size.width
    found = {"embedding": torch.randn(size.symbols + 1, width, generator=generator)}
    layers = {"head": (width, size.classes)}
    for block in range(size.blocks):
        layers[f"{block}.qkv"] = (width, 3 * width)
        layers |= {f"{block}.{name}": (width, width) for name in ("out", "up", "down")}
    for name, (inputs, outputs) in layers.items():
        bound = 1 / math.sqrt(inputs)
        for part, shape in (("weight", (inputs, outputs)), ("bias", (1, outputs))):
            uniform = torch.rand(shape, generator=generator)
            found[f"{name}.{part}"] = (2 * uniform - 1) * bound
    return found


def forward(
    parameters: Mapping[str, Tensor],
    tokens: Tensor,
    lengths: Tensor,
    size: EncoderSize,
    pattern: AttentionPattern,
    *,
    drop: Callable[[Tensor], Tensor] | None = None,
    observe: Observe | None = None,
) -> Tensor:
    """Logits [M, B, C] of tokens int64 [M, B, L], of which the first `lengths` [M, B] are real.

    `drop` is applied to the embeddings and to what each layer adds, float [M, B·L, D].
    """
    drop = drop or nn.Identity()
    models, batch, length = tokens.shape
    width = size.width
    valid = torch.arange(length, device=tokens.device) < lengths[..., None]  # [M, B, L]
    rows = valid.view(-1, length)
    model = torch.arange(models, device=tokens.device)[:, None, None]
    hidden = parameters["embedding"][model, tokens] + positions(length, width).to(tokens.device)
    hidden = drop(hidden.view(models, batch * length, width))
    for block in range(size.blocks):
        qkv = _linear(_normalised(hidden), parameters, f"{block}.qkv")
        # One head, and models and batch as one axis: [M·B, 1, L, D].
        query, key, value = qkv.view(-1, 1, length, 3 * width).split(width, dim=-1)
        if observe is not None:
            observe(block, query, key, rows)
        context, _ = sparse_attention(query, key, value, rows, pattern)
        mixed = _linear(context.reshape(models, -1, width), parameters, f"{block}.out")
        hidden = hidden + drop(mixed)
        inner = nn.functional.relu(_linear(_normalised(hidden), parameters, f"{block}.up"))
        hidden = hidden + drop(_linear(inner, parameters, f"{block}.down"))
    weights = (valid / lengths[..., None]).view(models * batch, 1, length)
    pooled = weights @ _normalised(hidden).view(-1, length, width)
    return _linear(pooled.view(models, batch, width), parameters, "head")


def positions(length: int, width: int) -> Tensor:
    """Sinusoidal position embeddings [length, width] (Vaswani et al. 2017, arXiv 1706.03762)."""
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).view(length, width)


@dataclass(frozen=True)
class Dropped:
    """What dropout drops in one pass, model by model and site by site."""

    positions: Tensor  # int64, ascending within a model and site
    starts: Tensor  # int64 [M · sites + 1], of each model's and site's positions
    scale: float  # of what is not dropped


class Dropout:
    """Dropout for M models, each with random numbers of its own.

    Only the few elements that are dropped are drawn, as gaps between them, which are geometrically
    distributed: the same distribution as a coin for each element, at a fraction of its cost.
    """

    def __init__(self, rate: float, seeds: Sequence[int]) -> None:
        self.rate, self.scale = rate, 1 / (1 - rate)
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden [M, ...] with a share of `rate` set to 0 and the others scaled up."""
        if self.rate == 0:
            return hidden
        mask = torch.full(hidden.shape, self.scale)
        for row, generator in zip(mask.view(len(mask), -1), self.generators, strict=True):
            row[self._dropped(generator, 1, row.numel())[0]] = 0
        return hidden * mask.to(hidden.device)

    def draw(self, sites: int, count: int) -> Dropped | None:
        """What as many calls would drop, each with `count` elements of a model."""
        if self.rate == 0:
            return None
        drawn = [self._dropped(generator, sites, count) for generator in self.generators]
        sizes = torch.cat([torch.zeros(1, dtype=torch.int64), *(each for _, each in drawn)])
        return Dropped(torch.cat([found for found, _ in drawn]), sizes.cumsum(0), self.scale)

    def _dropped(self, generator: torch.Generator, sites: int, count: int) -> tuple[Tensor, Tensor]:
        """The positions of `count` that are dropped, ascending, site after site; and how many at
        each site."""
        expected = count * self.rate
        draws = int(expected + 6 * math.sqrt(expected)) + 10  # almost always enough
        gaps = torch.empty(sites, draws).geometric_(self.rate, generator=generator)
        found = gaps.long().cumsum(1) - 1
        while int(found[:, -1].min()) < count - 1:
            more = torch.empty(sites, draws).geometric_(self.rate, generator=generator)
            found = torch.cat([found, found[:, -1:] + more.long().cumsum(1)], dim=1)
        inside = found < count
        return found[inside], inside.sum(dim=1)


def _linear(hidden: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:
    return torch.baddbmm(parameters[f"{name}.bias"], hidden, parameters[f"{name}.weight"])


def _normalised(hidden: Tensor) -> Tensor:
    return nn.functional.layer_norm(hidden, hidden.shape[-1:])
