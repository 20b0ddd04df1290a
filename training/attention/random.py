"""Random attention: each query keeps k links that its scores have no say in, the control that a
gain of choosing links must beat."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from training.attention.topk import highest_links
from training.pattern import AttentionPattern

_MODULUS = 2**31 - 1


def random_links(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Links to the `pattern.kept(L)` keys with the highest pseudo-random rank of each row.

    The rank is a function of head, query and key position alone, so that padding, the rest of the
    batch and the process change nothing. Shapes as in `registry.LinkRule`.
    """
    # Texts of one length have the same links: they are chosen once.
    lengths, which = valid.sum(dim=-1).unique(return_inverse=True)
    distinct = torch.arange(valid.shape[-1], device=valid.device) < lengths[:, None]
    ranks = link_ranks(scores.shape[1], scores.shape[2]).to(scores.device)
    ranks = ranks.expand(len(lengths), -1, -1, -1)
    return highest_links(ranks, distinct, pattern)[which]


@functools.lru_cache(maxsize=64)
def link_ranks(heads: int, length: int) -> Tensor:
    """Pseudo-random numbers in [0, 1), float64 [1, heads, length, length]. Those of a shorter
    length are the first of a longer one's."""
    head, query, key = torch.meshgrid(
        torch.arange(heads), torch.arange(length), torch.arange(length), indexing="ij"
    )
    # A multiplicative hash, mixed until neighbouring positions have nothing in common. Every factor
    # is below 2^31, so that no product leaves 63 bits.
    mixed = (head * 1_000_003 + query * 8_191 + key + 1) % _MODULUS
    for factor in (1_103_515_245, 1_664_525, 69_069):
        mixed = (mixed * factor + 12_345) % _MODULUS
        mixed = mixed ^ (mixed >> 15)
    return (mixed.double() / 2**31)[None]
