"""What a training run is asked to do, and the record it leaves: `run.json` beside its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from training.data import LabelledTexts, distinct, read_examples
from training.errors import RunError, TrainingError
from training.files import write_atomically
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

RUN_FILE = "run.json"

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides the outcome of a run. Raises TrainingError for senseless values."""

    data: tuple[str, ...]  # training files or hub names
    dev: tuple[str, ...] = ()  # held-out files; none: the hub's validation split, or 5 % of data
    base: str = "minilm"  # minilm, a hub name, or a folder
    attention: AttentionPattern = field(default_factory=AttentionPattern)
    phase_in: float = 0.0  # share of the steps over which links go down to the attention's density
    pruning: TokenPruning | None = None  # which tokens each layer passes on; none: all
    teachers: tuple[str, ...] = ()  # folders of finished runs, whose logits are learned too
    teacher_states: bool = False  # and the hidden states of the one teacher
    feed_forward: tuple[int, ...] | None = None  # `crisp narrow`: widths by layer; none: the base's
    epochs: int = 3
    seed: int = 0
    learning_rate: float = 5e-5  # peak; linear warm-up, then linear decay to 0
    warmup: float = 0.06  # share of the steps
    weight_decay: float = 0.01
    batch_size: int = 32  # examples at most
    batch_tokens: int = 8192  # padded tokens at most, over all examples of a batch
    max_tokens: int = 512  # of a text; the rest is cut off
    attention_dropout: float = 0.1
    average_from: float = 1.0  # share of the steps from which on the weights are averaged; 1: not
    precision: Precision = "auto"  # auto: bf16 where the processor multiplies it in hardware
    text_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        if self.teacher_states and len(self.teachers) != 1:
            raise TrainingError("--teacher-states needs one --teacher, whose states they are")
        if not self.data:
            raise TrainingError("no training data: name a file or hub data set with --data")
        for name in ("epochs", "batch_size", "batch_tokens"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_tokens < 3:
            raise TrainingError(f"max_tokens must be at least 3, got {self.max_tokens}")
        if self.batch_tokens < self.max_tokens:
            raise TrainingError(
                f"batch_tokens ({self.batch_tokens}) must hold one text of max_tokens "
                f"({self.max_tokens})"
            )
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"seed must lie in [0, 2³²), got {self.seed}")
        for name in ("warmup", "attention_dropout", "phase_in"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.average_from <= 1:
            raise TrainingError(f"average_from must lie in [0, 1], got {self.average_from}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise TrainingError(f"precision must be auto, fp32 or bf16, got {self.precision!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "attention": self.attention.to_dict(),
            "pruning": None if self.pruning is None else self.pruning.to_dict(),
            "feed_forward": None if self.feed_forward is None else list(self.feed_forward),
            "teachers": list(self.teachers),
            "data": list(self.data),
            "dev": list(self.dev),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingSettings:
        known = {f.name for f in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        one = values.get("teacher")  # as runs were recorded while there was one at most
        kept["teachers"] = tuple(values.get("teachers", () if one is None else (one,)))
        kept["attention"] = AttentionPattern.from_dict(values["attention"])
        if kept.get("pruning") is not None:
            kept["pruning"] = TokenPruning.from_dict(kept["pruning"])
        if kept.get("feed_forward") is not None:
            kept["feed_forward"] = tuple(kept["feed_forward"])
        return cls(**kept | {"data": tuple(values["data"]), "dev": tuple(values["dev"])})


@dataclass(frozen=True)
class DataRecord:
    """A data set that a run read: its name, number of examples used, and sha256."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class RunRecord:
    """A finished run: what was asked, what was read, and what came out epoch by epoch."""

    settings: TrainingSettings
    label_names: tuple[str, ...]
    data: tuple[DataRecord, ...]
    dev: tuple[DataRecord, ...]
    dropped_overlap: int  # training texts dropped because they also stand in a dev set
    history: tuple[dict[str, Any], ...]  # one entry an epoch: accuracy and loss on train and dev
    processes: int
    seconds: float  # wall time of the training loop (of its last part, where it was resumed)
    versions: dict[str, str]

    def read(self, sources: Sequence[str], split: str) -> list[LabelledTexts]:
        """Labelled texts as the run reads them: its labels, its columns. Raises DataError."""
        return distinct(
            read_examples(
                source,
                split=split,
                label_names=self.label_names,
                text_column=self.settings.text_column,
                label_column=self.settings.label_column,
            )
            for source in sources
        )

    def save(self, folder: Path) -> None:
        values = asdict(self) | {"settings": self.settings.to_dict()}
        write_atomically(folder / RUN_FILE, json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Raises RunError where `folder` holds no finished run."""
        file = folder / RUN_FILE
        if not file.is_file():
            raise RunError(
                f"{folder} holds no finished run (no {RUN_FILE}); make one with `crisp train`, "
                "or give the same `crisp train` command again to finish it"
            )
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            return cls(
                settings=TrainingSettings.from_dict(values["settings"]),
                label_names=tuple(values["label_names"]),
                data=tuple(DataRecord(**entry) for entry in values["data"]),
                dev=tuple(DataRecord(**entry) for entry in values["dev"]),
                dropped_overlap=values["dropped_overlap"],
                history=tuple(values["history"]),
                processes=values["processes"],
                seconds=values["seconds"],
                versions=values["versions"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file} is not a run record of this version: {error!r}") from None
