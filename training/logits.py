"""What a classifier says of tokenised texts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import DistilBertForSequenceClassification

from training.batches import Encodings, batches_by_length, pad
from training.model import label_names_of

_BATCH_TOKENS = 8192


def logits_of(
    model: DistilBertForSequenceClassification, encodings: Encodings, *, progress: str | None = None
) -> NDArray[np.float64]:
    """Logits [N, C] of the tokenised texts, in their order, computed in length-sorted batches."""
    result = np.empty((len(encodings), len(label_names_of(model))))
    model.eval()
    with (
        torch.inference_mode(),
        tqdm(total=len(encodings), desc=progress, unit="text", disable=progress is None) as bar,
    ):
        for batch in batches_by_length(encodings.lengths, _BATCH_TOKENS):
            inputs = pad([encodings[i] for i in batch])
            del inputs["labels"]
            texts = {name: tensor.to(model.device) for name, tensor in inputs.items()}
            result[batch] = model(**texts).logits.double().cpu().numpy()
            bar.update(len(batch))
    return result
