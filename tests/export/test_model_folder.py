"""crisp export: a folder that is whole, right and measured, or none at all."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import crisp
from export import parity
from export.errors import ExportError, ParityError
from export.manifest import ModelFolder
from export.model_folder import _move_into_place, export_run
from training.config import TrainingSettings
from training.data import read_examples
from training.errors import DataError, PruningError, RunError
from training.evaluate import evaluate_run
from training.finetune import finetune
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

TRAIN = Path(__file__).parents[2] / "examples" / "train.tsv"
DEV = Path(__file__).parents[2] / "examples" / "dev.tsv"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of the real base, six epochs of the example texts."""
    out = tmp_path_factory.mktemp("runs") / "sparse"
    settings = TrainingSettings(
        data=(str(TRAIN),),
        dev=(str(DEV),),
        attention=AttentionPattern("topk", density=0.2),
        epochs=6,
        learning_rate=3e-4,
        batch_size=16,
        precision="fp32",
    )
    finetune(settings, out)
    return out


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    out = tmp_path_factory.mktemp("models") / "sparse"
    export_run(run, out, precision="fp32")
    return ModelFolder.load(out)


def test_the_manifest_says_what_was_done(exported: ModelFolder) -> None:
    manifest = exported.manifest
    assert manifest.attention == {"name": "topk", "density": 0.2}
    assert manifest.labels == ("negative", "positive")
    assert manifest.max_tokens == 512
    assert manifest.trained.base_model == "minilm"
    assert manifest.trained.settings["epochs"] == 6
    assert manifest.trained.data[0].rows == len(read_examples(TRAIN))
    assert 22_000_000 < manifest.parameters < 23_000_000
    assert manifest.parity["fp32_difference"] <= parity.FP32_TOLERANCE
    assert [file.name for file in sorted(exported.path.iterdir())] == [
        "manifest.json",
        "model.onnx",
        "tokenizer.json",
    ]


def test_the_measured_accuracy_is_that_of_the_run(run: Path, exported: ModelFolder) -> None:
    (expected,) = evaluate_run(run, [str(DEV)], split="validation")
    (found,) = exported.manifest.measured
    assert found.accuracy == expected.accuracy
    assert (found.low, found.high) == (expected.interval.low, expected.interval.high)
    assert found.data.rows == len(read_examples(DEV))


def test_int8_is_small_and_held_against_fp32(run: Path, tmp_path: Path) -> None:
    manifest = export_run(run, tmp_path / "int8", precision="int8", data=[str(TRAIN), str(DEV)])
    rows = len(read_examples(TRAIN)), len(read_examples(DEV))
    assert sum(facts.bytes for facts in manifest.files.values()) <= 25_000_000
    assert manifest.parity["int8_disagreement"] <= max(parity.DISAGREEMENT, 1 / rows[0])
    assert manifest.parity["int8_calibration_texts"] == rows[0]
    assert manifest.parity["int8_held_out_texts"] == sum(rows)
    assert manifest.parity["int8_disagreement_held_out"] <= 0.1
    assert len(manifest.measured) == 2


def test_fp16_is_half_as_large_and_held_against_fp32(
    run: Path, exported: ModelFolder, tmp_path: Path
) -> None:
    manifest = export_run(run, tmp_path / "fp16", precision="fp16")
    size, full = manifest.files["model.onnx"].bytes, exported.manifest.files["model.onnx"].bytes
    assert size < 0.52 * full
    rows = len(read_examples(TRAIN))
    assert manifest.parity["fp16_disagreement"] <= max(parity.DISAGREEMENT, 1 / rows)
    assert manifest.precision == ModelFolder.load(tmp_path / "fp16").manifest.precision == "fp16"
    assert manifest.measured[0].accuracy == pytest.approx(
        exported.manifest.measured[0].accuracy, abs=1.5 / len(read_examples(DEV))
    )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_graph_that_differs_leaves_nothing_behind(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    import export.model_folder as module

    if precision == "fp32":
        real = module.weights_of
        monkeypatch.setattr(
            module, "weights_of", lambda model: {n: w * 1.01 for n, w in real(model).items()}
        )
    else:
        real_quantize = module.quantize

        def spoiled(graph: object) -> object:
            quantized = real_quantize(graph)  # type: ignore[arg-type]
            for tensor in quantized.graph.initializer:
                if tensor.name == "classifier.weight":
                    tensor.raw_data = (-np.frombuffer(tensor.raw_data, np.float32)).tobytes()
            return quantized

        monkeypatch.setattr(module, "quantize", spoiled)
    with pytest.raises(ParityError, match="nothing was written"):
        export_run(run, tmp_path / "spoiled", precision=precision)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_what_stands_there_is_not_overwritten(
    run: Path, exported: ModelFolder, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="give another --out, or --replace"):
        export_run(run, exported.path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="is no model folder"):
        export_run(run, tmp_path, replace=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(RunError, match="no finished run"):
        export_run(tmp_path, tmp_path / "out")


def test_fp32_needs_no_training_data(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    record = moved / "run.json"
    record.write_text(record.read_text().replace("train.tsv", "gone.tsv"))
    export_run(moved, tmp_path / "fp32", precision="fp32")
    with pytest.raises(DataError, match=r"gone\.tsv does not exist"):
        export_run(moved, tmp_path / "int8", precision="int8")
    assert not (tmp_path / "int8").exists()


def test_replace_swaps_the_folder(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    export_run(run, out, precision="fp32")
    first = ModelFolder.load(out).manifest
    links = tmp_path / "links"
    links.mkdir()
    (links / "model").symlink_to(out)
    before = os.umask(0o027)
    try:
        export_run(run, links / "model", precision="fp32", data=[str(TRAIN)], replace=True)
    finally:
        os.umask(before)
    second = ModelFolder.load(out).manifest
    assert first.measured != second.measured
    assert first.files["model.onnx"] == second.files["model.onnx"]
    assert (links / "model").is_symlink()
    assert list(links.iterdir()) == [links / "model"]
    assert sorted(tmp_path.iterdir()) == [links, out]
    rights = {file.name: oct(file.stat().st_mode & 0o777) for file in (out, *out.iterdir())}
    assert rights.pop("model") == "0o750"
    assert set(rights.values()) == {"0o640"}


def test_where_the_swap_fails_the_old_folder_is_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building, out = tmp_path / ".building", tmp_path / "model"
    for folder in (building, out):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    rename = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if self == building:
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        _move_into_place(building, out)
    assert (out / "name").read_text() == "model"
    assert sorted(tmp_path.iterdir()) == [building, out]


def test_on_the_command_line(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    found = CliRunner().invoke(
        crisp.app, ["export", str(run), "--out", str(out), "--precision", "fp32"]
    )
    assert found.exit_code == 0, found.output
    assert "logits differ by" in found.stdout
    wrong = CliRunner().invoke(
        crisp.app, ["export", str(run), "--out", str(out), "--precision", "int4"]
    )
    assert isinstance(wrong.exception, ExportError)
    assert dataclasses.is_dataclass(ModelFolder.load(out))


def test_another_schedule_and_pattern_than_the_run_was_trained_with(
    run: Path, tmp_path: Path
) -> None:
    pattern = AttentionPattern("blocktopk", size=16, k=1)
    pruning = TokenPruning((1.0, 0.9, 0.5, 0.3, 0.1), floor=4)
    out = tmp_path / "pruned"
    manifest = export_run(run, out, precision="fp32", pattern=pattern, pruning=pruning)
    assert manifest.attention == pattern.to_dict()
    assert manifest.pruning == {"keep": [1.0, 0.9, 0.5, 0.3, 0.1], "floor": 4}
    # What it was trained with stands there too.
    assert manifest.trained.settings["attention"]["name"] != "blocktopk"
    assert manifest.trained.settings["pruning"] is None
    assert "PruneTokens" in {operator.name for operator in manifest.operators}
    with pytest.raises(PruningError, match="a model of 6 layers needs 5 shares"):
        export_run(run, tmp_path / "none", precision="fp32", pruning=TokenPruning((0.5,)))
    assert not (tmp_path / "none").exists()
