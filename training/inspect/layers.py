"""How the layers of a classifier attend: entropy, stability of the softmax, and which links would
be kept.

The model attends with the pattern that it was trained with; tokens are not pruned, so that every
layer has the same ones. Stability quantities and their symbols: `training.study.stability`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import DistilBertForSequenceClassification

from training.attention.registry import LINK_RULES, attention_of
from training.block_recall import layer_scores
from training.pattern import AttentionPattern
from training.study.stability import Floats, Rows, joined, rows_of

QUANTITIES = {
    "entropy": "entropy of the attention, nats",
    "effective": "effective number of attended tokens",
    "dispersion": "dispersion δ_s",
    "heavy_dispersion": "heavy-hitter dispersion δ_h",
    "separation": "separation Δ_h",
    "kept_mass": "share of full attention on the kept links",
}
PERCENTILES = (5.0, 25.0, 50.0, 75.0, 95.0)


@dataclass(frozen=True)
class LayerRows:
    """What one layer does, over the queries of all heads and texts: float [R] each.

    `entropy` and `effective` are of what the model attends to. `kept_mass` and `stability` are of
    the links that `compared_pattern` keeps; queries whose text is too short to drop any link have
    no place in the latter.
    """

    entropy: Floats
    kept_mass: Floats
    stability: Rows

    @property
    def effective(self) -> Floats:
        """exp(entropy): as many tokens, evenly attended, would have the same entropy."""
        return np.asarray(np.exp(self.entropy))

    def quantity(self, name: str) -> Floats:
        owner = self if hasattr(self, name) else self.stability
        return np.asarray(getattr(owner, name))

    def summary(self) -> dict[str, Any]:
        """Percentiles of every quantity; None where no query has it."""
        values = {name: self.quantity(name) for name in QUANTITIES}
        return {
            name: np.percentile(each, PERCENTILES).tolist() if each.size else None
            for name, each in values.items()
        } | (self.stability.conditions() if self.stability.dispersion.size else {})


def compared_pattern(pattern: AttentionPattern) -> AttentionPattern:
    """Which links count as kept: a top-k model's own, of any other those of the default top-k."""
    return pattern if pattern.name == "topk" else AttentionPattern("topk", density=0.2)


def inspect_layers(
    model: DistilBertForSequenceClassification,
    texts: Sequence[Sequence[int]],
    measured: AttentionPattern,
) -> list[LayerRows]:
    """The rows of each layer over `texts`, token ids without padding."""
    pattern = attention_of(model.config)
    found: list[list[LayerRows]] = [[] for _ in range(model.config.n_layers)]
    with torch.inference_mode():
        for ids in tqdm(texts, desc="inspecting", unit="text"):
            for layer, scores in enumerate(layer_scores(model, ids)):
                found[layer].append(rows_of_text(scores, pattern, measured))
    return [
        LayerRows(
            np.concatenate([part.entropy for part in parts]),
            np.concatenate([part.kept_mass for part in parts]),
            joined([part.stability for part in parts]),
        )
        for parts in found
    ]


def rows_of_text(
    scores: Tensor, trained: AttentionPattern, measured: AttentionPattern
) -> LayerRows:
    """The rows of one text's scaled scores [heads, L, L]."""
    batch = scores[None].double()
    attended = links_of(scores, trained)[None]
    attention = batch.masked_fill(~attended, -torch.inf).softmax(dim=-1)
    mass = (batch.softmax(dim=-1) * links_of(scores, measured)[None]).sum(dim=-1)
    valid = torch.ones(1, scores.shape[-1], dtype=torch.bool)
    return LayerRows(
        torch.special.entr(attention).sum(dim=-1).flatten().numpy(),
        mass.flatten().numpy(),
        rows_of(batch, valid, measured),
    )


def links_of(scores: Tensor, pattern: AttentionPattern) -> Tensor:
    """Which links of one text's scores [heads, L, L] a pattern keeps: bool [heads, L, L]."""
    valid = torch.ones(1, scores.shape[-1], dtype=torch.bool)
    return LINK_RULES[pattern.name](scores[None], valid, pattern).expand(1, *scores.shape)[0]


def overlap(
    first: DistilBertForSequenceClassification,
    second: DistilBertForSequenceClassification,
    texts: Sequence[Sequence[int]],
    measured: AttentionPattern,
) -> list[dict[str, float]]:
    """For each layer, which share of the links that `measured` keeps of the first model it keeps of
    the second too, and what chance would give: means over texts, heads and queries."""
    shares: list[list[tuple[float, float]]] = [[] for _ in range(first.config.n_layers)]
    with torch.inference_mode():
        for ids in tqdm(texts, desc="comparing", unit="text"):
            pairs = zip(layer_scores(first, ids), layer_scores(second, ids), strict=True)
            for layer, (one, other) in enumerate(pairs):
                kept, also = links_of(one, measured), links_of(other, measured)
                common = (kept & also).sum(dim=-1) / kept.sum(dim=-1)
                shares[layer].append((float(common.mean()), float(also.double().mean())))
    means = [np.mean(each, axis=0).tolist() for each in shares]
    return [{"overlap": share, "chance": chance} for share, chance in means]
