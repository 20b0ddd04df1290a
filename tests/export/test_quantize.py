"""int8: small, close to fp32, everything that should be int8 is, and no text depends on another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_graph import draw, tiny

from export.graph import packed_graph
from export.model_folder import weights_of
from export.op_library import OpLibrary, find_op_library, make_session
from export.packing import pack
from export.quantize import quantize
from training.pattern import AttentionPattern
from training.pruning import TokenPruning


def test_the_graph_is_int8_and_its_answers_are_close(tmp_path: Path) -> None:
    pattern = AttentionPattern("topk", density=0.5)
    model = tiny(pattern, initializer_range=0.1)
    graph = packed_graph(weights_of(model), model.config, pattern)
    before = graph.SerializeToString(deterministic=True)
    small = quantize(graph)
    assert graph.SerializeToString(deterministic=True) == before

    stored = {tensor.name: tensor for tensor in small.graph.initializer}
    kinds = Counter(stored[name].data_type for name in stored if name.endswith(".weight"))
    # Two tables, and in each of two layers qkv, out and the two of the feed-forward.
    assert kinds[onnx.TensorProto.INT8] == 2 + 4 * 2
    linears = [t for n, t in stored.items() if n.endswith(".weight") and "embeddings" not in n]
    for tensor in linears:
        if tensor.data_type == onnx.TensorProto.INT8:
            values = numpy_helper.to_array(tensor)
            assert np.abs(values.astype(int)).max(axis=0).tolist() == [64] * values.shape[1]
    largest = max(
        (t for t in small.graph.initializer if t.data_type == onnx.TensorProto.FLOAT),
        key=lambda t: np.prod(t.dims),
    )
    assert largest.name == "pre_classifier.weight"

    onnx.save(graph, tmp_path / "fp32.onnx")
    onnx.save(small, tmp_path / "int8.onnx")
    sequences = draw([1, 2, 3, 10, 33, 64])
    expected = make_session(tmp_path / "fp32.onnx").run(["logits"], pack(sequences))[0]
    for library in (None, OpLibrary(None, "fallback")):
        session = make_session(tmp_path / "int8.onnx", library=library)
        found = session.run(["logits"], pack(sequences))[0]
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_the_pack_changes_no_answer(tmp_path: Path) -> None:
    """Each token has its own scale: to the last bit, packed or alone."""
    if not find_op_library().available:
        pytest.skip(find_op_library().reason)
    pattern = AttentionPattern("dense")
    pruning = TokenPruning((0.6, 0.5), floor=4)
    model = tiny(pattern, pruning)
    graph = packed_graph(
        weights_of(model), model.config, pattern, TokenPruning((0.6, 0.5), floor=4)
    )
    onnx.save(quantize(graph), tmp_path / "int8.onnx")
    session = make_session(tmp_path / "int8.onnx", threads=2)
    sequences = draw([1, 7, 64, 2, 40, 40])
    together = session.run(["logits"], pack(sequences))[0]
    for ids, row in zip(sequences, together, strict=True):
        assert np.array_equal(session.run(["logits"], pack([ids]))[0][0], row)
