"""Which device a model runs on, and what is said where it cannot run there."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from export import gpu
from export.errors import DeviceError, ModelFolderError
from export.gpu import gpu_problem, library_for, suited
from export.manifest import ModelFolder
from export.op_library import OpLibrary, find_op_library, make_session

GPU = OpLibrary(Path("libcrisp_ops_cuda.so"), "built", "cuda")

no_gpu = pytest.mark.skipif(gpu_problem() is None, reason="there is a GPU that works")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_on_a_cpu_the_compiled_operators_are_used(precision: str) -> None:
    assert library_for("cpu", precision) == find_op_library()


def test_fp16_runs_on_its_fallback_on_a_cpu() -> None:
    found = library_for("cpu", "fp16")
    assert (found.path, found.device) == (None, "cpu")
    if find_op_library().available:
        assert "fp16 models are for GPUs" in found.reason


def test_int8_is_refused_on_a_gpu() -> None:
    with pytest.raises(DeviceError, match="--precision fp16"):
        suited(GPU, "int8")
    assert suited(GPU, "fp16") is GPU
    assert library_for("auto", "int8").device == "cpu"


@no_gpu
def test_auto_takes_the_cpu_and_says_why() -> None:
    found = library_for("auto", "fp32")
    assert (found.path, found.device) == (find_op_library().path, "cpu")
    assert "no GPU is used: " in found.reason


@no_gpu
def test_a_gpu_that_is_asked_for_and_not_there_is_one_line_that_says_what_to_install(
    capfd: pytest.CaptureFixture[str],
) -> None:
    gpu._provider_problem.cache_clear()
    with pytest.raises(DeviceError, match=r"device cuda cannot be used: .*install") as error:
        library_for("cuda", "fp32")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")  # ONNX Runtime would fill the terminal


def test_a_library_that_was_never_built_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "_provider_problem", lambda: None)
    monkeypatch.setattr(gpu, "CUDA_PATH", tmp_path / "lib.so")
    assert "run export/ops/cuda/build.sh" in str(gpu_problem())
    (tmp_path / "lib.so").write_text("no library")
    assert gpu_problem() is not None
    with pytest.raises(DeviceError, match="device cuda cannot be used"):
        library_for("cuda", "fp32")


def test_an_onnxruntime_without_the_provider_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu._provider_problem.cache_clear()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "has no CUDA provider" in str(gpu_problem())
    gpu._provider_problem.cache_clear()


def test_the_model_that_a_provider_is_tried_with_is_one() -> None:
    session = onnxruntime.InferenceSession(gpu._PROBE, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": [2.0]})[0].tolist() == [2.0]


@no_gpu
def test_a_session_on_a_gpu_that_is_not_there_is_refused(
    model_folder: ModelFolder,
) -> None:
    if not gpu.CUDA_PATH.is_file():
        pytest.skip("the operators for GPUs have not been built; run export/ops/cuda/build.sh")
    library = OpLibrary(gpu.CUDA_PATH, "built", "cuda")
    with pytest.raises(ModelFolderError, match="cannot open"):
        make_session(model_folder.model, library=library)
