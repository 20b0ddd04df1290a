"""Finished runs that teach another: what they say of its training texts, computed once.

    expected = mean_logits(["runs/a", "runs/b"], ("negative", "positive"), tokenizer, encodings)

Several are an ensemble, whose say is the mean of their logits: the geometric mean of their
probabilities, as in Hinton et al. 2015, arXiv 1503.02531, section 2. What a teacher says of a text
does not change with the epoch, nor with the student: it is kept in the teacher's folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import DistilBertForSequenceClassification, PreTrainedTokenizerFast

from training.batches import Encodings
from training.errors import RunError
from training.files import whole_or_not_at_all
from training.logits import logits_of
from training.model import fastest_precision, label_names_of, load_checkpoint

_FOLDER = "logits"


def load_teacher(
    run: Path, label_names: Sequence[str], tokenizer: PreTrainedTokenizerFast
) -> DistilBertForSequenceClassification:
    """The model of a finished run, frozen, in evaluation mode.

    Raises RunError where there is none, or it has other labels or another vocabulary than the
    student, whose token ids it will get.
    """
    teacher, its_tokenizer, _ = load_checkpoint(run)
    if label_names_of(teacher) != tuple(label_names):
        raise RunError(
            f"teacher {run} tells {', '.join(label_names_of(teacher))} apart, the data have the "
            f"labels {', '.join(label_names)}"
        )
    if its_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise RunError(f"teacher {run} has another vocabulary than the base; give another --base")
    return teacher.requires_grad_(False)


def mean_logits(
    runs: Sequence[str],
    label_names: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    encodings: Encodings,
) -> NDArray[np.float32]:
    """The mean over `runs` of their logits for each text, float32 [N, C].

    Raises RunError where one of them cannot teach a student with these labels and this tokenizer.
    """
    teachers = [load_teacher(Path(run), label_names, tokenizer) for run in runs]
    logits = [
        _kept(Path(run), teacher, encodings) for run, teacher in zip(runs, teachers, strict=True)
    ]
    mean: NDArray[np.float32] = np.mean(logits, axis=0)
    return mean


def _kept(
    run: Path, teacher: DistilBertForSequenceClassification, encodings: Encodings
) -> NDArray[np.float32]:
    """The logits [N, C] that are kept in the folder `run`, or those that are computed and kept."""
    read = hashlib.sha256()
    for ids in encodings.input_ids:
        read.update(np.asarray((len(ids), *ids), "<i4").tobytes())
    file = run / _FOLDER / f"{read.hexdigest()[:32]}.npy"
    if file.is_file():
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return kept
    logits = _logits(teacher, encodings, str(run))
    try:
        file.parent.mkdir(exist_ok=True)
        with whole_or_not_at_all(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, logits)
    except OSError:  # a folder that is not ours, or a full disk: it is only slower next time
        pass
    return logits


def _logits(
    teacher: DistilBertForSequenceClassification, encodings: Encodings, name: str
) -> NDArray[np.float32]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module: nn.Module = teacher
    module.to(device)
    with torch.autocast(device, torch.bfloat16, enabled=fastest_precision(device) == "bf16"):
        return logits_of(teacher, encodings, progress=f"asking {name}").astype(np.float32)
