"""Measures a finished run on labelled texts: accuracy with its interval, confusion matrix, loss and
calibration error, in float32 and with the attention that it was trained with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import log_softmax
from transformers import DistilBertForSequenceClassification

from training.batches import Encodings
from training.config import DataRecord, RunRecord
from training.data import LabelledTexts
from training.finetune import encode
from training.logits import logits_of
from training.model import label_names_of, load_checkpoint
from training.statistics import Interval, expected_calibration_error, wilson_interval

_WIDEST = 8  # labels whose confusion matrix a terminal has room for


@dataclass(frozen=True)
class Evaluation:
    """What one data set says of one run. `confusion[i][j]` counts texts of label i called j."""

    data: DataRecord
    label_names: tuple[str, ...]
    accuracy: float
    interval: Interval  # Wilson, 95 %
    loss: float  # mean cross-entropy, in nats
    calibration_error: float  # ECE, 15 bins
    confusion: tuple[tuple[int, ...], ...]
    truncated: int  # texts that the model could not read to their end


def evaluate_run(run: Path, sources: Sequence[str], *, split: str) -> list[Evaluation]:
    """Measures the finished run in `run` on each of `sources`.

    Raises RunError where `run` is not finished, DataError where a source cannot be read.
    """
    record = RunRecord.load(run)
    sets = record.read(sources, split)
    model, tokenizer, _ = load_checkpoint(run)
    limit = model.config.max_position_embeddings
    return [evaluate(model, texts, encode(texts, tokenizer, limit), limit) for texts in sets]


def evaluate(
    model: DistilBertForSequenceClassification,
    texts: LabelledTexts,
    encodings: Encodings,
    limit: int,
) -> Evaluation:
    """Measures `model` on `encodings`, the tokenised `texts`."""
    logits = logits_of(model, encodings, progress=texts.name)
    labels = np.asarray(encodings.labels)
    log_probabilities = log_softmax(logits, axis=1)
    predicted = logits.argmax(axis=1)
    confusion = np.zeros((logits.shape[1], logits.shape[1]), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    correct = int((predicted == labels).sum())
    return Evaluation(
        data=DataRecord(texts.name, len(texts), texts.sha256),
        label_names=label_names_of(model),
        accuracy=correct / len(texts),
        interval=wilson_interval(correct, len(texts)),
        loss=float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        calibration_error=expected_calibration_error(np.exp(log_probabilities), labels),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        truncated=sum(length >= limit for length in encodings.lengths),
    )


def print_report(evaluations: Sequence[Evaluation], *, as_json: bool) -> None:
    """Prints a table a data set, or JSON."""
    if as_json:
        print(json.dumps([asdict(evaluation) for evaluation in evaluations], indent=2))
        return
    console = Console(markup=False, emoji=False)
    for found in evaluations:
        console.print(_table(found))
        low, high = 100 * found.interval.low, 100 * found.interval.high
        console.print(
            f"accuracy {100 * found.accuracy:.2f} % (95 % interval {low:.2f} to {high:.2f}), "
            f"loss {found.loss:.4f}, calibration error {found.calibration_error:.4f}"
        )
        if found.truncated:
            console.print(f"{found.truncated} texts reach the model's limit and may be cut off")
        console.print()


def _table(found: Evaluation) -> Table:
    """The confusion matrix, or where it would be too wide what is told right of each label."""
    names = found.label_names
    table = Table(title=f"{found.data.name} (n = {found.data.rows})", title_justify="left")
    table.add_column("labelled")
    if len(names) <= _WIDEST:
        for name in names:
            table.add_column(f"called {name}", justify="right")
        for name, row in zip(names, found.confusion, strict=True):
            table.add_row(name, *map(str, row))
        return table
    for heading in ("texts", "called so", "most of the others called"):
        table.add_column(heading, justify="right")
    for i, row in enumerate(found.confusion):
        count, other = max((n, j) for j, n in enumerate(row) if j != i)
        mistaken = f"{count} {names[other]}" if count else ""
        table.add_row(names[i], str(sum(row)), str(row[i]), mistaken)
    return table
