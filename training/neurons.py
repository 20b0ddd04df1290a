"""Which neurons of a feed-forward network to keep, and what the others' work becomes.

    index, weight, bias = keep_neurons(gram, lin2.weight, lin2.bias, width=512)

A network of activations a(x) in R^N and outputs W a + b loses the neurons whose removal changes its
outputs least, one after the other, and after each one the weights of the rest make up for it in the
sense of least squares. In closed form: for outputs on given inputs, H = Σ a aᵀ, removing neuron j
costs ‖w_j‖² / [H⁻¹]_jj.

Sources: Optimal Brain Surgeon (Hassibi and Stork, 1993), for columns of weights as in ZipLM
(Kurtic, Frantar and Alistarh, arXiv 2302.04089, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

_AT_ONCE = 64  # neurons, before what is known of them is taken out of the matrices
_DAMPING = 1e-3  # of the mean square of an activation, added to all: some hardly ever fire


def gram_of(activations: Tensor) -> Tensor:
    """Σ a aᵀ over activations float [T, N] with a 1 after each for the bias: float64 [N+1, N+1]."""
    ones = activations.new_ones(len(activations), 1)
    extended = torch.cat([activations, ones], dim=1)
    return (extended.T @ extended).double()


def keep_neurons(
    gram: Tensor, weight: Tensor, bias: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `width` neurons to keep of N, and the weights that do most of what all did.

    gram: as `gram_of` gives it, or a sum of such; weight: float [M, N]; bias: float [M]. Returns
    their indices int64 [width], ascending, weight float [M, width] and bias float [M].
    Raises ValueError for a width outside [1, N].
    """
    count = weight.shape[1]
    if not 1 <= width <= count:
        raise ValueError(f"width must lie in [1, {count}], got {width}")
    whole = torch.cat([weight.T, bias[None]]).double()  # [N+1, M]
    damped = gram + _DAMPING * gram.diagonal()[:-1].mean() * torch.eye(count + 1).to(gram)
    inverse, rest = torch.linalg.inv(damped), whole.clone()
    left = torch.arange(count + 1, device=gram.device)
    while len(left) > width + 1:
        gone = torch.zeros(len(left), dtype=torch.bool, device=gram.device)
        for _ in range(min(_AT_ONCE, len(left) - 1 - width)):
            price = rest.square().sum(dim=1) / inverse.diagonal()
            price[gone] = torch.inf
            price[-1] = torch.inf  # the bias stays
            j = int(price.argmin())
            column, scale = inverse[:, j].clone(), inverse[j, j].clone()
            rest -= torch.outer(column / scale, rest[j].clone())
            inverse -= torch.outer(column, column) / scale
            inverse[j, j] = 1.0  # any number: it is never looked at again
            gone[j] = True
        left, rest, inverse = left[~gone], rest[~gone], inverse[~gone][:, ~gone]
    # The same weights from the sums themselves: a thousand updates have rounded a little each.
    fitted = torch.linalg.solve(damped[left][:, left], damped[left] @ whole)
    return left[:-1], fitted[:-1].T.to(weight), fitted[-1].to(bias)
