"""Dropout of many models: its share, where it falls, and that it is each seed's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.study.dropout import Dropout, Dropped


def drawn(rate: float, seeds: tuple[int, ...], sites: int, count: int) -> Dropped:
    found = Dropout(rate, seeds).draw(sites, count)
    assert found is not None
    return found


def masks(dropped: Dropped, sites: int, shape: tuple[int, ...]) -> Tensor:
    return torch.stack([dropped.apply(site, torch.ones(shape)) for site in range(sites)])


def test_it_drops_its_share_anywhere_and_keeps_the_mean() -> None:
    found = masks(drawn(0.05, (1, 2), 20, 10_000), 20, (2, 100, 100))
    dropped = (found == 0).double()
    # 400,000 coins of 0.05: one standard error of the share is 0.00034.
    assert abs(float(dropped.mean()) - 0.05) < 0.0015
    assert found.max() == pytest.approx(1 / 0.95)
    by_place = dropped.mean(dim=(0, 1)).flatten()
    assert abs(float(by_place[:5000].mean() - by_place[5000:].mean())) < 0.003
    neighbours = (dropped[..., 1:] * dropped[..., :-1]).mean()
    assert abs(float(neighbours) - 0.05**2) < 0.0005


def test_gaps_are_geometric() -> None:
    rate, count = 0.3, 200_000
    positions = drawn(rate, (7,), 1, count).positions
    gaps = positions.diff()
    for gap in range(1, 8):  # p·(1 - p)^(gap - 1), five standard errors wide
        share = rate * (1 - rate) ** (gap - 1)
        assert abs(float((gaps == gap).double().mean()) - share) < 5 * (share / len(gaps)) ** 0.5


def test_a_seeds_numbers_are_its_own() -> None:
    both, second = drawn(0.05, (1, 2), 3, 500), drawn(0.05, (2,), 3, 500)
    found, alone = masks(both, 3, (2, 500)), masks(second, 3, (1, 500))
    assert torch.equal(found[:, 1], alone[:, 0])
    assert not torch.equal(found[:, 0], found[:, 1])
    drop = Dropout(0.05, (1,))
    first, next_one = drop.draw(3, 500), drop.draw(3, 500)
    assert first is not None
    assert next_one is not None
    assert not torch.equal(first.positions, next_one.positions)


@given(st.floats(0.001, 0.9), st.integers(1, 5), st.integers(1, 300), st.integers(0, 1000))
def test_positions_ascend_within_all_sites(rate: float, sites: int, count: int, seed: int) -> None:
    found = drawn(rate, (seed, seed + 1), sites, count)
    assert found.starts[0] == 0
    assert found.starts[-1] == len(found.positions)
    for start, end in zip(found.starts, found.starts[1:], strict=False):
        positions = found.positions[start:end]
        assert (positions.diff() > 0).all()
        assert ((positions >= 0) & (positions < sites * count)).all()
    kept = masks(found, sites, (2, count)) != 0
    assert int((~kept).sum()) == len(found.positions)


def test_without_a_rate_nothing_is_drawn() -> None:
    assert Dropout(0.0, (1,)).draw(3, 10) is None
