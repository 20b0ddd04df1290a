"""The data sets of a run: read, held out, and without what stands on both sides.

train, dev, dropped = load_data(settings)
held_out = held_out_texts(RunRecord.load(run))   # what the finished run was measured on
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.config import DataRecord, RunRecord, TrainingSettings
from training.data import (
    FILE_TYPES,
    LabelledTexts,
    distinct,
    read_examples,
    require_several_classes,
    without_overlap,
)
from training.errors import DataError

# Of every run, whatever its own: one that starts from another run, or is taught by it, must not be
# measured on texts that the other was trained on.
_SPLIT_SEED = 0


def load_data(
    settings: TrainingSettings,
) -> tuple[list[LabelledTexts], list[LabelledTexts], int]:
    """The training sets, the held-out sets, and how many training texts were dropped because they
    also stand in a held-out set."""
    read = functools.partial(
        read_examples, text_column=settings.text_column, label_column=settings.label_column
    )
    train = [read(source) for source in settings.data]
    # A rare label may be missing in some of the sets: names are those of the set that has the most.
    names = max((texts.label_names for texts in train), key=len)
    train = [
        texts if texts.label_names == names else read(source, label_names=names)
        for source, texts in zip(settings.data, train, strict=True)
    ]
    dev = distinct(
        read(source, split="validation", label_names=names) for source in _held_out_sets(settings)
    )
    train = distinct(train)
    if not dev:
        train, dev = _hold_out(train)
    cleaned = [without_overlap(texts, dev) for texts in train]
    for texts, dropped in cleaned:
        if len(texts) < 2:
            also = f": {dropped} of them are held out, too" if dropped else ""
            raise DataError(f"{texts.name}: fewer than two texts are left to train on{also}")
    left = [texts for texts, _ in cleaned]
    require_several_classes(left)
    return left, dev, sum(dropped for _, dropped in cleaned)


def held_out_texts(record: RunRecord) -> list[LabelledTexts]:
    """The sets that a finished run was measured on.

    Raises DataError where they cannot be read, or are part of training data that has changed.
    """
    settings = record.settings
    sets = _held_out_sets(settings)
    try:
        if sets:
            return record.read(sets, "validation")
        _, dev = _hold_out(record.read(settings.data, "train"))
    except DataError as error:
        raise DataError(
            f"the run's held-out texts cannot be read any more: {error}. Name labelled texts with "
            "--data"
        ) from None
    if records_of(dev) != record.dev:
        raise DataError(
            f"the texts that the run was measured on are not the 5 % of {', '.join(settings.data)} "
            "that would be held out now: the data has changed, or an earlier version of crisp "
            "chose them; name labelled texts with --data"
        )
    return dev


def records_of(sets: Sequence[LabelledTexts]) -> tuple[DataRecord, ...]:
    return tuple(DataRecord(texts.name, len(texts), texts.sha256) for texts in sets)


def _held_out_sets(settings: TrainingSettings) -> tuple[str, ...]:
    """What --dev names, or else the data sets of a hub, which have a validation split; none where
    5 % of the training texts are held out."""
    hub = all(Path(source).suffix.lower() not in FILE_TYPES for source in settings.data)
    return settings.dev or (settings.data if hub else ())


def _hold_out(train: Sequence[LabelledTexts]) -> tuple[list[LabelledTexts], list[LabelledTexts]]:
    """Splits 5 % (at least 1 text) off each training set: always the same."""
    rest: list[LabelledTexts] = []
    held: list[LabelledTexts] = []
    for texts in train:
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(texts))
        n = max(1, len(texts) // 20)
        for part, indices, name in (
            (held, order[:n], f"{texts.name} (fixed 5 % held out)"),
            (rest, order[n:], texts.name),
        ):
            examples = tuple(texts.examples[int(i)] for i in np.sort(indices))
            part.append(dataclasses.replace(texts, name=name, examples=examples))
    return rest, held
