"""A batch through many models, and a step of what they learn from it: by the fused step where it
serves, else by torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.pattern import AttentionPattern
from training.study.descent import Descent
from training.study.dropout import Dropout, Dropped
from training.study.encoder import EncoderSize, Parameters, forward
from training.study.fused.step import fused_serves, fused_step

# tokens int64 [M, B, L], of which the first `lengths` int64 [M, B] are real, and labels int64
# [M, B].
Batch = tuple[Tensor, Tensor, Tensor]


def batch_pass(
    parameters: Parameters,
    batch: Batch,
    size: EncoderSize,
    pattern: AttentionPattern,
    *,
    drop: Dropout | None = None,
    descent: Descent | None = None,
    plain: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy float [M, B], and whether the highest logit is the label's, bool [M, B].

    With a `descent`, each model then takes a step of it down its mean loss: the parameters,
    contiguous float32, are changed in place. `plain`: by torch alone.
    """
    tokens, dropped = batch[0], None
    if drop is not None:
        dropped = drop.draw(sites=1 + 2 * size.blocks, count=tokens[0].numel() * size.width)
    if not plain and fused_serves(size, pattern, tokens.device):
        return fused_step(parameters, *batch, size, pattern, dropped=dropped, descent=descent)
    if descent is None:
        with torch.inference_mode():
            return _by_torch(parameters, batch, size, pattern, dropped)
    for parameter in parameters.values():
        parameter.requires_grad_()
    losses, right = _by_torch(parameters, batch, size, pattern, dropped)
    found = torch.autograd.grad(losses.mean(dim=1).sum(), list(parameters.values()))
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    descent.apply(parameters, dict(zip(parameters, found, strict=True)))
    return losses.detach(), right


def _by_torch(
    parameters: Parameters,
    batch: Batch,
    size: EncoderSize,
    pattern: AttentionPattern,
    dropped: Dropped | None,
) -> tuple[Tensor, Tensor]:
    tokens, lengths, labels = batch
    logits = forward(parameters, tokens, lengths, size, pattern, dropped=dropped)
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape), logits.argmax(dim=-1) == labels
