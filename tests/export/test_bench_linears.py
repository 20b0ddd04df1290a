"""What export/ops/bench times and counts computes what it says."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.ops.bench import bench_linears_ort as bench
from export.ops.bench.int8_accuracy import seven_bit_weights, static_scales, unsigned_weights

ROWS = 7


@pytest.mark.parametrize("block", bench.BLOCKS)
@pytest.mark.parametrize("form", [form for form in bench.FORMS if form != "fp32"])
def test_every_form_of_a_block_computes_the_same(block: str, form: str) -> None:
    width = bench.INNER if block == "ffn2" else bench.HIDDEN
    x = np.random.default_rng(1).normal(size=(ROWS, width)).astype(np.float32)
    scale, zero = bench.NORMAL
    feeds = {"x": x, "bytes": np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)}

    def output(of: str) -> np.ndarray:
        session = bench.make_session(bench.make_model(block, of, ROWS), 1)
        found = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})[0]
        if found.dtype == np.uint8:  # ffn1 requantises where its scale is given
            return bench.GELU[0] * (found.astype(np.float32) - bench.GELU[1])
        return found

    # Half a step of u8 and of s8 over 4 standard deviations is under 1 % each; saturation, on a
    # processor without VNNI, adds up to 3 %. A wrong zero point, scale or bias is far above.
    expected = output("fp32")
    assert np.linalg.norm(output(form) - expected) < 0.06 * np.linalg.norm(expected)


def _int8_model(weight: np.ndarray, scale: np.ndarray) -> onnx.ModelProto:
    """y = x W as quantize_dynamic writes it; W is weight · scale, a scale a column."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "q_scale", "q_zero"]),
        helper.make_node("MatMulInteger", ["q", "w_quantized", "q_zero", "w_zero_point"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["sum_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["q_scale", "w_scale"], ["scale"]),
        helper.make_node("Mul", ["sum_float", "scale"], ["y"]),
    ]
    constants = {
        "w_quantized": weight,
        "w_zero_point": np.zeros(weight.shape[1], np.int8),
        "w_scale": scale,
    }
    graph = helper.make_graph(
        nodes,
        "int8",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, weight.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@given(seed=st.integers(0, 2**32 - 1), inner=st.integers(1, 40), columns=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_rewritten_models_are_the_same_function(seed: int, inner: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    # Up to 64, so that no sum saturates and every form must agree.
    weight = random.integers(-64, 65, (inner, columns)).astype(np.int8)
    scale = random.uniform(0.001, 0.01, columns).astype(np.float32)
    x = random.normal(size=(5, inner)).astype(np.float32)
    model = _int8_model(weight, scale)
    expected = _run(model, x)
    np.testing.assert_allclose(_run(unsigned_weights(model), x), expected, rtol=1e-5, atol=1e-5)

    extremes = {"x": (float(x.min()), float(x.max()))}  # what is found on the call itself
    steps = np.abs(weight.astype(np.float32) * scale).sum(axis=0)  # of a change by 1 in x
    step = (max(0.0, extremes["x"][1]) - min(0.0, extremes["x"][0])) / 255
    static = _run(static_scales(model, extremes), x)
    assert (np.abs(static - expected) <= 1.01 * step * steps + 1e-5).all()

    # Cut to half the steps: each weight moves by at most half a wider step.
    seven = seven_bit_weights(model)
    moved = np.abs(x).sum(axis=1, keepdims=True) + inner * step
    assert (np.abs(_run(seven, x) - expected) <= moved * scale * 127 / 64 / 2 * 1.01 + 1e-5).all()
