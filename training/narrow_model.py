"""DistilBERT whose feed-forward networks have a width of their own in each layer.

    set_feed_forward(model, (640, 1024, 512, 512, 512, 1536))   # in place; new weights are not set
    feed_forward_of(model)                                      # -> (640, 1024, ...)

The widths are saved with the model, in its config. transformers itself refuses to load such a
model, whose shapes are not those of its `hidden_dim`; `classifier_class` says what does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification

FEED_FORWARD_FIELD = "crisp_feed_forward"  # of the model's config, beside that of the attention


class NarrowDistilBert(DistilBertForSequenceClassification):
    """A classifier with the widths that its config names."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__(config)
        set_feed_forward(self, getattr(config, FEED_FORWARD_FIELD))


def classifier_class(config: DistilBertConfig) -> type[DistilBertForSequenceClassification]:
    """What a model with this config is an instance of."""
    narrow = getattr(config, FEED_FORWARD_FIELD, None) is not None
    return NarrowDistilBert if narrow else DistilBertForSequenceClassification


def feed_forward_of(model: DistilBertForSequenceClassification) -> tuple[int, ...]:
    """The width of each layer's feed-forward network."""
    return tuple(layer.ffn.lin1.out_features for layer in _layers(model))


def set_feed_forward(model: DistilBertForSequenceClassification, widths: Sequence[int]) -> None:
    """Gives the feed-forward networks these widths; those that change get new, random weights."""
    for layer, width in zip(_layers(model), widths, strict=True):
        hidden, before = layer.ffn.lin2.out_features, layer.ffn.lin1.out_features
        if width != before:
            device = layer.ffn.lin1.weight.device
            layer.ffn.lin1 = nn.Linear(hidden, width, device=device)
            layer.ffn.lin2 = nn.Linear(width, hidden, device=device)
    setattr(model.config, FEED_FORWARD_FIELD, list(widths))


def _layers(model: DistilBertForSequenceClassification) -> Any:
    return model.distilbert.transformer.layer
