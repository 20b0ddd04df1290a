"""The study of the Semantic Focus paper (arXiv 2506.14095): which attention learns faster?

A run is one task with one mechanism, all its seeds in one batched model; it leaves its curves, the
stability of its softmax, and the steepness of its loss.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.machine import environment
from training.pattern import AttentionPattern
from training.study import fit
from training.study.encoder import EncoderSize, Parameters
from training.study.errors import StudyError
from training.study.landscape import slopes, surface
from training.study.mechanisms import mechanism
from training.study.runs import Progress, Run, write_result
from training.study.stability import Rows, joined, model_rows
from training.study.tasks.registry import task_named
from training.study.tasks.task import Examples, Split, draw_examples, with_start

STUDY = "semantic-focus"
STATE_FILE = "state.safetensors"
_SAVE_SECONDS = 30.0
_SLOPE_PERCENTILES = (50.0, 90.0, 99.0, 100.0)


@dataclass(frozen=True)
class FocusSettings:
    """What decides the outcome of a run."""

    task: str
    mechanism: str
    seeds: tuple[int, ...]
    length: int
    blocks: int
    train: int
    held_out: int
    epochs: int
    learning_rate: float
    decay: float
    batch: int = 25
    clip: float = 0.5
    dropout: float = 0.01
    landscape_steps: int = 11
    landscape_examples: int = 200
    data_seed: int = 0
    start_symbol: bool = False  # before every example, the same in all

    def __post_init__(self) -> None:
        task_named(self.task)
        mechanism(self.mechanism)
        for name in ("length", "blocks", "train", "held_out", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise StudyError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise StudyError(f"a learning rate must be above 0, got {self.learning_rate}")
        if not self.seeds:
            raise StudyError("expected at least one seed")
        if self.landscape_steps < 2 or self.landscape_examples < 1:
            raise StudyError("a landscape needs at least 2 steps a side, and an example")

    @property
    def name(self) -> str:
        start = "_start" if self.start_symbol else ""
        first = f"_from{self.seeds[0]}" if self.seeds[0] else ""  # further seeds of a setting
        return f"{self.task}_{self.mechanism}_length{self.length}_blocks{self.blocks}{start}{first}"

    @property
    def size(self) -> EncoderSize:
        task = task_named(self.task)
        symbols = len(task.symbols) + self.start_symbol
        return EncoderSize(symbols, len(task.classes), self.blocks)

    def run(self) -> Run:
        # Tokens that pass through a block: the seconds are in proportion, roughly.
        tokens = self.train * self.length * self.blocks * len(self.seeds)
        values = asdict(self)
        if not self.start_symbol:
            del values["start_symbol"]  # runs of before it existed go on
        return Run(STUDY, self.name, values, self.epochs * tokens / 1e6, extends="epochs")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FocusSettings:
        return cls(**values | {"seeds": tuple(values["seeds"])})


def execute(folder: Path, values: dict[str, Any]) -> None:
    """Carries out the run in `folder`, from its last saved epoch on."""
    settings = FocusSettings.from_dict(values)
    pattern = mechanism(settings.mechanism)
    started = time.monotonic()
    split = draw_examples(
        task_named(settings.task),
        length=settings.length,
        train=settings.train,
        held_out=settings.held_out,
        seed=settings.data_seed,
    )
    if settings.start_symbol:
        split = with_start(split, settings.size.symbols)
    state = _train(folder, settings, pattern, split)
    found = {
        "chance": split.held_out.most_frequent(),
        "curves": _curves(state),
        "stability": stability(state.parameters, split.train, settings.size, pattern),
        "landscape": _landscape(state, split.train, settings, pattern),
        "seconds": round(time.monotonic() - started, 1),
        "environment": environment(),
    }
    write_result(folder, values, found)


def _train(
    folder: Path, settings: FocusSettings, pattern: AttentionPattern, split: Split
) -> fit.FitState:
    file = folder / STATE_FILE
    state = fit.load(file) if file.is_file() else fit.start(settings.size, settings.seeds)
    state = state.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    optimisation = fit.Optimisation(
        learning_rate=settings.learning_rate,
        decay=settings.decay,
        batch=settings.batch,
        clip=settings.clip,
        dropout=settings.dropout,
    )
    progress, saved = Progress(folder), time.monotonic()
    while len(state.curves) < settings.epochs:
        within = 0.0

        def tick(share: float) -> None:
            nonlocal within
            within += share
            progress.reach((len(state.curves) + within) / settings.epochs)

        fit.train_epoch(
            state, split.train, split.held_out, settings.size, pattern, optimisation, tick
        )
        if len(state.curves) == settings.epochs or time.monotonic() - saved > _SAVE_SECONDS:
            fit.save(file, state)
            saved = time.monotonic()
    return state


def _curves(state: fit.FitState) -> dict[str, list[list[float]]]:
    """Each curve as [epochs][seeds]."""
    epochs = [asdict(epoch) for epoch in state.curves]
    return {name: [epoch[name] for epoch in epochs] for name in epochs[0]}


def stability(
    parameters: Parameters, examples: Examples, size: EncoderSize, pattern: AttentionPattern
) -> dict[str, Any]:
    """The stability quantities of each seed, pooled over layers.

    A model that keeps its highest scores is measured with what it keeps, any other with the 5
    highest: what top-k *would* keep of it.
    """
    measured = pattern if pattern.name == "topk" else AttentionPattern("topk", k=5)
    rows = model_rows(parameters, examples, size, pattern, measured)
    return {"kept": str(measured), "by_seed": [_summary(joined(blocks)) for blocks in rows]}


def _summary(rows: Rows) -> dict[str, Any]:
    if not len(rows.dispersion):
        return {"rows": 0}
    percentiles = {
        name: [float(f"{value:.4g}") for value in values]
        for name, values in rows.percentiles().items()
    }
    return {"rows": len(rows.dispersion), "percentiles": percentiles} | {
        name: round(share, 5) for name, share in rows.conditions().items()
    }


def _landscape(
    state: fit.FitState, examples: Examples, settings: FocusSettings, pattern: AttentionPattern
) -> dict[str, Any]:
    few = Examples(
        examples.tokens[: settings.landscape_examples],
        examples.lengths[: settings.landscape_examples],
        examples.labels[: settings.landscape_examples],
    )

    def loss(parameters: Parameters) -> torch.Tensor:
        moved = fit.FitState(state.seeds, parameters)
        return fit.evaluate(moved, few, settings.size, pattern)[1]

    losses = surface(state.parameters, loss, steps=settings.landscape_steps)
    steepness = [np.percentile(slopes(one), _SLOPE_PERCENTILES).tolist() for one in losses]
    return {
        "percentiles": list(_SLOPE_PERCENTILES),
        "slopes": [[float(f"{value:.4g}") for value in each] for each in steepness],
    }
