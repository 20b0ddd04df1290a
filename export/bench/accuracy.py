"""Accuracy of every contender on labelled texts, beside its speed.

The engine's models bring what `crisp export` measured; for stock ONNX Runtime, for the peers, and
for data that no manifest knows, it is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from export.bench.measure import Contender
from export.bench.texts import Encode
from training.data import LabelledTexts
from training.statistics import wilson_interval

BATCH = 16  # texts, sorted by length: padding must not matter


def accuracies(
    contenders: Sequence[Contender],
    data: Sequence[LabelledTexts],
    encode: Encode,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, list[dict[str, Any]]]:
    """By contender: accuracy on each set with its 95 % Wilson interval, in the form of the facts.

    Of contenders of one name, the first: they compute the same.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    encoded = [encode([example.text for example in texts.examples]) for texts in data]
    for contender in contenders:
        if contender.name not in found:
            progress(f"measuring the accuracy of {contender.name}")
            found[contender.name] = [
                _accuracy(contender, texts, ids) for texts, ids in zip(data, encoded, strict=True)
            ]
    return found


def _accuracy(
    contender: Contender, texts: LabelledTexts, sequences: Sequence[list[int]]
) -> dict[str, Any]:
    order = sorted(range(len(texts)), key=lambda i: len(sequences[i]))
    correct = 0
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        logits = contender.run(contender.prepare([sequences[i] for i in batch]))
        labels = np.array([texts.examples[i].label for i in batch])
        correct += int((logits.argmax(axis=1) == labels).sum())
    interval = wilson_interval(correct, len(texts))
    return {
        "accuracy": correct / len(texts),
        "low": interval.low,
        "high": interval.high,
        "name": texts.name,
        "rows": len(texts),
        "sha256": texts.sha256,
        "from": "measured here",
    }
