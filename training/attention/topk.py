"""Top-k attention: each query and head keeps its k strongest links (arXiv 2508.06016)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.pattern import AttentionPattern


def topk_links(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Links to the `pattern.kept(L)` highest scores of each row, ties with the last one included.

    L is the number of real tokens of each sequence, so padding and the rest of the batch change
    nothing. Shapes as in `registry.LinkRule`.
    """
    return highest_links(scores.detach(), valid, pattern)


def highest_links(ranks: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Links to the `pattern.kept(L)` keys of each row with the highest `ranks`, ties included.

    ranks: float [B, H, S, S]; valid: bool [B, S].
    """
    visible = valid[:, None, None, :]
    lengths = valid.sum(dim=-1).tolist()
    k = torch.tensor([pattern.kept(max(1, length)) for length in lengths], device=ranks.device)
    masked = ranks.masked_fill(~visible, -torch.inf)
    highest = masked.topk(int(k.max()), dim=-1).values  # [B, H, S, max k], descending
    index = (k - 1)[:, None, None, None].expand(*highest.shape[:3], 1)
    threshold = highest.gather(-1, index)
    # A row with a NaN, which topk puts first, has no order: keep it whole, so that the NaN stays
    # visible in its output.
    return ((masked >= threshold) | highest[..., :1].isnan()) & visible
