"""The row operators: compiled kernel, function body and plain numpy, held against each other."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.special import erf

from export.graph import IR_VERSION, OPSET
from export.manifest import DOMAIN, DOMAIN_VERSION
from export.op_library import OpLibrary, find_op_library, make_session
from export.quantize import quantize_along
from export.row_functions import (
    EMBED,
    LINEAR,
    POST_ATTENTION,
    POST_ATTENTION_QKV,
    WEIGHT_LEVELS,
    Precision,
    row_functions,
)

Array = NDArray[Any]

EPSILON = 1e-12
FALLBACK = OpLibrary(None, "the function body is wanted")
WAYS = [
    pytest.param(find_op_library(), id="kernel"),
    pytest.param(FALLBACK, id="function"),
]


@pytest.fixture(autouse=True)
def _needs_library(request: pytest.FixtureRequest) -> None:
    library = getattr(request.node, "callspec", None)
    wanted = None if library is None else library.params.get("library")
    if isinstance(wanted, OpLibrary) and wanted is not FALLBACK and not wanted.available:
        pytest.skip(wanted.reason)


def run(
    operator: str,
    arrays: list[Array],
    constants: list[Array],
    outputs: int,
    library: OpLibrary,
    folder: Path,
    precision: Precision,
) -> list[Array]:
    """What one node gives for these inputs, of which `constants` stand in the model."""
    inputs = [f"input_{i}" for i in range(len(arrays))]
    names = [f"constant_{i}" for i in range(len(constants))]
    results = [f"result_{i}" for i in range(outputs)]
    attributes = {} if operator == LINEAR else {"epsilon": EPSILON}
    node = helper.make_node(operator, inputs + names, results, domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for name, array in zip(inputs, arrays, strict=True)
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, None]) for n in results],
        [numpy_helper.from_array(a, n) for a, n in zip(constants, names, strict=True)],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)],
        functions=row_functions(precision, OPSET),
        ir_version=IR_VERSION,
    )
    file = folder / "one.onnx"
    onnx.save(model, file)
    session = make_session(file, threads=2, library=library)
    found: list[Array] = session.run(results, dict(zip(inputs, arrays, strict=True)))
    return found


# ---------------------------------------------------------------- the same in numpy


def linear(x: Array, weight: Array, scale: Array, bias: Array) -> Array:
    """x·W + b in double precision; the rows of x quantised where the weights are int8."""
    if weight.dtype == np.float32:
        return x.astype(np.float64) @ weight.astype(np.float64) * scale + bias
    lowest = np.minimum(x.min(axis=1, keepdims=True), 0)
    highest = np.maximum(x.max(axis=1, keepdims=True), 0)
    step = (highest - lowest) / np.float32(127)
    step[step == 0] = 1
    inverse = np.float32(1) / step
    zero = np.rint(-lowest * inverse)
    quantised = np.clip(np.rint(x * inverse) + zero, 0, 127)
    dots = (quantised - zero).astype(np.int64) @ weight.astype(np.int64)
    return dots * step.astype(np.float64) * scale + bias


def norm(x: Array, gamma: Array, beta: Array) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON) * gamma + beta


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def post_attention(context: Array, hidden: Array, c: list[Array]) -> list[Array]:
    attended = norm(hidden + linear(context, *c[0:3]), *c[3:5])
    inner = gelu(linear(attended.astype(np.float32), *c[5:8]))
    output = norm(attended + linear(inner.astype(np.float32), *c[8:11]), *c[11:13])
    return [output, *([linear(output.astype(np.float32), *c[13:16])] if len(c) > 13 else [])]


def random_linear(
    random: np.random.Generator, inputs: int, outputs: int, precision: Precision
) -> list[Array]:
    weight = random.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
    scale = np.ones(outputs, np.float32)
    bias = random.normal(0, 0.1, outputs).astype(np.float32)
    if precision == "int8":
        return [*quantize_along(weight, 1, WEIGHT_LEVELS), bias]
    return [weight, scale, bias]


def random_norm(random: np.random.Generator, width: int) -> list[Array]:
    return [
        random.normal(1, 0.1, width).astype(np.float32),
        random.normal(0, 0.1, width).astype(np.float32),
    ]


def close(found: Array, expected: Array, precision: Precision) -> None:
    """fp32 agrees to rounding. In int8 a value that lies between two steps may fall to either side
    (the kernel multiplies and rounds at once), and each that does moves a sum by one step of one
    weight: nearly all outputs agree to rounding, and none is far off."""
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    else:
        assert np.quantile(difference, 0.5) < 2e-3
        assert difference.max(initial=0) < 0.1


# ---------------------------------------------------------------- tests


@pytest.mark.parametrize("library", WAYS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 1, 1), (2, 3, 5), (3, 8, 24), (5, 17, 25), (7, 31, 49), (33, 64, 96), (70, 129, 200)],
)
def test_linear_is_a_product(
    library: OpLibrary, precision: Precision, rows: int, inputs: int, outputs: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(rows)
    x = random.normal(0, 1, (rows, inputs)).astype(np.float32)
    constants = random_linear(random, inputs, outputs, precision)
    (found,) = run(LINEAR, [x], constants, 1, library, tmp_path, precision)
    np.testing.assert_allclose(
        found, linear(x, *constants), atol=2e-5 if precision == "fp32" else 3e-2, rtol=0
    )


@pytest.mark.parametrize("library", WAYS)
def test_int8_products_are_exact_at_their_extremes(library: OpLibrary, tmp_path: Path) -> None:
    """Every product at its largest: 127 · 64, 1,536 of them. Nothing saturates."""
    inputs, outputs = 1536, 50
    signs = np.where(np.arange(outputs) % 2, 1, -1)
    weight = np.broadcast_to(64 * signs, (inputs, outputs)).astype(np.int8)
    x = np.full((3, inputs), 127, np.float32)
    x[1] *= -1
    x[2, ::2] *= -1
    one, none = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
    constants: list[Array] = [np.ascontiguousarray(weight), one, none]
    (found,) = run(LINEAR, [x], constants, 1, library, tmp_path, "int8")
    np.testing.assert_allclose(found[0], 127 * 64 * inputs * signs, rtol=1e-6)
    np.testing.assert_allclose(found[1], -127 * 64 * inputs * signs, rtol=1e-6)
    # From -127 to 127 in 127 steps of 2: -127 and 127 lie between two steps each.
    assert np.abs(found[2]).max() <= 64 * inputs * 2


@pytest.mark.parametrize("library", WAYS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("operator", [POST_ATTENTION, POST_ATTENTION_QKV])
@pytest.mark.parametrize(("rows", "hidden", "inner"), [(1, 4, 8), (5, 12, 48), (67, 48, 100)])
def test_post_attention_is_what_a_layer_does(
    library: OpLibrary,
    precision: Precision,
    operator: str,
    rows: int,
    hidden: int,
    inner: int,
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(hidden)
    context, residual = random.normal(0, 1, (2, rows, hidden)).astype(np.float32)
    constants = [
        *random_linear(random, hidden, hidden, precision),
        *random_norm(random, hidden),
        *random_linear(random, hidden, inner, precision),
        *random_linear(random, inner, hidden, precision),
        *random_norm(random, hidden),
    ]
    outputs = 1
    if operator == POST_ATTENTION_QKV:
        constants += random_linear(random, hidden, 3 * hidden, precision)
        outputs = 2
    found = run(operator, [context, residual], constants, outputs, library, tmp_path, precision)
    for one, expected in zip(found, post_attention(context, residual, constants), strict=True):
        close(one, expected, precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_row_does_not_depend_on_the_others(precision: Precision, tmp_path: Path) -> None:
    library = find_op_library()
    if not library.available:
        pytest.skip(library.reason)
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (131, 40)).astype(np.float32)
    constants = random_linear(random, 40, 56, precision)
    (together,) = run(LINEAR, [x], constants, 1, library, tmp_path, precision)
    for rows in (slice(0, 1), slice(5, 12), slice(100, 131)):
        (alone,) = run(LINEAR, [x[rows]], constants, 1, library, tmp_path, precision)
        assert np.array_equal(alone, together[rows])  # to the last bit


@pytest.mark.parametrize("library", WAYS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 7, 20])
def test_a_bad_row_stays_alone(
    library: OpLibrary, precision: Precision, bad: float, at: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    x = random.normal(0, 1, (9, 21)).astype(np.float32)
    constants = random_linear(random, 21, 30, precision)
    (good,) = run(LINEAR, [x], constants, 1, library, tmp_path, precision)
    x[4, at] = bad
    (found,) = run(LINEAR, [x], constants, 1, library, tmp_path, precision)
    assert not np.isfinite(found[4]).any()
    assert np.array_equal(np.delete(found, 4, 0), np.delete(good, 4, 0))


@pytest.mark.parametrize("library", WAYS)
@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-38, 3e-37])
def test_a_row_too_small_for_levels_is_the_bias(
    library: OpLibrary, size: float, tmp_path: Path
) -> None:
    random = np.random.default_rng(4)
    x = (size * random.choice([-1, 0, 1], (3, 37))).astype(np.float32)
    weight, _, bias = random_linear(random, 37, 30, "int8")
    scale = np.full(30, 1e37, np.float32)  # whatever came out would show
    (found,) = run(LINEAR, [x], [weight, scale, bias], 1, library, tmp_path, "int8")
    assert np.array_equal(found, np.broadcast_to(bias, (3, 30)))


def run_without_outputs(
    library: OpLibrary, folder: Path, precision: Precision, inner: int, qkv: int
) -> None:
    """A layer whose feed-forward network or next layer has so many outputs: none, and it must be
    refused."""
    kind = np.int8 if precision == "int8" else np.float32

    def layer(inputs: int, outputs: int) -> list[Array]:
        ones = np.ones(outputs, np.float32)
        return [np.zeros((inputs, outputs), kind), ones, ones]

    norms: list[Array] = [np.ones(512, np.float32)] * 2
    constants = [*layer(512, 512), *norms, *layer(512, inner), *layer(inner, 512), *norms]
    x = np.zeros((1, 512), np.float32)
    with pytest.raises(Exception, match="weight must have inputs and outputs, got"):
        run(
            *(POST_ATTENTION_QKV, [x, x], [*constants, *layer(512, qkv)], 2),
            *(library, folder, precision),
        )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("inner", "qkv"), [(512, 0), (0, 512)])
def test_layers_without_outputs_are_refused(
    precision: Precision, inner: int, qkv: int, tmp_path: Path
) -> None:
    library = find_op_library()
    if not library.available:
        pytest.skip(library.reason)
    run_without_outputs(library, tmp_path, precision, inner, qkv)


@pytest.mark.parametrize("library", WAYS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("lengths", [[1], [3, 1, 4], [0, 5, 0], [40, 33], []])
def test_embed_adds_words_and_positions(
    library: OpLibrary, precision: Precision, lengths: list[int], tmp_path: Path
) -> None:
    if not sum(lengths) and library is FALLBACK:
        pytest.skip("an empty pack: reductions over nothing are not defined in ONNX")
    random = np.random.default_rng(2)
    ids = random.integers(0, 50, sum(lengths))
    offsets = np.array([0, *itertools.accumulate(lengths)], np.int32)
    tables = [random.normal(0, 1, (n, 28)).astype(np.float32) for n in (50, 40)]
    constants: list[Array] = []
    for table in tables:
        if precision == "int8":
            constants += quantize_along(table, 0, 127)
        else:
            constants += [table, np.ones(len(table), np.float32)]
    constants += random_norm(random, 28)
    (found,) = run(EMBED, [ids, offsets], constants, 1, library, tmp_path, precision)
    words, word_scale, positions, position_scale = constants[:4]
    place = np.concatenate([np.arange(n) for n in lengths] or [np.empty(0, int)]).astype(int)
    total = words[ids] * word_scale[ids][:, None]
    total = total + positions[place] * position_scale[place][:, None]
    np.testing.assert_allclose(found, norm(total, *constants[4:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("ids", "offsets", "message"),
    [
        ([0, 50], [0, 2], r"input_ids must lie in \[0, 50\), got 50 at index 1"),
        ([-1], [0, 1], "got -1 at index 0"),
        ([0] * 41, [0, 41], "41 tokens, and there are positions for 40"),
        ([0, 0], [0, 1], "cu_seqlens must end at the number of tokens, 2"),
    ],
)
def test_embed_refuses(ids: list[int], offsets: list[int], message: str, tmp_path: Path) -> None:
    library = find_op_library()
    if not library.available:
        pytest.skip(library.reason)
    random = np.random.default_rng(2)
    constants: list[Array] = []
    for size in (50, 40):
        constants += [random.normal(0, 1, (size, 4)).astype(np.float32), np.ones(size, np.float32)]
    constants += random_norm(random, 4)
    arrays: list[Array] = [np.array(ids, np.int64), np.array(offsets, np.int32)]
    with pytest.raises(Exception, match=message):
        run(EMBED, arrays, constants, 1, library, tmp_path, "fp32")


FLOAT, HALF, DOUBLE, INT32, INT64 = np.float32, np.float16, np.float64, np.int32, np.int64


@pytest.mark.parametrize(
    ("operator", "kinds", "message"),
    [
        (LINEAR, [HALF], "x must be float"),
        (LINEAR, [DOUBLE], "x must be float"),
        (POST_ATTENTION, [HALF, FLOAT], "context must be float"),
        (POST_ATTENTION, [FLOAT, DOUBLE], "hidden must be float"),
        (EMBED, [INT32, INT32], "input_ids must be int64"),
        (EMBED, [INT64, INT64], "cu_seqlens must be int32"),
    ],
)
def test_inputs_of_another_type_are_refused(
    operator: str, kinds: list[type], message: str, tmp_path: Path
) -> None:
    library = find_op_library()
    if not library.available:
        pytest.skip(library.reason)
    one, square = np.ones(4, FLOAT), np.ones((4, 4), FLOAT)
    layer, norms = [square, one, one], [one, one]
    constants = {
        LINEAR: layer,
        POST_ATTENTION: [*layer, *norms, *layer, *layer, *norms],
        EMBED: [square, one, square, one, *norms],
    }[operator]
    shape = (1, 4) if operator != EMBED else (2,)
    arrays: list[Array] = [np.zeros(shape, kind) for kind in kinds]
    if operator == EMBED:
        arrays[1][1] = 2  # the offsets of a text of two tokens
    with pytest.raises(Exception, match=f"crisp::{operator}: {message}"):
        run(operator, arrays, constants, 1, library, tmp_path, "fp32")


def test_weights_beyond_seven_bits_are_refused(tmp_path: Path) -> None:
    library = find_op_library()
    if not library.available:
        pytest.skip(library.reason)
    weight = np.array([[65]], np.int8)
    one = np.ones(1, np.float32)
    with pytest.raises(Exception, match=r"must lie in \[-64, 64\].*got 65"):
        run(LINEAR, [one[None]], [weight, one, one], 1, library, tmp_path, "int8")


@settings(max_examples=50)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(-1e3, 1e3, width=32), min_size=n, max_size=n), min_size=1, max_size=6
        )
    ),
    st.sampled_from([0, 1]),
    st.sampled_from([64, 127]),
)
def test_quantizing_stays_within_half_a_step(
    rows: list[list[float]], axis: int, levels: int
) -> None:
    values = np.array(rows, np.float32)
    steps, scale = quantize_along(values, axis, levels)
    assert np.abs(steps.astype(int)).max() <= levels
    back = steps * (scale[:, None] if axis == 0 else scale)
    step = np.broadcast_to(scale[:, None] if axis == 0 else scale, values.shape)
    assert (np.abs(back - values) <= 0.5001 * step + 1e-30).all()
