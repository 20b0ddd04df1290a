"""The weights for other servers: a set that is whole, or that says nothing of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bench_models import classifier, write_folder
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertForSequenceClassification,
)

from export.bench import peer_models
from export.bench.baseline import FUSIONS, Baseline
from training.pattern import AttentionPattern

FILES = {"fp32.onnx", "int8.onnx", "models.json", "transformers"}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder; the graphs that would be made of it are stand-ins."""

    def graphs(_: object, folder: Path, **__: object) -> Baseline:
        fp32, int8 = (
            {fusion: folder / f"{precision}-{fusion}.onnx" for fusion in FUSIONS}
            for precision in ("fp32", "int8")
        )
        for file in (*fp32.values(), *int8.values()):
            file.write_text(f"the graph {file.stem}")
        return Baseline(fp32, int8, {}, 0.0, 0.0)

    monkeypatch.setattr(peer_models, "stock_graphs", graphs)
    monkeypatch.setattr(peer_models, "find_spec", lambda _: None)
    return write_folder(tmp_path / "dense", classifier(), AttentionPattern("dense")).path


def test_a_set_is_written_over_another(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "models"
    peer_models.write(source, out)
    (out / "mine.txt").write_text("mine")
    (out / "transformers" / "old.txt").write_text("of the set before")
    facts = peer_models.write(source, out)
    assert json.loads((out / "models.json").read_text()) == facts
    assert {file.name for file in out.iterdir()} == FILES | {"mine.txt"}
    assert not (out / "transformers" / "old.txt").exists()


def test_each_file_holds_what_its_name_says(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def openvino(model: object, texts: list[list[int]], file: Path) -> None:
        assert (type(model), texts) == (DistilBertForSequenceClassification, [[2, 3]])
        file.write_text("the graph of OpenVINO")
        file.with_suffix(".bin").write_text("its weights")

    monkeypatch.setattr(peer_models, "find_spec", lambda _: "installed")
    monkeypatch.setattr(peer_models, "calibration_texts", lambda *_: ([[2, 3]], "some texts"))
    monkeypatch.setattr(peer_models, "save_int8", openvino)
    out = tmp_path / "models"
    facts = peer_models.write(source, out)
    contents = {
        "fp32.onnx": f"the graph fp32-{FUSIONS[0]}",
        "int8.onnx": f"the graph int8-{FUSIONS[0]}",
        "openvino-int8.xml": "the graph of OpenVINO",
        "openvino-int8.bin": "its weights",
        "transformers/model.onnx": f"the graph fp32-{FUSIONS[0]}",
    }
    assert {name: (out / name).read_text() for name in contents} == contents
    weights = (out / "transformers" / "model.safetensors").stat().st_size
    assert facts == {
        "weights": "dense",
        "labels": ["negative", "positive"],
        "max_tokens": 512,
        "fp32.onnx": {"bytes": len(contents["fp32.onnx"])},
        "int8.onnx": {"bytes": len(contents["int8.onnx"])},
        "openvino-int8.xml": {"bytes": len("its weights"), "calibration": "some texts"},
        "transformers": {"bytes": weights},
    }


def test_transformers_reads_the_same_classifier_with_its_labels(
    source: Path, tmp_path: Path
) -> None:
    peer_models.write(source, tmp_path / "models")
    folder = tmp_path / "models" / "transformers"
    found = AutoModelForSequenceClassification.from_pretrained(folder)
    assert isinstance(found, DistilBertForSequenceClassification)
    assert found.config.id2label == {0: "negative", 1: "positive"}
    assert found.config.label2id == {"negative": 0, "positive": 1}
    expected = classifier().state_dict()
    assert found.state_dict().keys() == expected.keys()
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # [CLS], h, ##i, [SEP]; a text is cut to what the model reads.
    assert dict(tokenizer("Hi")) == {"input_ids": [2, 37, 12, 3], "attention_mask": [1] * 4}
    assert len(tokenizer("a " * 600, truncation=True)["input_ids"]) == 512
    assert tokenizer.pad(tokenizer(["hi", "h"]))["input_ids"][1] == [2, 37, 3, 0]


def test_what_fails_leaves_the_set_before(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "models"
    peer_models.write(source, out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}

    def full(*_: object) -> int:
        raise OSError("the disk is full")

    monkeypatch.setattr(peer_models, "_save_transformers", full)
    with pytest.raises(OSError, match="the disk is full"):
        peer_models.write(source, out)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_a_set_of_two_times_has_no_list(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "models"
    peer_models.write(source, out)

    rename = Path.replace

    def held(self: Path, target: Path) -> Path:
        if target.name == "transformers":
            raise OSError("the folder is in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", held)
    with pytest.raises(OSError, match="in use"):
        peer_models.write(source, out)
    assert not (out / "models.json").exists()
