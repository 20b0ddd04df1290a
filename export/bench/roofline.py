"""How much of what the machine can multiply a contender makes use of.

The work is counted as a dense model does it on the real tokens alone: a contender that prunes
tokens, skips links or leaves out rows that nobody reads is credited with the work that it avoided,
and one that pads gets nothing for the padding. So the rate is an *effective* one, and it may
exceed the peak.

The peaks are measured by the same libraries that do the work, on the same number of threads, with
matrices large enough that nothing but multiplying counts: fp32 by ONNX Runtime's MatMul and by
torch's, int8 by ONNX Runtime's MatMulInteger (uint8 by int8, summed in int32) and by its
DynamicQuantizeMatMul (float in and out, quantising included). The faster of each counts. They are
what these libraries reach, not what the processor could.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession, SessionOptions
from transformers import DistilBertConfig

from training.narrow_model import FEED_FORWARD_FIELD

ROWS, INNER, COLUMNS = 1024, 1024, 2048
_RUNS = 10


@dataclass(frozen=True)
class Architecture:
    """The sizes that decide how much is multiplied."""

    vocabulary: int
    layers: int
    hidden: int
    inner: tuple[int, ...]  # the width of each layer's feed-forward network
    heads: int
    labels: int

    @classmethod
    def of(cls, config: DistilBertConfig) -> Architecture:
        widths = getattr(config, FEED_FORWARD_FIELD, None)  # of a model that was narrowed
        return cls(
            vocabulary=config.vocab_size,
            layers=config.n_layers,
            hidden=config.dim,
            inner=tuple(widths or [config.hidden_dim] * config.n_layers),
            heads=config.n_heads,
            labels=int(config.num_labels or 0),
        )

    def multiply_adds(self, lengths: Sequence[int]) -> int:
        """Multiply-adds of a dense model for texts of these lengths, without padding.

        A layer: T · (4·H² + 2·H·F) for its linears (q, k, v, out; in, out) and 2·H·ΣL² for scores
        and context; the head: B · (H² + H·C). Softmax, LayerNorm and GELU are not counted.
        """
        tokens, squares = sum(lengths), sum(length**2 for length in lengths)
        attention = self.layers * (4 * tokens * self.hidden**2 + 2 * self.hidden * squares)
        feed_forward = 2 * tokens * self.hidden * sum(self.inner)
        head = len(lengths) * (self.hidden**2 + self.hidden * self.labels)
        return attention + feed_forward + head

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Peaks:
    """Highest rates seen of each way to multiply, in multiply-adds a second."""

    fp32: dict[str, float]
    int8: dict[str, float]

    @property
    def highest_fp32(self) -> float:
        return max(self.fp32.values())

    @property
    def highest_int8(self) -> float:
        return max(self.int8.values())

    def or_higher(self, other: Peaks) -> Peaks:
        """The higher of both for each way: a busy machine hides a peak, and never adds to it."""
        return Peaks(
            {way: max(rate, other.fp32[way]) for way, rate in self.fp32.items()},
            {way: max(rate, other.int8[way]) for way, rate in self.int8.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "unit": "multiply-adds a second",
            "shape": [ROWS, INNER, COLUMNS],
            "fp32": self.fp32,
            "int8": self.int8,
        }


def measure_peaks(threads: int) -> Peaks:
    """Multiplies [1024, 1024] by [1024, 2048] in each way and keeps the best of several runs."""
    random = np.random.default_rng(0)
    left = random.standard_normal((ROWS, INNER), np.float32)
    right = random.standard_normal((INNER, COLUMNS), np.float32)
    left_int8 = random.integers(0, 256, left.shape).astype(np.uint8)
    # Seven bits: without VNNI, sums of two products of eight bits each could overflow 16 bits, and
    # ONNX Runtime's own quantiser may reduce the range; the time does not depend on the values.
    right_int8 = random.integers(-64, 64, right.shape).astype(np.int8)
    scale = np.full(COLUMNS, 1e-2, np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Peaks(
            fp32={
                "onnxruntime MatMul": _rate(_matmul("MatMul", left, {"B": right}, threads)),
                "torch mm": _rate(_torch_mm(left, right)),
            },
            int8={
                "onnxruntime MatMulInteger": _rate(
                    _matmul("MatMulInteger", left_int8, {"B": right_int8}, threads)
                ),
                "onnxruntime DynamicQuantizeMatMul": _rate(
                    _matmul(
                        "DynamicQuantizeMatMul",
                        left,
                        {"B": right_int8, "b_scale": scale},
                        threads,
                        domain="com.microsoft",
                    )
                ),
            },
        )
    finally:
        torch.set_num_threads(before)


def _torch_mm(left: NDArray[np.float32], right: NDArray[np.float32]) -> Callable[[], object]:
    a, b = torch.from_numpy(left), torch.from_numpy(right)
    return lambda: torch.mm(a, b)


def _matmul(
    operator: str,
    left: NDArray[Any],
    weights: dict[str, NDArray[Any]],
    threads: int,
    domain: str = "",
) -> Callable[[], object]:
    """A run of a graph of one node, whose second operand is constant, as weights are."""
    kind = TensorProto.INT32 if operator == "MatMulInteger" else TensorProto.FLOAT
    given = helper.np_dtype_to_tensor_dtype(left.dtype)
    node = helper.make_node(operator, ["A", *weights], ["Y"], domain=domain)
    graph = helper.make_graph(
        [node],
        "peak",
        [helper.make_tensor_value_info("A", given, list(left.shape))],
        [helper.make_tensor_value_info("Y", kind, [ROWS, COLUMNS])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(["Y"], {"A": left})


def _rate(run: Callable[[], object]) -> float:
    """Multiply-adds a second in the fastest of _RUNS runs, after one that does not count."""
    run()
    fastest = float("inf")
    for _ in range(_RUNS):
        started = perf_counter()
        run()
        fastest = min(fastest, perf_counter() - started)
    return ROWS * INNER * COLUMNS / fastest
