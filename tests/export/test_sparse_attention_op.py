"""`crisp::SparseAttention` three times: compiled kernel, function body in the model, torch.

The kernels are held against the scalar reference in C++ (export/ops/tests), over a finer grid. Here
the three meet through ONNX Runtime, and bad input meets its error messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.functions import (
    Queries,
    attention_attributes,
    overload_of,
    sparse_attention_function,
)
from export.op_library import OpLibrary, find_op_library, make_session
from training.attention.registry import sparse_attention
from training.pattern import AttentionPattern

LIBRARY = find_op_library()
FALLBACK = OpLibrary(None, "the function body, for the test")
needs_library = pytest.mark.skipif(not LIBRARY.available, reason=LIBRARY.reason)

PATTERNS = (
    AttentionPattern("dense"),
    AttentionPattern("topk", density=0.2),
    AttentionPattern("topk", density=0.001),
    AttentionPattern("topk", density=1.0),
    AttentionPattern("topk", k=3),
    AttentionPattern("band", window=9, globals=1),
    AttentionPattern("block", size=8, globals=2),
    AttentionPattern("blocktopk", size=8, density=0.25),
    AttentionPattern("blocktopk", size=1, k=3),
    AttentionPattern("blocktopk", size=64, k=1),
)
every_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=str)

Floats = NDArray[np.float32]
Outputs = tuple[Floats, Floats]  # context [T, H] or [B, H], received [T]
both_queries = pytest.mark.parametrize("queries", ["all", "first"])


def model(
    pattern: AttentionPattern,
    num_heads: int = 2,
    opset: int = 18,
    outputs: Sequence[str] = ("context", "received"),
    attributes: dict[str, int | str] | None = None,
    queries: Queries = "all",
) -> onnx.ModelProto:
    """A model of one node; `attributes` replace those that belong to the pattern."""
    shapes = {"context": ["T" if queries == "all" else "B", "H"], "received": ["T"]}
    settings: dict[str, Any] = attention_attributes(pattern, num_heads, queries) | (
        attributes or {}
    )
    node = helper.make_node(
        "SparseAttention",
        ["qkv", "cu_seqlens"],
        list(outputs),
        domain="crisp",
        overload=overload_of(queries),
        **settings,
    )
    graph = helper.make_graph(
        [node],
        "attention",
        [
            helper.make_tensor_value_info("qkv", TensorProto.FLOAT, ["T", "W"]),
            helper.make_tensor_value_info("cu_seqlens", TensorProto.INT32, ["B1"]),
        ],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, shapes[o]) for o in outputs if o],
    )
    made = helper.make_model(
        graph,
        functions=[sparse_attention_function(pattern, num_heads, opset, queries)],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("crisp", 1)],
        ir_version=10,
    )
    onnx.checker.check_model(made)
    return made


def open_model(
    made: onnx.ModelProto, folder: Path, library: OpLibrary
) -> onnxruntime.InferenceSession:
    file = folder / "model.onnx"
    onnx.save(made, file)
    return make_session(file, threads=2, library=library)


@cache
def session(
    pattern: AttentionPattern, num_heads: int, library: OpLibrary, queries: Queries = "all"
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if library.path is not None:
        options.register_custom_ops_library(str(library.path))
    made = model(pattern, num_heads, queries=queries).SerializeToString()
    return onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])


def offsets(lengths: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def run(
    opened: onnxruntime.InferenceSession, qkv: Floats, cu_seqlens: NDArray[np.int32]
) -> Outputs:
    context, received = opened.run(None, {"qkv": qkv, "cu_seqlens": cu_seqlens})
    return context, received


def by_torch(
    pattern: AttentionPattern,
    num_heads: int,
    qkv: Floats,
    cu_seqlens: NDArray[np.int32],
    queries: Queries = "all",
) -> Outputs:
    hidden = qkv.shape[1] // 3
    contexts: list[Floats] = [np.empty((0, hidden), np.float32)]
    received: list[Floats] = [np.empty(0, np.float32)]
    for begin, end in pairwise(cu_seqlens):
        if begin == end:
            if queries == "first":
                contexts.append(np.zeros_like(qkv, shape=(1, hidden)))
            continue
        packed = torch.from_numpy(qkv[begin:end]).reshape(1, end - begin, 3, num_heads, -1)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        valid = torch.ones(1, int(end - begin), dtype=torch.bool)
        context, probabilities = sparse_attention(q, k, v, valid, pattern)
        if queries == "first":
            context, probabilities = context[:, :, :1], probabilities[:, :, :1]
        contexts.append(context[0].transpose(0, 1).reshape(-1, hidden).numpy())
        received.append((probabilities[0].sum(dim=(0, 1)) / num_heads).numpy())
    return np.concatenate(contexts), np.concatenate(received)


def integers(tokens: int, num_heads: int, head_size: int, seed: int = 0) -> Floats:
    """qkv [T, 3H] of integers from -2 to 2: dot products are exact, so that all implementations see
    the same ties, of which there are many."""
    generator = np.random.default_rng(seed)
    return generator.integers(-2, 3, (tokens, 3 * num_heads * head_size)).astype(np.float32)


def normal(tokens: int, num_heads: int, head_size: int, seed: int = 0) -> Floats:
    shape = (tokens, 3 * num_heads * head_size)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def values(
    pattern: AttentionPattern, tokens: int, num_heads: int, head_size: int, seed: int = 0
) -> Floats:
    """Integers, of which many scores tie; but means over blocks are not whole, and where they tie
    rounding decides, so for blocktopk values that hardly ever do."""
    make = normal if pattern.name == "blocktopk" else integers
    return make(tokens, num_heads, head_size, seed)


def assert_same(actual: Outputs, expected: Outputs) -> None:
    for value, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=2e-5)


def assert_all_same(
    pattern: AttentionPattern,
    lengths: Sequence[int],
    num_heads: int,
    qkv: Floats,
    queries: Queries = "all",
) -> None:
    cu_seqlens = offsets(lengths)
    expected = by_torch(pattern, num_heads, qkv, cu_seqlens, queries)
    libraries = [FALLBACK, LIBRARY] if LIBRARY.available else [FALLBACK]
    for library in libraries:
        opened = session(pattern, num_heads, library, queries)
        assert_same(run(opened, qkv, cu_seqlens), expected)


# ---------------------------------------------------------------- the three agree


@every_pattern
@both_queries
@pytest.mark.parametrize("head_size", [32, 64])
def test_short_texts_with_many_ties(
    pattern: AttentionPattern, queries: Queries, head_size: int
) -> None:
    for shortest in range(1, 71, 10):
        lengths = range(shortest, shortest + 10)
        assert_all_same(pattern, lengths, 2, values(pattern, sum(lengths), 2, head_size), queries)


@pytest.mark.parametrize("k", [1, 3])
def test_blocks_that_tie_are_all_kept(k: int) -> None:
    # Whole blocks of 8 and heads of 64: means and scale are exact, so equal scores tie everywhere.
    pattern = AttentionPattern("blocktopk", size=8, k=k)
    qkv = integers(232, 1, 64)
    qkv[:, 64:72] = np.repeat(qkv[::8, 64:72], 8, axis=0)
    qkv[:, 72:128] = 0
    assert_all_same(pattern, [32, 200], 1, qkv)


@every_pattern
def test_lengths_around_powers_of_two(pattern: AttentionPattern) -> None:
    for lengths in ([127, 128, 129], [512], [513]):
        assert_all_same(pattern, lengths, 1, values(pattern, sum(lengths), 1, 32))


@every_pattern
def test_values_without_ties(pattern: AttentionPattern) -> None:
    # With this seed no two scores around a threshold are closer than rounding errors are large.
    lengths = [5, 1, 40, 0, 77]
    assert_all_same(pattern, lengths, 3, normal(sum(lengths), 3, 32))


@every_pattern
@pytest.mark.parametrize("head_size", [32, 64])
def test_2048_tokens(pattern: AttentionPattern, head_size: int) -> None:
    assert_all_same(pattern, [2048], 1, values(pattern, 2048, 1, head_size))


@every_pattern
@both_queries
@pytest.mark.parametrize("library", [pytest.param(LIBRARY, marks=needs_library), FALLBACK])
def test_an_empty_batch(pattern: AttentionPattern, library: OpLibrary, queries: Queries) -> None:
    opened = session(pattern, 2, library, queries)
    context, received = run(opened, np.zeros((0, 192), np.float32), offsets([]))
    assert context.shape == (0, 64)
    assert received.shape == (0,)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pattern=st.sampled_from(PATTERNS),
    lengths=st.lists(st.integers(0, 30), max_size=5),
    num_heads=st.sampled_from([1, 2, 3]),
    head_size=st.sampled_from([1, 4, 20, 32]),
    seed=st.integers(0, 1000),
    queries=st.sampled_from(["all", "first"]),
)
def test_any_batch(
    pattern: AttentionPattern,
    lengths: list[int],
    num_heads: int,
    head_size: int,
    seed: int,
    queries: Queries,
) -> None:
    qkv = values(pattern, sum(lengths), num_heads, head_size, seed)
    assert_all_same(pattern, lengths, num_heads, qkv, queries)


@needs_library
@every_pattern
@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_every_instruction_set(
    pattern: AttentionPattern, isa: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRISP_ISA", isa)
    lengths = [1, 31, 64, 150]
    qkv = values(pattern, sum(lengths), 2, 32)
    try:
        opened = open_model(model(pattern), tmp_path, LIBRARY)
    except Exception as error:
        if "this processor does not support it" not in str(error):
            raise
        pytest.skip(str(error))
    assert_same(run(opened, qkv, offsets(lengths)), by_torch(pattern, 2, qkv, offsets(lengths)))


@needs_library
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [3, 64 + 3], ids=["in q", "in k"])
@every_pattern
def test_nonfinite_scores_follow_torch(
    pattern: AttentionPattern, column: int, value: float
) -> None:
    qkv = values(pattern, 50, 2, 32)
    qkv[20, column] = value
    kernel = run(session(pattern, 2, LIBRARY), qkv, offsets([13, 30, 7]))
    if pattern.name != "blocktopk" or np.isnan(value):
        # The kernel has the score of two means, torch the mean of the scores: infinities differ.
        expected = by_torch(pattern, 2, qkv, offsets([13, 30, 7]))
        np.testing.assert_allclose(kernel[0], expected[0], rtol=1e-4, atol=2e-5)
    assert np.isfinite(kernel[0][:13]).all()
    assert np.isfinite(kernel[0][43:]).all()
    assert np.isfinite(kernel[1][np.r_[0:13, 43:50]]).all()


@needs_library
@every_pattern
def test_a_value_that_no_row_keeps_contributes_nothing(pattern: AttentionPattern) -> None:
    qkv = integers(40, 1, 32)
    qkv[:, 32] = 0  # the first column of k
    clean = run(session(pattern, 1, LIBRARY), qkv, offsets([20, 20]))
    qkv[5, 64:] = np.nan
    dirty = run(session(pattern, 1, LIBRARY), qkv, offsets([20, 20]))
    np.testing.assert_array_equal(clean[1], dirty[1])
    np.testing.assert_array_equal(clean[0][20:], dirty[0][20:])
    attends_to_5 = np.isnan(dirty[0]).all(axis=1)
    np.testing.assert_array_equal(clean[0][~attends_to_5], dirty[0][~attends_to_5])
    assert attends_to_5.any() == (clean[1][5] > 0)


# ---------------------------------------------------------------- the operator in a model


@pytest.mark.parametrize("library", [pytest.param(LIBRARY, marks=needs_library), FALLBACK])
@pytest.mark.parametrize("opset", [18, 21])
def test_received_may_be_named_empty(library: OpLibrary, opset: int, tmp_path: Path) -> None:
    pattern = AttentionPattern("topk", density=0.2)
    qkv, cu_seqlens = integers(30, 2, 32), offsets([10, 20])
    opened = open_model(model(pattern, opset=opset, outputs=["context", ""]), tmp_path, library)
    (context,) = opened.run(None, {"qkv": qkv, "cu_seqlens": cu_seqlens})
    expected = by_torch(pattern, 2, qkv, cu_seqlens)
    np.testing.assert_allclose(context, expected[0], rtol=1e-4, atol=2e-5)


@needs_library
@both_queries
def test_ranks_survive_the_operator(queries: Queries, tmp_path: Path) -> None:
    # MatMul and Add become Gemm only where ONNX Runtime knows the rank of what comes in.
    made = model(PATTERNS[0], outputs=["context", ""], queries=queries)
    generator = np.random.default_rng(0)
    for name, shape in (("weight", (64, 8)), ("bias", (8,))):
        array = generator.standard_normal(shape).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 192
    made.graph.node.append(helper.make_node("MatMul", ["context", "weight"], ["product"]))
    made.graph.node.append(helper.make_node("Add", ["product", "bias"], ["result"]))
    made.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("result", TensorProto.FLOAT, ["rows", 8])
    )
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(LIBRARY.path))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    opened = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    qkv = integers(30, 2, 32)
    (result,) = opened.run(None, {"qkv": qkv, "cu_seqlens": offsets([10, 20])})
    assert result.shape == (30 if queries == "all" else 2, 8)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    assert [node.op_type for node in optimized.graph.node] == ["SparseAttention", "Gemm"]


@needs_library
def test_the_library_takes_over_from_the_function(tmp_path: Path) -> None:
    # Only the kernel checks its offsets, so a refusal tells which of the two ran.
    bad = {"qkv": integers(5, 2, 32), "cu_seqlens": offsets([3])}
    kernel = open_model(model(PATTERNS[0]), tmp_path, LIBRARY)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        kernel.run(None, bad)
    open_model(model(PATTERNS[0]), tmp_path, FALLBACK).run(None, bad)


@pytest.mark.parametrize("library", [pytest.param(LIBRARY, marks=needs_library), FALLBACK])
def test_one_model_holds_both_kinds_of_queries(library: OpLibrary, tmp_path: Path) -> None:
    pattern = AttentionPattern("blocktopk", size=8, k=1)
    made = model(pattern, outputs=["context", ""])
    first = model(pattern, outputs=["context", ""], queries="first")
    first.graph.node[0].output[0] = "first"
    made.graph.node.append(first.graph.node[0])
    made.functions.append(first.functions[0])
    made.graph.output.append(helper.make_tensor_value_info("first", TensorProto.FLOAT, ["B", "H"]))
    onnx.checker.check_model(made)
    qkv, cu_seqlens = normal(60, 2, 32), offsets([40, 20])
    rows, first_rows = open_model(made, tmp_path, library).run(
        None, {"qkv": qkv, "cu_seqlens": cu_seqlens}
    )
    np.testing.assert_allclose(first_rows, rows[[0, 40]], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- bad input


@needs_library
@pytest.mark.parametrize(
    ("cu_seqlens", "message"),
    [
        ([], "cu_seqlens must hold the offsets of B sequences"),
        ([1, 10], "cu_seqlens must start at 0, got 1"),
        ([-3, 10], "cu_seqlens must start at 0, got -3"),
        ([0, 7, 4, 10], "cu_seqlens must not decrease, got 7 and then 4 at index 2"),
        ([0, 2**31 - 1, 10], "cu_seqlens must not decrease"),
        ([0, 11], "cu_seqlens must end at the number of tokens, 10, got 11"),
        ([0, 9], "cu_seqlens must end at the number of tokens, 10, got 9"),
        ([0], "cu_seqlens must end at the number of tokens, 10, got 0"),
    ],
)
@every_pattern
def test_offsets_that_overrun_are_refused(
    pattern: AttentionPattern, cu_seqlens: list[int], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        run(session(pattern, 2, LIBRARY), integers(10, 2, 32), np.array(cu_seqlens, np.int32))


@needs_library
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("qkv", np.zeros((10, 192), np.float64), "Unexpected input data type"),
        ("qkv", np.zeros((10, 192, 1), np.float32), "Invalid rank for input: qkv"),
        ("qkv", np.zeros((10, 190), np.float32), r"qkv must be \[T, 3H\].*got \[10, 190\]"),
        ("qkv", np.zeros((10, 195), np.float32), r"a multiple of num_heads 2, got \[10, 195\]"),
        ("qkv", np.zeros((10, 0), np.float32), r"qkv must be \[T, 3H\].*got \[10, 0\]"),
        ("cu_seqlens", np.zeros(2, np.int64), "Unexpected input data type"),
        ("cu_seqlens", np.zeros((2, 1), np.int32), "Invalid rank for input: cu_seqlens"),
    ],
)
def test_wrong_types_and_shapes_are_refused(
    name: str, value: NDArray[np.generic], message: str
) -> None:
    feeds = {"qkv": integers(10, 2, 32), "cu_seqlens": offsets([10])} | {name: value}
    with pytest.raises(Exception, match=message):
        session(PATTERNS[0], 2, LIBRARY).run(None, feeds)


@needs_library
@pytest.mark.parametrize("num_heads", [65, 2**62, 2**64 // 3 // 2 + 1])
def test_more_heads_than_numbers_are_refused(num_heads: int) -> None:
    feeds = {"qkv": integers(10, 2, 32), "cu_seqlens": offsets([10])}
    with pytest.raises(Exception, match=rf"a multiple of num_heads {num_heads}, got \[10, 192\]"):
        session(PATTERNS[0], num_heads, LIBRARY).run(None, feeds)


@needs_library
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"pattern": "spiral"},
            "pattern must be dense, topk, band, block or blocktopk, got 'spiral'",
        ),
        ({"queries": "some"}, "queries must be all or first, got 'some'"),
        ({"num_heads": 0}, "num_heads must be positive, got 0"),
        ({"pattern": "topk", "density_num": 6, "density_den": 5}, "density_num must lie in"),
        ({"pattern": "topk", "k": -1}, "k must not be negative, got -1"),
        ({"pattern": "band", "window": 4}, "window must be odd and positive, got 4"),
        ({"pattern": "band"}, "window must be odd and positive, got 0"),
        ({"pattern": "block", "size": 0}, "size must be positive, got 0"),
        ({"pattern": "block", "size": 4, "globals": -1}, "globals must not be negative, got -1"),
        ({"pattern": "blocktopk", "k": 2}, "blocktopk: attribute size must be positive, got 0"),
        ({"pattern": "blocktopk", "size": 8, "k": -1}, "k must not be negative, got -1"),
        ({"pattern": "blocktopk", "size": 8, "density_num": 0}, "density_num must lie in"),
    ],
)
def test_wrong_attributes_are_refused(
    attributes: dict[str, int | str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=message):
        open_model(model(PATTERNS[0], attributes=attributes), tmp_path, LIBRARY)


@needs_library
def test_an_unknown_instruction_set_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRISP_ISA", "sse9")
    with pytest.raises(Exception, match="CRISP_ISA=sse9 is unknown; expected"):
        open_model(model(PATTERNS[0]), tmp_path, LIBRARY)
