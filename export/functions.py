"""`crisp::SparseAttention` as a model-local function of standard ONNX operators.

It travels in the model file, so that the file runs in any ONNX Runtime: with our library registered
the compiled kernel is used, without it ONNX Runtime inlines this body. The body computes the scores
of the whole pack, `[num_heads, T, T]`, under a mask, so it is several times slower on batches of
long texts; its results equal the kernel's on finite input, ties included.

    pattern = AttentionPattern("topk", density=0.2)
    model.functions.append(sparse_attention_function(pattern, 12))
    model.functions.append(sparse_attention_function(pattern, 12, queries="first"))
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from onnx import FunctionProto, helper

from export.function_body import FunctionBody
from export.manifest import DOMAIN
from training.pattern import AttentionPattern

OPERATOR = "SparseAttention"

# Which tokens of a sequence attend: all of them, or only the first one, [CLS].
Queries = Literal["all", "first"]


def attention_attributes(
    pattern: AttentionPattern, num_heads: int, queries: Queries = "all"
) -> dict[str, int | str]:
    """The attributes of a `crisp::SparseAttention` node that carries out `pattern`."""
    attributes: dict[str, int | str] = {"num_heads": num_heads, "pattern": pattern.name}
    if queries != "all":  # the default: older libraries know no such attribute
        attributes["queries"] = queries
    if pattern.k is not None:
        attributes["k"] = pattern.k
    elif pattern.density is not None:
        attributes["density_num"], attributes["density_den"] = pattern.density_ratio
    for name in ("window", "size", "globals"):
        value = getattr(pattern, name)
        if value is not None:
            attributes[name] = value
    return attributes


def overload_of(queries: Queries) -> str:
    """The overload of a node's function, for `onnx.helper.make_node`: "" for all queries."""
    return "" if queries == "all" else queries


def sparse_attention_function(
    pattern: AttentionPattern, num_heads: int, opset: int = 18, queries: Queries = "all"
) -> FunctionProto:
    """The function `crisp::SparseAttention(qkv, cu_seqlens) -> (context, received)`.

    A model file holds one body for each overload of the operator, so the pattern and the number of
    heads are part of the body; the attributes are declared all the same, for the kernel to read
    from the node. Where only the first token of each sequence queries, `context` is [B, H], zeros
    for an empty sequence, and the function is the overload "first": its nodes name that too.
    A node that wants no `received` names that output "": ONNX Runtime takes no fewer outputs than
    the function has. Non-finite input may reach other sequences here, as 0 · NaN.
    `opset` is the version of the standard operators, 18 to 21: the model's own.
    """
    body = FunctionBody()
    attributes = attention_attributes(pattern, num_heads, queries)
    _sequences(body)
    _queries(body, queries)
    _scores(body, num_heads)
    chooses = pattern.name == "blocktopk" and queries == "all"
    seen = _chosen_blocks(body, pattern, num_heads) if chooses else _visible(body, pattern)
    body.add("visible", "And", "same_sequence", seen)
    body.add("visible_scores", "Where", "visible", "scores", body.constant(-np.inf))
    kept = "visible_scores"
    if pattern.name == "topk":
        body.add("candidates", "Gather", "length", "query")
        reaches = _reaches_threshold(body, pattern, num_heads, "visible_scores", "query_count")
        kept = body.add("kept_scores", "Where", reaches, kept, body.constant(-np.inf))
    body.add("softmax", "Softmax", kept, axis=-1)
    # A sequence without tokens has no first query: the row stands for the next sequence's.
    body.add("probabilities", "Where", "query_exists", "softmax", body.constant(0.0))
    _outputs(body, num_heads)
    return helper.make_function(
        DOMAIN,
        OPERATOR,
        ["qkv", "cu_seqlens"],
        ["context", "received"],
        body.nodes,
        [helper.make_opsetid("", opset)],
        attributes=sorted(attributes),
        overload=overload_of(queries),
    )


def _sequences(body: FunctionBody) -> None:
    """`sequence`, and `position` and `length` in it, of each token [T].

    Here and below T counts one token more than the pack: a last one, in a sequence of its own, that
    `_outputs` drops. So nothing is ever empty: ONNX Runtime fuses transposes into MatMul, and its
    fused MatMul divides by zero on an empty tensor.
    """
    zero, one = body.constant(0), body.constant(1)
    axis_0, axis_1 = body.constant([0]), body.constant([1])
    body.add("qkv_and_last", "Pad", "qkv", body.constant([0, 0, 1, 0]))
    body.add("tokens_1d", "Shape", "qkv_and_last", start=0, end=1)
    body.add("tokens", "Squeeze", "tokens_1d")
    body.add("pack_offsets", "Cast", "cu_seqlens", to=onnx.TensorProto.INT64)
    body.add("offsets", "Concat", "pack_offsets", "tokens_1d", axis=0)
    body.add("token", "Range", zero, "tokens", one)
    body.add("token_column", "Unsqueeze", "token", axis_1)
    # A token's sequence is the number of sequences that end at or before it.
    body.add("ends", "Slice", "offsets", axis_1, body.constant([2**31]), axis_0)
    body.add("ends_row", "Unsqueeze", "ends", axis_0)
    body.add("has_ended", "GreaterOrEqual", "token_column", "ends_row")
    body.add("has_ended_int", "Cast", "has_ended", to=onnx.TensorProto.INT64)
    body.add("sequence", "ReduceSum", "has_ended_int", axis_1, keepdims=0)
    body.add("start", "Gather", "offsets", "sequence")
    body.add("next_sequence", "Add", "sequence", one)
    body.add("end", "Gather", "offsets", "next_sequence")
    body.add("length", "Sub", "end", "start")
    body.add("position", "Sub", "token", "start")
    body.add("position_row", "Unsqueeze", "position", axis_0)


def _queries(body: FunctionBody, queries: Queries) -> None:
    """`query`: the tokens that attend, [Q] = [T], or [B + 1] where they are the first ones alone;
    and of each whether it exists, its position, and which tokens share its sequence, [Q, T].
    """
    axis_0, axis_1 = body.constant([0]), body.constant([1])
    if queries == "all":
        body.add("query", "Identity", "token")
    else:
        body.add("query", "Slice", "offsets", axis_0, body.constant([-1]), axis_0)
    body.add("query_count", "Shape", "query")
    body.add("query_sequence", "Gather", "sequence", "query")
    if queries == "all":
        body.add("query_exists", "Cast", body.constant([1]), to=onnx.TensorProto.BOOL)
    else:
        body.add("has_token", "Less", "query", "ends")
        body.add("query_exists", "Unsqueeze", "has_token", axis_1)
    body.add("sequence_row", "Unsqueeze", "sequence", axis_0)
    body.add("sequence_column", "Unsqueeze", "query_sequence", axis_1)
    body.add("same_sequence", "Equal", "sequence_column", "sequence_row")
    body.add("query_position", "Gather", "position", "query")
    body.add("position_column", "Unsqueeze", "query_position", axis_1)


def _scores(body: FunctionBody, num_heads: int) -> None:
    """`scores` [num_heads, Q, T] of all pairs, and q, k and v by head."""
    heads, three = body.constant([num_heads]), body.constant([3])
    body.add("width", "Shape", "qkv", start=1, end=2)
    body.add("hidden", "Div", "width", three)
    body.add("head_size", "Div", "hidden", heads)
    body.add("split_shape", "Concat", "tokens_1d", three, heads, "head_size", axis=0)
    body.add("qkv_split", "Reshape", "qkv_and_last", "split_shape")
    for index, name in enumerate("qkv"):
        body.add(name, "Gather", "qkv_split", body.constant(index), axis=1)
    body.add("q_of_queries", "Gather", "q", "query", axis=0)
    body.add("q_by_head", "Transpose", "q_of_queries", perm=[1, 0, 2])
    body.add("k_by_head", "Transpose", "k", perm=[1, 2, 0])
    body.add("v_by_head", "Transpose", "v", perm=[1, 0, 2])
    body.add("dots", "MatMul", "q_by_head", "k_by_head")
    body.add("head_size_float", "Cast", "head_size", to=onnx.TensorProto.FLOAT)
    body.add("root", "Sqrt", "head_size_float")
    body.add("scale", "Reciprocal", "root")
    # The scale comes after the dot products, as in the kernel: equal ones must tie.
    body.add("scores", "Mul", "dots", "scale")


def _visible(body: FunctionBody, pattern: AttentionPattern) -> str:
    """Name of a mask [Q, T] or [1]: which keys a query may see by their positions alone."""
    if pattern.name not in ("band", "block"):
        return body.add("everywhere", "Cast", body.constant([1]), to=onnx.TensorProto.BOOL)
    if pattern.name == "band":
        assert pattern.window is not None
        body.add("offset", "Sub", "position_column", "position_row")
        body.add("distance", "Abs", "offset")
        body.add("local", "LessOrEqual", "distance", body.constant(pattern.window // 2))
    else:
        assert pattern.size is not None
        size = body.constant(pattern.size)
        body.add("block_row", "Div", "position_row", size)
        body.add("block_column", "Div", "position_column", size)
        body.add("local", "Equal", "block_column", "block_row")
    global_tokens = body.constant(pattern.global_tokens)
    body.add("global_key", "Less", "position_row", global_tokens)
    body.add("global_query", "Less", "position_column", global_tokens)
    body.add("global", "Or", "global_key", "global_query")
    return body.add("visible_by_position", "Or", "local", "global")


def _reaches_threshold(
    body: FunctionBody, pattern: AttentionPattern, num_heads: int, scores: str, rows: str
) -> str:
    """Name of a mask of `scores` [num_heads, rows, columns]: each row's top k, and ties.

    k follows from `candidates` [rows], of how many each row keeps its share. `rows` is the name of
    their number, [1].
    """
    if pattern.k is not None:
        body.add("kept", "Min", body.constant(pattern.k), "candidates")
    else:
        num, den = pattern.density_ratio
        body.add("scaled_candidates", "Mul", "candidates", body.constant(num))
        body.add("rounded_up", "Add", "scaled_candidates", body.constant(den - 1))
        body.add("share", "Div", "rounded_up", body.constant(den))
        body.add("kept", "Max", "share", body.constant(1))
    # One TopK for the row that keeps most; each row's threshold is its own k-th.
    body.add("most_kept", "ReduceMax", "kept", body.constant([0]), keepdims=1)
    body.nodes.append(helper.make_node("TopK", [scores, "most_kept"], ["highest", "highest_keys"]))
    body.add("last_kept", "Sub", "kept", body.constant(1))
    body.add("last_kept_column", "Unsqueeze", "last_kept", body.constant([1]))
    heads, one = body.constant([num_heads]), body.constant([1])
    body.add("row_shape", "Concat", heads, rows, one, axis=0)
    body.add("last_kept_by_head", "Expand", "last_kept_column", "row_shape")
    body.add("threshold", "GatherElements", "highest", "last_kept_by_head", axis=2)
    return body.add("reaches_threshold", "GreaterOrEqual", scores, "threshold")


def _chosen_blocks(body: FunctionBody, pattern: AttentionPattern, num_heads: int) -> str:
    """Name of a mask [num_heads, T, T]: the keys of the blocks that each query's block chooses.

    M blocks in the whole pack, numbered through; none holds tokens of two sequences.
    """
    assert pattern.size is not None
    size, zero, one = body.constant(pattern.size), body.constant(0), body.constant(1)
    axis_0, axis_1 = body.constant([0]), body.constant([1])
    body.add("place_in_block", "Mod", "position", size)
    body.add("starts_block", "Equal", "place_in_block", zero)
    body.add("starts_block_int", "Cast", "starts_block", to=onnx.TensorProto.INT64)
    body.add("blocks_so_far", "CumSum", "starts_block_int", zero)
    body.add("block", "Sub", "blocks_so_far", one)
    body.add("block_start", "Compress", "token", "starts_block", axis=0)  # [M]
    body.add("block_count", "Shape", "block_start")

    # Means of q and k over each block. A token belongs to the last block that starts at or before.
    body.add("block_numbers", "Range", zero, body.add("blocks", "Squeeze", "block_count"), one)
    body.add("block_number_column", "Unsqueeze", "block_numbers", axis_1)
    body.add("block_number_row", "Unsqueeze", "block_numbers", axis_0)
    body.add("block_row", "Unsqueeze", "block", axis_0)
    body.add("is_member", "Equal", "block_number_column", "block_row")
    body.add("member", "Cast", "is_member", to=onnx.TensorProto.FLOAT)  # [M, T]
    body.add("members", "ReduceSum", "member", axis_1, keepdims=1)
    body.add("q_sums", "MatMul", "member", "q_by_head")
    body.add("q_means", "Div", "q_sums", "members")
    body.add("k_by_token", "Transpose", "k_by_head", perm=[0, 2, 1])
    body.add("k_sums", "MatMul", "member", "k_by_token")
    body.add("k_means", "Div", "k_sums", "members")
    body.add("k_means_by_head", "Transpose", "k_means", perm=[0, 2, 1])
    body.add("block_scores", "MatMul", "q_means", "k_means_by_head")  # [num_heads, M, M]

    body.add("block_sequence", "Gather", "sequence", "block_start")
    body.add("block_sequence_row", "Unsqueeze", "block_sequence", axis_0)
    body.add("block_sequence_column", "Unsqueeze", "block_sequence", axis_1)
    body.add("same_blocks", "Equal", "block_sequence_column", "block_sequence_row")
    none = body.constant(-np.inf)
    body.add("visible_blocks", "Where", "same_blocks", "block_scores", none)
    body.add("block_length", "Gather", "length", "block_start")
    body.add("length_and_rest", "Add", "block_length", body.constant(pattern.size - 1))
    body.add("candidates", "Div", "length_and_rest", size)
    reaches = _reaches_threshold(body, pattern, num_heads, "visible_blocks", "block_count")

    body.add("own_block", "Equal", "block_number_column", "block_number_row")
    body.add("block_position", "Gather", "position", "block_start")
    body.add("block_position_row", "Unsqueeze", "block_position", axis_0)
    body.add("first_block", "Equal", "block_position_row", zero)
    body.add("always", "Or", "own_block", "first_block")
    body.add("chosen", "Or", reaches, "always")
    body.add("chosen_by_query", "Gather", "chosen", "block", axis=1)
    body.add("chosen_by_key", "Gather", "chosen_by_query", "block", axis=2)
    body.add("first_query", "Equal", "position_column", zero)
    return body.add("seen_blocks", "Or", "chosen_by_key", "first_query")


def _outputs(body: FunctionBody, num_heads: int) -> None:
    """`context` [Q, H] and `received` [T], here without the token that `_sequences` added."""
    begin, end, axis = body.constant([0]), body.constant([-1]), body.constant([0])
    body.add("context_by_head", "MatMul", "probabilities", "v_by_head")
    body.add("context_by_token", "Transpose", "context_by_head", perm=[1, 0, 2])
    body.add("context_shape", "Concat", "query_count", "hidden", axis=0)
    body.add("context_and_last", "Reshape", "context_by_token", "context_shape")
    body.add("context", "Slice", "context_and_last", begin, end, axis)
    body.add("mass", "ReduceSum", "probabilities", body.constant([0, 1]), keepdims=0)
    body.add("received_and_last", "Div", "mass", body.constant(float(num_heads)))
    body.add("received", "Slice", "received_and_last", begin, end, axis)
