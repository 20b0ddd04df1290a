"""Banded attention: each query attends to its neighbours, and to a few global tokens
(arXiv 2506.14095)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.pattern import AttentionPattern


def band_links(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Links at most `window // 2` positions away, plus those from and to the first `globals`
    tokens. Shapes as in `registry.LinkRule`."""
    position = torch.arange(valid.shape[-1], device=scores.device)
    assert pattern.window is not None
    near = (position[:, None] - position[None, :]).abs() <= pattern.window // 2
    near |= (position < pattern.global_tokens)[:, None] | (position < pattern.global_tokens)
    kept = near[None, None] & valid[:, None, None, :]
    return kept | ~valid[:, None, :, None]  # a row of padding may see no real token: keep it whole
