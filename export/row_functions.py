"""The row operators as model-local functions of standard ONNX operators: `crisp::Linear`,
`crisp::PostAttention`, `crisp::PostAttentionQkv` and `crisp::Embed`.

`export/ops/rows.h` says what they compute, `export/ops/ort_rows.cc` in which order their inputs
come. Weights and tables are float, or int8 with a scale for each output column (table: row); with
int8 weights the rows of x are quantised as they arrive, to [0, 127], with a scale and a zero point
for each. The sums of the quantised rows are exact, in the body as in the kernel; what each rounds
before and after them may differ, as `rows.h` says.

    model.functions.extend(row_functions("int8", opset=20))
"""

from __future__ import annotations

from typing import Literal

from onnx import FunctionProto, TensorProto

from export.function_body import FunctionBody

Precision = Literal["fp32", "int8"]

LINEAR, EMBED = "Linear", "Embed"
POST_ATTENTION, POST_ATTENTION_QKV = "PostAttention", "PostAttentionQkv"

ACTIVATION_LEVELS = 127  # quantised rows lie in [0, 127]
WEIGHT_LEVELS = 64  # and weights in [-64, 64]: four products fit into 16 bits, see rows.h
SMALLEST_STEP = 1e-37  # between levels; what would need smaller ones is zero, see row_kernel.h

# The linears of a node: the indices of their weight, scale and bias among its inputs.
LINEARS = {
    LINEAR: ((1, 2, 3),),
    POST_ATTENTION: ((2, 3, 4), (7, 8, 9), (10, 11, 12)),
    POST_ATTENTION_QKV: ((2, 3, 4), (7, 8, 9), (10, 11, 12), (15, 16, 17)),
}
# The tables of Embed: the indices of table and scale.
TABLES = ((2, 3), (4, 5))

_LINEAR_INPUTS = ["weight", "scale", "bias"]
_POST_ATTENTION_INPUTS = [
    *("context", "hidden"),
    *(f"out_{name}" for name in _LINEAR_INPUTS),
    *("attended_gamma", "attended_beta"),
    *(f"inner_{name}" for name in _LINEAR_INPUTS),
    *(f"outer_{name}" for name in _LINEAR_INPUTS),
    *("output_gamma", "output_beta"),
]
_QKV_INPUTS = [f"qkv_{name}" for name in _LINEAR_INPUTS]


def row_functions(precision: Precision, opset: int) -> list[FunctionProto]:
    """The bodies of all four, for weights of this precision."""
    return [
        _linear_function(precision, opset),
        _post_attention_function(precision, opset, qkv=False),
        _post_attention_function(precision, opset, qkv=True),
        _embed_function(opset),
    ]


def _linear_function(precision: Precision, opset: int) -> FunctionProto:
    body = FunctionBody()
    _linear(body, precision, "x", ("weight", "scale", "bias"), "y")
    return body.function(LINEAR, ["x", *_LINEAR_INPUTS], ["y"], [], opset=opset)


def _post_attention_function(precision: Precision, opset: int, *, qkv: bool) -> FunctionProto:
    body = FunctionBody()

    def linear(source: str, name: str) -> str:
        inputs = (f"{name}_weight", f"{name}_scale", f"{name}_bias")
        return _linear(body, precision, source, inputs, name)

    body.add("attended_sum", "Add", linear("context", "out"), "hidden")
    body.add_norm("attended", "attended_sum", "attended_gamma", "attended_beta")
    body.add("activated", "Gelu", linear("attended", "inner"))
    body.add("output_sum", "Add", linear("activated", "outer"), "attended")
    body.add_norm("output", "output_sum", "output_gamma", "output_beta")
    if qkv:
        linear("output", "qkv")
    return body.function(
        POST_ATTENTION_QKV if qkv else POST_ATTENTION,
        _POST_ATTENTION_INPUTS + (_QKV_INPUTS if qkv else []),
        ["output", "qkv"] if qkv else ["output"],
        ["epsilon"],
        opset=opset,
    )


def _linear(
    body: FunctionBody, precision: Precision, x: str, inputs: tuple[str, str, str], output: str
) -> str:
    """x·W + b: [T, K] -> [T, N]."""
    weight, scale, bias = inputs
    name = f"{output}_of_{x}"
    if precision == "fp32":
        product = body.add(f"{name}.product", "MatMul", x, weight)
        scaled = body.add(f"{name}.scaled", "Mul", product, scale)
        return body.add(output, "Add", scaled, bias)
    last, none, one = body.constant([-1]), body.constant(0.0), body.constant(1.0)
    most = body.constant(float(ACTIVATION_LEVELS))
    lowest = body.add(f"{name}.lowest_value", "ReduceMin", x, last, keepdims=1)
    lowest = body.add(f"{name}.lowest", "Min", lowest, none)
    highest = body.add(f"{name}.highest_value", "ReduceMax", x, last, keepdims=1)
    highest = body.add(f"{name}.highest", "Max", highest, none)
    span = body.add(f"{name}.span", "Sub", highest, lowest)
    step = body.add(f"{name}.step", "Div", span, most)
    usable = body.add(f"{name}.usable", "Greater", step, body.constant(SMALLEST_STEP))
    step = body.add(f"{name}.step_or_one", "Where", usable, step, one)
    inverse = body.add(f"{name}.inverse", "Reciprocal", step)
    offset = body.add(f"{name}.offset", "Mul", lowest, inverse)
    offset = body.add(f"{name}.offset_whole", "Round", offset)
    steps = body.add(f"{name}.steps", "Mul", x, inverse)
    steps = body.add(f"{name}.steps_whole", "Round", steps)
    steps = body.add(f"{name}.shifted", "Sub", steps, offset)
    steps = body.add(f"{name}.clipped", "Clip", steps, none, most)
    steps = body.add(f"{name}.quantised", "Cast", steps, to=TensorProto.UINT8)
    dots = body.add(f"{name}.dots_whole", "MatMulInteger", steps, weight)
    dots = body.add(f"{name}.dots", "Cast", dots, to=TensorProto.FLOAT)
    weights = body.add(f"{name}.weight_float", "Cast", weight, to=TensorProto.FLOAT)
    sums = body.add(f"{name}.weight_sum", "ReduceSum", weights, body.constant([0]), keepdims=1)
    correction = body.add(f"{name}.correction", "Mul", offset, sums)
    dots = body.add(f"{name}.corrected", "Add", dots, correction)
    # 0, or NaN: the lowest and the highest of a row may be found without looking at a NaN in it.
    zeros = body.add(f"{name}.zeros", "Mul", x, none)
    finite = body.add(f"{name}.nan_or_zero", "ReduceSum", zeros, last, keepdims=1)
    row_scale = body.add(f"{name}.row_scale", "Add", step, finite)
    scaled = body.add(f"{name}.row_scaled", "Mul", dots, row_scale)
    scaled = body.add(f"{name}.scaled", "Mul", scaled, scale)
    return body.add(output, "Add", scaled, bias)


def _embed_function(opset: int) -> FunctionProto:
    """LayerNorm(word + position), float or int8 tables."""
    body = FunctionBody()
    zero, one = body.constant(0), body.constant(1)
    body.add("tokens_1d", "Shape", "input_ids")
    body.add("tokens", "Squeeze", "tokens_1d")
    body.add("token", "Range", zero, "tokens", one)
    # A sequence starts at the last offset that is not beyond its token.
    body.add("offsets", "Cast", "cu_seqlens", to=TensorProto.INT64)
    body.add("token_column", "Unsqueeze", "token", body.constant([1]))
    body.add("has_begun", "LessOrEqual", "offsets", "token_column")
    body.add("begun_offsets", "Where", "has_begun", "offsets", zero)
    body.add("start", "ReduceMax", "begun_offsets", body.constant([1]), keepdims=0)
    body.add("position", "Sub", "token", "start")
    for table, index in (("words", "input_ids"), ("positions", "position")):
        body.add(f"{table}_rows", "Gather", table, index)
        body.add(f"{table}_float", "Cast", f"{table}_rows", to=TensorProto.FLOAT)
        body.add(f"{table}_row_scale", "Gather", f"{table}_scale", index)
        body.add(f"{table}_column", "Unsqueeze", f"{table}_row_scale", body.constant([1]))
        body.add(f"{table}_scaled", "Mul", f"{table}_float", f"{table}_column")
    body.add("sum", "Add", "words_scaled", "positions_scaled")
    body.add_norm("hidden", "sum", "gamma", "beta")
    inputs = [
        *("input_ids", "cu_seqlens", "words", "words_scale"),
        *("positions", "positions_scale"),
    ]
    return body.function(EMBED, [*inputs, "gamma", "beta"], ["hidden"], ["epsilon"], opset=opset)
