"""Cascade token pruning as data: how many tokens each layer passes on, without torch.

A schedule is saved with the checkpoint, travels into the model folder's manifest, and every later
stage obeys it. `training/pruned_model.py` carries it out in torch.

    pruning = TokenPruning((0.9, 0.7, 0.5, 0.4, 0.3), floor=16)   # for a model of six layers
    [pruning.kept(layer, 200) for layer in range(5)]              # -> [182, 145, 108, 90, 72]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.errors import PruningError
from training.pattern import FINEST, exact_ratio


@dataclass(frozen=True)
class TokenPruning:
    """Which tokens of a sequence each layer passes on.

    After the self-attention of layer i, before its output projection, a sequence that began with L
    tokens is cut down to L of them where L <= floor, and to floor + ceil(keep[i] · (L - floor))
    otherwise: short texts keep nearly all, long ones tend to the share keep[i]. Kept are [CLS] (the
    first token) and the tokens of highest importance, in their order. Importance is the attention
    probability that a token receives from all tokens that are still there, mean over the heads;
    of equally important tokens the earlier one is kept, NaN counts as the highest importance.

    Source: PoWER-BERT, arXiv 2001.08950, which eliminates word vectors at the same place. That the
    schedule depends on the length is our choice. The last layer has no entry: only its [CLS] is
    read.

    Raises PruningError where a share lies outside (0, 1] or grows from layer to layer, or the
    floor is below 1.
    """

    keep: tuple[float, ...]
    floor: int = 16

    def __post_init__(self) -> None:
        for layer, share in enumerate(self.keep):
            if not FINEST <= share <= 1:
                raise PruningError(
                    f"the share kept after layer {layer} must lie in (0, 1], got {share} (the "
                    f"finest is {FINEST:g}): a layer that keeps no token has nothing to pass on"
                )
            if layer and share > self.keep[layer - 1]:
                raise PruningError(
                    f"a dropped token cannot come back: after layer {layer} {share} would be kept, "
                    f"after layer {layer - 1} {self.keep[layer - 1]}"
                )
        if self.floor < 1:
            raise PruningError(f"floor must be at least 1 token, got {self.floor}")

    def ratio(self, layer: int) -> tuple[int, int]:
        """keep[layer] as an exact ratio, (3, 10) for 0.3."""
        return exact_ratio(self.keep[layer])

    def kept(self, layer: int, length: int) -> int:
        """Tokens left after `layer` of a sequence that began with `length`."""
        if length <= self.floor:
            return length
        num, den = self.ratio(layer)
        return self.floor - (-num * (length - self.floor) // den)

    def require_layers(self, layers: int) -> None:
        """Raises PruningError unless the schedule fits a model of so many layers."""
        if len(self.keep) != layers - 1:
            raise PruningError(
                f"a model of {layers} layers needs {layers - 1} shares (one for each layer but the "
                f"last), got {len(self.keep)}"
            )

    def to_dict(self) -> dict[str, Any]:
        return {"keep": list(self.keep), "floor": self.floor}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TokenPruning:
        unknown = set(fields) - set(cls.__dataclass_fields__)
        if unknown:
            raise PruningError(f"unknown pruning fields: {', '.join(sorted(unknown))}")
        if "keep" not in fields:
            raise PruningError("pruning needs the field keep")
        return cls(**fields | {"keep": tuple(fields["keep"])})

    @classmethod
    def parse(cls, shares: str, floor: int) -> TokenPruning:
        """From "0.9,0.7,0.5", as a person types it. Raises PruningError."""
        try:
            keep = tuple(float(share) for share in shares.split(","))
        except ValueError:
            raise PruningError(
                f"expected shares with commas between them, such as 0.9,0.7,0.5, got {shares!r}"
            ) from None
        return cls(keep, floor)

    def __str__(self) -> str:
        return f"keep {', '.join(f'{share:g}' for share in self.keep)}; floor {self.floor}"
