"""int8: the linears of the row operators column by column, the embedding tables row by row.

Weights are symmetric, in [-64, 64] with a scale for each output column (`export/ops/rows.h` says
why not in [-128, 127]); activations are quantised as they arrive, with a scale and a zero point for
each token, so that a text's answer does not depend on its batch. Tables are symmetric in
[-127, 127]. The two small matrices of the head stay fp32: they cost nothing and decide the answer.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from export.manifest import DOMAIN
from export.row_functions import EMBED, LINEARS, TABLES, WEIGHT_LEVELS, row_functions

_TABLE_LEVELS = 127


def quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """The int8 form of a packed fp32 graph as `export.graph` writes it; the input is unchanged."""
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}

    def replace(weight: str, scale: str, *, axis: int, levels: int) -> None:
        values, scales = quantize_along(numpy_helper.to_array(stored[weight]), axis, levels)
        stored[weight].CopyFrom(numpy_helper.from_array(values, weight))
        stored[scale].CopyFrom(numpy_helper.from_array(scales, scale))

    for node in quantized.graph.node:
        if node.domain != DOMAIN:
            continue
        for weight, scale, _ in LINEARS.get(node.op_type, ()):
            replace(node.input[weight], node.input[scale], axis=1, levels=WEIGHT_LEVELS)
        for table, scale in TABLES if node.op_type == EMBED else ():
            replace(node.input[table], node.input[scale], axis=0, levels=_TABLE_LEVELS)
    opset = next(entry.version for entry in quantized.opset_import if entry.domain == "")
    bodies = {function.name: function for function in row_functions("int8", opset)}
    for function in quantized.functions:
        if function.name in bodies:
            function.CopyFrom(bodies[function.name])
    onnx.checker.check_model(quantized)
    return quantized


def quantize_along(
    values: NDArray[np.float32], axis: int, levels: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 in [-levels, levels], and the scale float32 of each index of `axis`, such that values ≈
    int8 · scale, within scale / 2. `values` is a matrix."""
    scale = np.abs(values).max(axis=1 - axis, keepdims=True) / levels
    scale[scale == 0] = 1
    return np.rint(values / scale).astype(np.int8), scale.astype(np.float32).ravel()
