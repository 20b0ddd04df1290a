"""The stability quantities against hand-computed rows and a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.pattern import AttentionPattern
from training.study.encoder import EncoderSize, initial_parameters
from training.study.stability import condition, joined, model_rows, rows_of
from training.study.tasks.registry import TASKS
from training.study.tasks.task import draw_examples

TOP2 = AttentionPattern("topk", k=2)
ROWS = torch.tensor(
    [[5.0, 3.0, 2.5, -1.0], [0.0, 4.0, 1.0, 3.5], [2.0, 9.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0]]
)


def test_a_row_computed_by_hand() -> None:
    found = rows_of(ROWS[None, None], torch.ones(1, 4, dtype=torch.bool), TOP2)
    assert found.dispersion.tolist() == [6, 4, 9, 3]
    assert found.heavy_dispersion.tolist() == [2, 0.5, 7, 1]
    assert found.separation.tolist() == [0.5, 2.5, 1, 1]
    # Kept: keys 0 1, 1 3, 0 1, 2 3.
    assert found.degree.tolist() == [2, 3, 1, 2]
    assert found.relative_degree.tolist() == [1, 1.5, 0.5, 1]
    assert found.highest_relative_degree.tolist() == [1.5] * 4
    first = condition(found.dispersion, found.heavy_dispersion, found.separation)
    assert first[0] == pytest.approx(2 / 6 + math.log(2 * (1 + 1 / 0.5)) / 6)
    assert found.conditions()["condition"] == np.mean(first < 1)
    second = condition(found.dispersion, found.heavy_dispersion, found.separation, 1.5)
    assert second[0] == pytest.approx(2 / 6 + math.log(2 * 1.5 * 3) / 6)
    shares = found.percentiles()
    assert shares["dispersion"][-1] == 9
    assert shares["separation"] == pytest.approx(
        [np.percentile([0.5, 2.5, 1, 1], p) for p in (25, 10, 5, 0)]
    )


def test_the_condition_fails_where_nothing_is_separated_or_dispersed() -> None:
    zero, one = np.zeros(1), np.ones(1)
    assert condition(one, zero, zero)[0] == np.inf
    assert condition(zero, zero, one)[0] == np.inf
    assert condition(20 * one, one, one)[0] < 1


def loop(scores: Tensor, length: int, k: int) -> list[tuple[float, float, float]]:
    found = []
    for row in scores[:length, :length].tolist():
        ordered = sorted(row, reverse=True)
        found.append(
            (ordered[0] - ordered[-1], ordered[0] - ordered[k - 1], ordered[k - 1] - ordered[k])
        )
    return found


@given(
    lengths=st.lists(st.integers(4, 9), min_size=1, max_size=3),
    k=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_equals_the_loop_and_padding_counts_nowhere(lengths: list[int], k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    scores = torch.randn(len(lengths), 2, longest, longest, generator=generator)
    valid = torch.arange(longest) < torch.tensor(lengths)[:, None]
    scores = torch.where(valid[:, None, None, :], scores, 1e4)
    found = rows_of(scores, valid, AttentionPattern("topk", k=k))
    expected = [
        row
        for b, length in enumerate(lengths)
        for head in range(2)
        for row in loop(scores[b, head], length, k)
    ]
    measured = np.stack([found.dispersion, found.heavy_dispersion, found.separation], axis=1)
    np.testing.assert_allclose(measured, expected, atol=1e-5)
    assert found.degree.sum() == 2 * k * sum(lengths)
    assert found.relative_degree.mean() == pytest.approx(1)
    assert (found.highest_relative_degree >= 1).all()


def test_rows_that_keep_everything_have_no_separation() -> None:
    found = rows_of(ROWS[None, None], torch.ones(1, 4, dtype=torch.bool), AttentionPattern("dense"))
    assert found.dispersion.size == 0
    assert found.degree.tolist() == [4] * 4


def test_models_are_measured_one_by_one_layer_by_layer() -> None:
    split = draw_examples(TASKS["parity"], length=7, train=9, held_out=1, seed=0)
    size = EncoderSize(2, 2, blocks=2, width=8)
    both, alone = initial_parameters(size, (1, 2)), initial_parameters(size, (2,))
    rows = model_rows(both, split.train, size, TOP2, TOP2)
    assert [len(blocks) for blocks in rows] == [2, 2]
    assert rows[0][0].dispersion.shape == (9 * 7,)
    single = model_rows(alone, split.train, size, TOP2, TOP2)
    np.testing.assert_allclose(rows[1][1].dispersion, single[0][1].dispersion, rtol=1e-4)
    assert not np.allclose(rows[0][1].dispersion, rows[1][1].dispersion)
    assert joined(rows[0]).dispersion.shape == (2 * 9 * 7,)
