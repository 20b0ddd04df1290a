"""The mean of the weights over the last part of a training, kept through kills.

Averaging weights along one run's trajectory finds flatter, usually better, solutions than its last
step: Izmailov et al. 2018, arXiv 1803.05407 (here with the ordinary, falling learning rate). The
mean itself is torch's AveragedModel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.files import whole_or_not_at_all

AVERAGE_FILE = "average.pt"  # in a checkpoint's folder, which holds torch files anyway
STEPS_BETWEEN = 10


class WeightAverage(TrainerCallback):
    """Averages the weights every STEPS_BETWEEN steps from the share `start` of the training on, the
    last step included, and leaves the mean in the model at the end."""

    def __init__(self, model: PreTrainedModel, start: float, resumed: str | None) -> None:
        self.model, self.start = model, start
        self.average = AveragedModel(model)
        if resumed is not None:
            self.average.load_state_dict(torch.load(Path(resumed, AVERAGE_FILE), weights_only=True))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, control
        left = state.max_steps - state.global_step
        if state.global_step >= self.start * state.max_steps and left % STEPS_BETWEEN == 0:
            self.average.update_parameters(self.model)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del control
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir), f"checkpoint-{state.global_step}")
            with whole_or_not_at_all(folder / AVERAGE_FILE) as temporary:
                torch.save(self.average.state_dict(), temporary)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, state, control
        self.model.load_state_dict(self.average.module.state_dict())
