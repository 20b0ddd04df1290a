"""The weights for other servers: a set that is whole, or that says nothing of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_models import classifier, write_folder

from export.bench import peer_models
from export.bench.baseline import FUSIONS, Baseline
from training.pattern import AttentionPattern

FILES = {"fp32.onnx", "int8.onnx", "models.json", "transformers"}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder; the graphs that would be made of it are stand-ins."""

    def graphs(_: object, folder: Path, **__: object) -> Baseline:
        files = {fusion: folder / f"{fusion}.onnx" for fusion in FUSIONS}
        for file in files.values():
            file.write_text("a graph")
        return Baseline(files, files, {}, 0.0, 0.0)

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
    assert (out / "transformers" / "model.onnx").read_text() == "a graph"
    assert not (out / "transformers" / "old.txt").exists()


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
