"""The GPU path on a GPU: parity, determinism, memory that runs out.

pytest -m gpu tests/export/test_gpu.py
export/ops/cuda/sanitize.sh      # the same under compute-sanitizer
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_graph import MODELS, draw, saved, tiny, torch_logits

from export.gpu import gpu_problem, library_for
from export.graph import packed_graph
from export.model_folder import weights_of
from export.op_library import OpLibrary, find_op_library, make_session, open_session
from export.packing import pack
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

pytestmark = pytest.mark.gpu

LENGTHS = [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 512, 2048]


@pytest.fixture(scope="module")
def library() -> OpLibrary:
    problem = gpu_problem()
    if problem is not None:
        pytest.skip(problem)
    return library_for("cuda", "fp32")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("pattern", "pruning"), MODELS, ids=lambda part: str(part))
def test_answers_are_those_of_the_cpu_and_of_torch(
    pattern: AttentionPattern,
    pruning: TokenPruning | None,
    precision: str,
    library: OpLibrary,
    tmp_path: Path,
) -> None:
    model = tiny(pattern, pruning, max_position_embeddings=max(LENGTHS))
    graph = packed_graph(weights_of(model), model.config, pattern, pruning)
    on_cpu = make_session(saved(graph, tmp_path, "fp32"), library=find_op_library())
    on_gpu = make_session(saved(graph, tmp_path, precision), library=library)
    assert on_gpu.get_providers()[0] == "CUDAExecutionProvider"
    sequences = draw(LENGTHS)
    (expected,) = on_cpu.run(["logits"], pack(sequences))
    (found,) = on_gpu.run(["logits"], pack(sequences))
    alone = np.concatenate([on_gpu.run(["logits"], pack([ids]))[0] for ids in sequences])
    tolerance = (1e-4 if precision == "fp32" else 0.02) * np.abs(expected).max()
    chosen = pattern.name in ("topk", "blocktopk") or pruning is not None
    judge = np.median if chosen else np.max  # rounding may choose another link or token
    for other in (expected, torch_logits(model, sequences), alone):
        assert judge(np.abs(found - other).max(axis=1)) < tolerance


def test_a_run_is_repeated_to_the_last_bit(library: OpLibrary, tmp_path: Path) -> None:
    pattern, pruning = AttentionPattern("blocktopk", size=8, k=3), TokenPruning((0.6,), floor=4)
    model = tiny(pattern, pruning)
    graph = packed_graph(weights_of(model), model.config, pattern, pruning)
    session = make_session(saved(graph, tmp_path, "fp16"), library=library)
    batch = pack(draw([1, 7, 64, 40, 33] * 8))
    (first,) = session.run(["logits"], batch)
    for _ in range(10):
        assert np.array_equal(session.run(["logits"], batch)[0], first)


def test_memory_that_runs_out_is_an_error_and_the_process_lives_on(
    library: OpLibrary, tmp_path: Path
) -> None:
    pattern = AttentionPattern("dense")
    model = tiny(pattern)
    file = saved(packed_graph(weights_of(model), model.config, pattern), tmp_path, "fp32")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library.path))
    provider = ("CUDAExecutionProvider", {"gpu_mem_limit": str(32 << 20)})
    session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
    small = pack(draw([5, 9]))
    (expected,) = session.run(["logits"], small)
    with pytest.raises(Exception, match=r"(?i)memory|alloc"):
        session.run(["logits"], pack(draw([64] * 8000)))
    assert np.array_equal(session.run(["logits"], small)[0], expected)
    assert torch.isfinite(torch.from_numpy(expected)).all()


def test_offsets_stay_on_the_host(library: OpLibrary, tmp_path: Path) -> None:
    """Without pruning no copy back to the host stands in the graph but that of the logits."""
    pattern = AttentionPattern("dense")
    model = tiny(pattern)
    file = saved(packed_graph(weights_of(model), model.config, pattern), tmp_path, "fp16")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    open_session(file, options, library)
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    copied = [node.input[0] for node in nodes if node.op_type == "MemcpyToHost"]
    assert copied == []
