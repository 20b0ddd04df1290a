"""The attention mechanisms that the Semantic Focus study compares, by short names.

mechanism("topk-5")      # AttentionPattern("topk", k=5)
mechanism("band-9-1")    # width 9, one global token
"""

from __future__ import annotations

from training.pattern import AttentionPattern
from training.study.errors import StudyError

FULL = "full"


def _patterns() -> dict[str, AttentionPattern]:
    found = {FULL: AttentionPattern("dense")}
    for k in (5, 9):
        found |= {f"{name}-{k}": AttentionPattern(name, k=k) for name in ("topk", "bottomk")}
        found[f"random-{k}"] = AttentionPattern("random", k=k)
        for tokens in (0, 1, 3):
            end = f"-{tokens}" if tokens else ""
            found[f"band-{k}{end}"] = AttentionPattern("band", window=k, globals=tokens)
            found[f"block-{k}{end}"] = AttentionPattern("block", size=k, globals=tokens)
    return found


MECHANISMS = _patterns()


def mechanism(name: str) -> AttentionPattern:
    """Raises StudyError where there is none of that name."""
    if name not in MECHANISMS:
        raise StudyError(f"unknown mechanism {name!r}; known: {', '.join(MECHANISMS)}")
    return MECHANISMS[name]
