"""Fine-tuning for real, on a tiny model: run folders, resuming, processes, clear refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

import crisp
from training import finetune as finetuning
from training.config import DataRecord, RunRecord, TrainingSettings
from training.errors import BaseModelError, DataError, RunError, TrainingError
from training.evaluate import Evaluation, evaluate_run, print_report
from training.finetune import CHECKPOINTS, finetune, last_checkpoint
from training.model import load_checkpoint
from training.pattern import AttentionPattern
from training.run_folder import SETTINGS_FILE, alone
from training.statistics import Interval


@pytest.fixture(scope="module")
def settings(base: Path, train_tsv: Path, dev_tsv: Path) -> TrainingSettings:
    return TrainingSettings(
        data=(str(train_tsv),),
        dev=(str(dev_tsv),),
        base=str(base),
        attention=AttentionPattern("topk", density=0.5),
        epochs=6,
        learning_rate=5e-3,
        max_tokens=24,
        batch_size=16,
        average_from=0.5,
        precision="fp32",
    )


@pytest.fixture(scope="module")
def run(settings: TrainingSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    finetune(settings, out)
    return out


def test_it_learns_and_records(run: Path, settings: TrainingSettings) -> None:
    record = RunRecord.load(run)
    assert record.settings == settings
    assert [entry["epoch"] for entry in record.history] == [1, 2, 3, 4, 5, 6]
    (dev,) = [key for key in record.history[-1] if key.endswith("dev.tsv")]
    assert record.history[-1][dev]["accuracy"] > 0.9
    assert record.history[-1][dev]["loss"] < record.history[0][dev]["loss"]
    assert record.data[0].rows + record.dropped_overlap == 240
    assert not (run / CHECKPOINTS).exists()
    assert {"config.json", "model.safetensors", "tokenizer.json", "run.json"} <= {
        file.name for file in run.iterdir()
    }


def test_a_reloaded_run_keeps_its_attention(run: Path, settings: TrainingSettings) -> None:
    model, tokenizer, pattern = load_checkpoint(run)
    assert pattern == settings.attention
    inputs = tokenizer("this film was very very good and so was that book", return_tensors="pt")
    with torch.inference_mode():
        sparse = model(**inputs).logits
        model.config.crisp_attention = {"name": "dense"}
        dense = model(**inputs).logits
    assert not torch.allclose(sparse, dense, atol=1e-5)


def test_evaluation_agrees_with_training(run: Path, dev_tsv: Path) -> None:
    (found,) = evaluate_run(run, [str(dev_tsv)], split="validation")
    last = RunRecord.load(run).history[-1]
    (dev,) = [key for key in last if key.endswith("dev.tsv")]
    assert found.accuracy == pytest.approx(last[dev]["accuracy"])
    assert found.loss == pytest.approx(last[dev]["loss"], abs=1e-4)
    assert sum(map(sum, found.confusion)) == found.data.rows == 40
    right = sum(found.confusion[i][i] for i in range(2))
    assert found.accuracy == right / 40
    assert found.interval.low < found.accuracy <= found.interval.high


def test_evaluate_on_the_command_line(run: Path, dev_tsv: Path) -> None:
    found = CliRunner().invoke(crisp.app, ["evaluate", str(run), "--data", str(dev_tsv), "--json"])
    assert found.exit_code == 0, found.output
    (report,) = json.loads(found.stdout)
    assert report["data"]["rows"] == 40
    table = CliRunner().invoke(crisp.app, ["evaluate", str(run), "--data", str(dev_tsv)])
    assert "95 % interval" in table.stdout


def test_a_table_shows_labels_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    data, interval = DataRecord("[bold]x/dev.tsv", 7, ""), Interval(0.1, 0.9)

    def printed(names: tuple[str, ...], confusion: list[list[int]]) -> str:
        rows = tuple(map(tuple, confusion))
        found = Evaluation(data, names, 0.5, interval, 1.0, 0.1, rows, 0)
        print_report([found], as_json=False)
        return capsys.readouterr().out

    few = printed(("[joy]", "[/b]", ":heart:"), [[1, 2, 0], [0, 3, 0], [1, 0, 0]])
    for whole in ("[bold]x/dev.tsv (n = 7)", "called [joy]", "│ [/b] ", "│ :heart: "):
        assert whole in few
    many = [[0] * 12 for _ in range(12)]
    many[3][3], many[3][7], many[3][5] = 4, 2, 1
    lines = printed(tuple(f"[{i}]" for i in range(12)), many).splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells[3] == ["[3]", "7", "4", "2 [7]"]
    assert cells[4] == ["[4]", "0", "0", ""]


def test_a_failure_half_way_is_resumed_to_the_same_weights(
    run: Path,
    settings: TrainingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stops inside an epoch, goes on, and ends where the uninterrupted run ended."""
    from transformers import Trainer

    step, seen = Trainer.training_step, 0

    def fail_once(self: Trainer, *args: object, **kwargs: object) -> object:
        nonlocal seen
        seen += 1
        if seen == 20:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    out = tmp_path / "resumed"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", fail_once)
        with pytest.raises(KeyboardInterrupt):
            finetune(settings, out, save_minutes=0)
    with pytest.raises(RunError, match="no finished run"):
        RunRecord.load(out)
    with pytest.raises(RunError, match=r"other settings \(seed: 0 there, 1 now\)"):
        finetune(replace(settings, seed=1), out)
    asked = out / SETTINGS_FILE
    noted = json.loads(asked.read_text())
    changed = noted["content"][0][1][::-1]
    asked.write_text(json.dumps(noted | {"content": [[noted["content"][0][0], changed]]}))
    with pytest.raises(RunError, match=r"train\.tsv.* has changed since it began; put back"):
        finetune(settings, out)
    asked.write_text(json.dumps(settings.to_dict()))  # as before the content was noted
    # A checkpoint whose writing was cut off is passed over.
    newest = last_checkpoint(out / CHECKPOINTS)
    assert newest is not None
    broken = out / CHECKPOINTS / "checkpoint-999"
    broken.mkdir()
    (broken / "trainer_state.json").write_text('{"global_st')
    assert last_checkpoint(out / CHECKPOINTS) == newest
    finetune(settings, out)
    whole, resumed = load_file(run / "model.safetensors"), load_file(out / "model.safetensors")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-6, rtol=0)
    assert RunRecord.load(out).history == RunRecord.load(run).history


def test_the_weights_are_the_mean_of_the_last_part(
    run: Path, settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 50, 60, ... of 90, collected by hand from the same run without averaging."""
    from transformers import Trainer

    step, seen = Trainer.training_step, 0
    collected: list[dict[str, torch.Tensor]] = []

    def collect(self: Trainer, model: torch.nn.Module, *args: object, **kwargs: object) -> object:
        nonlocal seen
        if seen in (50, 60, 70, 80):  # so many steps are done when this one begins
            collected.append({n: t.clone() for n, t in model.state_dict().items()})
        seen += 1
        return step(self, model, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", collect)
    finetune(replace(settings, average_from=1.0), tmp_path / "plain")
    assert seen == 90
    collected.append(load_file(tmp_path / "plain" / "model.safetensors"))
    averaged = load_file(run / "model.safetensors")
    for name, tensor in averaged.items():
        mean = torch.stack([weights[name] for weights in collected]).mean(0)
        torch.testing.assert_close(tensor, mean, atol=1e-5, rtol=0)


def command(settings: TrainingSettings, out: Path, *, epochs: int = 6) -> list[str]:
    return [
        *("-m", "crisp", "train", "--data", settings.data[0], "--dev", settings.dev[0]),
        *(
            "--base",
            settings.base,
            "--density",
            "0.5",
            "--epochs",
            str(epochs),
            "--max-tokens",
            "24",
        ),
        *("--learning-rate", "5e-3", "--batch-size", "16", "--precision", "fp32"),
        *("--average-from", "0.5"),
        *("--out", str(out)),
    ]


@pytest.mark.slow
def test_kill_9_at_any_moment_is_resumed(
    run: Path, settings: TrainingSettings, tmp_path: Path
) -> None:
    """kill -9 while a checkpoint is being written, and at several moments after; each time the
    same command goes on, and the weights end where those of the whole run ended."""
    out = tmp_path / "killed"
    argv = [sys.executable, *command(settings, out)]
    seen: set[Path] = set()
    kills = 0
    for delay in (0.0, 0.02, 0.2, 0.0, 0.5):
        with subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                found = set((out / CHECKPOINTS).glob("checkpoint-*"))
                if found - seen:
                    time.sleep(delay)
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    seen |= found
                    break
                time.sleep(0.002)
    assert kills >= 2
    if not (out / "run.json").exists():
        subprocess.run(argv, check=True, capture_output=True)
    assert RunRecord.load(out).history[-1]["epoch"] == 6
    whole, resumed = load_file(run / "model.safetensors"), load_file(out / "model.safetensors")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_two_processes_over_gloo(settings: TrainingSettings, tmp_path: Path) -> None:
    out = tmp_path / "two"
    # Each of two processes takes every other batch: twice the epochs for as many steps.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, *command(settings, out, epochs=12)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = RunRecord.load(out)
    assert record.processes == 2
    (dev,) = [key for key in record.history[-1] if key.endswith("dev.tsv")]
    assert record.history[-1][dev]["accuracy"] > 0.85


def test_refusals_come_before_any_work(
    settings: TrainingSettings, run: Path, tmp_path: Path
) -> None:
    one_class = tmp_path / "one.tsv"
    one_class.write_text("sentence\tlabel\ngood\t1\nfine\t1\n")
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    for change, error, message in (
        ({"data": ("nowhere.tsv",)}, DataError, "nowhere.tsv does not exist"),
        ({"data": (str(one_class),)}, DataError, "training needs two classes"),
        ({"base": str(bert)}, BaseModelError, "is a bert model"),
        ({"base": str(tmp_path / "none")}, BaseModelError, "use --base minilm"),
    ):
        with pytest.raises(error, match=message):
            finetune(replace(settings, **change), tmp_path / "refused")
        assert not (tmp_path / "refused").exists()
    with pytest.raises(RunError, match="holds a finished run"):
        finetune(settings, run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        finetune(settings, tmp_path / "mine")
    with pytest.raises(RunError, match=r"notes.txt is no folder; give another --out"):
        finetune(settings, tmp_path / "mine" / "notes.txt" / "run")


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(RunError, match="nothing may be written in"):
        finetune(settings, tmp_path / "a" / "run")
    assert not (tmp_path / "a").exists()


def test_a_training_that_diverges_is_no_run(settings: TrainingSettings, tmp_path: Path) -> None:
    wild = replace(settings, learning_rate=1e30, epochs=1, average_from=1.0)
    with pytest.raises(RunError, match=r"diverged.*smaller --learning-rate than 1e\+30"):
        finetune(wild, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_another_process_at_work_on_a_run_is_waited_for(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with alone(out), pytest.raises(RunError, match="another process is at work on"):
        finetune(replace(settings, epochs=1), out)
    finetune(replace(settings, epochs=1), out)


def test_a_full_disk_is_one_line(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

    monkeypatch.setattr(finetuning, "save_run", full)
    with pytest.raises(RunError, match=r"there is no room to write in .*goes on from the last"):
        finetune(replace(settings, epochs=1), tmp_path / "run")
    monkeypatch.undo()
    finetune(replace(settings, epochs=1), tmp_path / "run")


def test_a_run_begins_with_what_it_learns_from(
    settings: TrainingSettings, dev_tsv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = replace(settings, data=(*settings.data, str(dev_tsv)), epochs=1)
    with pytest.raises(DataError, match="fewer than two texts are left"):
        finetune(both, tmp_path / "none")
    finetune(replace(settings, epochs=1), tmp_path / "run")
    said = capsys.readouterr().err
    assert "240 texts to train on: negative 120, positive 120\n" in said
    assert (tmp_path / "run" / "model.safetensors").stat().st_mode & 0o044 == 0o044
    others = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert (
        others("good film").input_ids == load_checkpoint(tmp_path / "run")[1]("good film").input_ids
    )
    saved = json.loads((tmp_path / "run" / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 2**32}, "seed must lie in"),
        ({"batch_tokens": 8}, "must hold one text"),
        ({"precision": "int4"}, "precision must be"),
        ({"data": ()}, "no training data"),
    ],
)
def test_senseless_settings(
    settings: TrainingSettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        replace(settings, **change)
