"""Floating-point operations of one encoder layer by component, as a function of length and density.

    parts = layer_flops(128, EncoderShape(6, 768, 3072), AttentionPattern("topk", density=0.2))
    length_for_saving(0.2, shape, pattern)       # at which length does sparsity save a fifth?

A multiply-add counts as two. All queries are computed, as in training, unlike `training.cost`,
whose last layer serves [CLS] alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.cost import EncoderShape, links
from training.pattern import AttentionPattern

# What is counted of a sparse pattern: `computed` is what a computer has to do, and top-k needs all
# scores before it can drop any; `kept` counts only kept links throughout, as if they were known.
Counting = Literal["computed", "kept"]
_SOFTMAX = 5  # operations a score: maximum, difference, exponential, sum, division
_LONGEST = 1 << 20


@dataclass(frozen=True)
class LayerFlops:
    """Operations of one layer on one text."""

    projections: int  # query, key, value, output
    scores: int
    softmax: int
    values: int  # weighted by the probabilities
    feed_forward: int

    @property
    def total(self) -> int:
        return self.projections + self.scores + self.softmax + self.values + self.feed_forward


def layer_flops(
    length: int,
    shape: EncoderShape,
    pattern: AttentionPattern,
    counting: Counting = "computed",
    heads: int = 12,
) -> LayerFlops:
    """Operations of a layer on a text of `length` tokens."""
    kept = kept_links(length, pattern)
    scored = links(length, length, pattern) if counting == "computed" else kept
    return LayerFlops(
        projections=8 * length * shape.hidden**2,
        scores=2 * scored * shape.hidden,
        softmax=_SOFTMAX * heads * kept,
        values=2 * kept * shape.hidden,
        feed_forward=4 * length * shape.hidden * shape.width(0),
    )


def kept_links(length: int, pattern: AttentionPattern) -> int:
    """Links of a text that are kept, ties aside; at most, for blocktopk."""
    if pattern.name in ("topk", "bottomk"):
        return length * pattern.kept(length)
    return links(length, length, pattern)


def saving(
    length: int, shape: EncoderShape, pattern: AttentionPattern, counting: Counting = "computed"
) -> float:
    """Share of a dense layer's operations that `pattern` saves."""
    dense = layer_flops(length, shape, AttentionPattern("dense")).total
    return 1 - layer_flops(length, shape, pattern, counting).total / dense


def length_for_saving(
    share: float, shape: EncoderShape, pattern: AttentionPattern, counting: Counting = "computed"
) -> int | None:
    """A length from which on `pattern` saves `share` of a layer, by bisection; None where it does
    not below a million tokens. Savings grow with the length, up to the rounding of k."""
    low, high = 1, _LONGEST
    if saving(high, shape, pattern, counting) < share:
        return None
    while low < high:
        middle = (low + high) // 2
        if saving(middle, shape, pattern, counting) >= share:
            high = middle
        else:
            low = middle + 1
    return low
