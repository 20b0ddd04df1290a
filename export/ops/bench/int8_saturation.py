"""Whether ONNX Runtime's int8 products saturate on this processor.

Its kernels for u8 by s8 without VNNI add two products at 16 bits (vpmaddubsw): more than 32,767 is
cut off. With the session option session.x64quantprecision, on such processors it takes s8 weights
beyond -64 ... 63 as u8, whose kernels are exact and slower. This compares the int32 sums of
MatMulInteger with exact ones, for bytes drawn over the full range and for normal ones, which is
what activations and weights look like.

    .venv/bin/python export/ops/bench/int8_saturation.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.files import write_atomically

ROWS, INNER, COLUMNS = 64, 384, 1536
# Largest magnitude of the weights; whether they are stored as u8; the session option.
FORMS = ((127, False, False), (64, False, False), (127, True, False), (127, False, True))
ZERO = 128  # the byte that stands for 0 among activations, and among u8 weights

Array = NDArray[Any]


def operands(data: str, steps: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Activations uint8 [64, 384] around 128, and weights int64 [384, 1536] of -steps ... steps."""
    if data == "uniform":
        a = random.integers(0, 256, size=(ROWS, INNER))
        return a.astype(np.uint8), random.integers(-steps, steps + 1, size=(INNER, COLUMNS))
    a = np.clip(np.rint(random.normal(ZERO, 32, (ROWS, INNER))), 0, 255)
    b = random.normal(size=(INNER, COLUMNS))
    return a.astype(np.uint8), np.rint(b / np.abs(b).max(axis=0) * steps).astype(np.int64)


def product(a: Array, b: Array, unsigned: bool, precise: bool) -> Array:
    """(a - 128) b as MatMulInteger computes it, int32; the weights stored as u8 or as s8.
    `precise` sets the session option."""
    weight = (b + ZERO).astype(np.uint8) if unsigned else b.astype(np.int8)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMulInteger", ["a", "b", "zero", "b_zero"], ["y"])],
            "product",
            [helper.make_tensor_value_info("a", TensorProto.UINT8, a.shape)],
            [helper.make_tensor_value_info("y", TensorProto.INT32, [ROWS, COLUMNS])],
            [
                numpy_helper.from_array(weight, "b"),
                numpy_helper.from_array(np.array(ZERO, np.uint8), "zero"),
                numpy_helper.from_array(np.array(ZERO if unsigned else 0, weight.dtype), "b_zero"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1" if precise else "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: Array = session.run(None, {"a": a})[0]
    return found


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Save everything there.")] = None,
) -> None:
    """Whether ONNX Runtime's int8 products saturate on this processor."""
    random = np.random.default_rng(0)
    results = []
    for data in ("uniform", "normal"):
        for steps, unsigned, precise in FORMS:
            a, b = operands(data, steps, random)
            exact = (a.astype(np.int64) - ZERO) @ b
            off = product(a, b, unsigned, precise) - exact
            wrong = float(np.mean(off != 0))
            error = float(np.sqrt((off**2).sum() / (exact**2).sum()))
            weights = f"-{steps} ... {steps} as {'u8' if unsigned else 's8'}"
            weights += ", precise" if precise else ""
            results.append(
                {"data": data, "weights": weights, "wrong": wrong, "relative_error": error}
            )
            print(
                f"{data:8} weights {weights:28} {100 * wrong:6.2f} % of the sums wrong,"
                f" relative error {error:.4f}"
            )
    if json_file is not None:
        record = {"onnxruntime": onnxruntime.__version__, "results": results}
        write_atomically(json_file, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
