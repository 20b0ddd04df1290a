"""Training all seeds at once: it learns, a seed is as if alone, and a stopped run goes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.pattern import AttentionPattern
from training.study import fit
from training.study.descent import Descent
from training.study.encoder import EncoderSize, forward
from training.study.tasks.task import Split, Task, draw_examples

SIZE = EncoderSize(symbols=2, classes=2, blocks=1, width=16)
TOPK = AttentionPattern("topk", k=3)


def most(random: np.random.Generator, length: int) -> tuple[list[str], int]:
    """Which of two symbols is the more frequent: learned within seconds."""
    bits = random.integers(2, size=length)
    return ["ab"[i] for i in bits], int(2 * bits.sum() > length)


MAJORITY = Task("majority", ("a", "b"), ("a", "b"), most, shortest=1)
FAST = fit.Optimisation(learning_rate=0.5, batch=10)


@pytest.fixture(scope="module")
def split() -> Split:
    return draw_examples(MAJORITY, length=8, train=120, held_out=50, seed=0)


def train(state: fit.FitState, split: Split, epochs: int, rule: AttentionPattern = TOPK) -> None:
    for _ in range(epochs):
        fit.train_epoch(state, split.train, split.held_out, SIZE, rule, FAST)


def test_it_learns_and_says_how_far_it_is(split: Split) -> None:
    state = fit.start(SIZE, (0, 1))
    ticks: list[float] = []
    for _ in range(25):
        fit.train_epoch(state, split.train, split.held_out, SIZE, TOPK, FAST, ticks.append)
    assert sum(ticks) == pytest.approx(25)
    assert max(state.curves[-1].train_accuracy) > 0.9
    assert state.curves[-1].train_loss[0] < state.curves[0].train_loss[0]
    accuracy, loss = fit.evaluate(state, split.held_out, SIZE, TOPK)
    assert state.curves[-1].held_out_accuracy == pytest.approx(accuracy.tolist(), abs=1e-6)
    logits = forward(
        state.parameters,
        torch.from_numpy(split.held_out.tokens).expand(2, -1, -1),
        torch.from_numpy(split.held_out.lengths).expand(2, -1),
        SIZE,
        TOPK,
    )
    labels = torch.from_numpy(split.held_out.labels)
    assert accuracy[1] == pytest.approx(float((logits[1].argmax(-1) == labels).float().mean()))
    assert float(loss[1]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits[1], labels)), abs=1e-5
    )


def test_a_seed_is_as_if_alone(split: Split) -> None:
    together, alone = fit.start(SIZE, (4, 5)), fit.start(SIZE, (5,))
    train(together, split, 2)
    train(alone, split, 2)
    for name, tensor in together.parameters.items():
        torch.testing.assert_close(tensor[1:], alone.parameters[name], atol=1e-4, rtol=1e-3)
    assert together.curves[0].train_loss[1] == pytest.approx(
        alone.curves[0].train_loss[0], abs=1e-4
    )
    assert together.curves[0].train_loss[0] != together.curves[0].train_loss[1]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(split: Split, tmp_path: Path) -> None:
    whole, part = fit.start(SIZE, (2, 3)), fit.start(SIZE, (2, 3))
    train(whole, split, 3)
    train(part, split, 1)
    fit.save(tmp_path / "state", part)
    resumed = fit.load(tmp_path / "state")
    train(resumed, split, 2)
    assert [asdict(epoch) for epoch in resumed.curves] == [asdict(epoch) for epoch in whole.curves]
    for name, tensor in whole.parameters.items():
        assert torch.equal(tensor, resumed.parameters[name])


def test_each_epoch_has_a_rate_an_order_and_a_dropout_of_its_own(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that follow from (seed, epoch): saved runs of earlier versions go on by them."""
    seeds, epochs = (2, 3), range(3)
    asked = fit.Optimisation(learning_rate=0.3, decay=0.5, batch=60, clip=0.7, dropout=0.2)
    read: list[torch.Tensor] = []
    dropping: list[list[int]] = []
    steps: list[tuple[float, float]] = []
    batch_pass = fit.batch_pass

    def watched_pass(parameters: Any, batch: Any, *args: Any, **others: Any) -> Any:
        if others.get("descent") is None:
            assert others.get("drop") is None  # held-out texts are read without
        else:
            read.append(batch[0])
            assert others["drop"].rate == 0.2
            dropping.append([each.initial_seed() for each in others["drop"].generators])
            steps.append((others["descent"].rate, others["descent"].clip))
        return batch_pass(parameters, batch, *args, **others)

    monkeypatch.setattr(fit, "batch_pass", watched_pass)
    state = fit.start(SIZE, seeds)
    for _ in epochs:
        fit.train_epoch(state, split.train, split.held_out, SIZE, TOPK, asked)
    # 120 examples are two batches of 60.
    assert steps == [(pytest.approx(0.3 * 0.5**e), 0.7) for e in epochs for _ in range(2)]

    def drawn(seed: int, epoch: int, purpose: int) -> int:
        return int(np.random.SeedSequence((seed, epoch, purpose)).generate_state(1)[0])

    assert dropping == [[drawn(s, e, 1) for s in seeds] for e in epochs for _ in range(2)]
    tokens = torch.from_numpy(split.train.tokens)
    for epoch in epochs:
        found = torch.cat(read[2 * epoch : 2 * epoch + 2], dim=1)
        for model, seed in enumerate(seeds):
            random = torch.Generator().manual_seed(drawn(seed, epoch, 0))
            assert torch.equal(found[model], tokens[torch.randperm(120, generator=random)])


def test_the_numbers_of_an_optimisation_have_to_be_named() -> None:
    with pytest.raises(TypeError):
        fit.Optimisation(0.1, 0.9995)  # type: ignore[misc]


def test_each_models_gradient_is_clipped_by_its_own_norm() -> None:
    parameters = {"a": torch.zeros(2, 1, 3), "b": torch.zeros(2, 4)}
    # Model 0: (3, 0, 4) and 12 -> norm 13; model 1: (0.1, 0, 0) and 0 -> norm 0.1.
    gradients = {"a": torch.tensor([[[3.0, 0, 4]], [[0.1, 0, 0]]]), "b": torch.zeros(2, 4)}
    gradients["b"][0, 2] = 12
    Descent(rate=2.0, clip=0.5).apply(parameters, gradients)
    expected = torch.tensor([3.0, 0, 4]) * -2 * 0.5 / 13
    torch.testing.assert_close(parameters["a"][0, 0], expected, atol=1e-5, rtol=1e-5)
    assert parameters["b"][0, 2].item() == pytest.approx(-2 * 0.5 / 13 * 12, abs=1e-5)
    torch.testing.assert_close(parameters["a"][1, 0], torch.tensor([-0.2, 0, 0]))
