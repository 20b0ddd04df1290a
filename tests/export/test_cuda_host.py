"""Whole models through the GPU's operator library, built for the host: cuda/block_program.h.

It is the library of `export/ops/cuda` but for launches, tensor cores and cuBLAS: the plans, the
kernels' block programs, attributes, types and memory are those of the GPU.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_graph import FALLBACK, MODELS, draw, saved, tiny
from test_row_functions import run_without_outputs

from export.errors import ModelFolderError
from export.graph import packed_graph
from export.model_folder import weights_of
from export.op_library import OpLibrary, load_problem, make_session
from export.packing import pack
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

pytestmark = pytest.mark.slow  # it compiles

OPS = Path(__file__).parents[2] / "export" / "ops"
BATCHES = ([1, 2, 3, 10, 33, 64], [1], [64], [17] * 20, [5, 64, 1] * 50)


@pytest.fixture(scope="module")
def library() -> OpLibrary:
    built = subprocess.run([OPS / "cuda" / "build.sh", "--host"], capture_output=True, text=True)
    if built.returncode != 0:
        pytest.skip(built.stderr.strip().splitlines()[-1])
    return OpLibrary(OPS / "build" / "cuda-host" / "libcrisp_ops_cuda.so", "for the host")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("pattern", "pruning"), MODELS, ids=lambda part: str(part))
def test_a_model_gives_the_answers_of_its_fallback(
    pattern: AttentionPattern,
    pruning: TokenPruning | None,
    precision: str,
    library: OpLibrary,
    tmp_path: Path,
) -> None:
    model = tiny(pattern, pruning)
    graph = packed_graph(weights_of(model), model.config, pattern, pruning)
    file = saved(graph, tmp_path, precision)
    expected_of = make_session(file, library=FALLBACK)
    found_of = make_session(file, library=library)
    tolerance = 1e-4 if precision == "fp32" else 0.02
    rows = []
    for lengths in BATCHES:
        batch = pack(draw(lengths))
        (expected,) = expected_of.run(["logits"], batch)
        (found,) = found_of.run(["logits"], batch)
        assert found.shape == expected.shape
        (again,) = found_of.run(["logits"], batch)
        assert np.array_equal(found, again)
        rows.append(np.abs(found - expected).max(axis=1) / np.abs(expected).max())
    differences = np.concatenate(rows)
    # Where links or tokens are chosen by rank, rounding to half may choose others now and then.
    chosen = pattern.name in ("topk", "blocktopk") or pruning is not None
    judged = np.median(differences) if chosen else differences.max()
    assert judged < tolerance


def test_the_library_is_one_that_is_used(library: OpLibrary) -> None:
    assert library.path is not None
    assert load_problem(library.path, 0, 0) is None


def test_bad_offsets_are_one_line(library: OpLibrary, tmp_path: Path) -> None:
    model = tiny(AttentionPattern("dense"))
    graph = packed_graph(weights_of(model), model.config, AttentionPattern("dense"))
    onnx.save(graph, tmp_path / "model.onnx")
    session = make_session(tmp_path / "model.onnx", library=library)
    batch = pack(draw([4]))
    batch["cu_seqlens"] = np.array([0, 3], np.int32)
    with pytest.raises(Exception, match="cu_seqlens must end at the number of tokens, 4, got 3"):
        session.run(["logits"], batch)


@pytest.mark.parametrize(("inner", "qkv"), [(512, 0), (0, 512)])
def test_layers_without_outputs_are_refused(
    inner: int, qkv: int, library: OpLibrary, tmp_path: Path
) -> None:
    run_without_outputs(library, tmp_path, "fp32", inner, qkv)


def test_int8_is_for_cpus(library: OpLibrary, tmp_path: Path) -> None:
    from export.quantize import quantize

    model = tiny(AttentionPattern("dense"))
    graph = packed_graph(weights_of(model), model.config, AttentionPattern("dense"))
    onnx.save(quantize(graph), tmp_path / "model.onnx")
    with pytest.raises(ModelFolderError, match="cannot open"):
        make_session(tmp_path / "model.onnx", library=library)
