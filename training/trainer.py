"""transformers' Trainer with our batches, and with what teachers say where there are any."""

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

    Where the training texts say what is `expected` of them, the model learns those logits beside
    the labels; where `teacher`, a frozen classifier, is given, its logits and hidden states.
    Evaluation is by the labels alone.
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
        expected = inputs.pop("expected", None)
        if not model.training or (expected is None and self.teacher is None):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        texts = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        outputs = model(**texts, output_hidden_states=self.teacher is not None)
        if self.teacher is None:
            loss = distillation_loss(outputs.logits, expected, labels)
        else:
            with torch.no_grad():
                theirs = self.teacher.to(labels.device)(**texts, output_hidden_states=True)
            pair = outputs.hidden_states[1:], theirs.hidden_states[1:]  # the first are embeddings
            loss = distillation_loss(outputs.logits, theirs.logits, labels)
            loss = loss + states_loss(*pair, texts["attention_mask"])
        return (loss, outputs) if return_outputs else loss
