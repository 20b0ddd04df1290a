"""What a text costs: the multiply-adds of the encoder, as a function of its length.

    shape = EncoderShape(layers=6, hidden=384, feed_forward=1536)   # or a width for each layer
    multiply_adds(200, shape, pattern, pruning) / multiply_adds(200, shape, pattern, None)

Counted are the matrix products: projections, scores, weighted values, feed-forward. Of the last
layer only [CLS] is read, so there only keys and values are computed for all. Soft-max, LayerNorm,
GELU and the choice of links and tokens are left out, and so is how well a machine does each:
a model of cost, not a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.pattern import AttentionPattern
from training.pruning import TokenPruning


@dataclass(frozen=True)
class EncoderShape:
    """The sizes that decide the cost of an encoder."""

    layers: int
    hidden: int
    feed_forward: int | tuple[int, ...]  # of all layers, or of each

    def width(self, layer: int) -> int:
        """Of the feed-forward network of `layer`."""
        widths = self.feed_forward
        return widths if isinstance(widths, int) else widths[layer]


def multiply_adds(
    length: int, shape: EncoderShape, pattern: AttentionPattern, pruning: TokenPruning | None
) -> int:
    """Multiply-adds of a text of `length` tokens through all layers of the encoder."""
    square = shape.hidden**2
    total, tokens = 0, length
    for layer in range(shape.layers):
        last = layer == shape.layers - 1
        queries = 1 if last else tokens
        left = 1 if last else tokens
        if pruning is not None and not last:
            left = pruning.kept(layer, length)
        total += (queries + 2 * tokens) * square  # query; key and value
        total += 2 * links(queries, tokens, pattern) * shape.hidden  # scores; weighted values
        total += left * (square + 2 * shape.hidden * shape.width(layer))
        tokens = left
    return total


def links(queries: int, tokens: int, pattern: AttentionPattern) -> int:
    """Links whose scores are computed, over the first `queries` of `tokens` tokens.

    topk and bottomk compute all scores before they drop most. A query of blocktopk sees, at most,
    the blocks that it chooses, its own and the first, and [CLS] sees all.
    """
    if pattern.name in ("dense", "topk", "bottomk"):
        return queries * tokens
    if pattern.name == "random":
        return queries * pattern.kept(tokens)
    see_all = pattern.global_tokens
    if pattern.name == "band":
        assert pattern.window is not None
        seen = pattern.window + pattern.global_tokens
    elif pattern.name == "block":
        assert pattern.size is not None
        seen = pattern.size + pattern.global_tokens
    else:
        assert pattern.size is not None
        seen = pattern.size * (pattern.kept_blocks(tokens) + 2)
        see_all = 1
    whole = min(queries, see_all)
    return whole * tokens + (queries - whole) * min(seen, tokens)
