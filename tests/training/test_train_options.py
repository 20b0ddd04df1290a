"""What is asked for reaches the training: options the settings, settings the optimiser, the batches
and the model."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import sentences
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typer.testing import CliRunner

import crisp
from training import commands, finetune, trainer
from training.attention import registry
from training.batches import LengthBuckets
from training.config import RunRecord, TrainingSettings
from training.evaluate import evaluate_run
from training.pattern import AttentionPattern
from training.pruning import TokenPruning
from training.run_data import held_out_texts, load_data

# No option's own default, and no two alike.
OPTIONS: dict[str, list[str]] = {
    "--data": ["a.tsv", "b.tsv"],
    "--dev": ["c.tsv", "d.tsv"],
    "--base": ["some/base"],
    "--attention": ["blocktopk"],
    "--density": ["0.3"],
    "--size": ["48"],
    "--prune": ["0.9,0.8,0.7"],
    "--prune-floor": ["11"],
    "--teacher": ["runs/teacher"],
    "--teacher-states": [],
    "--epochs": ["7"],
    "--seed": ["5"],
    "--learning-rate": ["0.0004"],
    "--batch-size": ["13"],
    "--batch-tokens": ["1234"],
    "--max-tokens": ["123"],
    "--attention-dropout": ["0.25"],
    "--average-from": ["0.75"],
    "--phase-in": ["0.45"],
    "--precision": ["bf16"],
    "--text-column": ["words"],
    "--label-column": ["stars"],
}
ASKED = TrainingSettings(
    data=("a.tsv", "b.tsv"),
    dev=("c.tsv", "d.tsv"),
    base="some/base",
    attention=AttentionPattern("blocktopk", density=0.3, size=48),
    phase_in=0.45,
    pruning=TokenPruning.parse("0.9,0.8,0.7", 11),
    teachers=("runs/teacher",),
    teacher_states=True,
    epochs=7,
    seed=5,
    learning_rate=4e-4,
    batch_size=13,
    batch_tokens=1234,
    max_tokens=123,
    attention_dropout=0.25,
    average_from=0.75,
    precision="bf16",
    text_column="words",
    label_column="stars",
)
WITHOUT_OPTION = {"warmup", "weight_decay", "feed_forward"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainingSettings, Path]]:
    """What `crisp train` asks of `finetune`, which trains nothing."""
    seen: list[tuple[TrainingSettings, Path]] = []

    def stand_in(settings: TrainingSettings, out: Path) -> RunRecord:
        seen.append((settings, out))
        history = ({"epoch": 7, "c.tsv": {"accuracy": 0.75, "loss": 0.5}},)
        return RunRecord(settings, ("negative", "positive"), (), (), 0, history, 1, 2.0, {})

    monkeypatch.setattr(finetune, "finetune", stand_in)
    return seen


def train(options: dict[str, list[str]]) -> str:
    words = [
        word
        for name, values in options.items()
        for word in ([name] if not values else [w for value in values for w in (name, value)])
    ]
    shown = CliRunner().invoke(crisp.app, ["train", "--out", "runs/asked", *words])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_every_option_reaches_the_training(asked: list[tuple[TrainingSettings, Path]]) -> None:
    shown = train(OPTIONS)
    assert asked == [(ASKED, Path("runs/asked"))]
    assert "c.tsv: accuracy 0.7500, loss 0.5000" in shown
    # An option that comes later has to be named here, with a value of its own.
    usual = TrainingSettings(data=("x",))
    same = {f.name for f in fields(usual) if getattr(usual, f.name) == getattr(ASKED, f.name)}
    assert same == WITHOUT_OPTION
    known = {f"--{name.strip('_').replace('_', '-')}" for name in parameters()}
    assert known == {*OPTIONS, "--out", "--k", "--window", "--globals"}


def parameters() -> list[str]:
    return list(inspect.signature(commands.train).parameters)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({}, AttentionPattern("topk", density=0.2)),
        ({"--k": ["6"]}, AttentionPattern("topk", k=6)),
        (
            {"--attention": ["band"], "--window": ["9"], "--globals": ["2"]},
            AttentionPattern("band", window=9, globals=2),
        ),
    ],
)
def test_without_options_all_is_as_usual(
    asked: list[tuple[TrainingSettings, Path]],
    options: dict[str, list[str]],
    pattern: AttentionPattern,
) -> None:
    train({"--data": ["a.tsv"]} | options)
    assert asked == [
        (TrainingSettings(data=("a.tsv",), attention=pattern), Path("runs/asked")),
    ]


def test_a_batch_holds_a_text_of_the_most_tokens(
    asked: list[tuple[TrainingSettings, Path]],
) -> None:
    train({"--data": ["a.tsv"], "--max-tokens": ["600"], "--batch-tokens": ["500"]})
    assert (asked[0][0].batch_tokens, asked[0][0].max_tokens) == (600, 600)


def stars_tsv(file: Path, n: int, seed: int) -> Path:
    """Texts of two and of five stars, in columns of no usual name; `text` and `label` mislead."""
    rows = [f"misleading\t{text}\t{2 + 3 * label}\t0" for text, label in sentences(n, seed)]
    file.write_text("\n".join(["text\twords\tstars\tlabel", *rows]) + "\n", encoding="utf-8")
    return file


class Sees(TrainerCallback):
    """Notes what training goes by, step by step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any
    ) -> None:
        del state, control
        self.args = args
        groups = kw["optimizer"].param_groups
        (rate,) = {group["lr"] for group in groups}
        self.rates.append(rate)
        self.decays = {group["weight_decay"] for group in groups}


def test_a_training_goes_by_its_settings(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropouts: set[tuple[bool, float]] = set()
    buckets: list[dict[str, Any]] = []
    attend = registry.sparse_attention

    def watched(*args: Any, **others: Any) -> Any:
        dropouts.add((others["training"], others["dropout"]))
        return attend(*args, **others)

    def noted(lengths: list[int], **others: Any) -> LengthBuckets:
        buckets.append(others)
        return LengthBuckets(lengths, **others)

    monkeypatch.setattr(registry, "sparse_attention", watched)
    monkeypatch.setattr(trainer, "LengthBuckets", noted)
    settings = TrainingSettings(
        data=(str(stars_tsv(tmp_path / "train.tsv", 100, 1)),),
        base=str(base),
        epochs=2,
        seed=9,
        learning_rate=3e-3,
        warmup=0.4,
        weight_decay=0.3,
        batch_size=20,
        batch_tokens=500,
        max_tokens=24,
        attention_dropout=0.35,
        precision="fp32",
        text_column="words",
        label_column="stars",
    )
    sees = Sees()
    record = finetune.finetune(settings, tmp_path / "run", callbacks=[sees])
    assert buckets == [{"batch_size": 20, "batch_tokens": 500, "seed": 9, "rank": 0, "world": 1}]
    assert sees.args.num_train_epochs == 2
    assert (sees.args.seed, sees.args.optim) == (9, "adamw_torch_fused")
    assert not sees.args.bf16
    assert sees.decays == {0.3, 0.0}  # biases and norms do not decay
    # 95 texts are five batches, so ten steps: up over four of them, down to 0 over six.
    up, down = [i / 4 for i in range(4)], [i / 6 for i in range(6, 0, -1)]
    assert sees.rates == pytest.approx([3e-3 * share for share in (*up, *down)])
    assert dropouts == {(True, 0.35), (False, 0.0)}
    # No class for stars that no text has.
    assert record.label_names == ("2", "5")
    assert load_file(tmp_path / "run" / "model.safetensors")["classifier.weight"].shape == (2, 16)

    # What was held out is found again, and other texts are read, by the run's columns.
    found_again = held_out_texts(RunRecord.load(tmp_path / "run"))
    assert found_again == load_data(settings)[1]
    assert {example.label for example in found_again[0].examples} == {0, 1}
    other = stars_tsv(tmp_path / "other.tsv", 30, 2)
    texts = RunRecord.load(tmp_path / "run").read([str(other)], "validation")[0]
    assert [example.text for example in texts.examples] == [text for text, _ in sentences(30, 2)]
    (found,) = evaluate_run(tmp_path / "run", [str(other)], split="validation")
    assert [sum(row) for row in found.confusion] == [15, 15]
    assert found.label_names == record.label_names


def test_held_out_texts_are_read_by_the_columns_too(base: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(
        data=(str(stars_tsv(tmp_path / "train.tsv", 20, 1)),),
        dev=(str(stars_tsv(tmp_path / "dev.tsv", 10, 2)),),
        base=str(base),
        epochs=1,
        max_tokens=24,
        precision="fp32",
        text_column="words",
        label_column="stars",
    )
    record = finetune.finetune(settings, tmp_path / "run")
    assert held_out_texts(record) == load_data(settings)[1]
    examples = held_out_texts(record)[0].examples
    assert [(e.text, e.label) for e in examples] == sentences(10, 2)


@pytest.mark.parametrize("hardware", ["fp32", "bf16"])
def test_precision_is_as_asked_or_the_hardwares(
    hardware: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "fastest_precision", lambda _: hardware)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for precision, expected in (("fp32", False), ("bf16", True), ("auto", hardware == "bf16")):
        settings = replace(ASKED, precision=precision)
        assert finetune._arguments(settings, tmp_path).bf16 is expected
