"""DistilBERT that drops tokens between self-attention and feed-forward: the torch reference of
token pruning, and what pruned models are trained with.

    prune_model(model, TokenPruning((0.9, 0.7, 0.5, 0.4, 0.3)))   # in place; load_base does it
    pruning_of(model)                                             # what the model obeys, or None
    logits = model(input_ids, attention_mask).logits              # [B, C], as before

Dropped tokens leave the padded batch: [B, S, H] becomes [B, S', H], so later layers cost less.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DistilBertForSequenceClassification
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.distilbert.modeling_distilbert import (
    DistilBertSelfAttention,
    TransformerBlock,
)

from training.attention.registry import attention_of, sparse_attention
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

PRUNING_FIELD = "crisp_pruning"  # of the model's config, beside that of the attention


def prune_model(model: DistilBertForSequenceClassification, pruning: TokenPruning | None) -> None:
    """Makes `model` obey `pruning` from now on, or drop nothing; its config says so when saved.

    Raises PruningError where the schedule has another number of layers.
    """
    if pruning is not None:
        pruning.require_layers(model.config.n_layers)
        if not isinstance(model.distilbert.transformer, PrunedTransformer):
            layers = model.distilbert.transformer.layer
            encoder: Any = PrunedTransformer(layers, model.config)  # same parameters, same names
            model.distilbert.transformer = encoder
    setattr(model.config, PRUNING_FIELD, None if pruning is None else pruning.to_dict())


def pruning_of(model: DistilBertForSequenceClassification) -> TokenPruning | None:
    """The schedule that `model` was built or trained with."""
    return _pruning_in(model.config)


def _pruning_in(config: Any) -> TokenPruning | None:
    fields = getattr(config, PRUNING_FIELD, None)
    return None if fields is None else TokenPruning.from_dict(fields)


class PrunedTransformer(nn.Module):
    """The encoder layers of a DistilBERT, run with the pruning that `config` names."""

    def __init__(self, layers: nn.ModuleList, config: Any) -> None:
        super().__init__()
        self.layer, self.config = layers, config

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutput:
        """hidden_states: float [B, S, H]; attention_mask: [B, S], nonzero for real tokens, which
        stand at the left; None: all are real. The result holds only the tokens that are left."""
        hidden = hidden_states
        shape = hidden.shape[:2]
        mask = torch.ones(shape) if attention_mask is None else attention_mask
        valid = mask.to(hidden.device, torch.bool)
        lengths: list[int] = valid.sum(dim=1).tolist()
        pruning = _pruning_in(self.config)
        pattern = attention_of(self.config)
        for i, layer in enumerate(self.layer):
            assert isinstance(layer, TransformerBlock)
            context, probabilities = _attend(layer.attention, hidden, valid, pattern)
            if pruning is not None and i < len(pruning.keep):
                counts = torch.tensor([pruning.kept(i, n) for n in lengths], device=hidden.device)
                index, valid = kept_tokens(importance(probabilities, valid), valid, counts)
                hidden, context = _rows(hidden, index), _rows(context, index)
            hidden = feed_forward(layer, _joined(layer, context, hidden))
        return BaseModelOutput(last_hidden_state=hidden)


def importance(probabilities: Tensor, valid: Tensor) -> Tensor:
    """Attention received from all real tokens, mean over the heads: float32 [B, S].

    probabilities: float32 [B, heads, S, S], rows are queries; valid: bool [B, S].
    """
    mean = probabilities.detach().mean(dim=1)
    return mean.masked_fill(~valid[:, :, None], 0.0).sum(dim=1)


def kept_tokens(importances: Tensor, valid: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that stay: [CLS] and the most important ones, `counts` a sequence, in their order.

    importances: float [B, S]; valid: bool [B, S]; counts: int64 [B], each from 1 to the number of
    real tokens. Returns their positions int64 [B, S'], S' the highest count, filled up with others,
    and which of them are real, bool [B, S'].
    """
    ranked = importances.masked_fill(~valid, -torch.inf)
    ranked[:, 0] = torch.nan  # sorts before everything; stable: before other NaN too
    order = ranked.sort(dim=1, descending=True, stable=True).indices
    place = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
    rank = torch.empty_like(order).scatter_(1, order, place)
    kept = rank < counts[:, None]
    longest = int(counts.max())
    index = (~kept).to(torch.uint8).sort(dim=1, stable=True).indices[:, :longest]
    return index, place[:, :longest] < counts[:, None]


def _attend(
    attention: DistilBertSelfAttention, hidden: Tensor, valid: Tensor, pattern: AttentionPattern
) -> tuple[Tensor, Tensor]:
    """Context [B, S, H] before the output projection, and probabilities [B, heads, S, S]."""
    query, key, value = (
        linear(hidden).unflatten(-1, (attention.n_heads, -1)).transpose(1, 2)
        for linear in (attention.q_lin, attention.k_lin, attention.v_lin)
    )
    context, probabilities = sparse_attention(
        query,
        key,
        value,
        valid,
        pattern,
        scaling=attention.scaling,
        dropout=attention.dropout.p,
        training=attention.training,
    )
    return context.transpose(1, 2).flatten(2), probabilities


def attended(layer: Any, hidden: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """What goes into the feed-forward network of a layer where nothing is dropped: [B, S, H], from
    hidden [B, S, H] and which of them are tokens, bool [B, S], at the left."""
    context, _ = _attend(layer.attention, hidden, valid, pattern)
    return _joined(layer, context, hidden)


def feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    """What comes of `attended`, or of the part of it that is kept, at the end of the layer."""
    result: Tensor = layer.output_layer_norm(layer.ffn(hidden) + hidden)
    return result


def _joined(layer: Any, context: Tensor, hidden: Tensor) -> Tensor:
    """The output projection of context [B, S, H] with its residual."""
    result: Tensor = layer.sa_layer_norm(layer.attention.out_lin(context) + hidden)
    return result


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    """tensor [B, S, H] at the positions index [B, S']: [B, S', H]."""
    return tensor.gather(1, index[:, :, None].expand(-1, -1, tensor.shape[-1]))
