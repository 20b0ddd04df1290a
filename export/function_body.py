"""The body of a model-local function, node by node: what `export/*functions.py` write with."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import FunctionProto, NodeProto, helper, numpy_helper

from export.manifest import DOMAIN


class FunctionBody:
    """The nodes of a function, each with one output that is named by the caller."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self._constants = 0

    def add(self, output: str, operator: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, value: float | int | list[int]) -> str:
        """A float32 or int64 constant."""
        array = np.asarray(value, np.float32 if isinstance(value, float) else np.int64)
        name = f"constant_{self._constants}"
        self._constants += 1
        tensor: onnx.TensorProto = numpy_helper.from_array(array)
        self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def attribute(self, name: str) -> str:
        """The value of the node's integer attribute `name`, int64 []."""
        node = helper.make_node("Constant", [], [name])
        node.attribute.append(_reference("value_int", name, onnx.AttributeProto.INT))
        self.nodes.append(node)
        return name

    def add_norm(self, output: str, source: str, gamma: str, beta: str) -> str:
        """LayerNormalization with the node's attribute `epsilon`."""
        node = helper.make_node("LayerNormalization", [source, gamma, beta], [output], axis=-1)
        node.attribute.append(_reference("epsilon", "epsilon", onnx.AttributeProto.FLOAT))
        self.nodes.append(node)
        return output

    def function(
        self,
        name: str,
        inputs: list[str],
        outputs: list[str],
        attributes: list[str],
        *,
        opset: int,
        overload: str = "",
    ) -> FunctionProto:
        """The function `crisp::name`; `opset` is the version of the standard operators."""
        return helper.make_function(
            DOMAIN,
            name,
            inputs,
            outputs,
            self.nodes,
            [helper.make_opsetid("", opset)],
            attributes=attributes,
            overload=overload,
        )


def _reference(attribute: str, name: str, kind: int) -> onnx.AttributeProto:
    """An attribute of a node in the body that has the value of the function's attribute."""
    reference = onnx.AttributeProto(name=attribute, ref_attr_name=name)
    reference.type = kind  # type: ignore[assignment]  # an enum of protobuf
    return reference
