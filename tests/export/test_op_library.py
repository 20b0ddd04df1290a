"""Finding and loading the operator library, and what is said where it can't be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from export import op_library
from export.errors import ModelFolderError
from export.manifest import ModelFolder
from export.op_library import OpLibrary, find_op_library, make_session
from export.packing import pack
from training.machine import environment

needs_library = pytest.mark.skipif(
    not op_library.DEFAULT_PATH.is_file(),
    reason="the operator library has not been built; run export/ops/build.sh",
)


@pytest.fixture(autouse=True)
def default_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(op_library.ENVIRONMENT_VARIABLE, raising=False)


@needs_library
def test_the_built_library_is_found() -> None:
    library = find_op_library()
    assert library.available, library.reason
    assert library.path == op_library.DEFAULT_PATH


@needs_library
def test_the_library_exports_its_entry_points_alone() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not installed")
    command = [nm, "--dynamic", "--defined-only", str(op_library.DEFAULT_PATH)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["CrispShare", "RegisterCustomOps"]


@needs_library
def test_another_path_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = shutil.copy(op_library.DEFAULT_PATH, tmp_path / "copy.so")
    monkeypatch.setenv("CRISP_OP_LIBRARY", str(copy))
    assert find_op_library() == OpLibrary(tmp_path / "copy.so", "named by CRISP_OP_LIBRARY")


def test_the_library_may_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRISP_OP_LIBRARY", "none")
    library = find_op_library()
    assert not library.available
    assert "CRISP_OP_LIBRARY=none" in library.reason


def test_a_named_path_that_is_missing_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRISP_OP_LIBRARY", str(tmp_path / "nowhere.so"))
    library = find_op_library()
    assert library.path is None
    assert "nowhere.so, which is not a file; correct or unset it" in library.reason


def test_a_library_that_was_never_built_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(op_library, "DEFAULT_PATH", tmp_path / "libcrisp_ops.so")
    library = find_op_library()
    assert library.path is None
    assert "run export/ops/build.sh" in library.reason


def test_a_file_that_is_no_library_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rubbish = tmp_path / "rubbish.so"
    rubbish.write_bytes(b"not a library")
    monkeypatch.setenv("CRISP_OP_LIBRARY", str(rubbish))
    library = find_op_library()
    assert library.path is None
    assert "does not load" in library.reason
    assert "\n" not in library.reason


@needs_library
def test_a_rebuilt_library_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "ops.so"
    path.write_bytes(b"not a library")
    monkeypatch.setenv("CRISP_OP_LIBRARY", str(path))
    assert not find_op_library().available
    path.unlink()
    shutil.copy(op_library.DEFAULT_PATH, path)
    assert find_op_library().available


@pytest.mark.parametrize("found", [find_op_library(), OpLibrary(None, "fallback")])
def test_a_model_opens_with_and_without_the_library(
    model_folder: ModelFolder, found: OpLibrary
) -> None:
    session = make_session(model_folder.model, threads=1, library=found)
    assert [i.name for i in session.get_inputs()] == ["input_ids", "cu_seqlens"]
    assert session.get_session_options().intra_op_num_threads == 1


@needs_library
def test_only_beside_int8_weights_attention_rounds_and_only_where_the_processor_does() -> None:
    model = Path(__file__).parents[2] / "service" / "models" / "sparse" / "model.onnx"
    texts = pack([[101, *range(2000, 2000 + length), 102] for length in (1, 30, 200)])
    exact, again, rounded = (
        make_session(model, threads=1, precision=precision).run(["logits"], texts)[0]
        for precision in ("fp32", "fp16", "int8")
    )
    assert np.array_equal(exact, again)
    flags = environment()["instruction_sets"]  # every processor with AMX has AVX512-BF16 too
    bf16 = "avx512_bf16" in flags and "avx512_vnni" in flags and not os.environ.get("CRISP_ISA")
    assert np.array_equal(exact, rounded) != bf16
    assert np.abs(exact - rounded).max() < 0.5  # of logits around 2, of texts that are none


def test_files_that_are_no_models_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(ModelFolderError, match=r"cannot open .*model\.onnx"):
        make_session(file)
    file.write_bytes(b"\x00rubbish")
    with pytest.raises(ModelFolderError, match=r"cannot open .*model\.onnx"):
        make_session(file)


def _lacking() -> str | None:
    """An instruction set that the library knows and this processor has not, if there is one."""
    flags = set(environment()["instruction_sets"])
    needed = {
        "amx": "amx_int8",
        "avx512bf16": "avx512_bf16",
        "avx512vnni": "avx512_vnni",
        "avxvnni": "avx_vnni",
        "avx512": "avx512f",
    }
    return next((name for name, flag in needed.items() if flag not in flags), None)


@needs_library
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sse9", "is unknown; expected one of .*baseline"),
        pytest.param(
            _lacking(),
            "this processor does not support it; unset CRISP_ISA",
            marks=pytest.mark.skipif(_lacking() is None, reason="this processor has them all"),
        ),
    ],
)
def test_an_instruction_set_that_is_not_there_is_one_line(
    name: str,
    said: str,
    model_folder: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CRISP_ISA", name)
    with pytest.raises(ModelFolderError, match=f"CRISP_ISA={name}.*{said}") as error:
        make_session(model_folder.model, threads=1)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # ONNX Runtime would log it as well


def test_no_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        make_session(tmp_path / "model.onnx", threads=0)
