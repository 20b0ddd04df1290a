"""Block-local attention: each query attends within its own block, and to a few global tokens
(arXiv 2506.14095)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.pattern import AttentionPattern


def block_links(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Links within blocks of `size` consecutive tokens, plus those from and to the first `globals`
    tokens. Shapes as in `registry.LinkRule`."""
    position = torch.arange(valid.shape[-1], device=scores.device)
    assert pattern.size is not None
    block = position // pattern.size
    same = block[:, None] == block[None, :]
    same |= (position < pattern.global_tokens)[:, None] | (position < pattern.global_tokens)
    kept = same[None, None] & valid[:, None, None, :]
    return kept | ~valid[:, None, :, None]  # a row of padding may see no real token: keep it whole
