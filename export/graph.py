"""A checkpoint as a packed ONNX graph: `input_ids` [T], `cu_seqlens` [B+1] -> `logits` [B, C].

The graph is written node by node from the weights. Nothing is traced, so nothing of the padded
graph is left over: positions follow from `cu_seqlens`, q, k and v are one matrix product, attention
is one `crisp::SparseAttention` node a layer, and the last layer is computed for the [CLS] rows
alone, since only they are read (exact). T counts the real tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from transformers import DistilBertConfig

from export.errors import ExportError
from export.functions import (
    DOMAIN,
    DOMAIN_VERSION,
    OPERATOR,
    attention_attributes,
    sparse_attention_function,
)
from training.pattern import AttentionPattern

OPSET = 20  # the first with Gelu
IR_VERSION = 10
_EPSILON = 1e-12  # of DistilBERT's LayerNorms

Array = NDArray[np.float32]


def packed_graph(
    weights: Mapping[str, Array], config: DistilBertConfig, pattern: AttentionPattern
) -> onnx.ModelProto:
    """The fp32 graph of a DistilBertForSequenceClassification with these weights.

    `weights` are float32 arrays under the names of its state dict. Raises ExportError for an
    activation other than gelu.
    """
    if config.activation != "gelu":
        raise ExportError(f"cannot export the activation {config.activation!r}, only gelu")
    graph = _Graph(weights)
    starts = graph.sequence_starts()
    hidden = graph.embeddings(starts)
    for i in range(config.n_layers):
        layer = f"distilbert.transformer.layer.{i}"
        qkv = graph.linear(hidden, [f"{layer}.attention.{part}_lin" for part in "qkv"])
        context = graph.attention(qkv, f"{layer}.attention", pattern, config.n_heads)
        if i == config.n_layers - 1:
            hidden = graph.add("Gather", [hidden, starts], f"{layer}.cls", axis=0)
            context = graph.add("Gather", [context, starts], f"{layer}.attention.cls", axis=0)
        attended = graph.linear(context, [f"{layer}.attention.out_lin"])
        hidden = graph.add_and_norm(attended, hidden, f"{layer}.sa_layer_norm")
        inner = graph.linear(hidden, [f"{layer}.ffn.lin1"])
        inner = graph.add("Gelu", [inner], f"{layer}.ffn.gelu")
        outer = graph.linear(inner, [f"{layer}.ffn.lin2"])
        hidden = graph.add_and_norm(outer, hidden, f"{layer}.output_layer_norm")
    pooled = graph.linear(hidden, ["pre_classifier"])
    pooled = graph.add("Relu", [pooled], "pre_classifier.relu")
    graph.linear(pooled, ["classifier"], output="logits")
    labels = len(weights["classifier.bias"])
    return graph.model(labels, sparse_attention_function(pattern, config.n_heads, OPSET))


class _Graph:
    """Nodes and initializers; every method adds some and returns the name of its result."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, value: Array | NDArray[np.int64]) -> str:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def sequence_starts(self) -> str:
        """int64 [B]: where each sequence starts, which is where its [CLS] stands."""
        zero = self.constant("zero", np.array([0]))
        offsets = self.add("Cast", ["cu_seqlens"], "offsets", to=TensorProto.INT64)
        last = self.constant("minus_one", np.array([-1]))
        return self.add("Slice", [offsets, zero, last], "starts")

    def embeddings(self, starts: str) -> str:
        """Word plus position embeddings, normalised: [T, H].

        The position restarts at 0 with each sequence: the running sum of ones, less, where a
        sequence starts, the length of the one before it. One slot more than T takes the starts of
        empty sequences at the end.
        """
        one = self.constant("one", np.array([1]))
        zero, last = "zero", "minus_one"
        size = self.add("Shape", ["input_ids"], "tokens")
        slots = self.add("Add", [size, one], "slots")
        steps = self.add("Expand", [one, slots], "steps")
        later = self.add(
            "Slice", [starts, one, self.constant("end", np.array([2**31]))], "starts.later"
        )
        earlier = self.add("Slice", [starts, zero, last], "starts.earlier")
        back = self.add("Sub", [earlier, later], "lengths.negated")
        steps = self.add(
            "ScatterElements", [steps, later, back], "steps.restarting", axis=0, reduction="add"
        )
        counted = self.add("CumSum", [steps, self.constant("axis", np.array(0))], "counted")
        counted = self.add("Slice", [counted, zero, last], "counted.tokens")
        positions = self.add("Sub", [counted, one], "positions")
        name = "distilbert.embeddings"
        word = self.add("Gather", [self.weight(f"{name}.word_embeddings"), "input_ids"], "word")
        place = self.add("Gather", [self.weight(f"{name}.position_embeddings"), positions], "place")
        return self.add_and_norm(word, place, f"{name}.LayerNorm")

    def attention(self, qkv: str, name: str, pattern: AttentionPattern, num_heads: int) -> str:
        attributes: dict[str, Any] = {**attention_attributes(pattern, num_heads)}
        node = helper.make_node(
            # The second output, `received`, is named empty: ONNX Runtime takes no fewer.
            OPERATOR,
            [qkv, "cu_seqlens"],
            [name, ""],
            name,
            domain=DOMAIN,
            **attributes,
        )
        self.nodes.append(node)
        return name

    def linear(self, source: str, names: list[str], output: str | None = None) -> str:
        """x·Wᵀ + b; several linears of one input are computed as one."""
        joined = names[0] if len(names) == 1 else names[0].replace("q_lin", "qkv")
        # Stored as [in, out], the layout in which it is multiplied and quantised by column.
        weight = np.concatenate([self.weights[f"{name}.weight"] for name in names]).T
        bias = np.concatenate([self.weights[f"{name}.bias"] for name in names])
        self.constant(f"{joined}.weight", weight)
        self.constant(f"{joined}.bias", bias)
        product = self.add("MatMul", [source, f"{joined}.weight"], f"{joined}.product")
        return self.add("Add", [product, f"{joined}.bias"], output or joined)

    def add_and_norm(self, first: str, second: str, name: str) -> str:
        total = self.add("Add", [first, second], f"{name}.sum")
        weight, bias = (
            self.weight(name),
            self.constant(f"{name}.bias", self.weights[f"{name}.bias"]),
        )
        return self.add(
            "LayerNormalization", [total, weight, bias], name, axis=-1, epsilon=_EPSILON
        )

    def weight(self, name: str) -> str:
        return self.constant(f"{name}.weight", self.weights[f"{name}.weight"])

    def model(self, num_labels: int, *functions: onnx.FunctionProto) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["tokens"]),
            helper.make_tensor_value_info("cu_seqlens", TensorProto.INT32, ["offsets"]),
        ]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", num_labels])
        graph = helper.make_graph(
            self.nodes, "crisp", inputs, [logits], list(self.initializers.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
        model = helper.make_model(
            graph, opset_imports=opsets, functions=functions, ir_version=IR_VERSION
        )
        onnx.checker.check_model(model)
        return model
