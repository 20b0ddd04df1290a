"""The loss around a model: directions of its own norms, and the slopes of known surfaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.study.landscape import direction, slopes, surface

PARAMETERS = {
    "a": torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]]]),
    "b": torch.arange(8.0).view(2, 4),
}


def test_a_direction_has_the_norm_of_each_models_own_tensors() -> None:
    found = direction(PARAMETERS, seed=1)
    for name, tensor in PARAMETERS.items():
        assert found[name].shape == tensor.shape
        torch.testing.assert_close(
            found[name].flatten(1).norm(dim=1), tensor.flatten(1).norm(dim=1)
        )
    torch.testing.assert_close(found["a"][0], 10 * found["a"][1])
    assert not torch.allclose(direction(PARAMETERS, seed=2)["a"], found["a"])


def test_the_surface_of_a_linear_loss_is_a_plane_of_its_slopes() -> None:
    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return parameters["a"][:, 0, 0] + 2 * parameters["b"][:, 1]

    losses = surface(PARAMETERS, loss, seed=5, reach=0.5, steps=5)
    assert losses.shape == (2, 5, 5)
    first, second = direction(PARAMETERS, 5), direction(PARAMETERS, 6)
    for m in range(2):
        center = float(loss(PARAMETERS)[m])
        assert losses[m, 2, 2] == pytest.approx(center, abs=1e-5)
        along = [float(d["a"][m, 0, 0] + 2 * d["b"][m, 1]) for d in (first, second)]
        assert losses[m, 4, 2] - losses[m, 0, 2] == pytest.approx(along[0], abs=1e-4)
        assert losses[m, 2, 4] - losses[m, 2, 0] == pytest.approx(along[1], abs=1e-4)
        found = slopes(losses[m], reach=0.5)
        assert found.shape == (2 * 5 * 4,)
        assert found.max() == pytest.approx(max(map(abs, along)), rel=1e-3)


def test_slopes_of_a_grid_computed_by_hand() -> None:
    grid = np.array([[0.0, 1.0, 4.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
    found = sorted(slopes(grid, reach=2.0).tolist())
    assert found == sorted([0, 1 / 2, 2, 1, 1, 1, 1 / 2, 3 / 2, 0, 0, 0, 0])
