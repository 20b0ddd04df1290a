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
from training.study.dropout import Dropped

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
    dropped: Dropped | None = None,
    observe: Observe | None = None,
) -> Tensor:
    """Logits [M, B, C] of tokens int64 [M, B, L], of which the first `lengths` [M, B] are real.

    What is `dropped` has 1 + 2·blocks sites: the embeddings, and what each layer adds, float
    [M, B·L, D].
    """

    def drop(site: int, hidden: Tensor) -> Tensor:
        return hidden if dropped is None else dropped.apply(site, hidden)

    models, batch, length = tokens.shape
    width = size.width
    valid = torch.arange(length, device=tokens.device) < lengths[..., None]  # [M, B, L]
    rows = valid.view(-1, length)
    model = torch.arange(models, device=tokens.device)[:, None, None]
    hidden = parameters["embedding"][model, tokens] + positions(length, width).to(tokens.device)
    hidden = drop(0, hidden.view(models, batch * length, width))
    for block in range(size.blocks):
        qkv = _linear(_normalised(hidden), parameters, f"{block}.qkv")
        # One head, and models and batch as one axis: [M·B, 1, L, D].
        query, key, value = qkv.view(-1, 1, length, 3 * width).split(width, dim=-1)
        if observe is not None:
            observe(block, query, key, rows)
        context, _ = sparse_attention(query, key, value, rows, pattern)
        mixed = _linear(context.reshape(models, -1, width), parameters, f"{block}.out")
        hidden = hidden + drop(1 + 2 * block, mixed)
        inner = nn.functional.relu(_linear(_normalised(hidden), parameters, f"{block}.up"))
        hidden = hidden + drop(2 + 2 * block, _linear(inner, parameters, f"{block}.down"))
    weights = (valid / lengths[..., None]).view(models * batch, 1, length)
    pooled = weights @ _normalised(hidden).view(-1, length, width)
    return _linear(pooled.view(models, batch, width), parameters, "head")


def positions(length: int, width: int) -> Tensor:
    """Sinusoidal position embeddings [length, width] (Vaswani et al. 2017, arXiv 1706.03762)."""
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).view(length, width)


def _linear(hidden: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:
    return torch.baddbmm(parameters[f"{name}.bias"], hidden, parameters[f"{name}.weight"])


def _normalised(hidden: Tensor) -> Tensor:
    return nn.functional.layer_norm(hidden, hidden.shape[-1:])
