"""int8: small, close to fp32, and everything that should be int8 is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from test_graph import draw, tiny

from export.graph import packed_graph
from export.model_folder import weights_of
from export.op_library import OpLibrary, make_session
from export.packing import pack
from export.quantize import quantize, quantize_rows
from training.pattern import AttentionPattern

tables = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-100, 100, width=32),
)


@given(tables)
def test_rows_come_back_within_half_a_step(table: np.ndarray) -> None:  # type: ignore[type-arg]
    rows, scale = quantize_rows(table)
    assert rows.dtype == np.int8
    assert scale.shape == (len(table), 1)
    assert (np.abs(rows * scale - table) <= scale / 2 * (1 + 1e-3) + 1e-37).all()


def test_the_graph_is_int8_and_its_answers_are_close(tmp_path: Path) -> None:
    pattern = AttentionPattern("topk", density=0.5)
    model = tiny(pattern, initializer_range=0.1)
    graph = packed_graph(weights_of(model), model.config, pattern)
    before = graph.SerializeToString(deterministic=True)
    small = quantize(graph)
    assert graph.SerializeToString(deterministic=True) == before

    operators = Counter(node.op_type for node in small.graph.node)
    assert operators["MatMulInteger"] == 4 * 2  # qkv, out, and two of the FFN, in each layer
    assert operators["MatMul"] == 2  # the head
    assert operators["SparseAttention"] == 2
    assert [function.name for function in small.functions] == ["SparseAttention"]
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
