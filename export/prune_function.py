"""`crisp::PruneTokens` as a model-local function of standard ONNX operators.

`export/ops/prune_tokens.h` says what it computes; the rule is that of `training/pruning.py`. The
body ranks every pair of tokens of the pack, [T, T].

    model.functions.append(prune_tokens_function(opset=20))
"""

from __future__ import annotations

import numpy as np
from onnx import FunctionProto, TensorProto

from export.function_body import FunctionBody
from training.pruning import TokenPruning

PRUNE_TOKENS = "PruneTokens"


def prune_attributes(pruning: TokenPruning, layer: int) -> dict[str, int]:
    """The attributes of the node that prunes after the attention of `layer`."""
    num, den = pruning.ratio(layer)
    return {"keep_num": num, "keep_den": den, "floor": pruning.floor}


def prune_tokens_function(opset: int) -> FunctionProto:
    """The function `crisp::PruneTokens(received, cu_seqlens, original_cu_seqlens) -> (kept,
    kept_cu_seqlens)`: float32 [T], int32 [B+1] twice -> int64 [T'], int32 [B+1]."""
    body = FunctionBody()
    zero, one, first, last = (body.constant(v) for v in (0, 1, [0], [-1]))
    end = body.constant([2**31])
    keep_num, keep_den, floor = (body.attribute(n) for n in ("keep_num", "keep_den", "floor"))
    # How many of each sequence stay, [B].
    for name in ("cu_seqlens", "original_cu_seqlens"):
        body.add(f"{name}_wide", "Cast", name, to=TensorProto.INT64)
        body.add(f"{name}_ends", "Slice", f"{name}_wide", body.constant([1]), end, first)
        body.add(f"{name}_begins", "Slice", f"{name}_wide", first, last, first)
        body.add(f"{name}_length", "Sub", f"{name}_ends", f"{name}_begins")
    body.add("difference", "Sub", "original_cu_seqlens_length", floor)
    body.add("above", "Max", "difference", zero)
    body.add("above_scaled", "Mul", "above", keep_num)
    body.add("den_minus_one", "Sub", keep_den, one)
    body.add("above_raised", "Add", "above_scaled", "den_minus_one")
    body.add("above_kept", "Div", "above_raised", keep_den)
    body.add("below", "Min", "original_cu_seqlens_length", floor)
    body.add("asked", "Add", "below", "above_kept")
    body.add("count", "Min", "asked", "cu_seqlens_length")
    # The sequence of each token, [T]: how many end at or before it.
    body.add("tokens_1d", "Shape", "received")
    body.add("tokens", "Squeeze", "tokens_1d")
    body.add("token", "Range", zero, "tokens", one)
    body.add("token_column", "Unsqueeze", "token", body.constant([1]))
    body.add("token_row", "Unsqueeze", "token", first)
    body.add("has_ended", "LessOrEqual", "cu_seqlens_ends", "token_column")
    body.add("has_ended_int", "Cast", "has_ended", to=TensorProto.INT64)
    body.add("sequence", "ReduceSum", "has_ended_int", body.constant([1]), keepdims=0)
    body.add("begin", "Gather", "cu_seqlens_begins", "sequence")
    # [CLS] before all others, NaN as the highest; the rest by importance, then by position.
    body.add("is_nan", "IsNaN", "received")
    body.add("is_cls", "Equal", "token", "begin")
    body.add("is_highest", "Or", "is_nan", "is_cls")
    body.add("rank_value", "Where", "is_highest", body.constant(float(np.inf)), "received")
    body.add("value_column", "Unsqueeze", "rank_value", body.constant([1]))
    body.add("value_row", "Unsqueeze", "rank_value", first)
    body.add("higher", "Greater", "value_row", "value_column")
    body.add("equal", "Equal", "value_row", "value_column")
    body.add("earlier", "Less", "token_row", "token_column")
    body.add("equal_and_earlier", "And", "equal", "earlier")
    body.add("before", "Or", "higher", "equal_and_earlier")
    body.add("sequence_column", "Unsqueeze", "sequence", body.constant([1]))
    body.add("sequence_row", "Unsqueeze", "sequence", first)
    body.add("same_sequence", "Equal", "sequence_column", "sequence_row")
    body.add("before_in_sequence", "And", "before", "same_sequence")
    body.add("before_int", "Cast", "before_in_sequence", to=TensorProto.INT64)
    body.add("rank", "ReduceSum", "before_int", body.constant([1]), keepdims=0)
    body.add("own_count", "Gather", "count", "sequence")
    body.add("stays", "Less", "rank", "own_count")
    body.add("kept", "Compress", "token", "stays", axis=0)
    body.add("kept_ends", "CumSum", "count", zero)
    body.add("kept_offsets", "Concat", first, "kept_ends", axis=0)
    body.add("kept_cu_seqlens", "Cast", "kept_offsets", to=TensorProto.INT32)
    return body.function(
        PRUNE_TOKENS,
        ["received", "cu_seqlens", "original_cu_seqlens"],
        ["kept", "kept_cu_seqlens"],
        ["floor", "keep_den", "keep_num"],
        opset=opset,
    )
