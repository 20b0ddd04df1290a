"""Which folders are variants, which of them answers, and what is said of a folder that is none."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from export.gpu import gpu_problem
from export.op_library import find_op_library
from service.engine import Engine
from service.errors import ModelsError
from service.model_folders import default_of, model_folders
from service.variants import Variants


def test_every_sub_folder_is_a_variant_and_sparse_is_the_default(models_dir: Path) -> None:
    variants = Variants.load(models_dir, threads=1)
    assert list(variants) == ["dense", "sparse"]
    assert variants.default is variants["sparse"]
    assert variants.baseline_name == "dense"


@pytest.mark.parametrize(
    ("names", "default"),
    [(["dense", "sparse"], "sparse"), (["b", "a"], "a"), (["dense"], "dense")],
)
def test_the_default_is_sparse_or_the_first(names: list[str], default: str) -> None:
    assert default_of(names) == default


def test_without_dense_the_default_is_the_baseline(models_dir: Path) -> None:
    engine = Engine.load(models_dir / "sparse", threads=1)
    assert Variants({"x": engine}, find_op_library()).baseline_name == "x"


def test_a_model_folder_by_itself_is_the_only_variant(models_dir: Path) -> None:
    assert model_folders(models_dir / "dense") == {"dense": models_dir / "dense"}


def test_hidden_folders_and_files_are_no_variants(models_dir: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(models_dir, models)
    for name in (".sparse.tmp", "__pycache__"):
        (models / name).mkdir()
    (models / "README.md").write_text("The bundled models.")
    assert list(model_folders(models)) == ["dense", "sparse"]


def test_a_device_that_is_not_there_stops_the_start(models_dir: Path) -> None:
    if gpu_problem() is None:
        pytest.skip("there is a GPU that works")
    with pytest.raises(ModelsError, match=r"device cuda cannot be used: .*install"):
        Variants.load(models_dir, threads=1, device="cuda")


def test_where_each_model_runs_is_logged(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variants = Variants.load(models_dir, threads=1, device="auto")
    with caplog.at_level(logging.INFO, "crisp.service"):
        variants.log_devices()
    device = "cpu" if gpu_problem() else "cuda"
    assert [m.partition(":")[0] for m in caplog.messages] == [
        f"dense runs on device {device}",
        f"sparse runs on device {device}",
    ]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match=r"nowhere is not a folder: .*crisp export"):
        Variants.load(tmp_path / "nowhere")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match=r"holds no model folder; .*crisp export"):
        Variants.load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", None, r"sparse has no manifest\.json"),
        ("manifest.json", b"{}", r"does not fit manifest schema"),
        ("model.onnx", None, r"model\.onnx is missing"),
        ("model.onnx", b"short", r"model\.onnx has 5 bytes where the manifest says"),
        ("tokenizer.json", b"", r"tokenizer\.json has 0 bytes"),
    ],
)
def test_one_bad_folder_stops_the_start_and_is_named(
    models_dir: Path, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    models = tmp_path / "models"
    shutil.copytree(models_dir, models)
    (models / "sparse" / file).unlink()
    if content is not None:
        (models / "sparse" / file).write_bytes(content)
    with pytest.raises(ModelsError, match=message):
        Variants.load(models, threads=1)


def test_the_fallback_is_warned_of(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CRISP_OP_LIBRARY", "none")
    with caplog.at_level(logging.WARNING, "crisp.service"):
        variants = Variants.load(models_dir, threads=1)
    assert variants.library.path is None
    assert "compiled operators are not in use" in caplog.text
    assert variants.library.reason in caplog.text
