"""How stable the softmax of trained models is: the quantities of the Semantic Focus paper (arXiv
2506.14095) over the rows of scaled scores.

Of a row with its kept links (its k highest, for a full model too, so that both can be compared):
- dispersion δ_s = highest − lowest score of the row
- heavy-hitter dispersion δ_h = highest − lowest score of the kept
- separation Δ_h = lowest kept − highest dropped score
- in-degree b of a key = queries that keep it, and β = b / k, which is 1 on average

The paper compares bounds on the Lipschitz constants of the full softmax, which grows with exp(δ_s),
and of top-k, which grows with 2·exp(δ_h)·(1 + 1/Δ_h): top-k is the more stable where the logarithm
of the second is below that of the first. Its in-degree form, as we read it, has β times the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.attention.registry import LINK_RULES
from training.pattern import AttentionPattern
from training.study.encoder import EncoderSize, Parameters, forward
from training.study.tasks.task import Examples

UPPER = (75.0, 90.0, 95.0, 100.0)  # percentiles of what is better small
LOWER = (25.0, 10.0, 5.0, 0.0)  # and of the separation, which is better large
BATCHES, BATCH = 10, 100

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """The quantities, a number for each row: float [R], and the in-degrees of each key: float [K].

    Rows that keep all their keys have no separation and are left out.
    """

    dispersion: Floats  # δ_s
    heavy_dispersion: Floats  # δ_h
    separation: Floats  # Δ_h
    kept: Floats  # number of links of the row
    degree: Floats  # b of each key
    relative_degree: Floats  # β of each key
    highest_relative_degree: Floats  # the highest β of the row's text, float [R]

    def percentiles(self) -> dict[str, list[float]]:
        """The percentiles of the paper's table: UPPER, and LOWER for the separation."""
        values: Mapping[str, tuple[Floats, tuple[float, ...]]] = {
            "dispersion": (self.dispersion, UPPER),
            "heavy_dispersion": (self.heavy_dispersion, UPPER),
            "separation": (self.separation, LOWER),
            "relative_degree": (self.relative_degree, UPPER),
        }
        return {name: np.percentile(*each).tolist() for name, each in values.items()}

    def conditions(self) -> dict[str, float]:
        """Share of the rows on which each condition holds."""
        first = condition(self.dispersion, self.heavy_dispersion, self.separation)
        second = condition(
            self.dispersion, self.heavy_dispersion, self.separation, self.highest_relative_degree
        )
        return {"condition": float((first < 1).mean()), "in_degree": float((second < 1).mean())}


def condition(
    dispersion: Floats, heavy: Floats, separation: Floats, degree: Floats | float = 1.0
) -> Floats:
    """δ_h/δ_s + ln(2 β (1 + 1/Δ_h))/δ_s, which the paper wants below 1; infinite where nothing is
    separated or dispersed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        left = (heavy + np.log(2 * degree * (1 + 1 / separation))) / dispersion
    return np.asarray(np.where((separation > 0) & (dispersion > 0), left, np.inf))


def rows_of(scores: Tensor, valid: Tensor, pattern: AttentionPattern) -> Rows:
    """The quantities of scaled scores float [B, H, S, S] of texts valid bool [B, S].

    Kept are the links of `pattern`.
    """
    kept = LINK_RULES[pattern.name](scores, valid, pattern).expand_as(scores)
    real_key = valid[:, None, None, :].expand_as(scores)
    kept = kept & real_key
    dropped = real_key & ~kept
    real = valid[:, None, :].expand(scores.shape[:3]) & dropped.any(dim=-1)  # [B, H, S]

    def highest(mask: Tensor) -> Tensor:
        return scores.masked_fill(~mask, -torch.inf).amax(dim=-1)[real]

    def lowest(mask: Tensor) -> Tensor:
        return scores.masked_fill(~mask, torch.inf).amin(dim=-1)[real]

    links = kept & valid[:, None, :, None]
    degree = links.sum(dim=2)  # [B, H, S]
    average = links.sum(dim=(2, 3)) / valid.sum(dim=-1)[:, None]  # k, ties included: [B, H]
    relative = degree / average[..., None]
    keys = valid[:, None, :].expand(degree.shape)
    worst = relative.masked_fill(~keys, 0).amax(dim=-1)[..., None].expand(real.shape)[real]
    return Rows(
        _numpy(highest(real_key) - lowest(real_key)),
        _numpy(highest(kept) - lowest(kept)),
        _numpy(lowest(kept) - highest(dropped)),
        _numpy(kept.sum(dim=-1)[real]),
        _numpy(degree[keys]),
        _numpy(relative[keys]),
        _numpy(worst),
    )


def joined(parts: list[Rows]) -> Rows:
    """All rows of several sets."""
    names = Rows.__dataclass_fields__
    return Rows(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def model_rows(
    parameters: Parameters,
    examples: Examples,
    size: EncoderSize,
    trained: AttentionPattern,
    measured: AttentionPattern,
) -> list[list[Rows]]:
    """The rows of each model and block, [M][blocks], over BATCHES of BATCH examples, or all of
    them where they are fewer. The models attend by `trained`; `measured` says what counts as kept.
    """
    models = next(iter(parameters.values())).shape[0]
    found: list[list[list[Rows]]] = [[[] for _ in range(size.blocks)] for _ in range(models)]

    def observe(block: int, query: Tensor, key: Tensor, valid: Tensor) -> None:
        scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
        for m, (one, real) in enumerate(
            zip(scores.chunk(models), valid.chunk(models), strict=True)
        ):
            found[m][block].append(rows_of(one, real, measured))

    count = min(len(examples), BATCHES * BATCH)
    device = parameters["embedding"].device
    tokens = torch.from_numpy(examples.tokens).to(device)
    lengths = torch.from_numpy(examples.lengths).to(device)
    with torch.inference_mode():
        for chosen in torch.arange(count).split(BATCH):
            every = chosen.expand(models, -1)
            forward(parameters, tokens[every], lengths[every], size, trained, observe=observe)
    return [[joined(parts) for parts in blocks] for blocks in found]


def _numpy(values: Tensor) -> Floats:
    return np.asarray(values.double().cpu().numpy())
