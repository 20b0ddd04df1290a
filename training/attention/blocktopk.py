"""Block selection: each block of queries keeps the key blocks that score highest on average
(pooled keys choose which scores are computed at all, as in MoBA, arXiv 2502.13189)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.pattern import AttentionPattern


def blocktopk_links(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Links to the chosen key blocks, the own one and the first; from the first token, all.

    Blocks are cut from the real tokens of each sequence, so padding and the rest of the batch
    change nothing. Shapes as in `registry.LinkRule`.
    """
    assert pattern.size is not None
    visible = valid[:, None, None, :]
    chosen = _chosen_blocks(scores.detach(), valid, pattern)  # [B, H, N, N]
    length = valid.shape[-1]
    kept = chosen.repeat_interleave(pattern.size, 2).repeat_interleave(pattern.size, 3)
    kept = kept[:, :, :length, :length] & visible
    kept[:, :, 0] = visible[:, :, 0]
    return kept | ~valid[:, None, :, None]  # a row of padding may see no real token: keep it whole


def _chosen_blocks(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Which key blocks each query block sees: bool [B, H, N, N], N for the longest sequence."""
    means = block_scores(scores, valid, pattern)
    highest = means.sort(dim=-1, descending=True).values
    lengths = valid.sum(dim=-1).tolist()
    k = torch.tensor([pattern.kept_blocks(max(1, n)) for n in lengths], device=scores.device)
    index = (k - 1)[:, None, None, None].expand(*highest.shape[:3], 1)
    # A row with a NaN, which sort puts first, has no order: keep it whole, so that the NaN stays
    # visible in its output.
    chosen = (means >= highest.gather(-1, index)) | highest[..., :1].isnan()
    chosen |= torch.eye(means.shape[-1], dtype=torch.bool, device=scores.device)
    chosen[..., 0] = True
    return chosen


def block_scores(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Mean score of each pair of blocks, -inf for key blocks of padding: float [B, H, N, N].

    The mean of the scores is the score of the means, (mean q)·(mean k)/√D, which is how the kernel
    computes it without the scores.
    """
    assert pattern.size is not None
    blocks = pattern.blocks(valid.shape[-1])
    fill = blocks * pattern.size - valid.shape[-1]
    real = valid[:, None, :, None] & valid[:, None, None, :]
    summed = nn.functional.pad(scores.masked_fill(~real, 0.0), (0, fill, 0, fill))
    shape = (blocks, pattern.size, blocks, pattern.size)
    summed = summed.unflatten(3, shape[2:]).unflatten(2, shape[:2]).sum(dim=(3, 5))
    counts = nn.functional.pad(valid, (0, fill)).unflatten(1, shape[:2]).sum(-1)  # [B, N]
    pairs = (counts[:, :, None] * counts[:, None, :]).clamp(min=1)
    means: Tensor = summed / pairs[:, None]
    return means.masked_fill((counts == 0)[:, None, None, :], -torch.inf)
