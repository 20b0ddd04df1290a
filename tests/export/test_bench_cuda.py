"""The benchmark on a GPU, its contenders run on the CPU: all give the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench_models import classifier, write_folder
from rich.console import Console
from typer.testing import CliRunner

import crisp
from export.bench import cuda
from export.bench.measure import measure
from export.bench.workloads import WORKLOADS
from export.errors import ExportError
from export.gpu import gpu_problem
from export.op_library import OpLibrary
from training.pattern import AttentionPattern


@pytest.mark.slow
def test_all_contenders_answer_alike_and_are_measured(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "dense", classifier(), AttentionPattern("dense"))
    (tmp_path / "other").mkdir()
    namesake = write_folder(tmp_path / "other/dense", classifier(), AttentionPattern("dense"))
    fallback = OpLibrary(None, "the standard operators in the file")
    some = {"library": fallback, "positions": 64, "device": "cpu"}
    two = cuda.contenders([folder, namesake], tmp_path, **some)
    assert [c.name for c in two[2:]] == [f"crisp {f.path} fp16" for f in (folder, namesake)]
    found = cuda.contenders([folder], tmp_path, **some)
    assert [c.name for c in found] == [cuda.STOCK, "torch sdpa fp16", "crisp dense fp16"]
    batch = [[5] * 7, [6, 7], list(range(3, 60))]
    logits = [contender.run(contender.prepare(batch)) for contender in found]
    for other in logits[1:]:
        assert np.abs(other - logits[0]).max() < 0.02 * np.abs(logits[0]).max()
    workload = WORKLOADS["sst-b1"]
    rounds = measure(found, [workload], vocabulary=cuda.vocabulary_of(folder), seconds=1, rounds=2)
    with (console := Console(width=120)).capture() as shown:
        console.print(cuda.table(rounds))
    assert "crisp dense fp16" in shown.get()
    document = json.loads(cuda.document(rounds, {"processor": "some"}))
    assert document["rounds"]["sst-b1"]["times_ms"].keys() == {c.name for c in found}


def test_options_that_would_not_be_heeded_are_refused() -> None:
    options = ["--threads", "2", "--profile", "--accuracy", "dev.tsv", "--seed", "1"]
    result = CliRunner().invoke(crisp.app, ["bench", "--device", "cuda", *options])
    assert isinstance(result.exception, ExportError)
    assert "takes no --accuracy, --threads, --profile:" in str(result.exception)


def test_without_a_gpu_the_command_says_what_to_install() -> None:
    if gpu_problem() is None:
        pytest.skip("there is a GPU that works")
    result = CliRunner().invoke(crisp.app, ["bench", "--device", "cuda"])
    assert result.exit_code != 0
    assert "device cuda cannot be used" in str(result.exception)
