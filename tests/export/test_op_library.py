"""Building, finding and loading the operator library, what is said where it can't be, and which
attributes of a node it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from export import op_library
from export.errors import ModelFolderError
from export.manifest import ModelFolder
from export.op_library import (
    OpLibrary,
    find_op_library,
    make_session,
    open_session,
    session_options,
)
from export.packing import pack
from training.machine import environment

FLOAT, INT32 = TensorProto.FLOAT, TensorProto.INT32

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


def test_a_library_that_lacks_an_entry_point_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The one for GPUs, named by mistake, or one from before CrispShare."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = "void *RegisterCustomOps(void *options, void *base) { return 0; }"
    command = [compiler, "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", tmp_path / "other.so"]
    subprocess.run(command, input=source, text=True, check=True)
    monkeypatch.setenv("CRISP_OP_LIBRARY", str(tmp_path / "other.so"))
    library = find_op_library()
    assert library.path is None
    assert "it is of an older version, or not the library for CPUs" in library.reason


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


# ---------------------------------------------------------------- attributes


def one_node(operator: str, attributes: dict[str, Any]) -> bytes:
    """A model of one node of the library, without a fallback."""
    kinds = {"SparseAttention": [FLOAT, INT32], "PruneTokens": [FLOAT, INT32, INT32]}[operator]
    inputs = [f"input_{i}" for i in range(len(kinds))]
    outputs = ["first", "second"]
    shapes = [["T", 96] if operator == "SparseAttention" else ["T"], ["B"], ["B"]]
    node = helper.make_node(operator, inputs, outputs, domain="crisp", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(*described)
            for described in zip(inputs, kinds, shapes, strict=False)
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    versions = [helper.make_opsetid("", 20), helper.make_opsetid("crisp", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10)
    return bytes(model.SerializeToString())


ATTENTION = {"num_heads": 1, "pattern": "topk", "k": 3}
PRUNING = {"keep_num": 1, "keep_den": 2, "floor": 1}


def open_node(operator: str, attributes: dict[str, Any]) -> None:
    node = one_node(operator, attributes)
    open_session(Path("node"), session_options(1), find_op_library(), content=node)


@needs_library
def test_the_nodes_of_the_next_tests_open_as_they_are() -> None:
    open_node("SparseAttention", ATTENTION)
    open_node("PruneTokens", PRUNING)


@needs_library
@pytest.mark.parametrize("value", [3.0, "3", [3], [3.0], ["3"]], ids=repr)
@pytest.mark.parametrize(
    ("operator", "name"),
    [
        *(("SparseAttention", name) for name in ("num_heads", "k", "density_num", "density_den")),
        *(("SparseAttention", name) for name in ("window", "size", "globals")),
        *(("PruneTokens", name) for name in PRUNING),
    ],
)
def test_numbers_of_another_type_are_refused(operator: str, name: str, value: Any) -> None:
    attributes = ATTENTION if operator == "SparseAttention" else PRUNING
    with pytest.raises(ModelFolderError, match=f"attribute {name} must be an integer"):
        open_node(operator, attributes | {name: value})


@needs_library
@pytest.mark.parametrize("value", [1, 1.0, ["first"], [1]], ids=repr)
@pytest.mark.parametrize("name", ["pattern", "queries"])
def test_texts_of_another_type_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ModelFolderError, match=f"attribute {name} must be text"):
        open_node("SparseAttention", ATTENTION | {name: value})


@needs_library
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"pattern": "topk"}, "without attribute k, density_num must lie in"),
        ({"pattern": "blocktopk", "size": 8}, "without attribute k, density_num must lie in"),
        ({"pattern": "topk", "density_num": 1}, r"density_den must lie in \[1, .*got 0"),
        ({"pattern": "topk", "density_den": 5}, "density_num must lie in .*got 0"),
        ({}, "pattern must be dense, topk, band, block or blocktopk, got ''"),
    ],
)
def test_numbers_that_are_missing_are_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFolderError, match=message):
        open_node("SparseAttention", {"num_heads": 1, **attributes})


@needs_library
@pytest.mark.parametrize("large", [2**31, 2**62])
def test_a_share_of_tokens_beyond_64_bits_is_refused(large: int) -> None:
    with pytest.raises(ModelFolderError, match="keep_den must not exceed 2147483647"):
        open_node("PruneTokens", PRUNING | {"keep_num": large, "keep_den": large})


# ---------------------------------------------------------------- building


class Tree:
    """A folder with build.sh and a source, whose "compiler" copies a file in place of it all."""

    def __init__(self, folder: Path) -> None:
        self.ops = folder / "export" / "ops"
        self.library = self.ops / "lib" / "libcrisp_ops.so"
        self.source = self.ops / "one.cc"
        self.compiled = folder / "compiled.so"  # what the compiler makes; it fails without
        self.edits = folder / "edits"  # where it exists, the source is edited meanwhile
        tools = folder / "tools"
        for made in (self.ops, tools):
            made.mkdir(parents=True)
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
        shutil.copy(op_library.DEFAULT_PATH.parents[1] / "build.sh", self.ops)
        shutil.copy(op_library.DEFAULT_PATH, self.compiled)
        self.source.touch()
        out = self.ops / "build" / "release"
        self._script(self.ops / "find_headers.sh", "echo headers")
        self._script(
            tools / "cmake",
            f'[ "$1" = --build ] || exit 0\necho compiled >>{folder}/log\nmkdir -p {out}\n'
            f"if [ -f {self.edits} ]; then sleep 0.02; touch {self.source}; fi\n"
            f"cp {self.compiled} {out}/libcrisp_ops.so",
        )
        self.log = folder / "log"
        self.log.touch()
        self.environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "CXX": "true"}

    def _script(self, path: Path, commands: str) -> None:
        path.write_text(f"#!/bin/sh\n{commands}\n")
        path.chmod(0o755)

    def build(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.ops / "build.sh"), *options]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True)

    @property
    def compilations(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@needs_library
def test_a_library_is_built_once(tree: Tree) -> None:
    assert "operator library built" in tree.build().stdout
    assert "is up to date" in tree.build("--strict").stdout
    assert tree.compilations == 1
    assert "operator library built" in tree.build("--strict", "--force").stdout
    assert tree.compilations == 2
    assert tree.build("--quick").returncode == 2


@needs_library
def test_a_library_that_does_not_load_is_built_again(tree: Tree) -> None:
    tree.build()
    tree.library.write_bytes(b"not a library")
    assert "operator library built" in tree.build().stdout
    assert tree.library.read_bytes() == tree.compiled.read_bytes()


@needs_library
def test_a_source_that_is_edited_while_it_is_compiled_is_compiled_again(tree: Tree) -> None:
    tree.edits.touch()
    tree.build()
    assert tree.library.is_file()
    # Objects of it are newer than what they are made of: the next build must not trust them.
    assert not (tree.ops / "build" / "release").exists()
    tree.edits.unlink()
    assert "operator library built" in tree.build().stdout
    assert "is up to date" in tree.build().stdout


@needs_library
@pytest.mark.parametrize("broken", ["", "not a library"])
def test_where_the_new_library_cannot_be_had_the_old_one_is_not_used(
    broken: str, tree: Tree
) -> None:
    tree.build()
    os.utime(tree.source)
    tree.compiled.unlink()
    if broken:
        tree.compiled.write_text(broken)
    done = tree.build()
    assert done.returncode == 0
    assert ("does not load" if broken else "the compiler failed") in done.stderr
    assert "put aside, as export/ops/build/libcrisp_ops.old.so" in done.stderr
    assert not tree.library.exists()
    assert (tree.ops / "build" / "libcrisp_ops.old.so").is_file()
    assert tree.build("--strict").returncode == 1
