"""Trains all seeds of a setting as one batched model, epoch by epoch, resumably.

    state = start(size, seeds)                     # or load(file)
    while len(state.curves) < epochs:
        train_epoch(state, split.train, split.held_out, ...)
        save(file, state)

A seed decides its weights, the order of its examples and its dropout, each drawn anew from (seed,
epoch): a run that is stopped between two epochs goes on as if it had not been, and a seed does not
depend on those it is trained beside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.pattern import AttentionPattern
from training.study.batch_pass import Batch, batch_pass
from training.study.descent import Descent
from training.study.dropout import Dropout
from training.study.encoder import EncoderSize, Parameters, initial_parameters
from training.study.tasks.task import Examples

_EVALUATION_ROWS = 20_000  # tokens of one model at once when nothing is learned


@dataclass(frozen=True, kw_only=True)  # five numbers that would pass for each other
class Optimisation:
    """SGD without momentum, as the paper has it."""

    learning_rate: float = 0.1
    decay: float = 0.9995  # of the learning rate, an epoch
    batch: int = 25
    clip: float = 0.5  # of the norm of a model's gradient
    dropout: float = 0.01


@dataclass(frozen=True)
class Epoch:
    """One epoch: a number for each seed. Those of training are means over the epoch's batches, with
    dropout and while learning."""

    train_accuracy: list[float]
    train_loss: list[float]
    held_out_accuracy: list[float]
    held_out_loss: list[float]


@dataclass
class FitState:
    """The weights of all seeds, and the epochs behind them."""

    seeds: tuple[int, ...]
    parameters: Parameters
    curves: list[Epoch] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    def to(self, device: torch.device) -> FitState:
        """The same on another device; random numbers are drawn on the CPU, whatever it is."""
        moved = {name: tensor.to(device) for name, tensor in self.parameters.items()}
        return FitState(self.seeds, moved, self.curves)


def start(size: EncoderSize, seeds: Sequence[int]) -> FitState:
    return FitState(tuple(seeds), initial_parameters(size, seeds))


def train_epoch(
    state: FitState,
    train: Examples,
    held_out: Examples,
    size: EncoderSize,
    pattern: AttentionPattern,
    optimisation: Optimisation,
    tick: Callable[[float], None] = lambda _: None,
    *,
    plain: bool = False,
) -> None:
    """Trains one epoch more, and appends it to the curves. `tick` is told each step's share.
    `plain`: by torch's operations, also where the fused step would serve."""
    epoch = len(state.curves)
    rate = optimisation.learning_rate * optimisation.decay**epoch
    drop = Dropout(optimisation.dropout, [_mixed(seed, epoch, 1) for seed in state.seeds])
    order = torch.stack(
        [
            torch.randperm(len(train), generator=torch.Generator().manual_seed(_mixed(s, epoch, 0)))
            for s in state.seeds
        ]
    ).to(state.device)
    data = _Tensors(train, state.device)
    right = torch.zeros(len(state.seeds), device=state.device)
    lost = torch.zeros(len(state.seeds), device=state.device)
    descent = Descent(rate=rate, clip=optimisation.clip)
    for chosen in order.split(optimisation.batch, dim=1):
        losses, correct = batch_pass(
            state.parameters,
            data.batch(chosen),
            size,
            pattern,
            drop=drop,
            descent=descent,
            plain=plain,
        )
        lost += losses.sum(dim=1)
        right += correct.sum(dim=1)
        tick(chosen.shape[1] / len(train))
    accuracy, loss = evaluate(state, held_out, size, pattern, plain=plain)
    state.curves.append(
        Epoch(
            _rounded(right / len(train)),
            _rounded(lost / len(train)),
            _rounded(accuracy),
            _rounded(loss),
        )
    )


def evaluate(
    state: FitState,
    examples: Examples,
    size: EncoderSize,
    pattern: AttentionPattern,
    *,
    plain: bool = False,
) -> tuple[Tensor, Tensor]:
    """Accuracy and mean cross-entropy of each seed, float [M] both, without dropout."""
    models = len(state.seeds)
    right, lost = (torch.zeros(models, device=state.device) for _ in range(2))
    data = _Tensors(examples, state.device)
    rows = max(1, _EVALUATION_ROWS // examples.tokens.shape[1])
    for chosen in torch.arange(len(examples), device=state.device).split(rows):
        batch = data.batch(chosen.expand(models, -1))
        losses, correct = batch_pass(state.parameters, batch, size, pattern, plain=plain)
        lost += losses.sum(dim=1)
        right += correct.sum(dim=1)
    return right / len(examples), lost / len(examples)


def save(file: Path, state: FitState) -> None:
    """Writes weights and curves as one safetensors file, whole or not at all."""
    facts = {"seeds": state.seeds, "curves": [asdict(epoch) for epoch in state.curves]}
    temporary = file.with_name(file.name + ".tmp")
    tensors = {name: tensor.detach().cpu() for name, tensor in state.parameters.items()}
    save_file(tensors, temporary, metadata={"study": json.dumps(facts)})
    temporary.replace(file)


def load(file: Path) -> FitState:
    """What `save` wrote."""
    with safe_open(file, framework="pt") as opened:
        facts = json.loads(opened.metadata()["study"])
        # In one order always: that of a sum of floats decides its last digits.
        parameters = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
    return FitState(
        tuple(facts["seeds"]), parameters, [Epoch(**epoch) for epoch in facts["curves"]]
    )


class _Tensors:
    """Examples as tensors."""

    def __init__(self, examples: Examples, device: torch.device) -> None:
        self.tokens = torch.from_numpy(examples.tokens).to(device)
        self.lengths = torch.from_numpy(examples.lengths).to(device)
        self.labels = torch.from_numpy(examples.labels).to(device)

    def batch(self, chosen: Tensor) -> Batch:
        """Those of each model, int64 [M, B]."""
        return self.tokens[chosen], self.lengths[chosen], self.labels[chosen]


def _mixed(seed: int, epoch: int, purpose: int) -> int:
    return int(np.random.SeedSequence((seed, epoch, purpose)).generate_state(1)[0])


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 6) for value in values]
