"""Attention patterns as data: a name and its numbers, without torch.

A pattern is saved with the checkpoint, travels into the model folder's manifest, and every later
stage obeys it. The torch functions that carry it out are in `training/attention/`; the compiled
ones in `export/ops/`.

    AttentionPattern("topk", density=0.2).kept(25)   # -> 5 links a query
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from training.errors import PatternError

# The numbers that each pattern takes; those with both density and k take exactly one of them.
_NUMBERS: dict[str, frozenset[str]] = {
    "dense": frozenset(),
    "topk": frozenset({"density", "k"}),
    "band": frozenset({"window", "globals"}),
    "block": frozenset({"size", "globals"}),
    "blocktopk": frozenset({"size", "density", "k"}),
    "bottomk": frozenset({"density", "k"}),
    "random": frozenset({"density", "k"}),
}
CONTROLS = ("bottomk", "random")  # for studies: trained, never exported
FINEST = 1e-6  # densities are ratios of whole numbers, to this accuracy
PATTERN_NAMES = tuple(_NUMBERS)


def exact_ratio(share: float) -> tuple[int, int]:
    """A share as the ratio that a person wrote, (1, 5) for 0.2: in floats, ceil(0.2 · L) is off by
    one now and then, so every stage computes ceil(num · L / den) in integers."""
    ratio = Fraction(str(share)).limit_denominator(round(1 / FINEST))
    return ratio.numerator, ratio.denominator


@dataclass(frozen=True)
class AttentionPattern:
    """Which keys each query may attend to, within one sequence of L real tokens.

    - `dense`: all of them.
    - `topk(density)` or `topk(k)`: the k = max(1, ceil(density · L)) keys with the highest scaled
      scores of that query and head; keys that tie with the k-th are kept too. Source: Crisp
      Attention, arXiv 2508.06016, which leaves rounding, ties and [CLS] open: these are our choice.
    - `band(window, globals)`: keys at most `window // 2` positions away (so `window` is the odd
      full width), plus the first `globals` tokens, which attend to all and are attended by all.
      Source: Semantic Focus, arXiv 2506.14095.
    - `block(size, globals)`: keys in the same block of `size` consecutive tokens, plus globals
      as above.
    - `blocktopk(size, density)` or `blocktopk(size, k)`: the tokens are cut into N = ceil(L / size)
      blocks of `size` consecutive tokens. A query block scores each key block by the dot product
      of their mean query and mean key, scaled, and sees the k = max(1, ceil(density · N)) highest
      (ties included), itself, and the first block, which holds [CLS]. [CLS] as a query sees all.
      Selecting blocks by pooled keys: MoBA, arXiv 2502.13189.
    - `bottomk(density)` or `bottomk(k)`: the control of topk that keeps as many keys, those with
      the *lowest* scores.
    - `random(density)` or `random(k)`: the control that keeps as many keys, whatever their scores:
      drawn once and for all for each head and pair of positions, so the same in every text and
      layer.

    Raises PatternError where a name or number is unknown, missing, superfluous or out of range.
    """

    name: str = "dense"
    density: float | None = None
    k: int | None = None
    window: int | None = None
    size: int | None = None
    globals: int | None = None

    def __post_init__(self) -> None:
        if self.name not in _NUMBERS:
            raise PatternError(
                f"unknown attention pattern {self.name!r}; known: {', '.join(PATTERN_NAMES)}"
            )
        for number, value in asdict(self).items():
            if number != "name" and value is not None and number not in _NUMBERS[self.name]:
                raise PatternError(f"attention pattern {self.name!r} takes no {number!r}")
        if "density" in _NUMBERS[self.name]:
            if (self.density is None) == (self.k is None):
                raise PatternError(f"{self.name} takes exactly one of density and k")
            if self.density is not None and not FINEST <= self.density <= 1:
                raise PatternError(
                    f"density must lie in (0, 1], got {self.density} (the finest is {FINEST:g})"
                )
            if self.k is not None and self.k < 1:
                raise PatternError(f"k must be at least 1, got {self.k}")
        if self.name == "band" and (self.window is None or self.window < 1 or self.window % 2 == 0):
            raise PatternError(f"band needs an odd window of at least 1, got {self.window}")
        if self.name in ("block", "blocktopk") and (self.size is None or self.size < 1):
            raise PatternError(f"{self.name} needs a size of at least 1, got {self.size}")
        if self.globals is not None and self.globals < 0:
            raise PatternError(f"globals must not be negative, got {self.globals}")

    @property
    def density_ratio(self) -> tuple[int, int]:
        """The density as an exact ratio, (1, 5) for 0.2; (1, 1) where there is none."""
        return (1, 1) if self.density is None else exact_ratio(self.density)

    @property
    def global_tokens(self) -> int:
        return self.globals or 0

    def kept(self, length: int) -> int:
        """Number of keys that a query of topk or a control keeps of `length` tokens, ties aside."""
        if self.name not in ("topk", *CONTROLS):
            raise PatternError(f"{self.name!r} has no fixed number of kept keys")
        return self._share_of(length)

    def blocks(self, length: int) -> int:
        """Number of blocks that `length` tokens make, the last one perhaps not full."""
        if self.size is None:
            raise PatternError(f"{self.name!r} has no blocks")
        return -(-length // self.size)

    def kept_blocks(self, length: int) -> int:
        """Number of key blocks that a query block of `blocktopk` chooses by their score, of
        `length` tokens: ties, its own block and the first one aside."""
        if self.name != "blocktopk":
            raise PatternError(f"{self.name!r} chooses no blocks")
        return self._share_of(self.blocks(length))

    def _share_of(self, count: int) -> int:
        if self.k is not None:
            return min(self.k, count)
        num, den = self.density_ratio
        return max(1, -(-num * count // den))

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> AttentionPattern:
        unknown = set(fields) - set(cls.__dataclass_fields__)
        if unknown:
            raise PatternError(f"unknown pattern fields: {', '.join(sorted(unknown))}")
        return cls(**fields)

    def __str__(self) -> str:
        numbers = ", ".join(f"{k}={v}" for k, v in self.to_dict().items() if k != "name")
        return f"{self.name}({numbers})" if numbers else self.name
