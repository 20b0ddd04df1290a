"""fp16: half the size, close to fp32, in any ONNX Runtime; every function computes in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from test_graph import FALLBACK, MODELS, draw, tiny

from export.errors import ExportError
from export.graph import packed_graph
from export.half import to_half
from export.model_folder import weights_of
from export.op_library import make_session
from export.packing import pack
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

# Each of some thirty roundings in a row moves a number by 2^-12 of itself at most, and each layer's
# LayerNorm keeps numbers near 1: logits of about 1 move by less than this, and a token or link that
# is kept for another moves them by no more than it does in fp32 with other tokens around it.
TOLERANCE = 0.02


def graphs(
    pattern: AttentionPattern, pruning: TokenPruning | None
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    model = tiny(pattern, pruning)
    graph = packed_graph(weights_of(model), model.config, pattern, pruning)
    return graph, to_half(graph)


@pytest.mark.parametrize(("pattern", "pruning"), MODELS, ids=lambda part: str(part))
def test_answers_are_those_of_fp32(
    pattern: AttentionPattern, pruning: TokenPruning | None, tmp_path: Path
) -> None:
    graph, half = graphs(pattern, pruning)
    onnx.save(graph, tmp_path / "fp32.onnx")
    onnx.save(half, tmp_path / "fp16.onnx")
    expected_of = make_session(tmp_path / "fp32.onnx", library=FALLBACK)
    found_of = make_session(tmp_path / "fp16.onnx", library=FALLBACK)
    differences = []
    for seed in range(5):
        batch = pack(draw([1, 2, 3, 10, 33, 64], seed))
        (expected,) = expected_of.run(["logits"], batch)
        (found,) = found_of.run(["logits"], batch)
        assert found.dtype == np.float32
        differences.append(np.abs(found - expected).max(axis=1) / np.abs(expected).max())
    # Where tokens are chosen by rank, rounding may choose another one now and then.
    assert np.median(np.stack(differences), axis=0).max() < TOLERANCE
    if pattern.name in ("dense", "band", "block") and pruning is None:
        assert np.stack(differences).max() < TOLERANCE


def test_weights_are_half_and_casts_stand_at_the_edge_alone() -> None:
    graph, half = graphs(AttentionPattern("dense"), TokenPruning((0.5,), floor=4))
    stored = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    head = {"pre_classifier.weight", "classifier.weight"}
    for name, kind in stored.items():
        matrix = name.endswith(".weight") and "norm" not in name.lower() and name not in head
        assert (kind == TensorProto.FLOAT16) == matrix, name
    assert half.ByteSize() < 0.75 * graph.ByteSize()
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert [cast.output[0] for cast in casts if cast.output[0] != "last_offsets"] == [
        "distilbert.transformer.layer.1.output.float"
    ]
    kinds = {value.name: value.type.tensor_type.elem_type for value in half.graph.output}
    assert kinds == {"logits": TensorProto.FLOAT}


def test_the_graph_that_it_is_made_of_is_left_alone() -> None:
    model = tiny(AttentionPattern("dense"))
    graph = packed_graph(weights_of(model), model.config, AttentionPattern("dense"))
    before = graph.SerializeToString(deterministic=True)
    to_half(graph)
    assert graph.SerializeToString(deterministic=True) == before


def test_a_weight_that_half_cannot_hold_is_refused() -> None:
    model = tiny(AttentionPattern("dense"))
    weights = weights_of(model)
    name = "distilbert.transformer.layer.0.ffn.lin1.weight"
    weights[name] = weights[name].copy()
    weights[name][0, 0] = 7e4
    graph = packed_graph(weights, model.config, AttentionPattern("dense"))
    with pytest.raises(ExportError, match=r"lin1\.weight has a weight of 70000"):
        to_half(graph)
