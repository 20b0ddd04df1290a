"""A step of SGD for many models at once, each clipped by its own norm.

Descent(rate=0.1, clip=0.5).apply(parameters, gradients)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.study.encoder import Parameters


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How far, and how long a model's gradient may be."""

    rate: float
    clip: float

    def apply(self, parameters: Parameters, gradients: Parameters) -> None:
        """Changes the parameters, each [M, ...], by their gradients."""
        squares = [gradient.flatten(1).square().sum(dim=1) for gradient in gradients.values()]
        norm = torch.stack(squares).sum(dim=0).sqrt()
        scale = self.rate * (self.clip / (norm + 1e-6)).clamp(max=1)  # [M]
        for name, parameter in parameters.items():
            parameter.sub_(gradients[name] * scale.view(-1, *[1] * (parameter.dim() - 1)))
