"""The parameters of a classifier, read back from the packed graph that was exported from it.

So the baseline can be made from a model folder alone, without the run that it came from. An fp32
graph gives the parameters exactly; an int8 graph those that it stands for, within half a step of
its scale.

    graph = onnx.load(folder.model)
    weights = packed_weights(graph)          # names and shapes of the model's state dict
    config = packed_config(graph, weights)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from transformers import DistilBertConfig

from export.errors import ModelFolderError
from export.functions import OPERATOR
from export.manifest import DOMAIN
from training.narrow_model import FEED_FORWARD_FIELD

Array = NDArray[np.float32]

_LAYER = "distilbert.transformer.layer.{}"
_EMBEDDINGS = "distilbert.embeddings"


def packed_weights(graph: onnx.ModelProto) -> dict[str, Array]:
    """Parameters float32 by the names of DistilBertForSequenceClassification's state dict, as far
    as the graph has them."""
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    weights: dict[str, Array] = {}
    for name in stored:
        parameter = name.removesuffix("_quantized")
        if not parameter.endswith((".weight", ".bias")):
            continue  # a constant, or the scale or zero point of a weight
        value = _value(stored, parameter)
        if value.ndim == 2 and not parameter.startswith(_EMBEDDINGS):
            value = value.T  # linears are stored as [in, out]
        for part, array in _split(parameter, value).items():
            weights[part] = np.ascontiguousarray(array)
    return weights


def packed_config(graph: onnx.ModelProto, weights: Mapping[str, Array]) -> DistilBertConfig:
    """The architecture that `weights` belong to; the number of heads stands in the graph's nodes.

    Raises ModelFolderError where the graph is not one that `crisp export` writes.
    """
    attention = next(
        (n for n in graph.graph.node if (n.domain, n.op_type) == (DOMAIN, OPERATOR)), None
    )
    words = f"{_EMBEDDINGS}.word_embeddings.weight"
    positions = f"{_EMBEDDINGS}.position_embeddings.weight"
    inner = f"{_LAYER.format(0)}.ffn.lin1.weight"
    missing = [name for name in (words, positions, inner, "classifier.bias") if name not in weights]
    if attention is None or missing:
        raise ModelFolderError(
            "cannot read the weights back: the graph has no "
            f"{[*missing, f'{DOMAIN}::{OPERATOR}'][0]}; export the model again, or give the run "
            "that it came from with --run"
        )
    num_heads = next(
        helper.get_attribute_value(a) for a in attention.attribute if a.name == "num_heads"
    )
    vocabulary, hidden = weights[words].shape
    layers = 0
    while f"{_LAYER.format(layers)}.ffn.lin1.weight" in weights:
        layers += 1
    config = DistilBertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=len(weights[positions]),
        dim=hidden,
        hidden_dim=len(weights[inner]),
        n_layers=layers,
        n_heads=num_heads,
    )
    config.num_labels = len(weights["classifier.bias"])
    widths = [len(weights[f"{_LAYER.format(i)}.ffn.lin1.weight"]) for i in range(layers)]
    if len(set(widths)) > 1:
        setattr(config, FEED_FORWARD_FIELD, widths)
    return config


def _value(stored: Mapping[str, onnx.TensorProto], name: str) -> Array:
    """A tensor as float32: as it stands, or times its scale, which is of each row of a table and of
    each output column of a linear."""
    if name not in stored:  # as schema 1 of the graph stored int8
        steps = numpy_helper.to_array(stored[f"{name}_quantized"]).astype(np.float32)
        return steps * numpy_helper.to_array(stored[f"{name}_scale"]).astype(np.float32)
    value: Array = numpy_helper.to_array(stored[name]).astype(np.float32)
    if f"{name}_scale" in stored:
        scale = numpy_helper.to_array(stored[f"{name}_scale"])
        value = value * (scale[:, None] if name.startswith(_EMBEDDINGS) else scale)
    return value


def _split(name: str, value: Array) -> dict[str, Array]:
    """q, k and v are stored as one linear, `...attention.qkv`."""
    if ".qkv." not in name:
        return {name: value}
    parts = np.split(value, 3)
    return {name.replace(".qkv.", f".{p}_lin."): a for p, a in zip("qkv", parts, strict=True)}
