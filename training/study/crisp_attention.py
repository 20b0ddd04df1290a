"""The study of the Crisp Attention paper (arXiv 2508.06016): does top-k attention in fine-tuning
raise accuracy, and is it the choice of links?

A run is one fine-tuning by `training.finetune`, of one pattern, share of the data and seed; it
leaves its learning curves, what it makes of each held-out text, and its gap between training and
held-out data. A dense run is also measured with its attention made sparse at inference only.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax
from transformers import (
    DistilBertForSequenceClassification,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.attention.registry import attention_of, set_attention
from training.batches import Encodings
from training.config import RUN_FILE, TrainingSettings
from training.data import LabelledTexts, distinct, read_examples
from training.errors import RunError
from training.files import write_atomically
from training.finetune import encode, finetune
from training.logits import logits_of
from training.machine import environment
from training.model import label_names_of, load_checkpoint
from training.pattern import AttentionPattern
from training.study.errors import StudyError
from training.study.runs import Progress, Run, write_result

STUDY = "crisp-attention"
DENSE = AttentionPattern("dense")
_FOLLOWS = {
    "inference": "--sparsity, --k and --control: a dense run is measured with each sparse pattern "
    "that is asked for beside it"
}
_GAP_TEXTS = 2000  # training texts, at most, on which accuracy and loss are measured in the end


@dataclass(frozen=True)
class TuningSettings:
    """What decides the outcome of a run."""

    data: str
    dev: tuple[str, ...]
    seed: int
    attention: AttentionPattern = DENSE
    fraction: float = 1.0  # of the training texts, drawn anew for each seed, the classes in balance
    base: str = "minilm"
    epochs: int = 3
    learning_rate: float = 5e-5
    batch_size: int = 32
    max_tokens: int = 256
    attention_dropout: float = 0.1
    phase_in: float = 0.0  # share of the steps
    inference: tuple[AttentionPattern, ...] = ()  # patterns to measure the trained model with too
    keep_weights: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise StudyError(f"a fraction must lie in (0, 1], got {self.fraction}")
        if not self.dev:
            raise StudyError("expected held-out texts: name a file with --dev")

    @property
    def name(self) -> str:
        usual = TuningSettings
        same_dropout = self.attention_dropout == usual.attention_dropout
        dropout = "" if same_dropout else f"-dropout{self.attention_dropout:g}"
        phased = f"-phased{self.phase_in:g}" if self.phase_in else ""
        epochs = "" if self.epochs == usual.epochs else f"-{self.epochs}epochs"
        rate = "" if self.learning_rate == usual.learning_rate else f"-rate{self.learning_rate:g}"
        trained = f"{label(self.attention)}{dropout}{phased}{epochs}{rate}"
        return f"{Path(self.data).stem}_{trained}_fraction{self.fraction:g}_seed{self.seed}"

    def run(self) -> Run:
        values = asdict(self) | {
            "attention": self.attention.to_dict(),
            "inference": [pattern.to_dict() for pattern in self.inference],
        }
        return Run(STUDY, self.name, values, self.fraction * self.epochs, follows=_FOLLOWS)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TuningSettings:
        patterns = tuple(AttentionPattern.from_dict(each) for each in values["inference"])
        attention = AttentionPattern.from_dict(values["attention"])
        return cls(
            **values | {"dev": tuple(values["dev"]), "attention": attention, "inference": patterns}
        )


def label(pattern: AttentionPattern) -> str:
    """A pattern in a file name: topk-0.2, band-5."""
    numbers = [str(value) for key, value in pattern.to_dict().items() if key != "name"]
    return "-".join([pattern.name, *numbers])


def sparse_patterns(sparsities: Sequence[float]) -> list[AttentionPattern]:
    """The top-k pattern of each sparsity, dense for 0. Raises StudyError outside [0, 1)."""
    found = []
    for sparsity in sparsities:
        if not 0 <= sparsity < 1:
            raise StudyError(f"a sparsity must lie in [0, 1), got {sparsity}")
        # 1 - 0.8 in floats is not 0.2.
        density = round(1 - sparsity, 6)
        found.append(DENSE if sparsity == 0 else AttentionPattern("topk", density=density))
    return found


def band_of_density(density: float, lengths: Sequence[int]) -> AttentionPattern:
    """The band whose share of the links of texts of such lengths is nearest to `density`."""
    tokens = np.asarray(lengths, dtype=np.int64)

    def share(window: int) -> float:
        half = window // 2
        reach = np.minimum(half, tokens - 1)  # Σ over rows of the keys within `half`
        links = tokens * (2 * reach + 1) - reach * (reach + 1)
        return float(links.sum() / (tokens**2).sum())

    windows = range(1, 2 * int(tokens.max()), 2)
    return AttentionPattern("band", window=min(windows, key=lambda w: abs(share(w) - density)))


def execute(folder: Path, values: dict[str, Any]) -> None:
    """Carries out the run in `folder`, from its last checkpoint on."""
    settings = TuningSettings.from_dict(values)
    started = time.monotonic()
    run = folder / "run"
    train = _subset(settings)
    file = folder / "train.jsonl"
    rows = [{"text": e.text, "label": train.label_names[e.label]} for e in train.examples]
    write_atomically(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    asked = TrainingSettings(
        data=(str(file),),
        dev=settings.dev,
        base=settings.base,
        attention=settings.attention,
        epochs=settings.epochs,
        seed=settings.seed,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        max_tokens=settings.max_tokens,
        attention_dropout=settings.attention_dropout,
        phase_in=settings.phase_in,
    )
    if not (run / RUN_FILE).is_file():
        finetune(asked, run, callbacks=[_Steps(Progress(folder))])
    history = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["history"]
    model, tokenizer, _ = load_checkpoint(run)
    limit = min(settings.max_tokens, model.config.max_position_embeddings)
    names = label_names_of(model)
    dev = distinct(read_examples(s, split="validation", label_names=names) for s in settings.dev)
    encoded = {texts.name: encode(texts, tokenizer, limit) for texts in dev}
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:_GAP_TEXTS]).tolist()
    some = replace(train, examples=tuple(train.examples[i] for i in chosen))
    found = {
        "texts": len(train),
        "history": history,
        "train": _measure(model, encode(some, tokenizer, limit)),
        "dev": {name: _measure(model, texts) for name, texts in encoded.items()},
        "inference": {
            str(pattern): {name: _measure(model, texts, pattern) for name, texts in encoded.items()}
            for pattern in settings.inference
        },
        "seconds": round(time.monotonic() - started, 1),
        "environment": environment(),
    }
    write_result(folder, values, found)
    file.unlink()
    if not settings.keep_weights:
        shutil.rmtree(run)


def _subset(settings: TuningSettings) -> LabelledTexts:
    """The run's share of the training texts, in their order."""
    texts = read_examples(settings.data)
    if settings.fraction == 1:
        return texts
    labels = np.array([example.label for example in texts.examples])
    random = np.random.default_rng(settings.seed)
    chosen: list[int] = []
    for each in range(len(texts.label_names)):
        rows = random.permutation(np.flatnonzero(labels == each))
        chosen += rows[: max(1, round(settings.fraction * len(rows)))].tolist()
    return replace(texts, examples=tuple(texts.examples[i] for i in sorted(chosen)))


def _measure(
    model: DistilBertForSequenceClassification,
    texts: Encodings,
    pattern: AttentionPattern | None = None,
) -> dict[str, Any]:
    """Accuracy, loss, and whether each text is told right, as a string of 0 and 1."""
    trained = attention_of(model.config)
    set_attention(model.config, pattern or trained)
    logits = logits_of(model, texts)
    set_attention(model.config, trained)
    labels = np.asarray(texts.labels)
    right = logits.argmax(axis=1) == labels
    losses = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    if not np.isfinite(losses).all():
        raise RunError("the run has diverged: its loss is not finite; lower the learning rate")
    return {
        "accuracy": round(float(right.mean()), 6),
        "loss": round(float(losses.mean()), 6),
        "right": "".join("01"[int(each)] for each in right),
    }


class _Steps(TrainerCallback):
    """Tells the study how far its training is."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, control
        self.progress.reach(state.global_step / max(1, state.max_steps))
