"""int8: the linears by ONNX Runtime's dynamic quantisation, the embedding tables row by row.

Weights are symmetric int8 with a scale per output column; activations are uint8, with a scale that
ONNX Runtime finds for each call. The two small matrices of the head stay fp32: they cost nothing
and decide the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

HEAD = ("pre_classifier", "classifier")


def quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """The int8 form of a packed fp32 graph as `export.graph` writes it; the input is unchanged."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        with without_preprocessing_advice():
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[f"{name}.product" for name in HEAD],
                # The type of tensors behind an operator that the quantiser does not know.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        quantized: onnx.ModelProto = onnx.load(target)
    for node in [n for n in quantized.graph.node if n.op_type == "Gather"]:
        _quantize_table(quantized.graph, node)
    onnx.checker.check_model(quantized)
    return quantized


def quantize_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 [V, H] and scale float32 [V, 1] such that table ≈ int8 · scale, within scale / 2."""
    scale = np.abs(table).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.rint(table / scale).astype(np.int8), scale.astype(np.float32)


def _quantize_table(graph: onnx.GraphProto, gather: onnx.NodeProto) -> None:
    """Gather(table, i) -> Cast(Gather(table int8, i)) · Gather(scale, i), where it has a table."""
    table = next((t for t in graph.initializer if t.name == gather.input[0]), None)
    if table is None or table.data_type != onnx.TensorProto.FLOAT:
        return
    rows, scale = quantize_rows(numpy_helper.to_array(table))
    name, indices, output = table.name, gather.input[1], gather.output[0]
    graph.initializer.remove(table)
    graph.initializer.extend(
        [
            numpy_helper.from_array(rows, f"{name}_quantized"),
            numpy_helper.from_array(scale, f"{name}_scale"),
        ]
    )
    nodes = [
        helper.make_node("Gather", [f"{name}_quantized", indices], [f"{output}.int8"]),
        helper.make_node("Gather", [f"{name}_scale", indices], [f"{output}.scale"]),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.float"], to=1),
        helper.make_node("Mul", [f"{output}.float", f"{output}.scale"], [output], name=output),
    ]
    place = list(graph.node).index(gather)
    graph.node.remove(gather)
    for node in reversed(nodes):
        graph.node.insert(place, node)


@contextmanager
def without_preprocessing_advice() -> Iterator[None]:
    """Silences what quantize_dynamic logs about pre-processing: these graphs need none."""

    def other(record: logging.LogRecord) -> bool:
        return "pre-process" not in record.getMessage()

    logger = logging.getLogger()
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
