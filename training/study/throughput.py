"""How much faster all seeds train at once than one seed at a time.

    python -m training.study.throughput --length 8 --length 16 --length 40

Three are timed in turns: one seed by torch, all of them by torch as one batched model, and all of
them by the fused step in C++, as the study trains them. The ratios are those of the medians of
milliseconds a model and step, with bootstrap intervals. Beside them stands what a step of
nothing but its matrix products would reach at the speed of torch's large ones: a bound where torch
uses the whole processor, which it does not on every one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from training.pattern import AttentionPattern
from training.statistics import ratio_of_medians
from training.study import fit
from training.study.encoder import EncoderSize
from training.study.mechanisms import mechanism
from training.study.tasks.registry import TASKS
from training.study.tasks.task import Split, draw_examples

_EXAMPLES = 125  # of an epoch: five steps
_LARGE = 1024  # rows and columns of a product that a processor is fastest with


@dataclass
class Trainer:
    """Trains models for one epoch of a few steps, again and again."""

    state: fit.FitState
    split: Split
    size: EncoderSize
    pattern: AttentionPattern
    optimisation: fit.Optimisation
    plain: bool

    def seconds_a_model_step(self) -> float:
        started = time.perf_counter()
        fit.train_epoch(
            self.state,
            self.split.train,
            self.split.held_out,
            self.size,
            self.pattern,
            self.optimisation,
            plain=self.plain,
        )
        return (time.perf_counter() - started) / self._model_steps

    def operations_a_model_step(self) -> float:
        """Floating-point operations of the matrix products, forward and backward."""
        with FlopCounterMode(display=False) as counter:
            self.seconds_a_model_step()
        return float(counter.get_total_flops()) / self._model_steps

    @property
    def _model_steps(self) -> float:
        return len(self.split.train) / self.optimisation.batch * len(self.state.seeds)


def _operations_a_second() -> float:
    """Of one large matrix product in float32."""
    factor = torch.rand(_LARGE, _LARGE)
    started = time.perf_counter()
    factor @ factor
    return 2 * _LARGE**3 / (time.perf_counter() - started)


def trainer(
    length: int, models: int, name: str, blocks: int, *, plain: bool = True, batch: int = 25
) -> Trainer:
    """Trains `models` models with a mechanism on Even Pairs of `length` symbols, by torch alone
    where `plain`."""
    split = draw_examples(TASKS["even-pairs"], length=length, train=_EXAMPLES, held_out=1, seed=0)
    size = EncoderSize(symbols=2, classes=2, blocks=blocks)
    state = fit.start(size, range(models))
    return Trainer(state, split, size, mechanism(name), fit.Optimisation(batch=batch), plain)


def measure(
    length: int, models: int, name: str, rounds: int, blocks: int, batch: int = 25
) -> dict[str, Any]:
    """Milliseconds a step of one model by torch, alone and among `models`, and by the fused step
    among them; how many times faster the latter two are, and how many they could be."""
    one, many, fused = (
        trainer(length, m, name, blocks, plain=plain, batch=batch)
        for m, plain in ((1, True), (models, True), (models, False))
    )
    for each in (one, many, fused):  # what only the first steps pay
        each.seconds_a_model_step()
    alone, batched, fast, most = [], [], [], 0.0
    for _ in range(rounds):
        alone.append(one.seconds_a_model_step())
        batched.append(many.seconds_a_model_step())
        fast.append(fused.seconds_a_model_step())
        most = max(most, _operations_a_second())
    return {
        "length": length,
        "mechanism": name,
        "models": models,
        "rounds": rounds,
        "alone_ms": 1e3 * median(alone),
        "batched_ms": 1e3 * median(batched),
        "fused_ms": 1e3 * median(fast),
        "batched": ratio_of_medians(alone, batched).to_dict(),
        "fused": ratio_of_medians(alone, fast).to_dict(),
        "at_most": median(alone) * most / one.operations_a_model_step(),
    }


def main(
    length: Annotated[list[int], typer.Option(help="Symbols an example; several for several.")],
    models: Annotated[int, typer.Option(min=2, help="Models at once.")] = 10,
    mechanism_name: Annotated[str, typer.Option("--mechanism", help="Attention.")] = "full",
    rounds: Annotated[int, typer.Option(min=2, help="Measurements of each.")] = 15,
    blocks: Annotated[int, typer.Option(min=1, help="Layers.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Prints the throughput of all seeds at once against that of one at a time."""
    found = [measure(each, models, mechanism_name, rounds, blocks) for each in length]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for each in found:
        typer.echo(
            f"{each['length']} symbols, {blocks} layers, {each['mechanism']}, {rounds} rounds: "
            f"{each['alone_ms']:.2f} ms a step alone; among {models} by torch "
            f"{_times(each, 'batched')}, fused {_times(each, 'fused')}; "
            f"nothing but products, as fast as torch's large ones: {each['at_most']:.1f} times"
        )


def _times(found: dict[str, Any], which: str) -> str:
    ratio = found[which]
    interval = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
    return f"{found[f'{which}_ms']:.2f} ms, {ratio['value']:.2f} times ({interval}) as fast"


if __name__ == "__main__":
    typer.run(main)
