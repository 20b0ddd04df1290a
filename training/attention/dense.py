"""Dense attention: every query attends to every real token."""

from __future__ import annotations

from torch import Tensor

from training.pattern import AttentionPattern


def dense_links(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Tensor:
    """Links of full attention. Shapes as in `registry.LinkRule`."""
    del scores, pattern
    return valid[:, None, None, :]
