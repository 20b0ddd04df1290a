"""The same weights in torch, fp32, with its scaled-dot-product attention: a checkpoint as it is run
without any export. OpenMP's threads spin for some time after each run, which takes a core from who
runs next: the others are measured more truly without this peer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DistilBertForSequenceClassification

from export.bench.baseline import padded, reference_logits
from export.bench.measure import Contender
from export.bench.memory import score_bytes
from export.bench.workloads import Batch

NAME = "torch sdpa fp32"


def torch_entry(
    model: DistilBertForSequenceClassification, *, threads: int
) -> tuple[Contender, dict[str, Any]]:
    """torch on `threads` threads, which holds for the whole process, and its facts."""
    torch.set_num_threads(threads)
    sequences, expected = reference_logits(model)
    fused = copy.deepcopy(model).eval()
    fused.set_attn_implementation("sdpa")

    def prepare(batch: Batch) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in padded(batch).items()}

    def run(inputs: dict[str, torch.Tensor]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = fused(**inputs).logits.numpy()
        return logits

    heads = model.config.n_heads
    facts = {
        "kind": "peer",
        "attention": {"name": "dense"},
        "precision": "fp32",
        "torch": torch.__version__,
        "largest_difference_from_torch": float(np.abs(run(prepare(sequences)) - expected).max()),
    }
    return Contender(NAME, prepare, run, needs=lambda batch: score_bytes(batch, heads)), facts
