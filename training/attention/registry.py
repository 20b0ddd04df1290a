"""The attention patterns by name, the attention function they plug into, and its registration with
transformers.

A new pattern is one file with a `LinkRule`, one line in `LINK_RULES`, and its numbers in
`training/pattern.py`.

    register_attention()                              # once, before a model is built or loaded
    context, probabilities = sparse_attention(q, k, v, valid, AttentionPattern("topk", density=0.2))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from training.attention.band import band_links
from training.attention.block import block_links
from training.attention.blocktopk import blocktopk_links
from training.attention.bottomk import bottomk_links
from training.attention.dense import dense_links
from training.attention.random import random_links
from training.attention.topk import topk_links
from training.pattern import AttentionPattern

# (scores [B, H, S, S] float, valid [B, S] bool, pattern) -> kept links, bool, broadcastable to
# [B, H, S, S]. Tokens stand at the left of a sequence, padding at its right. Every row keeps a
# link, rows of padding too: an empty row gives NaN, which reaches real tokens as 0 · NaN one layer
# on.
LinkRule = Callable[[Tensor, Tensor, AttentionPattern], Tensor]

LINK_RULES: dict[str, LinkRule] = {
    "dense": dense_links,
    "topk": topk_links,
    "band": band_links,
    "block": block_links,
    "blocktopk": blocktopk_links,
    "bottomk": bottomk_links,
    "random": random_links,
}

# The name under which transformers knows our attention, and the field of the model's config that
# holds its pattern.
IMPLEMENTATION = "crisp"
CONFIG_FIELD = "crisp_attention"


def attention_of(config: Any) -> AttentionPattern:
    """The pattern that a model's `config` holds."""
    return AttentionPattern.from_dict(getattr(config, CONFIG_FIELD))


def set_attention(config: Any, pattern: AttentionPattern) -> None:
    """Lets the model of `config` attend by `pattern` from now on."""
    setattr(config, CONFIG_FIELD, pattern.to_dict())


def sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid: Tensor,
    pattern: AttentionPattern,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    training: bool = False,
) -> tuple[Tensor, Tensor]:
    """softmax over the kept links of q·kᵀ/√D, times v.

    query, key, value: float [B, H, S, D]; valid: bool [B, S], True for real tokens.
    Returns context [B, H, S, D] and the probabilities [B, H, S, S], float32, before dropout.
    Rows of padding are computed but mean nothing.

    The scores are float32 even under autocast: bfloat16 would tie many of them, and ties are kept.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast(query.device.type, enabled=False):
        # The scale comes after the dot products, as in the kernel: equal ones must tie.
        scores = (query.float() @ key.float().transpose(-1, -2)) * scaling
        kept = LINK_RULES[pattern.name](scores, valid, pattern)
        probabilities = scores.masked_fill(~kept, -torch.inf).softmax(dim=-1)
    dropped = nn.functional.dropout(probabilities, p=dropout, training=training)
    return dropped.to(value.dtype) @ value, probabilities


def register_attention() -> None:
    """Makes `attn_implementation="crisp"` known to transformers, with the mask function without
    which the mask would arrive as None and padding would be attended in silence. Idempotent."""
    AttentionInterface.register(IMPLEMENTATION, _transformers_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _key_padding_mask)


def _transformers_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    if attention_mask is None:  # nothing is padded
        attention_mask = torch.ones(query.shape[0], key.shape[2], dtype=torch.bool).to(query.device)
    context, probabilities = sparse_attention(
        query,
        key,
        value,
        attention_mask.bool(),
        attention_of(module.config),
        scaling=scaling,
        dropout=dropout,
        training=module.training,
    )
    return context.transpose(1, 2).contiguous(), probabilities


def _key_padding_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> Tensor | None:
    return attention_mask
