"""What happens beside the steps of a training: checkpoints by the clock, and the progress bar."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class CheckpointByTime(TrainerCallback):
    """Saves every so many minutes: a kill costs the same time whatever a step takes."""

    def __init__(self, minutes: float) -> None:
        self.seconds, self.saved = minutes * 60, time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del state
        due = torch.tensor(int(time.monotonic() - self.saved >= self.seconds), device=args.device)
        if args.world_size > 1:  # all processes save together, when the first one says so
            torch.distributed.broadcast(due, src=0)
        if due:
            control.should_save = True
            self.saved = time.monotonic()


class ProgressBar(TrainerCallback):
    """A progress bar over the steps, with the loss and the accuracies of the last epoch; above it,
    `begins` in a line."""

    def __init__(self, begins: str, dev_names: list[str]) -> None:
        self.begins, self.dev_names = begins, dev_names
        self.bar: tqdm[Any] | None = None
        self.facts: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, control
        if state.is_world_process_zero:
            print(self.begins, file=sys.stderr)
            patience = 0.5 if sys.stderr.isatty() else 30.0
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                unit="step",
                mininterval=patience,
                desc="training",
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, control
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        del args, state, control
        if self.bar is None or not logs:
            return
        if "loss" in logs:
            self.facts["loss"] = f"{float(logs['loss']):.3f}"
        for i, name in enumerate(["train", *self.dev_names]):
            key = f"eval_{'train' if i == 0 else f'dev{i - 1}'}_accuracy"
            if key in logs:
                self.facts[name] = f"{100 * logs[key]:.2f}%"
                self.bar.write(
                    f"epoch {logs['epoch']:.0f}: accuracy on {name} {self.facts[name]}",
                    file=sys.stderr,
                )
        self.bar.set_postfix(self.facts, refresh=False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, state, control
        if self.bar is not None:
            self.bar.close()
