"""Fine-tunes a classifier through transformers' Trainer, resumably, into a run folder.

    finetune(TrainingSettings(data=("train.tsv",), attention=AttentionPattern("topk", density=0.2)),
             Path("runs/sparse"))

The folder gets its weights, tokenizer and config at the end, and `run.json` last of all: a folder
with `run.json` is finished. Until then `checkpoints/` holds what is needed to go on after a kill.
Spread over processes with `torchrun --nproc-per-node 2 -m crisp train ...`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DistilBertForSequenceClassification,
    EvalPrediction,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention

from training.averaging import AVERAGE_FILE, WeightAverage
from training.batches import Encodings, pad
from training.callbacks import CheckpointByTime, ProgressBar
from training.config import RunRecord, TrainingSettings
from training.data import LabelledTexts
from training.distillation import check_states
from training.errors import RunError
from training.memory import keep_freed_memory
from training.model import fastest_precision, load_base
from training.phase_in import PhaseIn
from training.run_data import load_data, records_of
from training.run_folder import (
    SETTINGS_FILE,
    alone,
    begin,
    content_of,
    full_disk_is_said,
    is_first_process,
    refuse_if_taken,
    save_run,
)
from training.teachers import load_teacher, mean_logits
from training.trainer import BucketTrainer

CHECKPOINTS = "checkpoints"
TRAIN_SAMPLE = 1000  # training texts on which the accuracy after each epoch is measured
_PACKAGES = ("torch", "transformers", "accelerate", "numpy")


def finetune(
    settings: TrainingSettings,
    out: Path,
    *,
    save_minutes: float = 2.0,
    callbacks: Sequence[TrainerCallback] = (),
) -> RunRecord:
    """Runs `settings` to the end, from the last checkpoint in `out` where there is one.

    `callbacks` are told of every step besides.

    Raises TrainingError (DataError, BaseModelError, RunError) before any long work begins.
    """
    refuse_if_taken(out, settings)
    train, dev, dropped = load_data(settings)
    noted = content_of([*train, *dev])
    refuse_if_taken(out, settings, noted)
    model, tokenizer = load_base(
        settings.base,
        train[0].label_names,
        settings.attention,
        settings.pruning,
        seed=settings.seed,
    )
    teacher = None
    if settings.teacher_states:
        teacher = load_teacher(Path(settings.teachers[0]), train[0].label_names, tokenizer)
        check_states(teacher, model)
    limit = min(settings.max_tokens, model.config.max_position_embeddings)
    model.config.attention_dropout = settings.attention_dropout
    for module in model.modules():
        if isinstance(module, DistilBertSelfAttention):
            module.dropout.p = settings.attention_dropout
    encoded = [encode(texts, tokenizer, limit) for texts in train]
    pool = Encodings(
        [ids for part in encoded for ids in part.input_ids],
        [label for part in encoded for label in part.labels],
    )
    if settings.teachers and teacher is None:  # else it is asked in every step anyway
        names = train[0].label_names
        pool.expected = mean_logits(settings.teachers, names, tokenizer, pool)
    evaluated = {f"dev{i}": encode(texts, tokenizer, limit).sorted() for i, texts in enumerate(dev)}
    trainer = BucketTrainer(
        model=model,
        args=_arguments(settings, out),
        train_dataset=pool,
        eval_dataset={"train": _sample(pool, settings.seed)} | evaluated,
        data_collator=pad,
        compute_metrics=_accuracy,
        callbacks=[CheckpointByTime(save_minutes), *callbacks],
    )
    trainer.settings, trainer.teacher = settings, teacher
    if is_first_process():
        begin(out, settings, noted)
    with alone(out), full_disk_is_said(out):
        return _train(trainer, model, tokenizer, out, train, dev, dropped)


def _train(
    trainer: BucketTrainer,
    model: DistilBertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    train: Sequence[LabelledTexts],
    dev: Sequence[LabelledTexts],
    dropped: int,
) -> RunRecord:
    """Runs `trainer` to the end and saves the run. Raises RunError where it diverges."""
    settings = trainer.settings
    averages = settings.average_from < 1
    checkpoint = last_checkpoint(out / CHECKPOINTS, averages=averages)
    if settings.phase_in:
        trainer.add_callback(PhaseIn(model, settings.attention, settings.phase_in))
    if averages:
        trainer.add_callback(WeightAverage(model, settings.average_from, checkpoint))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressBar(_in_words(train, dropped), [texts.name for texts in dev]))
    keep_freed_memory()
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=checkpoint)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise RunError(
            f"the training diverged: weights are no numbers any more. Remove {out}, and try a "
            f"smaller --learning-rate than {settings.learning_rate:g}"
        )
    if averages:
        trainer.evaluate()  # of the mean; it takes the place of the last step's in the history
    record = RunRecord(
        settings=settings,
        label_names=train[0].label_names,
        data=records_of(train),
        dev=records_of(dev),
        dropped_overlap=dropped,
        history=_history(trainer.state, [texts.name for texts in dev]),
        processes=trainer.args.world_size,
        seconds=round(time.monotonic() - started, 1),
        versions={name: version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
    )
    if trainer.is_world_process_zero():
        save_run(out, trainer.accelerator.unwrap_model(trainer.model), tokenizer, record)
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        (out / SETTINGS_FILE).unlink(missing_ok=True)
    return record


def _in_words(train: Sequence[LabelledTexts], dropped: int) -> str:
    """How many texts of which label there are to train on."""
    labels = Counter(example.label for texts in train for example in texts.examples)
    names = train[0].label_names
    counts = ", ".join(f"{name} {labels[i]:,}" for i, name in enumerate(names))
    less = f"; {dropped:,} more are left out, which are held out too" if dropped else ""
    return f"{labels.total():,} texts to train on: {counts}{less}"


def encode(texts: LabelledTexts, tokenizer: PreTrainedTokenizerFast, limit: int) -> Encodings:
    """Token ids with [CLS] and [SEP], cut to `limit` tokens."""
    batch = tokenizer([e.text for e in texts.examples], truncation=True, max_length=limit)
    tokenizer.backend_tokenizer.no_truncation()  # it would be saved with the run
    return Encodings(batch["input_ids"], [e.label for e in texts.examples])


def last_checkpoint(folder: Path, *, averages: bool = False) -> str | None:
    """The newest checkpoint that was written to its end, if any.

    Trainer writes trainer_state.json after everything else of a checkpoint; where the run
    `averages`, the mean of the weights comes after it.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    for checkpoint in reversed(found):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        if averages and not (checkpoint / AVERAGE_FILE).exists():
            continue
        return str(checkpoint)
    return None


def _arguments(settings: TrainingSettings, out: Path) -> TrainingArguments:
    gpu = torch.cuda.is_available()
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1  # as torchrun says
    precision = settings.precision
    if precision == "auto":
        precision = fastest_precision("cuda" if gpu else "cpu")
    return TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        per_device_eval_batch_size=32,
        bf16=precision == "bf16",
        use_cpu=not gpu,
        ddp_backend="gloo" if distributed and not gpu else None,
        seed=settings.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        ddp_find_unused_parameters=False,
    )


def _sample(pool: Encodings, seed: int) -> Encodings:
    """A fixed part of the training texts, on which each epoch's training accuracy is measured."""
    order = np.random.default_rng(seed).permutation(len(pool))[:TRAIN_SAMPLE]
    return pool.sorted(order.tolist())


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    logits = prediction.predictions
    return {"accuracy": float((np.argmax(logits, axis=-1) == prediction.label_ids).mean())}


def _history(state: TrainerState, dev_names: list[str]) -> tuple[dict[str, Any], ...]:
    """Accuracy and loss after each epoch, from Trainer's log."""
    names = {"train": f"train (sample of at most {TRAIN_SAMPLE})"}
    names |= {f"dev{i}": name for i, name in enumerate(dev_names)}
    epochs: dict[int, dict[str, Any]] = {}
    for entry in state.log_history:
        for key, name in names.items():
            if f"eval_{key}_accuracy" in entry:
                epoch = epochs.setdefault(round(entry["epoch"]), {"epoch": round(entry["epoch"])})
                epoch[name] = {
                    "accuracy": entry[f"eval_{key}_accuracy"],
                    "loss": entry[f"eval_{key}_loss"],
                }
    return tuple(epochs[epoch] for epoch in sorted(epochs))
