"""A checkpoint as a packed ONNX graph: `input_ids` [T], `cu_seqlens` [B+1] -> `logits` [B, C].

The graph is written node by node from the weights. Nothing is traced, so nothing of the padded
graph is left over: positions follow from `cu_seqlens`, q, k and v are one matrix product, and a
layer is two nodes: `crisp::SparseAttention`, and `crisp::PostAttentionQkv` for everything up to the
next attention. Where the model prunes, `crisp::PruneTokens` stands between the two, and the tokens
that it drops leave the pack. The last layer attends and goes on for the [CLS] rows alone, since
only they are read (exact). T counts the real tokens of the batch.
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
    OPERATOR,
    Queries,
    attention_attributes,
    overload_of,
    sparse_attention_function,
)
from export.manifest import DOMAIN, DOMAIN_VERSION
from export.prune_function import PRUNE_TOKENS, prune_attributes, prune_tokens_function
from export.row_functions import EMBED, LINEAR, POST_ATTENTION, POST_ATTENTION_QKV, row_functions
from training.pattern import CONTROLS, AttentionPattern
from training.pruning import TokenPruning

OPSET = 20  # the first with Gelu
IR_VERSION = 10  # the first with overloads of functions
_EPSILON = 1e-12  # of DistilBERT's LayerNorms
_SCALE = "weight_scale"  # of each linear and table; 1 in an fp32 graph

Array = NDArray[np.float32]


def packed_graph(
    weights: Mapping[str, Array],
    config: DistilBertConfig,
    pattern: AttentionPattern,
    pruning: TokenPruning | None = None,
) -> onnx.ModelProto:
    """The fp32 graph of a DistilBertForSequenceClassification with these weights.

    `weights` are float32 arrays under the names of its state dict. Raises ExportError for an
    activation other than gelu, and for a pattern that only studies train.
    """
    if pattern.name in CONTROLS:
        raise ExportError(
            f"attention pattern {pattern.name!r} is a control of studies: it is trained and "
            "measured, never exported; give another --attention"
        )
    if config.activation != "gelu":
        raise ExportError(f"cannot export the activation {config.activation!r}, only gelu")
    graph = _Graph(weights)
    hidden = graph.embeddings()
    offsets = "cu_seqlens"
    last = config.n_layers - 1
    qkv = graph.crisp(LINEAR, [hidden, *graph.qkv(0)], [_name(0, "attention.qkv")])[0]
    for i in range(config.n_layers):
        name = _name(i, "attention")
        prunes = pruning is not None and i < last and _cuts(pruning, i)
        # `received` is named empty where nobody reads it: ONNX Runtime takes no fewer outputs.
        queries: Queries = "first" if i == last else "all"
        context, received = graph.crisp(
            OPERATOR,
            [qkv, offsets],
            [name, f"{name}.received" if prunes else ""],
            overload=overload_of(queries),
            **attention_attributes(pattern, config.n_heads, queries),
        )
        if prunes:
            assert pruning is not None
            kept, offsets = graph.crisp(
                PRUNE_TOKENS,
                [received, offsets, "cu_seqlens"],
                [f"{name}.kept", f"{name}.kept_cu_seqlens"],
                **prune_attributes(pruning, i),
            )
            context = graph.add("Gather", [context, kept], f"{name}.pruned", axis=0)
            hidden = graph.add("Gather", [hidden, kept], _name(i, "pruned"), axis=0)
        layer = [*graph.linear(_name(i, "attention.out_lin"))]
        layer += [*graph.norm(_name(i, "sa_layer_norm"))]
        layer += [*graph.linear(_name(i, "ffn.lin1")), *graph.linear(_name(i, "ffn.lin2"))]
        layer += [*graph.norm(_name(i, "output_layer_norm"))]
        output = [_name(i, "output")]
        if i == last:
            hidden = graph.add("Gather", [hidden, graph.starts(offsets)], _name(i, "cls"), axis=0)
            (hidden,) = graph.crisp(
                POST_ATTENTION, [context, hidden, *layer], output, epsilon=_EPSILON
            )
        else:
            hidden, qkv = graph.crisp(
                POST_ATTENTION_QKV,
                [context, hidden, *layer, *graph.qkv(i + 1)],
                [*output, _name(i + 1, "attention.qkv")],
                epsilon=_EPSILON,
            )
    pooled = graph.gemm(hidden, "pre_classifier", "pre_classifier")
    pooled = graph.add("Relu", [pooled], "pre_classifier.relu")
    graph.gemm(pooled, "classifier", "logits")
    functions = [sparse_attention_function(pattern, config.n_heads, OPSET, "first")]
    if last:
        functions.append(sparse_attention_function(pattern, config.n_heads, OPSET))
    functions += row_functions("fp32", OPSET)
    if pruning is not None:
        functions.append(prune_tokens_function(OPSET))
    return graph.model(len(weights["classifier.bias"]), functions)


def _name(layer: int, part: str) -> str:
    return f"distilbert.transformer.layer.{layer}.{part}"


def _cuts(pruning: TokenPruning, layer: int) -> bool:
    """Whether the schedule drops anything after `layer` that is not gone yet."""
    before = pruning.keep[layer - 1] if layer else 1.0
    return pruning.keep[layer] < before


class _Graph:
    """Nodes and initializers; every method adds some and returns the names of its results."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node of a standard operator with one output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def crisp(
        self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any
    ) -> list[str]:
        """A node of one of our operators."""
        self.nodes.append(
            helper.make_node(operator, inputs, outputs, outputs[0], domain=DOMAIN, **attributes)
        )
        return outputs

    def constant(self, name: str, value: Array | NDArray[np.int64]) -> str:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def starts(self, offsets: str) -> str:
        """int64 [B]: where each sequence starts, which is where its [CLS] stands."""
        wide = self.add("Cast", [offsets], "last_offsets", to=TensorProto.INT64)
        first = self.constant("first", np.array([0]))
        last = self.constant("last", np.array([-1]))
        return self.add("Slice", [wide, first, last], "starts")

    def embeddings(self) -> str:
        """LayerNorm of word plus position embeddings: [T, H]."""
        name = "distilbert.embeddings"
        tables = [
            *self._scaled(f"{name}.word_embeddings", self._weight(f"{name}.word_embeddings"), 0),
            *self._scaled(
                f"{name}.position_embeddings", self._weight(f"{name}.position_embeddings"), 0
            ),
        ]
        inputs = ["input_ids", "cu_seqlens", *tables, *self.norm(f"{name}.LayerNorm")]
        return self.crisp(EMBED, inputs, [name], epsilon=_EPSILON)[0]

    def qkv(self, layer: int) -> tuple[str, str, str]:
        """q, k and v of a layer as one linear of three times the width."""
        parts = [_name(layer, f"attention.{part}_lin") for part in "qkv"]
        name = _name(layer, "attention.qkv")
        bias = np.concatenate([self.weights[f"{part}.bias"] for part in parts])
        weight = np.concatenate([self._weight(part) for part in parts])
        return (*self._scaled(name, weight.T, 1), self.constant(f"{name}.bias", bias))

    def linear(self, name: str) -> tuple[str, str, str]:
        """Weight [in, out], scale [out] and bias [out] of a linear."""
        scaled = self._scaled(name, self._weight(name).T, 1)
        return (*scaled, self.constant(f"{name}.bias", self.weights[f"{name}.bias"]))

    def norm(self, name: str) -> tuple[str, str]:
        return (
            self.constant(f"{name}.weight", self._weight(name)),
            self.constant(f"{name}.bias", self.weights[f"{name}.bias"]),
        )

    def gemm(self, source: str, name: str, output: str) -> str:
        """x·Wᵀ + b, by ONNX Runtime's own operator: the head, always in fp32."""
        weight = self.constant(f"{name}.weight", self._weight(name).T)
        bias = self.constant(f"{name}.bias", self.weights[f"{name}.bias"])
        return self.add("Gemm", [source, weight, bias], output)

    def model(self, num_labels: int, functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
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

    def _weight(self, name: str) -> Array:
        return self.weights[f"{name}.weight"]

    def _scaled(self, name: str, weight: Array, axis: int) -> tuple[str, str]:
        """A weight and its scales along `axis`, which `export.quantize` puts to use."""
        ones = np.ones(weight.shape[axis], np.float32)
        return self.constant(f"{name}.weight", weight), self.constant(f"{name}.{_SCALE}", ones)
