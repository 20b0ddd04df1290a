"""fp16, for GPUs: weights, tables and what flows between our operators as half floats.

Scales, biases, the weights of LayerNorms and the head stay float32, as do the graph's inputs and
outputs, so that casts stand at the edge alone. The functions in the file are those of fp32 with
casts around them, and float inside: such a file runs in any ONNX Runtime, on a CPU more slowly than
fp32.

These functions are what `crisp export` holds against fp32. The operators on a GPU round more. They
add up, normalise and take the softmax in float too, but a product becomes half floats before bias,
GELU and residual come to it, and overflows beyond 65,504; probabilities are rounded to half before
they meet the values. What that costs has not been measured on a GPU yet (docs/gpu.md).

    onnx.save(to_half(packed_graph(...)), file)
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.functions import OPERATOR
from export.manifest import DOMAIN
from export.row_functions import EMBED, LINEARS, TABLES

# The inputs of each operator that are half: weights and tables, which are constants, and what
# flows. The rest is float32. Outputs are half, but for what tokens received.
_CONSTANTS: dict[str, tuple[int, ...]] = {
    name: tuple(weight for weight, _, _ in linears) for name, linears in LINEARS.items()
}
_CONSTANTS |= {EMBED: tuple(table for table, _ in TABLES), OPERATOR: ()}
_FLOWING: dict[str, tuple[int, ...]] = {
    name: (0, 1) if len(linears) > 1 else (0,) for name, linears in LINEARS.items()
}
_FLOWING |= {EMBED: (), OPERATOR: (0,)}
_RECEIVED = (OPERATOR, 1)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The fp16 form of a packed fp32 graph as `export.graph` writes it; the input is unchanged.

    Raises ExportError for a weight beyond what a half float holds, 65,504.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in halved.graph.initializer}
    half: set[str] = set()
    nodes: list[NodeProto] = []
    for node in halved.graph.node:
        if node.domain == DOMAIN and node.op_type in _CONSTANTS:
            for index in _CONSTANTS[node.op_type]:
                _round(stored[node.input[index]])
            half.update(name for i, name in enumerate(node.output) if _is_half(node.op_type, i))
        elif node.op_type == "Gather" and node.input[0] in half:
            half.add(node.output[0])
        else:  # the head
            for i, name in enumerate(node.input):
                if name in half:
                    node.input[i] = f"{name}.float"
                    cast = helper.make_node("Cast", [name], [node.input[i]], to=TensorProto.FLOAT)
                    nodes.append(cast)
        nodes.append(node)
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    for function in halved.functions:
        if function.name in _CONSTANTS:
            function.CopyFrom(_with_casts(function))
    onnx.checker.check_model(halved)
    return halved


def _is_half(operator: str, output: int) -> bool:
    return (operator, output) != _RECEIVED


def _round(tensor: TensorProto) -> None:
    values = numpy_helper.to_array(tensor)
    if values.dtype == np.float16:  # of another node, too
        return
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise ExportError(
            f"{tensor.name} has a weight of {np.abs(values).max():.0f}, and fp16 ends at 65,504; "
            "export with --precision fp32"
        )
    tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def _with_casts(function: FunctionProto) -> FunctionProto:
    """`function`, which computes in float, between half inputs and outputs."""
    indices = (*_CONSTANTS[function.name], *_FLOWING[function.name])
    before = {function.input[i]: f"{function.input[i]}.float" for i in indices}
    after = {
        name: f"{name}.float"
        for i, name in enumerate(function.output)
        if _is_half(function.name, i)
    }
    body = [helper.make_node("Cast", [n], [f], to=TensorProto.FLOAT) for n, f in before.items()]
    renamed = before | after
    for node in function.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        copy.output[:] = [renamed.get(name, name) for name in node.output]
        body.append(copy)
    body += [helper.make_node("Cast", [f], [n], to=TensorProto.FLOAT16) for n, f in after.items()]
    result = FunctionProto()
    result.CopyFrom(function)
    del result.node[:]
    result.node.extend(body)
    return result
