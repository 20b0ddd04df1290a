"""Sparsity phased in: a fine-tuning begins with every link, and ends with the pattern's share.

    trainer.add_callback(PhaseIn(model, AttentionPattern("topk", density=0.2), share=0.5))

The share of kept links falls linearly over the first steps. (Zhu and Gupta, arXiv 1710.01878, let
the sparsity of weights rise so, with a cubic slope.) It follows from the number of the step alone,
so a run that is resumed goes on where it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from training.attention.registry import set_attention
from training.errors import TrainingError
from training.pattern import AttentionPattern


class PhaseIn(TrainerCallback):
    """Sets the density of `model` before each step: 1 at the first, that of `pattern` after `share`
    of the steps and in the end.

    Raises TrainingError where the pattern has no density.
    """

    def __init__(self, model: PreTrainedModel, pattern: AttentionPattern, share: float) -> None:
        if pattern.density is None:
            raise TrainingError(
                f"only a density can be phased in, and {pattern} has none: give --density, or "
                "leave out --phase-in"
            )
        self._config, self._pattern, self._share = model.config, pattern, share

    def pattern(self, done: float) -> AttentionPattern:
        """The pattern after the share `done` of the steps."""
        assert self._pattern.density is not None
        left = max(0.0, 1 - done / self._share)
        density = self._pattern.density + left * (1 - self._pattern.density)
        return replace(self._pattern, density=density) if left else self._pattern

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, control
        self._use(self.pattern(state.global_step / state.max_steps))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, state, control
        self._use(self._pattern)

    def _use(self, pattern: AttentionPattern) -> None:
        set_attention(self._config, pattern)
