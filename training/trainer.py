"""transformers' Trainer with our batches, and with a teacher where there is one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from training.batches import BucketLoader, Encodings, LengthBuckets, pad
from training.config import TrainingSettings
from training.distillation import distillation_loss, states_loss


class BucketTrainer(Trainer):
    """Trainer with length-bucketed batches, whose shares for each process we make ourselves.

    `teacher`, where given, is a frozen classifier whose logits the model learns beside the labels,
    and its hidden states where the settings ask for that; evaluation is by the labels alone.
    """

    settings: TrainingSettings
    teacher: nn.Module | None = None

    def get_train_dataloader(self) -> BucketLoader:
        assert isinstance(self.train_dataset, Encodings)
        buckets = LengthBuckets(
            self.train_dataset.lengths,
            batch_size=self.settings.batch_size,
            batch_tokens=self.settings.batch_tokens,
            seed=self.settings.seed,
            rank=self.args.process_index,
            world=self.args.world_size,
        )
        return BucketLoader(self.train_dataset, batch_sampler=buckets, collate_fn=pad)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if self.teacher is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        texts = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        states = self.settings.teacher_states
        with torch.no_grad():
            expected = self.teacher.to(labels.device)(**texts, output_hidden_states=states)
        outputs = model(**texts, output_hidden_states=states)
        loss = distillation_loss(outputs.logits, expected.logits, labels)
        if states:  # the first are the embeddings
            pair = outputs.hidden_states[1:], expected.hidden_states[1:]
            loss = loss + states_loss(*pair, texts["attention_mask"])
        return (loss, outputs) if return_outputs else loss
