"""What the peers' servers share: texts to padded token ids, logits to labels.

It runs in the peers' own environments, and stands on tokenizers and numpy alone. The folder of
models and the number of threads come from PEER_MODELS and PEER_THREADS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

MODELS = Path(os.environ["PEER_MODELS"])
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = int(os.environ.get("PEER_THREADS", CORES))

_facts = json.loads((MODELS / "models.json").read_text(encoding="utf-8"))
LABELS: list[str] = _facts["labels"]
MAX_TOKENS: int = _facts["max_tokens"]
_tokenizer = Tokenizer.from_file(str(MODELS / "transformers" / "tokenizer.json"))
_tokenizer.enable_truncation(MAX_TOKENS)
_tokenizer.enable_padding()  # to the longest of the batch


def pad_to_multiples_of(tokens: int) -> None:
    """From now on; for runtimes that prepare themselves for each shape that they meet."""
    _tokenizer.enable_padding(pad_to_multiple_of=tokens)


def padded(texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """`input_ids` and `attention_mask` int64 [B, S]."""
    encodings = _tokenizer.encode_batch_fast(list(texts))
    return {
        "input_ids": np.array([e.ids for e in encodings], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
    }


def predictions(logits: NDArray[np.float32]) -> list[dict[str, str | float]]:
    """The best label of each row of logits [B, C], with its softmax."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    best = scores.argmax(axis=1)
    return [
        {"label": LABELS[label], "score": float(row[label])}
        for label, row in zip(best, scores, strict=True)
    ]
