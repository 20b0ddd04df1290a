"""How steep the loss is around a trained model, along two random directions.

Each direction is random, with the norm of each weight matrix taken over from the model (Li et al.
2018, arXiv 1712.09913, normalise filter by filter; the matrices here are small), so that models of
larger weights are not called flatter. The loss is measured on a grid over the plane of both; the
Lipschitz estimates are the differences between neighbours of the grid over their distance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.study.encoder import Parameters

REACH = 1.0  # the grid covers [-REACH, REACH] in both directions
STEPS = 11  # points a side


def direction(parameters: Parameters, seed: int) -> Parameters:
    """Random tensors of the same shapes, each model's of the norm of that model's own tensor."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in sorted(parameters):
        tensor = parameters[name]
        drawn = torch.randn(tensor.shape[1:], generator=generator).to(tensor.device)
        drawn = drawn.expand_as(tensor)
        axes = tuple(range(1, tensor.dim()))
        norms = tensor.square().sum(dim=axes, keepdim=True).sqrt()
        found[name] = drawn / drawn.square().sum(dim=axes, keepdim=True).sqrt() * norms
    return found


def surface(
    parameters: Parameters,
    loss: Callable[[Parameters], Tensor],
    *,
    seed: int = 0,
    reach: float = REACH,
    steps: int = STEPS,
) -> NDArray[np.float64]:
    """Losses [M, steps, steps] at parameters + a·first + b·second, a and b from -reach to reach.

    `loss` maps the parameters of M models to their losses, float [M].
    """
    first, second = direction(parameters, seed), direction(parameters, seed + 1)
    offsets = np.linspace(-reach, reach, steps).tolist()
    rows = []
    with torch.inference_mode():
        for a in offsets:
            row = []
            for b in offsets:
                moved = {
                    name: tensor + a * first[name] + b * second[name]
                    for name, tensor in parameters.items()
                }
                row.append(loss(moved).double())
            rows.append(torch.stack(row, dim=-1))
    return np.asarray(torch.stack(rows, dim=-2).cpu().numpy())


def slopes(losses: NDArray[np.float64], reach: float = REACH) -> NDArray[np.float64]:
    """Absolute differences between neighbours of a grid [N, N] over their distance along the
    directions: float [2 · N · (N - 1)]. The highest is the estimate of the Lipschitz constant."""
    spacing = 2 * reach / (losses.shape[0] - 1)
    found = [np.abs(np.diff(losses, axis=axis)).ravel() / spacing for axis in (0, 1)]
    return np.concatenate(found)
