"""The comparison over seeds as a command: run folders, files of outcomes, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from training import seed_comparison
from training.config import RunRecord, TrainingSettings
from training.data import read_examples
from training.evaluate import evaluate_run
from training.finetune import finetune

app = typer.Typer()
app.command()(seed_comparison.main)


def arguments(first: list[Path], second: list[Path], data: Path) -> list[str]:
    found = ["--data", str(data), "--json"]
    for option, sources in (("--first", first), ("--second", second)):
        for source in sources:
            found += [option, str(source)]
    return found


@pytest.fixture(scope="module")
def run(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = TrainingSettings(
        data=(str(train_tsv),),
        dev=(str(dev_tsv),),
        base=str(base),
        epochs=1,
        learning_rate=5e-3,
        max_tokens=24,
        precision="fp32",
    )
    finetune(settings, out)
    return out


def test_runs_and_files_of_outcomes(run: Path, dev_tsv: Path, tmp_path: Path) -> None:
    texts = read_examples(dev_tsv)
    right = seed_comparison.outcomes(run, texts)
    (measured,) = evaluate_run(run, [str(dev_tsv)], split="validation")
    assert right.mean() == pytest.approx(measured.accuracy)
    file, wrong = tmp_path / "right.npy", tmp_path / "wrong.npy"
    np.save(file, right)
    np.save(wrong, np.zeros(len(texts), dtype=bool))
    same = CliRunner().invoke(app, arguments([run, run], [file, file], dev_tsv))
    assert same.exit_code == 0, same.output
    (report,) = json.loads(same.stdout).values()
    assert report["value"] == 0
    assert report["over_examples"] == {"low": 0, "high": 0}
    better = CliRunner().invoke(app, arguments([file, file], [wrong, file], dev_tsv))
    (report,) = json.loads(better.stdout).values()
    assert report["by_seed"] == [pytest.approx(measured.accuracy), 0]
    without_json = [a for a in arguments([file, file], [file, file], dev_tsv) if a != "--json"]
    lines = CliRunner().invoke(app, without_json)
    assert "+0.00 points (by seed +0.00, +0.00); 95 % interval over the texts" in lines.stdout


def test_what_is_refused(dev_tsv: Path, tmp_path: Path) -> None:
    short, words = tmp_path / "short.npy", tmp_path / "words.npy"
    np.save(short, np.ones(3, dtype=bool))
    words.write_text("yes\nno\n")
    for first, second, complaint in (
        ([short], [short], "at least 2; got 1 and 1"),
        ([short, short], [short], "got 2 and 1"),
        ([short, short], [short, short], "holds bool [3]; expected bool [40]"),
        ([words, words], [words, words], "no .npy file of outcomes"),
        ([tmp_path, tmp_path], [short, short], "no finished run"),
    ):
        done = CliRunner().invoke(app, arguments(first, second, dev_tsv))
        assert done.exit_code == 2
        assert complaint in " ".join(done.output.replace("│", " ").split())


def test_runs_of_other_labels_are_refused(run: Path, dev_tsv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    record = RunRecord.load(run)
    replace(record, label_names=record.label_names[::-1]).save(other)
    done = CliRunner().invoke(app, arguments([run, run], [run, other], dev_tsv))
    assert done.exit_code == 2
    said = " ".join(done.output.replace("│", " ").split())
    assert "tells other labels apart than" in said


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "training.seed_comparison", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Prints the accuracy of the first method minus" in " ".join(done.stdout.split())
