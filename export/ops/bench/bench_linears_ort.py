"""Times MiniLM's linear layers in ONNX Runtime, and beside them over oneDNN, on random data.

What an operator of our own for a whole feed-forward block could gain over DynamicQuantizeMatMul,
and what a calibrated activation scale could gain over one that is found on every call. Blocks: the
products qkv [384, 1152], out [384, 384], ffn1 [384, 1536] with GELU, ffn2 [1536, 384], and `ffn`:
LayerNorm(x + ffn2(ffn1(x))). ONNX Runtime's forms:

    fp32      MatMul and the bias (Gemm), BiasGelu, SkipLayerNormalization
    dynamic   DynamicQuantizeMatMul: u8 activations by s8 weights with a scale a column
    dynamic7  the same with weights cut to -64 ... 64, of which no two products can saturate
    dynamicu  the same with u8 weights
    static    MatMulIntegerToFloat; the bytes come from the step before, by a given scale

With `--onednn` the program in onednn/ answers for the same shapes, in its own process, in turn.
Times are in ms: on one thread those that the processor spent on it, so that others who use it count
for little; on more threads the time of day, of which the tenth percentile then says most.

    .venv/bin/python export/ops/bench/bench_linears_ort.py --rows 200 --threads 1 \\
        --onednn PATH/onednn_linears
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter, thread_time
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime
import typer
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from training.files import write_atomically

HIDDEN, INNER = 384, 1536
SHAPES = {"qkv": (384, 1152), "out": (384, 384), "ffn1": (384, 1536), "ffn2": (1536, 384)}
_FFN = ("ffn1", "ffn2")
BLOCKS = (*SHAPES, "ffn")
FORMS = ("fp32", "dynamic", "dynamic7", "dynamicu", "static")
ONEDNN = [
    *(("matmul", precision, 127) for precision in ("fp32", "static", "tensor", "rows")),
    *(("conv", precision, 127) for precision in ("fp32", "static", "tensor", "rows")),
    *((backend, "static", 64) for backend in ("matmul", "conv")),
    ("conv", "rows", 64),
]
# Scale and zero point of normal values and of their GELU, as in onednn/blocks.cc.
NORMAL, GELU = (4 / 127, 128), (4.2 / 255, 10)
SLICE_SECONDS = 0.1

Array = NDArray[Any]
Ask = Callable[[float], list[float]]  # times in ms of the runs within so many seconds


class _Graph:
    """An ONNX graph under construction; `add` returns the name of a node's output."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, *inputs: str, microsoft: bool = False, **attributes: Any) -> str:
        output = f"v{len(self.nodes)}"
        domain = "com.microsoft" if microsoft else ""
        node = helper.make_node(operator, list(inputs), [output], domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def linear(self, x: str, shape: tuple[int, int], form: str, scale: tuple[float, int]) -> str:
        """x [M, inner] fp32, or bytes where `form` is static -> [M, columns] fp32."""
        inner, columns = shape
        weight = self.random.normal(size=shape).astype(np.float32) / np.sqrt(np.float32(inner))
        bias = self.constant(self.random.normal(size=columns, scale=0.1).astype(np.float32))
        if form == "fp32":
            return self.add("Add", self.add("MatMul", x, self.constant(weight)), bias)
        steps = 64 if form == "dynamic7" else 127
        scales = (np.abs(weight).max(axis=0) / steps).astype(np.float32)
        values = np.rint(weight / scales)
        unsigned = form == "dynamicu"
        bytes_ = (values + 128).astype(np.uint8) if unsigned else values.astype(np.int8)
        zeros = np.full(columns, 128, np.uint8) if unsigned else np.zeros(columns, np.int8)
        weight_name, scales_name, zeros_name = map(self.constant, (bytes_, scales, zeros))
        if form == "static":
            a_scale, a_zero = self.byte_scale(scale)
            return self.add(
                "MatMulIntegerToFloat",
                *(x, weight_name, a_scale, scales_name, a_zero, zeros_name, bias),
                microsoft=True,
            )
        return self.add(
            "DynamicQuantizeMatMul", x, weight_name, scales_name, zeros_name, bias, microsoft=True
        )

    def byte_scale(self, scale: tuple[float, int]) -> tuple[str, str]:
        return (
            self.constant(np.array(scale[0], np.float32)),
            self.constant(np.array(scale[1], np.uint8)),
        )

    def quantized(self, x: str, scale: tuple[float, int]) -> str:
        return self.add("QuantizeLinear", x, *self.byte_scale(scale))


def make_model(block: str, form: str, rows: int) -> onnx.ModelProto:
    """Inputs `x` [rows, K] fp32 and, where `form` is static, `bytes` u8 of the same; output `y`."""
    graph, static = _Graph(), form == "static"
    width = INNER if block == "ffn2" else HIDDEN
    x = "bytes" if static else "x"
    if block == "ffn":
        middle = graph.add("Gelu", graph.linear(x, SHAPES["ffn1"], form, NORMAL), microsoft=True)
        middle = graph.quantized(middle, GELU) if static else middle
        update = graph.linear(middle, SHAPES["ffn2"], form, GELU)
        gamma = graph.constant(np.ones(HIDDEN, np.float32))
        beta = graph.constant(np.zeros(HIDDEN, np.float32))
        y = graph.add(
            "SkipLayerNormalization", update, "x", gamma, beta, microsoft=True, epsilon=1e-12
        )
        outputs = [y, graph.quantized(y, NORMAL)] if static else [y]
    else:
        y = graph.linear(x, SHAPES[block], form, NORMAL)
        if block == "ffn1":
            y = graph.add("Gelu", y, microsoft=True)
            y = graph.quantized(y, GELU) if static else y
        outputs = [y]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [rows, width])]
    if static:
        as_bytes = helper.make_tensor_value_info("bytes", onnx.TensorProto.UINT8, [rows, width])
        inputs = [*inputs, as_bytes] if block == "ffn" else [as_bytes]
    unknown = [helper.make_empty_tensor_value_info(name) for name in outputs]
    return helper.make_model(
        helper.make_graph(graph.nodes, block, inputs, unknown, graph.constants),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )


def make_session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """As the service makes it: threads that wait without spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def ort_contender(block: str, form: str, rows: int, threads: int) -> Ask:
    session = make_session(make_model(block, form, rows), threads)
    random = np.random.default_rng(1)
    feeds = {
        i.name: random.normal(size=i.shape).astype(np.float32)
        if i.name == "x"
        else np.clip(random.normal(128, 32, size=i.shape), 0, 255).astype(np.uint8)
        for i in session.get_inputs()
    }

    clock = thread_time if threads == 1 else perf_counter

    def run(seconds: float) -> list[float]:
        times: list[float] = []
        end = perf_counter() + seconds
        while not times or perf_counter() < end:
            started = clock()
            session.run(None, feeds)
            times.append(1e3 * (clock() - started))
        return times

    return run


@contextmanager
def onednn_program(path: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Starts the program; yields a function that sends it a request and returns its answer.

    Its threads wait without spinning too. Raises RuntimeError where it reports a problem."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    with subprocess.Popen(
        [path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(request: str) -> dict[str, Any]:
            print(request, file=stdin, flush=True)
            answer: dict[str, Any] = json.loads(stdout.readline())
            if "problem" in answer:
                raise RuntimeError(f"{request}: {answer['problem']}")
            return answer

        yield ask
        stdin.close()


def onednn_contender(
    ask: Callable[[str], dict[str, Any]], request: str, notes: dict[str, Any]
) -> Ask:
    """`notes` gets the implementation that oneDNN chose, and the error of the result."""

    def run(seconds: float) -> list[float]:
        answer = ask(f"{request} {seconds}")
        times: list[float] = answer["ms"]
        notes.update({name: answer[name] for name in ("implementation", "error")})
        return times

    return run


def measure(
    contenders: dict[tuple[str, str], Ask], seconds: float, random: np.random.Generator
) -> dict[tuple[str, str], list[float]]:
    """Times in ms of each contender, which take turns in an order drawn anew each round. The first
    round warms up and does not count."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
    for ask in contenders.values():
        ask(0.0)
    end = perf_counter() + seconds
    while perf_counter() < end or not all(times.values()):
        for i in random.permutation(len(contenders)):
            key = list(contenders)[i]
            times[key] += contenders[key](SLICE_SECONDS)
    return times


def main(
    rows: Annotated[int, typer.Option(min=1, help="Tokens in the batch.")] = 200,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    blocks: Annotated[str, typer.Option(help="By comma.")] = ",".join(BLOCKS),
    seconds: Annotated[float, typer.Option(min=0, help="Time to measure for.")] = 40,
    onednn: Annotated[
        Path | None,
        typer.Option(help="The program built from onednn/.", exists=True, dir_okay=False),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Save everything there.")] = None,
) -> None:
    """Times MiniLM's linear layers in ONNX Runtime and over oneDNN."""
    names = blocks.split(",")
    if unknown := sorted({*names} - {*BLOCKS}):
        raise typer.BadParameter(f"no block {unknown[0]!r}; there are {', '.join(BLOCKS)}")
    record: dict[str, Any] = {"onnxruntime": onnxruntime.__version__}
    record |= {"rows": rows, "threads": threads, "results": []}
    for block in names:
        results = _bench(block, rows, threads, seconds / len(names), onednn)
        _print_table(results, rows, threads)
        record["results"] += results
    if json_file is not None:
        write_atomically(json_file, json.dumps(record, indent=1) + "\n")


def _bench(
    block: str, rows: int, threads: int, seconds: float, onednn: Path | None
) -> list[dict[str, Any]]:
    """One entry a contender, ONNX Runtime's fp32 first."""
    notes: dict[tuple[str, str], dict[str, Any]] = {}
    contenders = {("ort", form): ort_contender(block, form, rows, threads) for form in FORMS}
    with onednn_program(onednn) if onednn else nullcontext() as ask:
        if ask is not None:
            for backend, precision, steps in ONEDNN:
                key = (f"onednn {backend}", precision + ("7" if steps == 64 else ""))
                request = f"{backend} {precision} {steps} {block} {rows} {threads}"
                notes[key] = {}
                contenders[key] = onednn_contender(ask, request, notes[key])
        times = measure(contenders, seconds, np.random.default_rng(0))
    operations = 2 * rows * sum(np.prod(SHAPES[b]) for b in (_FFN if block == "ffn" else [block]))
    results = []
    for key, found in times.items():
        low, median = np.quantile(found, [0.1, 0.5])
        results.append(
            {"block": block, "engine": key[0], "form": key[1], "n": len(found)}
            | {"ms_tenth": float(low), "ms_median": float(median)}
            | {"gops": float(operations / low / 1e6), **notes.get(key, {})}
        )
    return results


def _print_table(results: list[dict[str, Any]], rows: int, threads: int) -> None:
    print(f"{results[0]['block']}, {rows} rows, threads: {threads}")
    print("  engine         form     ms 10 %  ms median  GOP/s  x fp32  x median     n  error")
    for row in results:
        ratios = [results[0][name] / row[name] for name in ("ms_tenth", "ms_median")]
        print(
            f"  {row['engine']:14} {row['form']:8} {row['ms_tenth']:7.3f} {row['ms_median']:10.3f}"
            f" {row['gops']:6.0f} {ratios[0]:7.2f} {ratios[1]:9.2f} {row['n']:5}"
            f"  {row.get('error', float('nan')):.4f} {row.get('implementation', '')}",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
