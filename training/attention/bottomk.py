"""Bottom-k attention: each query keeps its k weakest links, the control that a gain of top-k must
beat."""

from __future__ import annotations

from torch import Tensor

from training.attention.topk import highest_links
from training.pattern import AttentionPattern


def bottomk_links(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Links to the `pattern.kept(L)` lowest scores of each row, ties with the last one included.
    Shapes as in `registry.LinkRule`."""
    return highest_links(-scores.detach(), valid, pattern)
