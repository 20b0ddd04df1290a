"""A model file with two kinds of output more: the attention that each token received in each layer,
and which tokens each pruning step kept.

`export` names an output of a node only where another node reads it, because naming it has its
price at every request. `/explain` wants them all, so it opens a second graph: the same bytes with
these outputs named. Of ONNX's schema only the five messages down to the names are described here;
protobuf carries everything else along unread, and comes with ONNX Runtime (see
docs/decisions/0012-explanations-from-a-second-graph.md).

    graph = explained_graph(folder.model.read_bytes())
    graph.layers[2].received   # the name of an output, float32 [T of that layer]
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from export.errors import ModelFolderError
from export.manifest import DOMAIN

# The part of onnx.proto that is read: the name, number and type of each field.
_SCHEMA: dict[str, tuple[tuple[str, int, str], ...]] = {
    "ModelProto": (("graph", 7, "GraphProto"),),
    "GraphProto": (("node", 1, "NodeProto*"), ("output", 12, "ValueInfoProto*")),
    "NodeProto": (
        ("input", 1, "string*"),
        ("output", 2, "string*"),
        ("op_type", 4, "string"),
        ("attribute", 5, "AttributeProto*"),
        ("domain", 7, "string"),
    ),
    "AttributeProto": (("name", 1, "string"), ("s", 4, "bytes")),
    "ValueInfoProto": (("name", 1, "string"),),
}


@dataclass(frozen=True, slots=True)
class LayerOutputs:
    """Names of what one layer tells of itself.

    `received` is float32 [T], T the tokens that reach the layer: the attention that each received
    from the layer's queries, mean over the heads. `kept` is int64 [T'], which of them go on, or
    None where all do. `first_only` says that only [CLS] queries, so `received` is its attention.
    """

    received: str
    kept: str | None
    first_only: bool


@dataclass(frozen=True, slots=True)
class ExplainedGraph:
    """The bytes of the model with the outputs of `layers`, and of `logits` as before."""

    model: bytes
    layers: tuple[LayerOutputs, ...]

    @property
    def outputs(self) -> list[str]:
        """Every name in `layers`."""
        return [name for layer in self.layers for name in (layer.received, layer.kept) if name]


def explained_graph(model: bytes) -> ExplainedGraph:
    """Names the outputs that explain the packed classifier in `model`, the bytes of an ONNX file.

    Raises ModelFolderError where these are no ONNX model with our attention in it.
    """
    proto: Any = _model_class()()
    try:
        proto.ParseFromString(model)
    except DecodeError as error:
        raise ModelFolderError(f"the model is no ONNX file: {error}") from None
    nodes = [node for node in proto.graph.node if node.domain == DOMAIN]
    kept_by = {node.input[0]: node.output[0] for node in nodes if node.op_type == "PruneTokens"}
    layers = []
    for node in nodes:
        if node.op_type != "SparseAttention":
            continue
        received = _named_output(node, 1)
        layers.append(LayerOutputs(received, kept_by.get(received), _first_only(node)))
    if not layers:
        raise ModelFolderError("the model has no crisp::SparseAttention to explain")
    graph = ExplainedGraph(b"", tuple(layers))
    for name in graph.outputs:
        proto.graph.output.add(name=name)
    return ExplainedGraph(proto.SerializeToString(), graph.layers)


def _named_output(node: Any, index: int) -> str:
    """The name of an output of `node`, which gets one where it has none."""
    while len(node.output) <= index:
        node.output.append("")
    if not node.output[index]:
        node.output[index] = f"{node.output[0]}.received"
    name: str = node.output[index]
    return name


def _first_only(node: Any) -> bool:
    return any(part.name == "queries" and part.s == b"first" for part in node.attribute)


@functools.cache
def _model_class() -> Any:
    """The class of a ModelProto that knows what `_SCHEMA` says, and keeps the rest as it is."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="onnx.proto", package="onnx", syntax="proto2")
    for message, fields in _SCHEMA.items():
        description = file.message_type.add(name=message)
        for name, number, kind in fields:
            field = description.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            match kind.rstrip("*"):
                case "string":
                    field.type = kinds.TYPE_STRING
                case "bytes":
                    field.type = kinds.TYPE_BYTES
                case other:
                    field.type, field.type_name = kinds.TYPE_MESSAGE, f".onnx.{other}"
    pool = descriptor_pool.DescriptorPool()  # its own: the package onnx may be imported as well
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx.ModelProto"))
